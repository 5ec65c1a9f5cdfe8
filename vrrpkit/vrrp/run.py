"""What happens to one virtual router between entering and leaving: its interface is opened, its
driver runs, and everything is given back, whatever is being cancelled meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import attrs

from vrrpkit.host.base import Interface
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.publishing import Attachments, Hub
from vrrpkit.tracking.runner import TrackerRunner
from vrrpkit.tracking.tracker import Tracker, TrackerState, check, shortfalls
from vrrpkit.transport.base import Transport
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.driver import Driver
from vrrpkit.vrrp.protocol.election import DEMOTED
from vrrpkit.vrrp.protocol.events import RouterEvent, WeightTooSmall
from vrrpkit.vrrp.protocol.inputs import MasterUnreachable
from vrrpkit.vrrp.protocol.reachability import Reachability, check_family
from vrrpkit.vrrp.protocol.statistics import RouterStatistics
from vrrpkit.vrrp.receiver import InstanceRecorder

__all__ = ["GroupMembership", "RouterRun"]


log = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class GroupMembership:
    """What a sync group is to one of its members while it runs."""

    tracked: Callable[[], None]
    """Takes the signals of the trackers in, instead of the member alone."""
    shared: Sequence[TrackerState]
    """What else is added to the member's priority: the signals of the group."""
    why_not_master: Callable[[], str | None]
    """Says what the group waits for."""


class RouterRun:
    """The one run of one virtual router.

    :param place: gives the interface; called when the run begins.
    """

    def __init__(
        self,
        config: VRRPInstanceConfig,
        hub: Hub[RouterEvent],
        statistics: RouterStatistics,
        place: Callable[[], Awaitable[Interface]],
        *,
        transport: Transport | None,
        recorder: InstanceRecorder | None,
        track: Sequence[Tracker] = (),
        notify: Attachments,
        reach: Reachability | None = None,
    ) -> None:
        check(track, config.priority, config.name)
        if reach is not None:
            check_family(reach, config.family, config.name)
        self.config = config
        self.hub = hub
        self.driver: Driver | None = None
        self._group: str | None = None
        self._membership: GroupMembership | None = None
        self.trackers = TrackerRunner(track, self._tracked)
        self.notify = notify
        self._rival = 0
        self._warned: set[str] = set()
        self._statistics = statistics
        self._place = place
        self._transport = transport
        self._recorder = recorder
        self._interface: Interface | None = None
        self._reach = reach
        self._forsake: Callable[[], None] | None = None

    @property
    def group(self) -> str | None:
        """The sync group that enters and leaves this router."""
        return self._group

    def join(self, group: str) -> None:
        """This router is a member of a sync group."""
        self._group = group

    @property
    def why_not_group(self) -> Callable[[], str | None] | None:
        """Says what the sync group of a running router waits for."""
        return None if self._membership is None else self._membership.why_not_master

    @property
    def _tallies(self) -> tuple[TrackerState, ...]:
        shared = () if self._membership is None else self._membership.shared
        return (self.trackers.tally, *shared)

    async def prepare(
        self, failed: Callable[[], None], membership: GroupMembership | None = None
    ) -> Driver:
        """Open the interface and take a place on the link; :meth:`Driver.begin` is next. Whatever
        this raises, :meth:`end` must follow.

        :param failed: called once when a bug ends the run.
        :param membership: in a sync group, what that is to the router.
        """
        self._membership = membership
        interface = await self._place()
        await interface.open()
        self._interface = interface
        self.driver = Driver(
            self.config,
            interface,
            self.hub,
            self._statistics,
            transport=self._transport,
            recorder=self._recorder,
            failed=failed,
            grouped=membership is not None,
        )
        self.driver.placement.on_begin(self.notify.pause)
        self.driver.placement.on_end(self.notify.resume)
        await self.driver.prepare(self.config.wait_for_interface)
        await self.trackers.start()
        self._watch_master()
        self.notify.start(self.hub)
        self._tracked()
        if any(tracker.weight for tally in self._tallies for tracker, _ in tally.pairs):
            self.driver.receiver.on_priority(self._heard)
        return self.driver

    def _tracked(self) -> None:
        tally = self.trackers.tally
        if self._membership is not None:
            self._membership.tracked()
        else:
            self.adjust(tally.weight, tally.faults, tally.parts)

    def adjust(self, weight: int, faults: frozenset[str], parts: Sequence[str]) -> None:
        """Take in what all trackers say, those of the sync group included."""
        if self.driver is not None:
            self.driver.adjust(weight, faults, parts)
            self._doubt(self.driver.now())

    def _watch_master(self) -> None:
        reach, driver = self._reach, self.driver
        if reach is None or driver is None:
            return
        reach.open()
        unsubscribe = reach.on_lost(lambda: driver.feed(MasterUnreachable(reach.neighbor)))

        def forsake() -> None:
            unsubscribe()
            reach.close()

        self._forsake = forsake

    def _heard(self, other: int, at: float) -> None:
        # What one that was demoted would say by itself is not known.
        if other != DEMOTED and other > self._rival:
            self._rival = other
            self._doubt(at)

    def _doubt(self, at: float) -> None:
        """Warn of weights that cannot do what they are for, once a priority to compare with is
        heard. The highest one counts: the lower ones may be what trackers have left of theirs, or
        not be the next in line."""
        driver = self.driver
        if driver is None or not self._rival:
            return
        pairs = [pair for tally in self._tallies for pair in tally.pairs]
        for short in shortfalls(pairs, driver.base, self._rival):
            tracker = short.tracker
            if tracker.label in self._warned:
                continue
            self._warned.add(tracker.label)
            warning = WeightTooSmall(
                router=self.config.name,
                at=at,
                tracker=tracker.label,
                weight=tracker.weight,
                enough=short.enough,
                priority=driver.base,
                other=self._rival,
                adds=short.adds,
            )
            self.hub.publish(warning)

    @property
    def failure(self) -> BaseException | None:
        """The bug that ended the run, if one did."""
        return None if self.driver is None else self.driver.failure

    async def end(self) -> None:
        """Leave. Priority 0 is out before the first await; a cancellation waits for the rest.
        Without effect when there is no run."""
        if self.driver is not None:
            self.driver.leave()
        forsake, self._forsake = self._forsake, None
        if forsake is not None:
            forsake()
        await shielded(self._conclude(), f"vrrpkit: {self.config.name} gives its addresses back")

    async def _conclude(self) -> None:
        interface, self._interface = self._interface, None
        try:
            if interface is not None:
                await self._give_back(interface)
        finally:
            self.hub.close()
            await self.notify.close()

    async def _give_back(self, interface: Interface) -> None:
        try:
            if self.driver is not None:
                await self.driver.stop()
        finally:
            await interface.close()
            # Last, for what a tracker runs may take its time to end.
            await self.trackers.stop()
