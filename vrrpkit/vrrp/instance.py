"""VRRPInstance: one virtual router, as users see it. ``driver.py`` runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from vrrpkit.errors import ConfigError, NotEligible, VRRPKitError
from vrrpkit.host.base import Interface
from vrrpkit.host.local import on_this_host
from vrrpkit.keyword_advice import advised
from vrrpkit.observable import Notifying
from vrrpkit.publishing import Hub, Notifier
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.transport.base import Transport
from vrrpkit.validate import (
    demotion,
    flag,
    having,
    listed,
    notifiers,
    of_kind,
    whole_number,
)
from vrrpkit.values import OWNER, VIP, Announcements, IPAddress, Peer, State
from vrrpkit.vrrp.driver import Driver
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth
from vrrpkit.vrrp.protocol.events import RouterEvent, Transition
from vrrpkit.vrrp.protocol.explain import waiting_for
from vrrpkit.vrrp.protocol.inputs import Demote, Promote
from vrrpkit.vrrp.protocol.options import VRRPInstanceConfig
from vrrpkit.vrrp.protocol.profile import Profile
from vrrpkit.vrrp.protocol.reachability import Reachability
from vrrpkit.vrrp.protocol.statistics import RouterStatistics
from vrrpkit.vrrp.receiver import InstanceRecorder
from vrrpkit.vrrp.run import RouterRun

if TYPE_CHECKING:
    from vrrpkit.routes.route import Route, Rule
    from vrrpkit.vrrp.protocol.status import RouterStatus

__all__ = ["VRRPInstance"]


@advised
class VRRPInstance(Notifying[RouterEvent]):
    """One virtual router: keeps virtual IP addresses alive on a group of machines.

    ::

        async with VRRPInstance("web", "eth0", vrid=51, vips=["192.0.2.10/32"]) as web:
            await web.wait_for(State.MASTER)

    Entering returns once the router runs (in BACKUP, FAULT, or MASTER for an owner). Leaving, by
    whatever way, sends priority 0 and removes the addresses.

    :param name: what events and logs call it.
    :param interface: a network interface by name, or an interface of a :class:`vrrpkit.MemoryBus`.
    :param vrid: virtual router identifier, 1 to 255, shared by the group (keepalived:
        ``virtual_router_id``).
    :param vips: 1 to 255 announced addresses of one family, as text or :class:`vrrpkit.VIP`.
    :param excluded_vips: further addresses of either family that move along but are not announced
        (``virtual_ipaddress_excluded``).
    :param priority: 1 to 254, or 255 for the owner of the addresses. The highest becomes MASTER.
    :param version: 3 (RFC 9568), or 2 (RFC 3768). An unconfigured keepalived speaks 2 over IPv4.
    :param interval: seconds between adverts (``advert_int``): 0.01 to 40.95 in version 3, whole 1
        to 255 in 2.
    :param preempt: whether to take over from a master of lower priority (``nopreempt``).
    :param preempt_delay: seconds to wait before doing so, 0 to 1000, from the first such advert.
    :param startup_delay: seconds after entering in which adverts are ignored
        (``vrrp_startup_delay``), 0 to 1000.
    :param link_up_delay: seconds that a link must have been up before it counts as up, 0 to 1000:
        a switch port may not forward at once. For the interface of the router, and those that its
        addresses and routes name (``interface_up_down_delays``).
    :param link_down_delay: seconds that it must have been down before it counts as down, 0 to 1000.
        Until then a MASTER stays so, though nobody hears it: keep it below the time in which the
        others take over.
    :param down_factor: adverts that may be missed before taking over, 1 to 100
        (``down_timer_adverts``). All routers of a group must agree.
    :param source: the address to send from; by default the primary IPv4 or the link-local IPv6
        address.
    :param peers: send to these routers by unicast instead of multicast (``unicast_peer``).
    :param group: another multicast group than 224.0.0.18 or ff02::12.
    :param auth: :class:`vrrpkit.HMACAuth`, or in version 2 :class:`vrrpkit.PasswordAuth`.
    :param profile: ``"default"``, ``"keepalived"``, ``"strict"``, or a :class:`vrrpkit.Profile`.
    :param checksum: form of the version 3 IPv4 checksum to send: ``"pseudo-header"`` or
        ``"message-only"``.
    :param insist_checksum: accept only this form; by default either.
    :param announcements: gratuitous ARP and neighbour advertisements, see
        :class:`vrrpkit.Announcements`.
    :param on_address_lost: ``"reinstate"``, ``"step_down"`` or ``"ignore"``: when somebody else
        removes an address, a route or a rule, or has an address too (``VIP(nodad=False)``).
    :param foreign_address: ``"tell"`` or ``"remove"``: when a virtual address is on the interface
        although this router is BACKUP or in FAULT, because somebody else put it there. It is told
        either way (:class:`vrrpkit.ForeignAddress`). A MASTER uses it in place, and an owner never
        minds. What a run of this library left there, or a keepalived that marks its addresses and
        lives no more, is removed at the start.
    :param vip_lease: whole seconds, from 2: give the addresses a finite lifetime and renew it while
        MASTER, so that the kernel removes them when this process is killed or frozen. Off by
        default.
    :param diagnose: with ``peers``, join the multicast group too, to count the adverts of routers
        that use multicast, and to tell of them. Off by default: a router among peers joins no
        group. One that uses multicast hears unicast adverts, and those to the usual group, anyway.
    :param accept: whether a MASTER that does not own the addresses accepts packets to them, the
        excluded ones among them (RFC 9568: Accept_Mode; keepalived: ``accept``, ``no_accept``).
        ``False`` drops them in nftables, but for neighbour discovery, and needs the program
        ``nft``. By default as the profile says, and an owner always accepts.
    :param virtual_mac: put the addresses on a macvlan interface with the virtual MAC address
        (``use_vmac``): ``True``, or the name for it. Needs the program ``nft``, which keeps reports
        of group memberships off that address.
    :param routes: routes that come and go with the addresses, as text or
        :class:`vrrpkit.Route` (``virtual_routes``). They are put in place after the
        addresses and removed before them.
    :param rules: rules that come after the routes and go before them, as text or
        :class:`vrrpkit.Rule` (``virtual_rules``).
    :param adverts_on_base: with a virtual MAC, send adverts from the base interface
        (``vmac_xmit_base``).
    :param wait_for_interface: start in FAULT when the interface, or its address, is not there yet.
    :param netns: the name of a network namespace that ``interface`` is in.
    :param transport: another way for adverts to travel, see :class:`vrrpkit.Transport`.
    :param recorder: sees everything that the state machine does, see :mod:`vrrpkit.testing`.
    :param track: what moves the priority or makes the router unfit, see :class:`vrrpkit.Tracker`
        (``track_script``, ``track_interface``, ...).
    :param bfd: a :class:`vrrpkit.BFDSession` with another router: when that was Up, is the followed
        master and cannot be reached any more, a BACKUP takes over after its skew time unless it
        hears another advert. Off by default.
    :param notify: who is told of everything that happens, see :mod:`vrrpkit.notify` (``notify``,
        ``smtp_alert``, ...).
    :raises ConfigError: a value, or a combination, is unusable; the message says what to do.
    """

    def __init__(
        self,
        name: str,
        interface: str | Interface,
        *,
        vrid: int,
        vips: Iterable[str | VIP],
        excluded_vips: Iterable[str | VIP] = (),
        priority: int = 100,
        version: int = 3,
        interval: float = 1.0,
        preempt: bool = True,
        preempt_delay: float = 0.0,
        startup_delay: float = 0.0,
        link_up_delay: float = 0.0,
        link_down_delay: float = 0.0,
        down_factor: int = 3,
        source: str | IPAddress | None = None,
        peers: Iterable[str | IPAddress | Peer] = (),
        group: str | IPAddress | None = None,
        auth: PasswordAuth | HMACAuth | None = None,
        profile: str | Profile = "default",
        checksum: str | None = None,
        insist_checksum: str | None = None,
        announcements: Announcements | None = None,
        on_address_lost: str | None = None,
        foreign_address: str = "tell",
        vip_lease: int | None = None,
        accept: bool | None = None,
        diagnose: bool = False,
        virtual_mac: bool | str = False,
        adverts_on_base: bool = False,
        routes: Iterable[str | Route] = (),
        rules: Iterable[str | Rule] = (),
        wait_for_interface: bool = False,
        netns: str | None = None,
        transport: Transport | None = None,
        recorder: InstanceRecorder | None = None,
        track: Iterable[Tracker] = (),
        bfd: Reachability | None = None,
        notify: Iterable[Notifier] = (),
    ) -> None:
        options = VRRPInstanceConfig(
            name=name,
            vrid=vrid,
            vips=vips,
            excluded_vips=excluded_vips,
            priority=priority,
            version=version,
            interval=interval,
            preempt=preempt,
            preempt_delay=preempt_delay,
            startup_delay=startup_delay,
            link_up_delay=link_up_delay,
            link_down_delay=link_down_delay,
            down_factor=down_factor,
            source=source,
            peers=peers,
            group=group,
            auth=auth,
            profile=profile,
            checksum=checksum,
            insist_checksum=insist_checksum,
            announcements=announcements,
            on_address_lost=on_address_lost,
            foreign_address=foreign_address,
            vip_lease=vip_lease,
            accept=accept,
            diagnose=diagnose,
            virtual_mac=virtual_mac,
            adverts_on_base=adverts_on_base,
            routes=routes,
            rules=rules,
        )
        _check_place(interface, netns)
        flag("wait_for_interface", wait_for_interface)
        trackers = listed("track", track)
        for tracker in trackers:
            of_kind("track: each", tracker, Tracker, "a Tracker, such as TrackInterface('eth1')")
        if transport is not None:
            of_kind("transport", transport, Transport, "a Transport")
        for what, tool, method, example in (
            ("recorder", recorder, "record", "a recorder, such as vrrpkit.testing.Recorder"),
            ("bfd", bfd, "on_lost", "a BFDSession, such as BFDSession('192.0.2.2', 'eth0')"),
        ):
            if tool is not None:
                having(what, tool, method, example)
        super().__init__(name, Hub(logging.getLogger("vrrpkit.vrrp")), notifiers(notify))
        self.options = options
        """What it was made with."""
        self.deleted = False
        """Set it before leaving for good: notifiers then tell of ``DELETED`` instead of ``STOP``
        (keepalived: ``notify_deleted``)."""
        self._statistics = RouterStatistics()
        self._router_run = RouterRun(
            options,
            self._hub,
            self._statistics,
            lambda: on_this_host(interface, netns),
            wait_for_interface=wait_for_interface,
            transport=transport,
            recorder=recorder,
            track=trackers,
            notify=self._notify,
            reach=bfd,
        )

    def __repr__(self) -> str:
        return f"<VRRPInstance {self.name!r} vrid {self.options.vrid} {self.state}>"

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
            return self._why_idle
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

        MASTER is told once all addresses are in place (:class:`vrrpkit.AddressesInPlace`) or the
        kernel has refused some, or after a second: what follows may bind them.

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
        if self.options.owner:
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
        self._driver.announce(repeat or self.options.used_announcements.repeat)


def _check_place(interface: object, netns: object) -> None:
    if not isinstance(interface, Interface) and (not isinstance(interface, str) or not interface):
        raise ConfigError(
            f"interface {interface!r} must be the name of a network interface, such as 'eth0', or "
            "an interface of a MemoryBus: bus.interface('192.0.2.1')"
        )
    if netns is None:
        return
    if not isinstance(interface, str):
        raise ConfigError(
            "netns goes with the name of an interface; an Interface object knows where it is"
        )
    if not isinstance(netns, str) or not netns or "/" in netns:
        raise ConfigError(
            f"netns {netns!r} must be a name that 'ip netns list' shows, without a path"
        )


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
