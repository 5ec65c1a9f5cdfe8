"""Makes the addresses on one interface match the last wish of every virtual router there.

A wish is synchronous and never waits; the kernel follows. Wishes that come while the kernel is busy
collapse into the last one, and whatever was wished in one turn of the event loop goes to the kernel
in one request.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, ParamSpec, TypeAlias

from vrrpkit.errors import Closed, KernelRefused
from vrrpkit.host.announce.announcer import Announcer
from vrrpkit.host.base import AddressClaim, AddressListener, AddressManager, Announcements
from vrrpkit.lifecycle.callbacks import contain, is_own_end
from vrrpkit.lifecycle.worker import Worker
from vrrpkit.timers import Deadlines
from vrrpkit.values import VIP, IPAddress

__all__ = ["Reconciler"]

log = logging.getLogger(__name__)

ECHO = 3.0
"""Seconds within which the kernel's notice of a removal that we asked for must have come back."""

RENEWALS = 3
"""How often an address is renewed within its lease."""

P = ParamSpec("P")

Key: TypeAlias = tuple[str | None, bytes, int]
"""Device, address and prefix length. (To hash an address object takes as long as to add the address
to the kernel's table.)"""
Failures: TypeAlias = dict[Key, OSError]


def _key(vip: VIP) -> Key:
    return vip.dev, vip.address.packed, vip.prefix


class _Echo(NamedTuple):
    """Notices of removals that we asked for, still to come."""

    due: int
    until: float


class _Job(NamedTuple):
    """One pass over the holds that changed, frozen before the kernel is asked."""

    epochs: dict[LinkAddressClaim, int]
    add: dict[float | None, dict[Key, VIP]]
    remove: dict[Key, VIP]


class LinkAddressClaim(AddressClaim):
    """The addresses of one virtual router; made by :meth:`Reconciler.hold`."""

    def __init__(
        self,
        reconciler: Reconciler,
        vips: Sequence[VIP],
        announcements: Announcements,
        listener: AddressListener,
        lease: float | None,
    ) -> None:
        self.vips = {_key(vip): vip for vip in vips}
        self.announcements = announcements
        self.listener = listener
        self.lease = lease
        self.wanted = False
        self.epoch = 0
        """Counts wishes: what was begun for an older one is not announced any more."""
        self.waiters: list[asyncio.Future[None]] = []
        self._reconciler = reconciler

    def acquire(self) -> None:
        self._reconciler.wish(self, wanted=True)

    def release(self) -> None:
        self._reconciler.wish(self, wanted=False)

    def announce(self, repeat: int) -> None:
        self._reconciler.announce(self, repeat)

    def make_do(self) -> None:
        self._reconciler.make_do(self)

    @property
    def checking(self) -> bool:
        return self.wanted and self._reconciler.checking(self)

    def detect(self, vip: VIP) -> None:
        self._reconciler.detect(self, vip)

    async def settled(self) -> None:
        await self._reconciler.settled(self)

    async def close(self) -> None:
        await self._reconciler.forget(self)


