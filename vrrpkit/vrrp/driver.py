"""Runs one state machine on the event loop.

Everything meets in :meth:`Driver.feed`, which is synchronous: it reads the clock once, asks the
machine, and carries out every effect before anything else can happen on the loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import assert_never

import attrs

from vrrpkit.host.base import Interface
from vrrpkit.lifecycle.callbacks import as_bug, pass_on
from vrrpkit.publishing import Hub
from vrrpkit.timers import AGAIN
from vrrpkit.tracking.tracker import effective_priority
from vrrpkit.transport.base import Transport
from vrrpkit.values import NO_NAMES, State
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.link import VRRPLink
from vrrpkit.vrrp.placement import Placement
from vrrpkit.vrrp.protocol.effects import (
    Announce,
    DropAddresses,
    Effect,
    Publish,
    SendAdvert,
    TakeAddresses,
)
from vrrpkit.vrrp.protocol.election import advert_step
from vrrpkit.vrrp.protocol.events import AddressesInPlace, ForeignAddress, RouterEvent, Transition
from vrrpkit.vrrp.protocol.foreign_addresses import LEFT, REMOVED, ForeignState
from vrrpkit.vrrp.protocol.inputs import (
    FaultsNow,
    HostChanged,
    Input,
    PrimaryAddress,
    SetPriority,
    Shutdown,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.reporting import Reporter
from vrrpkit.vrrp.protocol.statistics import RouterStatistics
from vrrpkit.vrrp.receiver import AdvertReceiver, InstanceRecorder
from vrrpkit.vrrp.resources import HostResources

__all__ = ["Driver"]

log = logging.getLogger(__name__)

_TIMER_FIRED = TimerFired()

CLAIM = 5.0
"""Seconds for which an advert of another master shows that there is one, at least."""

RELAXED = 0.1
"""The longest a BACKUP lets an advert lie, in seconds, unless the master says that it leaves."""


class Driver:
    """One run of one virtual router, from :meth:`start` until :meth:`stop`.

    :param failed: called once when a bug ends the run; :attr:`failure` is the exception.
    :param grouped: a sync group takes the events of this machine in: see :meth:`join`.
    """

    def __init__(
        self,
        config: VRRPInstanceConfig,
        interface: Interface,
        hub: Hub[RouterEvent],
        statistics: RouterStatistics,
        *,
        transport: Transport | None,
        recorder: InstanceRecorder | None,
        failed: Callable[[], None],
        grouped: bool = False,
    ) -> None:
        self.machine = Machine(attrs.evolve(config.machine_config(), grouped=grouped))
        self._dispatch: Callable[[Input], None] | None = None
        self.failure: BaseException | None = None
        self.last_transition: Transition | None = None
        self._config = config
        self._interface = interface
        self._deadlines = interface.deadlines
        self._deadline = self._deadlines.new(self._due)
        self._stride = advert_step(config.interval)
        self._hub = hub
        self._statistics = statistics
        self._recorder = recorder
        self._failed = failed
        self._writer = config.advert_writer()
        self._reporter = Reporter(config.name, statistics, self._publish)
        self.receiver = AdvertReceiver(
            self.machine,
            config.advert_validator(),
            statistics,
            self._reporter,
            recorder,
            feed=self.feed,
            fail=self.fail,
            now=self.now,
        )
        self.vrrp_link = VRRPLink(config, interface, self.receiver, transport, self._look)
        self._resources = HostResources(
            config,
            self.machine,
            feed=self.feed,
            fail=self.fail,
            tell_all=recorder is not None,
            placed=self._placed,
        )
        self.foreign = ForeignState(remove=config.foreign_address == "remove")
        self.placement = Placement(self._deadlines)
        self._whole = self._claimed = self._feeding = self._left = False
        self._foreign_again = self._deadlines.new(self._look)
        self._unwatch: list[Callable[[], None]] = []
        self._unheed: Callable[[], None] | None = None
        self._queue: list[Input] = []
        self.base = config.priority
        """The configured priority, without what trackers add."""
        self._base_from = "configured"
        self._added = 0
        self._parts: Sequence[str] = ()
        self._unfit = NO_NAMES

    # --- life ------------------------------------------------------------------------------------

    async def prepare(self, wait_for_interface: bool) -> None:
        """Check what the host must offer, then take a place on the link. The interface is open
        already."""
        config = self._config
        await self.vrrp_link.settle()
        self.vrrp_link.check(wait_for_interface)
        self._interface.claim(config.key)
        self._claimed = True
        if config.virtual_mac:
            name = config.virtual_mac if isinstance(config.virtual_mac, str) else None
            virtual = await self._interface.virtual(config.vrid, config.family, name)
            await virtual.open()
            # Only now: what was not opened must not be closed, somebody else may use it too.
            self.vrrp_link.virtual = virtual
        await self.vrrp_link.open_devices()
        await self.vrrp_link.settle()
        await self._resources.prepare(self.vrrp_link)
        for interface in self.vrrp_link.interfaces:
            self._unwatch.append(interface.watch(self._look))
        self.vrrp_link.look()
        self.vrrp_link.part()
        self.receiver.validator.set_own(self.vrrp_link.own)

    @property
    def faults(self) -> frozenset[str]:
        """What makes the router unfit, as far as its place and its trackers know."""
        return self.vrrp_link.faults | self._unfit if self._unfit else self.vrrp_link.faults

    def begin(self) -> None:
        """Start the machine."""
        self.feed(Startup(primary=self.vrrp_link.source, faults=self.faults))
        self._reprioritise()

    def rebase(self, priority: int) -> None:
        """Use another configured priority; what trackers add comes on top."""
        self.base = priority
        self._base_from = "set"
        self._reprioritise()

    def adjust(self, weight: int, faults: frozenset[str], parts: Sequence[str] = ()) -> None:
        """Take in what trackers say: what they add to the priority, and which ones make the router
        unfit.

        :param parts: in words, what each of them adds.
        """
        self._added, self._parts = weight, parts
        unfit, self._unfit = self._unfit, faults
        if self.machine.state is State.INIT:
            return
        self._reprioritise()
        if unfit != faults:
            self.feed(FaultsNow(faults=self.faults))

    def _reprioritise(self) -> None:
        priority = effective_priority(self.base, self._added)
        if priority != self.machine.base_priority:
            source = ", ".join([f"{self._base_from} {self.base}", *self._parts])
            self.feed(SetPriority(priority, source))

    def leave(self) -> None:
        """Say goodbye at once: priority 0 leaves here, whatever is being cancelled around us."""
        mastering = self.machine.state is State.MASTER
        if self.machine.state is State.INIT or self._left:
            return
        self._left = True
        self.feed(Shutdown())
        if mastering and self.machine.state is State.MASTER:
            # The machine itself is broken; the others must hear all the same.
            self._send(0, self._deadlines.now())

    async def stop(self) -> None:
        """Remove the addresses, within a limit, and give everything back."""
        self._deadline.drop()
        self._foreign_again.drop()
        self.placement.close()
        if self._unheed is not None:
            self._unheed()
            self._unheed = None
        for unwatch in self._unwatch:
            unwatch()
        self._unwatch.clear()
        try:
            await self._resources.give_back()
        finally:
            if self._claimed:
                self._interface.unclaim(self._config.key)
                self._claimed = False
            try:
                await self.vrrp_link.close()
            finally:
                await self._resources.lift_ban()

    # --- what comes in ---------------------------------------------------------------------------

    def _due(self) -> None:
        machine = self.machine
        if machine.state is State.BACKUP:
            repeats = self.receiver.repeats
            if repeats.count:
                machine.refreshed(repeats.at)
            now = self._deadlines.woken_at
            if machine.deadline is not None and now < machine.deadline:
                self._arm(now)
                return
            if machine.deadline is not None and self._deadlines.heard_to < machine.deadline:
                # The advert that ends the silence may be among those that nobody could read yet.
                self._deadline.set(self._deadlines.now() + AGAIN)
                return
        elif self._recorder is None and machine.repeated(now := self._deadlines.now()):
            # First, for what sends may raise anything.
            self._deadline.set(machine.deadline, machine.slack, self._stride)
            try:
                self._send(machine.priority, now)
            except BaseException as bug:
                self.fail(bug)
            return
        self.feed(_TIMER_FIRED)

    def _look(self) -> None:
        try:
            source = self.vrrp_link.source
            changed = self.vrrp_link.look()
            self.receiver.validator.set_own(self.vrrp_link.own)
            self._resources.look()
            self._look_for_foreign(self.machine.state)
            if not changed:
                self.vrrp_link.part()
                return
            if self.vrrp_link.source is not None and self.vrrp_link.source != source:
                self.feed(PrimaryAddress(self.vrrp_link.source))
            self.feed(FaultsNow(faults=self.faults))
            self._set_pace()
        except BaseException as bug:
            self.fail(bug)

    def _heed(self) -> None:
        """Follow what happens on the host from when the kernel refused something until it may
        matter."""
        unheed, self._unheed = self._unheed, None
        if unheed is not None:
            unheed()
        elif not self._left:
            self._unheed = self._interface.watch_machine(self._host_changed)

    def _host_changed(self) -> None:
        self.feed(HostChanged())

    # --- the choke point -------------------------------------------------------------------------

    def join(self, dispatch: Callable[[Input], None]) -> None:
        """From now on a sync group takes the events of this router in, by ``dispatch``, and has
        their effects carried out by :meth:`settle`."""
        self._dispatch = dispatch

    def feed(self, event: Input) -> None:
        """Give the machine one event and carry out its effects. Called from within a callback, it
        waits its turn."""
        if self._dispatch is not None:
            self._dispatch(event)
            return
        if self._feeding:
            self._queue.append(event)
            return
        self._feeding = True
        self._queue.append(event)
        try:
            while self._queue:
                try:
                    self._step(self._queue.pop(0))
                except BaseException as bug:
                    self.fail(bug)
        finally:
            self._feeding = False

    def _step(self, event: Input) -> None:
        now = self.now()
        self.receiver.forget()
        self.settle(event, self.machine.handle(event, now), now)

    def now(self) -> float:
        """Seconds of the clock that the machine is told."""
        return self._deadlines.now()

    def settle(self, event: Input, effects: Sequence[Effect], now: float) -> None:
        """Carry out what the machine answered to ``event``: every effect, and the timer, whatever
        one of them raises. What was raised first is raised then."""
        problem: BaseException | None = None
        if self._recorder is not None:
            try:
                self._recorder.record(self.machine, event, now, effects)
            except BaseException as bug:
                problem = self._spare(bug)
        for effect in effects:
            try:
                self._carry_out(effect, now)
            except BaseException as bug:
                problem = problem or self._spare(bug)
        if self.machine.suspended is (self._unheed is None):
            self._heed()
        if isinstance(event, FaultsNow):
            # Priority 0, if it had to be said, has left by the port that is closed now.
            self.vrrp_link.part()
        self._arm(now)
        if problem is not None:
            raise problem

    def _spare(self, problem: BaseException) -> BaseException | None:
        """What is to be raised when all is done; what means the program comes out by itself."""
        if isinstance(problem, KeyboardInterrupt | SystemExit):
            pass_on(problem)
            return None
        return problem

    def _arm(self, now: float) -> None:
        machine = self.machine
        deadline, slack = machine.deadline, machine.slack
        # Adverts heard move a takeover without a word to the deadline. So it is looked at early,
        # with others, and is put off or becomes exact then.
        if machine.state is State.BACKUP and deadline is not None:
            early = machine.master_interval
            # Compared as the heap compares, or rounding would let both sides be right for ever.
            slack = early if deadline > now + early else 0.0
        self._deadline.set(deadline, slack, self._stride)

    def _carry_out(self, effect: Effect, now: float) -> None:
        match effect:
            case SendAdvert():
                self._send(effect.priority, now)
            case Publish():
                self._reporter.tell(effect.notice)
            case TakeAddresses():
                self._resources.take()
            case DropAddresses():
                self._resources.drop()
            case Announce():
                self._resources.announce(effect.repeat)
            case _:
                assert_never(effect)

    def _send(self, priority: int, now: float) -> None:
        port, source = self.vrrp_link.port, self.vrrp_link.source
        if port is None or source is None:
            return
        wall = time.time() if self._writer.signs else 0.0
        statistics = self._statistics
        bug: BaseException | None = None
        left = False
        for payload, destination in self._writer.outgoing(priority, source, wall):
            try:
                port.send(payload, destination)
                left = True
            except OSError as problem:
                self._reporter.send_failed(problem, now)
            except BaseException as problem:
                # The other peers must hear all the same.
                bug = bug or problem
        if left:
            statistics.advertisement_sent += 1
            statistics.priority_zero_pkts_sent += priority == 0
        if bug is not None:
            raise bug

    def contested(self) -> str | None:
        """Who else claims to be MASTER, while this router is."""
        if self.machine.state is not State.MASTER:
            return None
        within = max(CLAIM, self.machine.down_interval)
        return self._reporter.contested(self.now(), within)

    def announce(self, repeat: int) -> None:
        """Announce the addresses, if this router is MASTER."""
        if self.machine.state is State.MASTER:
            self._resources.announce(repeat)

    def _publish(self, notice: RouterEvent) -> None:
        if isinstance(notice, Transition):
            self.last_transition = notice
            if notice.state is State.MASTER:
                self._statistics.master_transitions += 1
                self._whole = False
                self.placement.begin()
            elif self.vrrp_link.source is not None and not self._writer.signs:
                # Written now, for a takeover has no time for it.
                self._writer.outgoing(self.machine.priority, self.vrrp_link.source, 0.0)
            self._set_pace()
        self._hub.publish(notice)
        if isinstance(notice, Transition):
            if notice.state is not State.MASTER:
                self.placement.end()
            self._look_for_foreign(notice.state)

    def _placed(self, whole: bool) -> None:
        """All that belongs to this router is in place, or the kernel refused some of it."""
        if whole and not self._whole and self.machine.state is State.MASTER:
            self._whole = True
            self._publish(AddressesInPlace(router=self._config.name, at=self.now()))
        self.placement.end()

    def _look_for_foreign(self, state: State) -> None:
        """Tell of virtual addresses that are on this host and should not be, in this state."""
        now = self.now()
        # What is new may go away as the last one is removed.
        for intruder in self.foreign.look(self._resources.foreign, state, now):
            action = LEFT
            if self.foreign.may_remove(now):
                problem = self._resources.evict(intruder)
                action = REMOVED if problem is None else f"{problem.strerror or problem}"
            self._publish(
                ForeignAddress(
                    router=self._config.name,
                    at=now,
                    address=intruder.address,
                    prefix=intruder.prefix,
                    device=intruder.device,
                    state=state,
                    action=action,
                )
            )
        self._foreign_again.set(self.foreign.retry_at)

    def _set_pace(self) -> None:
        port = self.vrrp_link.port
        if port is not None:
            patient = self.machine.state is State.BACKUP
            port.set_batching(min(self.machine.master_interval, RELAXED) if patient else None)

    def fail(self, bug: BaseException) -> None:
        """End the run because of a bug: say goodbye, and tell whoever runs this. What means the
        program and not this router is passed on instead."""
        if isinstance(bug, KeyboardInterrupt | SystemExit):
            pass_on(bug)
            self._arm(self.now())
        elif self.failure is None:
            self.failure = as_bug(bug)
            self._feeding = False
            self._queue.clear()
            self.leave()
            self._failed()
        else:
            log.error("%s: and while ending", self._config.name, exc_info=bug)
