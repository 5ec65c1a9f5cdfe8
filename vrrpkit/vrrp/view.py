"""What can be read of a virtual router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.errors import VRRPKitError
from vrrpkit.publishing import Hub
from vrrpkit.tracking.tracker import Signal
from vrrpkit.values import IPAddress, State
from vrrpkit.vrrp.driver import Driver
from vrrpkit.vrrp.protocol.events import RouterEvent, Transition
from vrrpkit.vrrp.protocol.explain import waiting_for
from vrrpkit.vrrp.protocol.options import VRRPInstanceConfig
from vrrpkit.vrrp.protocol.statistics import RouterStatistics
from vrrpkit.vrrp.run import RouterRun

if TYPE_CHECKING:
    from vrrpkit.vrrp.protocol.status import RouterStatus

__all__ = ["RouterView"]


class RouterView:
    """How one virtual router is now."""

    def __init__(
        self,
        name: str,
        options: VRRPInstanceConfig,
        hub: Hub[RouterEvent],
        statistics: RouterStatistics,
        router_run: RouterRun,
    ) -> None:
        self.name = name
        """What events and logs call it."""
        self.options = options
        """What it was made with."""
        self._hub = hub
        self._statistics = statistics
        self._router_run = router_run

    @property
    def state(self) -> State:
        """INIT, BACKUP, MASTER or FAULT."""
        if self._router_run.driver is None or self._hub.closed:
            return State.INIT
        return self._router_run.driver.machine.state

    @property
    def priority(self) -> int:
        """The effective priority, 1 to 255: what the next advert says."""
        return (
            self.options.priority
            if self._router_run.driver is None
            else self._router_run.driver.machine.priority
        )

    @property
    def statistics(self) -> RouterStatistics:
        """The counters since this object was made. Ask anew for the latest: what a BACKUP hears is
        counted when somebody looks, and every few intervals."""
        if self._router_run.driver is not None:
            self._router_run.driver.receiver.catch_up()
        return self._statistics

    @property
    def faults(self) -> frozenset[str]:
        """What makes the router unfit, in FAULT: ``interface-down``, ``no-source``, ..."""
        return (
            frozenset()
            if self._router_run.driver is None
            else self._router_run.driver.machine.faults
        )

    @property
    def signals(self) -> dict[str, Signal]:
        """The latest signal of each tracker: ``True``, ``False``, a number, or ``None`` while it is
        not known yet."""
        return self._router_run.trackers.tally.signals

    @property
    def foreign_addresses(self) -> tuple[str, ...]:
        """Virtual addresses that are on this host because somebody else put them there, while this
        router is not MASTER: ``192.0.2.10/24 dev eth0``."""
        found = () if self._router_run.driver is None else self._router_run.driver.foreign.present
        return tuple(sorted(map(str, found)))

    @property
    def source(self) -> IPAddress | None:
        """The address that adverts leave from, while there is one."""
        return None if self._router_run.driver is None else self._router_run.driver.vrrp_link.source

    @property
    def master(self) -> IPAddress | None:
        """The address of the current master: our own while MASTER, ``None`` while none is known."""
        if self._router_run.driver is None:
            return None
        return self.source if self.state is State.MASTER else self._router_run.driver.machine.master

    @property
    def master_priority(self) -> int | None:
        """The priority that the current master announces, while one is known."""
        if self._router_run.driver is None or self.master is None:
            return None
        return (
            self.priority
            if self.state is State.MASTER
            else self._router_run.driver.machine.master_priority
        )

    def why_not_master(self) -> str | None:
        """What the router waits for before it becomes MASTER, in words; ``None`` while it is
        MASTER."""
        if self._router_run.driver is None or self._hub.closed:
            return "has ended" if self._hub.closed else "not running: enter it with 'async with'"
        return waiting_for(self._router_run.driver.machine, self._router_run.why_not_group)

    def status(self) -> RouterStatus:
        """Everything that can be read here, as values of one moment that ``json.dumps`` takes."""
        # At need: most programs never ask.
        from vrrpkit.vrrp.protocol.status import statistics_of, text_of, transition_of

        options = self.options
        return {
            "name": self.name,
            "state": str(self.state),
            "why_not_master": self.why_not_master(),
            "contested": self.contested(),
            "vrid": options.vrid,
            "version": options.version,
            "priority": self.priority,
            "configured_priority": options.priority,
            "virtual_addresses": [str(vip) for vip in options.all_vips],
            "source": text_of(self.source),
            "master": text_of(self.master),
            "master_priority": self.master_priority,
            "faults": sorted(self.faults),
            "foreign_addresses": list(self.foreign_addresses),
            "signals": dict(self.signals),
            "last_transition": transition_of(self.last_transition),
            "statistics": statistics_of(self.statistics),
        }

    def contested(self) -> str | None:
        """Who else claims to be MASTER while this router is, in words, and why nothing came of it:
        ``MASTER, but 192.0.2.2 claims it too: its adverts are rejected (version: got 2, want 3)``.
        ``None`` while nobody does, and while this router is not MASTER: see
        :meth:`why_not_master`."""
        if self._router_run.driver is None or self._hub.closed:
            return None
        claims = self._router_run.driver.contested()
        return None if claims is None else f"MASTER, but {claims}"

    @property
    def last_transition(self) -> Transition | None:
        """The latest change of state, with its reason (RFC 8347: ``last-event``)."""
        return None if self._router_run.driver is None else self._router_run.driver.last_transition

    @property
    def skew_time(self) -> float:
        """Skew_Time in seconds, as it is now (RFC 9568 section 6.1)."""
        return self._required.machine.skew

    @property
    def master_down_interval(self) -> float:
        """Seconds of silence after which a BACKUP takes over, as they are now (RFC 9568 section
        6.1)."""
        return self._required.machine.down_interval

    @property
    def _required(self) -> Driver:
        if self._hub.closed:
            raise VRRPKitError(f"{self.name} has ended: make a new VRRPInstance for each run")
        if self._router_run.driver is None:
            raise VRRPKitError(f"{self.name} is not running: enter it with 'async with' first")
        return self._router_run.driver