class Reconciler:
    """The only one who changes addresses on one interface.

    :param manager: asks the kernel.
    :param announcer: tells the neighbours.
    :param deadlines: the deadlines of the host, for renewing leases.
    """

    def __init__(self, manager: AddressManager, announcer: Announcer, deadlines: Deadlines) -> None:
        self._manager = manager
        self._announcer = announcer
        self._deadlines = deadlines
        self._holds: dict[LinkAddressClaim, None] = {}
        self._changed: dict[LinkAddressClaim, None] = {}
        self._placed: dict[Key, VIP] = {}
        self._borrowed: set[Key] = set()
        self._wanting: Counter[Key] = Counter()
        self._leaving: dict[Key, _Echo] = {}
        self._anew: set[Key] = set()
        self._renew = False
        self._renewal = deadlines.new(self._renewal_due)
        self._worker = Worker(
            "vrrpkit addresses", self._work, lambda: bool(self._changed or self._renew)
        )
        self._closed = False

    async def hold(
        self,
        vips: Sequence[VIP],
        announcements: Announcements,
        listener: AddressListener,
        lease: float | None = None,
    ) -> AddressClaim:
        """Make a hold; addresses of ``vips`` that a killed run left behind are removed first.

        :param lease: seconds that the kernel keeps an address which is not renewed; ``None`` means
            for ever.
        :raises KernelRefused: a leftover could not be removed.
        :raises Closed: the interface was given back.
        """
        if self._closed:
            raise Closed("the interface was closed; open it before asking for addresses")
        leftovers = _Leftovers()
        hold = LinkAddressClaim(self, vips, announcements, leftovers, lease)
        self._holds[hold] = None
        for key, vip in hold.vips.items():
            if key not in self._placed and self._manager.present(vip) and self._manager.ours(vip):
                log.info("removing %s, which an earlier run left behind", vip)
                self._placed[key] = vip
                self._change(hold)
        try:
            await self.settled(hold)
        except BaseException:
            del self._holds[hold]
            raise
        if leftovers.failures:
            del self._holds[hold]
            vip, problem = leftovers.failures[0]
            raise KernelRefused(
                problem.errno,
                f"{vip} is left from an earlier run and cannot be removed: {problem.strerror}",
            )
        hold.listener = listener
        return hold

    def wish(self, hold: LinkAddressClaim, *, wanted: bool) -> None:
        """Want the addresses of ``hold`` in place or gone."""
        if hold not in self._holds or (wanted and self._closed):
            return
        if not wanted and not hold.wanted and not any(self._stays(key) for key in hold.vips):
            return
        if wanted is not hold.wanted:
            hold.wanted = wanted
            for key in hold.vips:
                self._wanting[key] += 1 if wanted else -1
        hold.epoch += 1
        if not wanted:
            self._announcer.stop(hold)
        self._change(hold)

    def announce(self, hold: LinkAddressClaim, repeat: int) -> None:
        """Announce the addresses of ``hold`` again, if it began to announce them already."""
        if hold.wanted:
            self._announcer.again(hold, repeat)

    def checking(self, hold: LinkAddressClaim) -> bool:
        """See :attr:`vrrpkit.host.base.AddressClaim.checking`."""
        return any(map(self._manager.tentative, hold.vips.values()))

    def detect(self, hold: LinkAddressClaim, vip: VIP) -> None:
        """See :meth:`vrrpkit.host.base.AddressClaim.detect`."""
        key = _key(vip)
        if hold.wanted and key in self._placed:
            self._anew.add(key)
            hold.epoch += 1
            self._change(hold)

    def detected(
        self, address: IPAddress, prefix: int, dev: str | None = None, *, usable: bool
    ) -> None:
        """Learn what duplicate address detection of an address has found."""
        key: Key = (dev, address.packed, prefix)
        for hold in list(self._holds):
            if not (hold.wanted and key in hold.vips):
                continue
            if usable:
                # Until now it was not announced.
                self.announce(hold, hold.announcements.repeat)
                _tell(hold.listener.usable, hold.vips[key])
            elif key in self._placed:
                _tell(hold.listener.duplicate, hold.vips[key])

    async def settled(self, hold: LinkAddressClaim) -> None:
        """Wait until the kernel followed the last wish of ``hold``, or refused to."""
        if hold in self._changed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            hold.waiters.append(waiter)
            await waiter

    async def forget(self, hold: LinkAddressClaim) -> None:
        """Release ``hold`` and wait for it. A cancelled wait leaves the release under way."""
        self.wish(hold, wanted=False)
        self._holds.pop(hold, None)
        await self.settled(hold)

    def removed(
        self, address: IPAddress, prefix: int, dev: str | None = None, *, own: bool = False
    ) -> None:
        """Learn from the link monitor that an address is gone from the interface, or from ``dev``.

        Its holders hear of it when it is wanted and this reconciler did not ask for it.

        :param own: the kernel took it along with another one that was removed here. Nobody took it
            away: it is put back.
        """
        key: Key = (dev, address.packed, prefix)
        echoes = self._echoes(key, self._deadlines.now())
        if echoes > 1:
            self._leaving[key] = self._leaving[key]._replace(due=echoes - 1)
        else:
            self._leaving.pop(key, None)
        if echoes:
            return
        if self._placed.pop(key, None) is None and key not in self._borrowed:
            return
        self._borrowed.discard(key)
        for hold in list(self._holds):
            if not (hold.wanted and key in hold.vips):
                continue
            if own:
                log.info("putting back %s, which went with another address", hold.vips[key])
                # What is under way does not know of it yet.
                hold.epoch += 1
                self._change(hold)
            else:
                _tell(hold.listener.lost, hold.vips[key])

    async def close(self) -> None:
        """Release every hold, and return when the kernel has followed."""
        self._closed = True
        self._renewal.set(None)
        for hold in list(self._holds):
            self.wish(hold, wanted=False)
        await self._worker.idle()
        self._holds.clear()
        if self._placed:
            log.warning("the kernel kept %s", ", ".join(str(vip) for vip in self._placed.values()))

    def _stays(self, key: Key) -> bool:
        """Whether an address is there that nobody wants any more."""
        return key in self._placed and not self._wanting[key]

    def make_do(self, hold: LinkAddressClaim) -> None:
        """Announce those addresses of ``hold`` that are in place."""
        there = [
            vip for key, vip in hold.vips.items() if key in self._placed or key in self._borrowed
        ]
        if hold.wanted:
            self._announcer.start(hold, there, hold.announcements)

    def _change(self, hold: LinkAddressClaim) -> None:
        self._changed[hold] = None
        self._worker.start()

    async def _work(self) -> None:
        while self._changed or self._renew:
            renew = self._renew
            job = self._plan()
            try:
                failures = await self._execute(job)
            except BaseException:
                # What was begun is done again, as the kernel's answer is not known.
                self._renew |= renew
                raise
            self._conclude(job, failures)

    def _plan(self) -> _Job:
        job = _Job({hold: hold.epoch for hold in self._changed}, {}, {})
        for hold in self._changed:
            for key, vip in hold.vips.items():
                if hold.wanted:
                    self._plan_want(job, hold, key, vip)
                elif not self._wanting[key]:
                    self._borrowed.discard(key)
                    if key in self._placed:
                        job.remove[key] = self._placed[key]
        if self._renew:
            self._renew = False
            for hold in self._holds:
                if hold.wanted and hold.lease is not None:
                    leased = {key: vip for key, vip in hold.vips.items() if key in self._placed}
                    job.epochs.setdefault(hold, hold.epoch)
                    job.add.setdefault(hold.lease, {}).update(leased)
        return job

    def _plan_want(self, job: _Job, hold: LinkAddressClaim, key: Key, vip: VIP) -> None:
        present = self._manager.present(vip)
        if present and key not in self._placed and not self._manager.ours(vip):
            self._borrowed.add(key)
            return
        # What is in place with a lease is put there again, for a whole lease is wanted from now.
        if present and key in self._anew:
            job.remove[key] = vip
            present = False
        self._anew.discard(key)
        if not (present and key in self._placed) or hold.lease is not None:
            job.add.setdefault(hold.lease, {})[key] = vip
        self._borrowed.discard(key)
        # Known from now on, not from when the kernel has answered: it may be lost in between.
        self._placed[key] = vip

    async def _execute(self, job: _Job) -> Failures:
        now = self._deadlines.now()
        for key, vip in job.remove.items():
            if self._manager.present(vip):
                self._leaving[key] = _Echo(self._echoes(key, now) + 1, now + ECHO)
        failures: Failures = {}
        remove = list(job.remove.values())
        # Different leases need a request each; without leases there is only one.
        for lease, add in job.add.items():
            failures |= await self._apply(list(add.values()), remove, lease)
            remove = []
        if remove:
            failures |= await self._apply([], remove, None)
        return failures

    async def _apply(
        self, add: Sequence[VIP], remove: Sequence[VIP], lease: float | None
    ) -> Failures:
        try:
            return {
                _key(vip): problem for vip, problem in await self._manager.apply(add, remove, lease)
            }
        except OSError as problem:
            return {_key(vip): problem for vip in (*add, *remove)}
        except BaseException as bug:
            if is_own_end(bug):
                raise
            # The routers must hear of it, or they would be MASTER without their addresses.
            contain(bug, log, "a bug kept addresses from being changed")
            return {_key(vip): OSError(errno.EIO, f"bug: {bug!r}") for vip in (*add, *remove)}

    def _conclude(self, job: _Job, failures: Failures) -> None:
        for key in job.remove:
            if key in failures:
                self._leaving.pop(key, None)
            else:
                self._placed.pop(key, None)
        for add in job.add.values():
            for key, vip in add.items():
                if key in failures:
                    self._placed.pop(key, None)
                else:
                    # Again, for a loss in between has taken it off; what was added must be removed.
                    self._placed[key] = vip
        with self._announcer.together():
            for hold, epoch in job.epochs.items():
                if hold.epoch == epoch:
                    self._conclude_hold(hold, failures)

    def _conclude_hold(self, hold: LinkAddressClaim, failures: Failures) -> None:
        renewed = hold not in self._changed
        self._changed.pop(hold, None)
        refused: list[tuple[VIP, OSError]] = []
        if failures:
            refused = [(vip, failures[key]) for key, vip in hold.vips.items() if key in failures]
        if hold.wanted and hold.lease is not None:
            self._plan_renewal(hold.lease)
        if refused:
            _tell(hold.listener.refused, refused)
        elif hold.wanted and not renewed:
            epoch = hold.epoch
            # First, for it puts routes in place, which what answers an announcement may need.
            _tell(hold.listener.acquired)
            if hold.epoch == epoch:
                self._announcer.start(hold, list(hold.vips.values()), hold.announcements)
        if hold not in self._changed:
            for waiter in _waiters(hold):
                waiter.set_result(None)

    def _plan_renewal(self, lease: float) -> None:
        due = self._deadlines.now() + lease / RENEWALS
        if self._renewal.when is None or due < self._renewal.when:
            self._renewal.set(due)

    def _renewal_due(self) -> None:
        self._renew = True
        self._worker.start()

    def _echoes(self, key: Key, now: float) -> int:
        echo = self._leaving.get(key)
        return echo.due if echo is not None and echo.until > now else 0


class _Leftovers:
    """Listens for a hold that is not made yet."""

    def __init__(self) -> None:
        self.failures: list[tuple[VIP, OSError]] = []

    def acquired(self) -> None:
        """Nothing was acquired: there is no wish yet."""

    def refused(self, failures: Sequence[tuple[VIP, OSError]]) -> None:
        self.failures += failures

    def lost(self, vip: VIP) -> None:
        """Nothing can be lost that is not wanted."""

    def usable(self, vip: VIP) -> None:
        """Nothing is used that is not wanted."""

    def duplicate(self, vip: VIP) -> None:
        """Nor is anything told of it."""


def _waiters(hold: LinkAddressClaim) -> list[asyncio.Future[None]]:
    waiters = [waiter for waiter in hold.waiters if not waiter.done()]
    hold.waiters.clear()
    return waiters


def _tell(method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    try:
        method(*args, **kwargs)
    except BaseException as problem:
        # One virtual router's bug must not take the addresses of the others down with it.
        contain(problem, log, "a listener failed in %s", method)
