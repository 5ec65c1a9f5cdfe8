"""What must be true of every group of virtual routers, whatever happens to it. Pure.

The rules are those of RFC 9568 section 6.4, checked against the timeline of a
:class:`vrrpkit.testing.Lan`. Their limits follow from the scenario itself: the options of the
routers, the delays and losses of the link, who was cut off, unplugged or paused, and when.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import attrs

from vrrpkit.testing.lan import conduct
from vrrpkit.testing.lan.conduct import Conduct
from vrrpkit.testing.lan.model import LanModel, RouterModel
from vrrpkit.testing.lan.timeline import Announced, Arrived, Entry, Lost, Sent, Timeline
from vrrpkit.values import State

__all__ = ["Invariant", "InvariantBroken", "Violation", "violations"]

TOLERANCE = 0.001
"""Seconds by which any limit may be missed: for the rounding of times."""

RECONCILE = 0.1
"""Seconds that a host may take to put addresses on and to take them off."""


class Invariant(enum.StrEnum):
    """The rules."""

    ONE_MASTER = "one-master"
    """Two MASTERs that hear each other last at most the larger advertisement interval plus transit;
    each lost advert adds an interval (RFC 9568 section 6.4.3: the lesser one yields to the first
    advert that it hears)."""
    A_MASTER = "a-master"
    """A router that is fit and hears no MASTER becomes one within down_factor x the learnt interval
    + skew + what of startup_delay is left, and the transit of the last advert (section 6.4.2:
    Active_Down_Timer)."""
    BEST_MASTER = "best-master"
    """A router that is fit and preempts, and hears only MASTERs of lower priority, becomes MASTER
    within the same time, after its preempt_delay (section 6.4.2: an advert of lower priority does
    not move Active_Down_Timer); not while the kernel refuses what belongs to it."""
    NOT_EARLY = "not-early"
    """A router becomes MASTER no sooner than Active_Down_Timer ends: that is down_factor x the
    learnt interval + skew after its start and after each advert that it must heed, and skew after
    priority 0 (sections 6.4.1 and 6.4.2). An owner, and promote(), do not wait; preempt_delay ends
    it sooner, a step down for a lost address may."""
    UNBEATEN = "unbeaten"
    """A MASTER yields to an advert of higher priority only, or to an equal one from a greater
    address (section 6.4.3)."""
    ADVERTISES = "advertises"
    """A MASTER, and nobody else, sends adverts: at once, then each interval, with its effective
    priority (sections 6.4.2 and 6.4.3)."""
    SAYS_GOODBYE = "says-goodbye"
    """Whoever gives up being MASTER without being beaten, and has a link, says priority 0 (section
    6.4.3: Shutdown). One that stood still says nothing: another may be MASTER."""
    HEEDS_GOODBYE = "heeds-goodbye"
    """A BACKUP that hears priority 0 becomes MASTER within its skew, unless it hears another advert
    before (section 6.4.2)."""
    HOLDS_ADDRESSES = "holds-addresses"
    """A MASTER has every virtual address on its host within one round of its reconciler (sections
    6.4.1 and 6.4.2); not those that were taken away while it has on_address_lost="ignore", nor
    while the kernel refuses some."""
    ANNOUNCES = "announces"
    """Whoever becomes MASTER announces each virtual address within the same time (sections 6.4.1
    and 6.4.2: gratuitous ARP, unsolicited neighbour advertisement)."""
    NO_STRAY_ADDRESS = "no-stray-address"
    """A virtual address is on no host whose router is not MASTER, beyond one round of its
    reconciler (section 6.4.2: a BACKUP must not accept packets to it)."""


_DUTIES = {
    conduct.ADVERT: Invariant.ADVERTISES,
    conduct.GOODBYE: Invariant.SAYS_GOODBYE,
    conduct.RELEASED: Invariant.HEEDS_GOODBYE,
    conduct.ANNOUNCEMENT: Invariant.ANNOUNCES,
}
_FAULTS = {
    "early": Invariant.NOT_EARLY,
    "unbeaten": Invariant.UNBEATEN,
    "advert": Invariant.ADVERTISES,
}


@attrs.frozen(kw_only=True)
class Violation:
    """One rule was broken."""

    invariant: Invariant
    at: float
    """When the limit passed, in seconds of the event loop."""
    routers: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.message}"


class InvariantBroken(AssertionError):
    """Rules were broken; ``violations`` are the details, and the message ends with the timeline."""

    def __init__(self, violations: Iterable[Violation], timeline: Timeline) -> None:
        self.violations = tuple(violations)
        lines = [f"at {each.at - timeline.start:.3f} {each}" for each in self.violations]
        super().__init__("\n".join([*lines, "", str(timeline)]))


def violations(
    timeline: Timeline,
    until: float | None = None,
    *,
    reconcile: float = RECONCILE,
    tolerance: float = TOLERANCE,
) -> list[Violation]:
    """Every time that a rule was broken, in order.

    :param until: when the timeline ends, in seconds of the event loop; by default with its last
        entry.
    :param reconcile: seconds that a host may take to take addresses off.
    :param tolerance: seconds by which any limit may be missed; under real time, give the lateness
        of the event loop.
    """
    checker = _Checker(timeline, reconcile, tolerance)
    for entry in timeline:
        checker.reach(entry.at)
        checker.follow(entry)
    if until is not None:
        checker.reach(until)
    return checker.found


@attrs.define(eq=False)
class _Clock:
    """Runs while something lasts that may last only so long."""

    since: float
    lost: int = 0
    """Adverts that were lost meanwhile."""
    expired: bool = False


_Key: TypeAlias = tuple[Invariant, tuple[str, ...], tuple[object, ...]]
"""What lasts, with whom, and what would make it begin afresh."""


class _Checker:
    def __init__(self, timeline: Timeline, reconcile: float, tolerance: float) -> None:
        self.found: list[Violation] = []
        self._start = timeline.start
        self._adverts_from = timeline.adverts_from
        self._reconcile = reconcile
        self._tolerance = tolerance
        self._world = LanModel()
        self._conduct = Conduct(self._world, reconcile=reconcile, tolerance=tolerance)
        self._clocks: dict[_Key, _Clock] = {}

    def follow(self, entry: Entry) -> None:
        """Something happened: some clocks stop, others start."""
        world = self._world
        self._conduct.before(entry)
        world.apply(entry)
        for fault in self._conduct.after(entry):
            self._report(_FAULTS[fault.what], entry.at, (fault.router,), fault.message)
        if isinstance(entry.what, Sent | Arrived | Announced) and not self._restarts(entry):
            return
        if isinstance(entry.what, Lost):
            for (_invariant, names, _epochs), clock in self._clocks.items():
                hosts = {world.routers[name].host.name for name in names if name in world.routers}
                clock.lost += {entry.who, entry.what.to} == hosts
            return
        running = [*self._rivals(), *self._orphans(), *self._bare(), *self._strays()]
        self._clocks = {key: self._clocks.get(key) or _Clock(entry.at) for key in running}

    def _restarts(self, entry: Entry) -> bool:
        """Whether an advert arrived from a router that is not MASTER, or stands still: it was under
        way, or was told to serve by somebody who does not know. Whoever hears it waits afresh."""
        advert, world = entry.what, self._world
        sender = world.routers.get(advert.sender) if isinstance(advert, Arrived) else None
        if not isinstance(advert, Arrived) or not advert.priority or sender is None:
            return False
        if sender.master:
            return False
        for router in world.on(world.hosts[entry.who or ""]):
            router.epoch += 1
        return True

    def reach(self, now: float) -> None:
        """Nothing happened until ``now``."""
        duties = self._conduct.due
        for duty in [duty for duty, due in duties.items() if now > due[0] + self._tolerance]:
            due, message = duties.pop(duty)
            self._report(_DUTIES[duty[0]], due, (duty[1],), message)
        for key, clock in self._clocks.items():
            if clock.expired:
                continue
            due, message = self._limit(key, clock)
            if now > due + self._tolerance:
                clock.expired = True
                invariant, names, _epochs = key
                self.found.append(
                    Violation(invariant=invariant, at=due, routers=names[:2], message=message)
                )

    def _report(
        self, invariant: Invariant, at: float, routers: tuple[str, ...], message: str
    ) -> None:
        if self._adverts_from is not None and at >= self._adverts_from:
            self.found.append(
                Violation(invariant=invariant, at=at, routers=routers, message=message)
            )

    def _limit(self, key: _Key, clock: _Clock) -> tuple[float, str]:
        invariant, names, _epochs = key
        transit = self._world.transit
        match invariant:
            case Invariant.ONE_MASTER:
                interval = max(self._world.routers[name].config.interval for name in names)
                limit = max(interval, transit) + transit + clock.lost * interval
                message = f"{names[0]} and {names[1]} are both MASTER and hear each other"
            case Invariant.A_MASTER:
                router = self._world.routers[names[0]]
                held = max(router.ready_at - clock.since, 0.0)
                limit = max(held + router.patience + transit, router.moved - clock.since)
                message = f"{names[0]} hears no MASTER and does not become one"
            case Invariant.BEST_MASTER:
                router = self._world.routers[names[0]]
                held = max(router.ready_at - clock.since, 0.0)
                limit = held + router.patience + transit
                if router.config.preempt_delay and not router.config.owner:
                    slowest = max(each.config.interval for each in self._world.routers.values())
                    limit += router.config.preempt_delay + slowest * (1 + clock.lost) + transit
                message = f"{names[0]} hears only MASTERs of lower priority and replaces none"
            case Invariant.HOLDS_ADDRESSES:
                limit = self._reconcile
                message = f"{names[0]} is MASTER and has no {names[1]}"
            case _:
                limit = self._reconcile
                message = f"{names[1]} is on {names[0]}, whose router is not MASTER"
        began = clock.since - self._start
        return clock.since + limit, f"{message}, for more than {limit:.3f} s since {began:.3f}"

    def _rivals(self) -> Iterator[_Key]:
        masters = [router for router in self._world.routers.values() if router.master]
        for a, b in itertools.combinations(masters, 2):
            if self._world.hears(a, b) and self._world.hears(b, a):
                epochs = (a.epoch, a.moved, b.epoch, b.moved)
                yield Invariant.ONE_MASTER, (a.name, b.name), epochs

    def _orphans(self) -> Iterator[_Key]:
        world = self._world
        for router in world.routers.values():
            if not router.able or router.master:
                continue
            heard = [
                other
                for other in world.routers.values()
                if other.master and world.hears(router, other)
            ]
            if not heard:
                yield Invariant.A_MASTER, (router.name,), (router.epoch,)
            elif self._ought_to_replace(router, heard):
                yield Invariant.BEST_MASTER, (router.name,), (router.epoch, router.moved)

    def _ought_to_replace(self, router: RouterModel, masters: list[RouterModel]) -> bool:
        return (
            not router.hindered
            and router.preempts(router.moved + TOLERANCE)
            and all(master.priority < router.priority for master in masters)
        )

    def _bare(self) -> Iterator[_Key]:
        for router in self._world.routers.values():
            host = router.host
            if router.master and host.seen and not router.bereft:
                for address in router.config.all_addresses - host.held - host.foreign:
                    names = (router.name, str(address))
                    yield Invariant.HOLDS_ADDRESSES, names, (host.epoch, router.epoch)

    def _strays(self) -> Iterator[_Key]:
        for host in self._world.hosts.values():
            if not host.awake:
                continue
            served = {
                address
                for router in self._world.on(host)
                if router.state is State.MASTER
                for address in router.config.all_addresses
            }
            for address in host.held - served:
                yield Invariant.NO_STRAY_ADDRESS, (host.name, str(address)), (host.epoch,)
