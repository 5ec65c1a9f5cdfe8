"""What happens to one virtual router between entering and leaving: its interface is opened, its
driver runs, and everything is given back, whatever is being cancelled meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from vrrpkit.errors import VRRPKitError
from vrrpkit.events import Attachments, Hub
from vrrpkit.host.base import Interface
from vrrpkit.leaving import to_the_end
from vrrpkit.transport.base import Transport
from vrrpkit.vrrp.driver import Driver, InstanceRecorder
from vrrpkit.vrrp.election import DEMOTED
from vrrpkit.vrrp.notices import Notice, WeightTooSmall
from vrrpkit.vrrp.options import Options
from vrrpkit.vrrp.reach import Reachability, check_family
from vrrpkit.vrrp.sources import Trackers
from vrrpkit.vrrp.statistics import Statistics
from vrrpkit.vrrp.tracker import Tracker, check, too_small
from vrrpkit.vrrp.vocabulary import MasterUnreachable

__all__ = ["Life"]


log = logging.getLogger(__name__)


class Life:
    """The one run of one virtual router.

    :param place: gives the interface; called when the run begins.
    """

    def __init__(
        self,
        options: Options,
        hub: Hub[Notice],
        statistics: Statistics,
        place: Callable[[], Interface],
        *,
        wait_for_interface: bool,
        transport: Transport | None,
        recorder: InstanceRecorder | None,
        track: Sequence[Tracker] = (),
        notify: Attachments,
        reach: Reachability | None = None,
    ) -> None:
        check(track, options.priority, options.name)
        if reach is not None:
            check_family(reach, options.family, options.name)
        self.options = options
        self.hub = hub
        self.driver: Driver | None = None
        self.group: str | None = None
        """The sync group that enters and leaves this router."""
        self.trackers = Trackers(track, self._tracked)
        self.tracked: Callable[[], None] | None = None
        """Takes the signals of the trackers in, instead of this router alone."""
        self.shared: Sequence[Tracker] = ()
        """The trackers of its sync group."""
        self.notify = notify
        self._warned: set[str] = set()
        self._statistics = statistics
        self._place = place
        self._wait_for_interface = wait_for_interface
        self._transport = transport
        self._recorder = recorder
        self._interface: Interface | None = None
        self._reach = reach
        self._forsake: Callable[[], None] | None = None
        self._used = False

    async def prepare(self, failed: Callable[[], None], *, grouped: bool = False) -> Driver:
        """Open the interface and take a place on the link; :meth:`Driver.begin` is next.

        :param failed: called once when a bug ends the run.
        :raises VRRPKitError: there was a run already.
        """
        if self._used:
            raise VRRPKitError(
                f"{self.options.name} was entered before: make a new VRRPInstance for each run"
            )
        self._used = True
        interface = self._place()
        await interface.open()
        self._interface = interface
        self.driver = Driver(
            self.options,
            interface,
            self.hub,
            self._statistics,
            transport=self._transport,
            recorder=self._recorder,
            failed=failed,
            grouped=grouped,
        )
        try:
            await self.driver.prepare(self._wait_for_interface)
            await self.trackers.start()
            self._watch_master()
            self.notify.start(self.hub)
        except BaseException:
            await self.end()
            raise
        self._tracked()
        if any(tracker.weight for tracker in (*self.trackers.trackers, *self.shared)):
            self.driver.heard = self._doubt
        return self.driver

    def _tracked(self) -> None:
        tally = self.trackers.tally
        if self.tracked is not None:
            self.tracked()
        elif self.driver is not None:
            self.driver.adjust(tally.weight, tally.faults)

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

    def _doubt(self, other: int, at: float) -> None:
        """Warn of weights that cannot do what they are for, once a priority to compare with is
        heard."""
        assert self.driver is not None
        if other == DEMOTED:
            # What it would say by itself is not known.
            return
        base = self.driver.base
        trackers = (*self.trackers.trackers, *self.shared)
        for tracker, enough in too_small(trackers, base, other):
            if tracker.label not in self._warned:
                self._warned.add(tracker.label)
                warning = WeightTooSmall(
                    router=self.options.name,
                    at=at,
                    tracker=tracker.label,
                    weight=tracker.weight,
                    enough=enough,
                    priority=base,
                    other=other,
                )
                log.warning("%s", warning)
                self.hub.publish(warning)

    async def end(self) -> None:
        """Leave. Priority 0 is out before the first await; a cancellation waits for the rest."""
        driver, interface = self.driver, self._interface
        if driver is None or interface is None:
            return
        driver.leave()
        forsake, self._forsake = self._forsake, None
        if forsake is not None:
            forsake()

        async def give_back() -> None:
            try:
                await driver.stop()
            finally:
                await interface.close()
                # Last, for what a tracker runs may take its time to end.
                await self.trackers.stop()

        try:
            await to_the_end(give_back(), f"vrrpkit: {self.options.name} gives its addresses back")
        finally:
            self.hub.close()
            await self.notify.close()
