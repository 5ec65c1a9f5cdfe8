"""VRRPInstance: one virtual router, as users see it. ``driver.py`` runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from vrrpkit.configured import configured_by, described, from_keepalived, values_of
from vrrpkit.errors import ConfigError, NotEligible, VRRPKitError
from vrrpkit.host.base import Interface
from vrrpkit.host.local import on_this_host
from vrrpkit.observable import Notifying
from vrrpkit.publishing import Hub, Notifier
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.transport.base import Transport
from vrrpkit.validate import demotion, having, listed, notifiers, of_kind, whole_number
from vrrpkit.values import OWNER, IPAddress, State
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.driver import Driver
from vrrpkit.vrrp.protocol.events import RouterEvent, Transition
from vrrpkit.vrrp.protocol.explain import waiting_for
from vrrpkit.vrrp.protocol.inputs import Demote, Promote
from vrrpkit.vrrp.protocol.reachability import Reachability
from vrrpkit.vrrp.protocol.statistics import RouterStatistics
from vrrpkit.vrrp.receiver import InstanceRecorder
from vrrpkit.vrrp.run import RouterRun

if TYPE_CHECKING:
    from vrrpkit.vrrp.protocol.status import RouterStatus

__all__ = ["VRRPInstance", "VRRPInstanceArguments"]


def as_trackers(values: Iterable[Tracker]) -> tuple[Tracker, ...]:
    """The trackers of a list.

    :raises ConfigError: it is no list, or one of them is no tracker.
    """
    found = listed("track", values)
    for tracker in found:
        of_kind("track: each", tracker, Tracker, "a Tracker, such as TrackInterface('eth1')")
    return found


def as_notifiers(values: Iterable[Notifier]) -> tuple[Notifier, ...]:
    """The notifiers of a list.

    :raises ConfigError: it is no list, or one of them is no notifier.
    """
    return notifiers(values)


def _require_place(interface: object, netns: object) -> None:
    if isinstance(interface, Interface):
        if netns is not None:
            raise ConfigError(
                "netns goes with the name of an interface; an Interface object knows where it is"
            )
    elif not isinstance(interface, str) or not interface:
        raise ConfigError(
            f"interface {interface!r} must be the name of a network interface, such as 'eth0', or "
            "an interface of a MemoryBus: bus.interface('192.0.2.1')"
        )


@attrs.frozen
class VRRPInstanceArguments(VRRPInstanceConfig):
    """What :class:`vrrpkit.VRRPInstance` is made of: its description, and live objects.

    :param interface: a network interface by name, or an interface of a :class:`vrrpkit.MemoryBus`.
    :param transport: another way for adverts to travel, see :class:`vrrpkit.transport.Transport`.
    :param recorder: sees everything that the state machine does, see :mod:`vrrpkit.testing`.
    :param track: what moves the priority or makes the router unfit, see :class:`vrrpkit.Tracker`
        (``track_script``, ``track_interface``, ...).
    :param bfd: a :class:`vrrpkit.BFDSession` with another router: when that was Up, is the followed
        master and cannot be reached any more, a BACKUP takes over after its skew time unless it
        hears another advert. Off by default.
    :param notify: who is told of everything that happens, see :mod:`vrrpkit.notify` (``notify``,
        ``smtp_alert``, ...).
    """

    place: str | Interface = attrs.field(alias="interface", eq=False, repr=False)
    interface: str = attrs.field(init=False)
    transport: Transport | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    recorder: InstanceRecorder | None = attrs.field(
        default=None, kw_only=True, eq=False, repr=False
    )
    track: tuple[Tracker, ...] = attrs.field(
        default=(),
        converter=as_trackers,
        kw_only=True,
        eq=False,
        repr=False,
        metadata=from_keepalived(
            track_script="track=[TrackScript(...)]",
            track_interface="track=[TrackInterface(...)]",
            track_file="track=[TrackFile(...)]",
            track_process="track=[TrackProcess(...)]",
            track_bfd="track=[TrackBFD(...)]",
        ),
    )
    bfd: Reachability | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    notify: tuple[Notifier, ...] = attrs.field(
        default=(),
        converter=as_notifiers,
        kw_only=True,
        eq=False,
        repr=False,
        metadata=from_keepalived(
            notify_master="notify=[NotifyScripts(...)]",
            notify_backup="notify=[NotifyScripts(...)]",
            notify_fault="notify=[NotifyScripts(...)]",
            smtp_alert="notify=[Mail(...)]",
        ),
    )

    def __attrs_post_init__(self) -> None:
        place = self.place
        _require_place(place, self.netns)
        object.__setattr__(self, "interface", place if isinstance(place, str) else place.name)
        super().__attrs_post_init__()
        if self.transport is not None:
            of_kind("transport", self.transport, Transport, "a Transport")
        for what, tool, method, example in (
            ("recorder", self.recorder, "record", "a recorder, such as vrrpkit.testing.Recorder"),
            ("bfd", self.bfd, "on_lost", "a BFDSession, such as BFDSession('192.0.2.2', 'eth0')"),
        ):
            if tool is not None:
                having(what, tool, method, example)


class VRRPInstance(Notifying[RouterEvent]):
    """One virtual router: keeps virtual IP addresses alive on a group of machines.

    ::

        async with VRRPInstance("web", "eth0", vrid=51, vips=["192.0.2.10/32"]) as web:
            await web.wait_for(State.MASTER)

    Entering returns once the router runs (in BACKUP, FAULT, or MASTER for an owner). Leaving, by
    whatever way, sends priority 0 and removes the addresses.
    """

    @configured_by(VRRPInstanceArguments)
    def __init__(self, arguments: VRRPInstanceArguments) -> None:
        hub: Hub[RouterEvent] = Hub(logging.getLogger("vrrpkit.vrrp"))
        super().__init__(arguments.name, hub, arguments.notify)
        self.config = described(VRRPInstanceConfig, arguments, interface=arguments.interface)
        """What it was made with, as far as values can say it."""
        self.deleted = False
        """Set it before leaving for good: notifiers then tell of ``DELETED`` instead of ``STOP``
        (keepalived: ``notify_deleted``)."""
        self._statistics = RouterStatistics()
        self._router_run = RouterRun(
            self.config,
            hub,
            self._statistics,
            lambda: on_this_host(arguments.place, arguments.netns),
            transport=arguments.transport,
            recorder=arguments.recorder,
            track=arguments.track,
            notify=self._notify,
            reach=arguments.bfd,
        )

    @classmethod
    def of(cls, config: VRRPInstanceConfig) -> VRRPInstance:
        """A router that ``config`` describes.

        :param config: a :class:`vrrpkit.vrrp.config.VRRPInstanceConfig`; or, where live objects
            such as trackers belong to it, a :class:`VRRPInstanceArguments`.
        """
        return cls(**values_of(config))

    def __repr__(self) -> str:
        return f"<VRRPInstance {self.name!r} vrid {self.config.vrid} {self.state}>"

    # --- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> VRRPInstance:
        """Start the router.

        :raises InterfaceMissing: there is no such interface.
        :raises SourceMissing: the interface has no address to send from.
        :raises PermissionMissing: a capability is missing; the error names it.
        :raises DuplicateRouter: the same interface, family, VRID and group or peers are in use here
            already.
        :raises HostError: rules of nftables are needed, and the program ``nft`` is missing or
            refuses them.
        """
        if self._router_run.group is not None:
            raise VRRPKitError(
                f"{self.name} is a member of the sync group {self._router_run.group!r}: enter the "
                "group with 'async with', and it enters its members"
            )
        self._enter()
        self._body.begin()
        try:
            driver = await self._router_run.prepare(self._body.interrupt)
            driver.begin()
        except BaseException:
            await self._body.end(self._router_run.end, lambda: self._router_run.failure)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._body.end(self._router_run.end, lambda: self._router_run.failure)

    # --- what it is ------------------------------------------------------------------------------

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
            self.config.priority
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
            return self._why_idle
        return waiting_for(self._router_run.driver.machine, self._router_run.why_not_group)

    def status(self) -> RouterStatus:
        """Everything that can be read here, as values of one moment that ``json.dumps`` takes."""
        # At need: most programs never ask.
        from vrrpkit.vrrp.protocol.status import statistics_of, text_of, transition_of

        config = self.config
        return {
            "name": self.name,
            "state": str(self.state),
            "why_not_master": self.why_not_master(),
            "contested": self.contested(),
            "vrid": config.vrid,
            "version": config.version,
            "priority": self.priority,
            "configured_priority": config.priority,
            "virtual_addresses": [str(vip) for vip in config.all_vips],
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
        return self._driver.machine.skew

    @property
    def master_down_interval(self) -> float:
        """Seconds of silence after which a BACKUP takes over, as they are now (RFC 9568 section
        6.1)."""
        return self._driver.machine.down_interval

    @property
    def _driver(self) -> Driver:
        return self._required(self._router_run.driver)

    # --- what it tells ---------------------------------------------------------------------------

    async def wait_for(self, state: State, *others: State) -> State:
        """Return at once in one of these states, else the next time that one is entered, even if it
        was left again since. Returns that state.

        MASTER is told once all addresses are in place (:class:`vrrpkit.events.AddressesInPlace`) or
        the kernel has refused some, or after a second: what follows may bind them.

        :raises ConfigError: one is no :class:`vrrpkit.State`.
        :raises Closed: the router ended before.
        """
        self._require_home("wait_for")
        wanted = (state, *others)
        for state in wanted:
            of_kind("the state to wait for,", state, State, "a State, such as State.MASTER")
        entered = await self._wait_in(wanted, self.state, _entered)
        driver = self._router_run.driver
        if entered is State.MASTER and driver is not None:
            await driver.placement.over()
        return entered

    def on_transition(self, callback: Callable[[Transition], None]) -> Callable[[], None]:
        """Call ``callback`` on each change of state, on the event loop; it must not block. Returns
        what ends it.

        An exception in it is logged and changes nothing for the router. KeyboardInterrupt and
        SystemExit end the program as soon as what goes with the change is done.

        :raises ConfigError: it is not callable, or a coroutine function.
        """
        self._require_callback("on_transition", callback)
        return self._hub.on(Transition, callback)

    def _present(self) -> tuple[Transition | None]:
        return (self.last_transition,)

    # --- what it can be told ---------------------------------------------------------------------

    def set_priority(self, priority: int) -> None:
        """Use another priority from now on; a BACKUP's running deadline moves by the change of its
        skew.

        :param priority: 1 to 254.
        :raises ConfigError: it is out of range, or this router owns the addresses.
        """
        self._require_home("set_priority")
        whole_number("priority", priority, 1, OWNER - 1, "only an owner has 255, from the start")
        if self.config.owner:
            raise ConfigError(
                f"{self.name} owns its addresses: its priority stays 255; "
                "use demote() to let others serve"
            )
        self._driver.rebase(priority)

    def demote(self, seconds: float) -> None:
        """Let the others serve for a while: give up being MASTER, and compete with priority 1 and
        no preemption.

        If nobody else takes the addresses, this router takes them back: an address must never go
        away.

        :param seconds: how long, more than 0, up to a year.
        :raises ConfigError: ``seconds`` is something else.
        """
        self._require_home("demote")
        demotion(seconds)
        self._driver.feed(Demote(seconds))

    def promote(self) -> None:
        """End a demotion and become MASTER at once, also where ``preempt=False`` would wait.

        :raises NotEligible: the present master would win the addresses back at once, or there is a
            fault.
        """
        self._require_home("promote")
        driver = self._driver
        obstacle = driver.machine.promotion_obstacle()
        if obstacle is not None:
            raise NotEligible(f"{self.name} cannot be promoted: {obstacle}")
        driver.feed(Promote())

    async def announce(self, repeat: int | None = None) -> None:
        """Tell the network again where the addresses are, by gratuitous ARP and neighbour
        advertisements.

        Returns when the first packet for each address has left.

        :param repeat: packets per address, 1 to 60; by default as after a takeover.
        :raises ConfigError: ``repeat`` is something else.
        :raises NotEligible: this router is not MASTER.
        """
        self._require_home("announce")
        if repeat is not None:
            whole_number("repeat", repeat, 1, 60, "packets per address")
        if self.state is not State.MASTER:
            raise NotEligible(
                f"{self.name} is {self.state}: only the MASTER may announce the addresses"
            )
        self._driver.announce(repeat or self.config.used_announcements.repeat)


def _entered(event: RouterEvent) -> State | None:
    return event.state if isinstance(event, Transition) else None


def run_of(instance: VRRPInstance) -> RouterRun:
    """What a sync group needs of its members."""
    return instance._router_run  # pyright: ignore[reportPrivateUsage]


def enter_member(instance: VRRPInstance) -> None:
    """A sync group enters one of its members.

    :raises VRRPKitError: it was entered before.
    """
    instance._enter()  # pyright: ignore[reportPrivateUsage]


def was_entered(instance: VRRPInstance) -> bool:
    """Whether ``instance`` runs, or has run."""
    return instance._used  # pyright: ignore[reportPrivateUsage]
