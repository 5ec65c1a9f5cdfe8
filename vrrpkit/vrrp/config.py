"""The descriptions of a virtual router and of a sync group, checked as they are made. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

import attrs

from vrrpkit.configured import advised, from_keepalived
from vrrpkit.errors import ConfigError
from vrrpkit.validate import flag, listed, of_kind, seconds, text, whole_number
from vrrpkit.values import OWNER, VIP, Announcements, IPAddress, Peer, parse_address
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth, Verifier
from vrrpkit.vrrp.protocol.election import MachineConfig
from vrrpkit.vrrp.protocol.encoder import AdvertWriter
from vrrpkit.vrrp.protocol.packet import ChecksumForm, interval_to_wire
from vrrpkit.vrrp.protocol.profile import DEFAULT, AddressLostPolicy, Profile
from vrrpkit.vrrp.protocol.validation import AdvertValidator

if TYPE_CHECKING:
    from vrrpkit.routes.route import Route, Rule

__all__ = ["GROUPS", "SyncGroupConfig", "VRRPInstanceConfig"]

GROUPS = {4: ip_address("224.0.0.18"), 6: ip_address("ff02::12")}
"""The multicast groups that IANA assigned to VRRP (RFC 9568 sections 5.1.1.2 and 5.1.2.2)."""

FOREIGN = ("tell", "remove")
"""What is done about virtual addresses that somebody else puts on the host."""

_MOST_ADDRESSES = 255


def _vips(values: Iterable[str | VIP]) -> tuple[VIP, ...]:
    return tuple(VIP.of(value) for value in listed("vips", values))


def _excluded(values: Iterable[str | VIP]) -> tuple[VIP, ...]:
    return tuple(VIP.of(value) for value in listed("excluded_vips", values))


def _routes(values: Iterable[str | Route]) -> tuple[Route, ...]:
    if values == ():
        return ()
    # At need, here and below: most routers have none.
    from vrrpkit.routes.route import parse_routes

    return parse_routes(listed("routes", values))


def _rules(values: Iterable[str | Rule]) -> tuple[Rule, ...]:
    if values == ():
        return ()
    from vrrpkit.routes.route import parse_rules

    return parse_rules(listed("rules", values))


def _peers(values: Iterable[str | IPAddress | Peer]) -> tuple[Peer, ...]:
    return tuple(Peer.of(value) for value in listed("peers", values))


def _no_host_part(vip: VIP) -> None:
    network = vip.interface.network
    ends = (network.network_address, network.broadcast_address)
    if vip.family == 4 and vip.prefix <= 30 and vip.address in ends:
        raise ConfigError(
            f"virtual address {vip} is that of the network itself, or its broadcast address: write "
            f"the address of a host in {network}, or {vip.address}/32 if it is meant"
        )


def _source(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "source")


def _group(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "group")


def _profile(value: str | Profile) -> Profile:
    return Profile.of(value)


def _checksum(value: str | None) -> ChecksumForm | None:
    if value is None:
        return None
    try:
        return ChecksumForm(value)
    except ValueError:
        raise ConfigError(
            f"checksum form {value!r} must be one of {', '.join(ChecksumForm)}"
        ) from None


def _policy(value: str | None) -> AddressLostPolicy | None:
    return None if value is None else AddressLostPolicy.of(value)


def _known_auth(value: object) -> None:
    if value is not None and not isinstance(value, PasswordAuth | HMACAuth):
        # The value is not shown: it may well be a password.
        raise ConfigError(
            "auth must be a PasswordAuth or an HMACAuth, such as PasswordAuth('s3cret')"
        )


def _members(values: Iterable[str]) -> tuple[str, ...]:
    return listed("members", values)


def _group_name(value: str) -> str:
    text("the name of a sync group,", value, "'gateway'")
    return value


def _place(interface: object, netns: object) -> None:
    if not isinstance(interface, str) or not interface:
        raise ConfigError(
            f"interface {interface!r} must be the name of a network interface, such as 'eth0'"
        )
    if netns is None:
        return
    if not isinstance(netns, str) or not netns or "/" in netns:
        raise ConfigError(
            f"netns {netns!r} must be a name that 'ip netns list' shows, without a path"
        )


@advised
@attrs.frozen
class VRRPInstanceConfig:
    """Describes one virtual router by values alone. :meth:`vrrpkit.VRRPInstance.of` makes the
    router, and ``attrs.evolve`` another description, checked in the same way.

    :param name: what events and logs call it.
    :param interface: a network interface, by name.
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
        either way (:class:`vrrpkit.events.ForeignAddress`). A MASTER uses it in place, and an owner
        never minds. What a run of this library left there, or a keepalived that marks its addresses
        and lives no more, is removed at the start.
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
    :raises ConfigError: a value, or a combination, is unusable; the message says what to do.
    """

    name: str
    interface: str
    vrid: int = attrs.field(kw_only=True, metadata=from_keepalived("virtual_router_id"))
    vips: tuple[VIP, ...] = attrs.field(
        converter=_vips,
        kw_only=True,
        metadata=from_keepalived("virtual_ipaddress", "virtual_ipaddresses", vip="vips=, a list"),
    )
    excluded_vips: tuple[VIP, ...] = attrs.field(
        default=(),
        converter=_excluded,
        kw_only=True,
        metadata=from_keepalived("virtual_ipaddress_excluded"),
    )
    priority: int = attrs.field(
        default=100,
        kw_only=True,
        metadata=from_keepalived(
            state="nothing: a router begins as BACKUP, and the highest priority= becomes MASTER",
            initial_state="nothing: a router begins as BACKUP",
        ),
    )
    version: int = attrs.field(default=3, kw_only=True, metadata=from_keepalived("vrrp_version"))
    interval: float = attrs.field(
        default=1.0, kw_only=True, metadata=from_keepalived("advert_int", unit="seconds")
    )
    preempt: bool = attrs.field(
        default=True, kw_only=True, metadata=from_keepalived(nopreempt="preempt=False")
    )
    preempt_delay: float = attrs.field(default=0.0, kw_only=True)
    startup_delay: float = attrs.field(
        default=0.0, kw_only=True, metadata=from_keepalived("vrrp_startup_delay", unit="seconds")
    )
    link_up_delay: float = attrs.field(
        default=0.0,
        kw_only=True,
        metadata=from_keepalived(
            interface_up_down_delays="link_up_delay= and link_down_delay= (seconds)"
        ),
    )
    link_down_delay: float = attrs.field(default=0.0, kw_only=True)
    down_factor: int = attrs.field(
        default=3, kw_only=True, metadata=from_keepalived("down_timer_adverts")
    )
    source: IPAddress | None = attrs.field(
        default=None,
        converter=_source,
        kw_only=True,
        metadata=from_keepalived("unicast_src_ip", "mcast_src_ip"),
    )
    peers: tuple[Peer, ...] = attrs.field(
        default=(), converter=_peers, kw_only=True, metadata=from_keepalived("unicast_peer")
    )
    group: IPAddress | None = attrs.field(default=None, converter=_group, kw_only=True)
    auth: PasswordAuth | HMACAuth | None = attrs.field(
        default=None,
        kw_only=True,
        metadata=from_keepalived(
            authentication="auth=, a PasswordAuth or HMACAuth",
            auth_type="auth=, a PasswordAuth or HMACAuth",
            auth_pass="auth=PasswordAuth(...), with version=2",
        ),
    )
    profile: Profile = attrs.field(default=DEFAULT, converter=_profile, kw_only=True)
    checksum: ChecksumForm | None = attrs.field(default=None, converter=_checksum, kw_only=True)
    insist_checksum: ChecksumForm | None = attrs.field(
        default=None, converter=_checksum, kw_only=True
    )
    announcements: Announcements | None = attrs.field(
        default=None,
        kw_only=True,
        metadata=from_keepalived(
            garp_master_delay="announcements=Announcements(delay=...)",
            garp_master_repeat="announcements=Announcements(repeat=...)",
            garp_master_refresh="announcements=Announcements(refresh=...)",
        ),
    )
    on_address_lost: AddressLostPolicy | None = attrs.field(
        default=None, converter=_policy, kw_only=True
    )
    foreign_address: str = attrs.field(default="tell", kw_only=True)
    vip_lease: int | None = attrs.field(default=None, kw_only=True)
    accept: bool | None = attrs.field(
        default=None, kw_only=True, metadata=from_keepalived(no_accept="accept=False")
    )
    diagnose: bool = attrs.field(default=False, kw_only=True)
    virtual_mac: bool | str = attrs.field(
        default=False, kw_only=True, metadata=from_keepalived("use_vmac")
    )
    adverts_on_base: bool = attrs.field(
        default=False, kw_only=True, metadata=from_keepalived("vmac_xmit_base")
    )
    routes: tuple[Route, ...] = attrs.field(
        default=(), converter=_routes, kw_only=True, metadata=from_keepalived("virtual_routes")
    )
    rules: tuple[Rule, ...] = attrs.field(
        default=(), converter=_rules, kw_only=True, metadata=from_keepalived("virtual_rules")
    )
    wait_for_interface: bool = attrs.field(default=False, kw_only=True)
    netns: str | None = attrs.field(default=None, kw_only=True)

    all_addresses: frozenset[IPAddress] = attrs.field(init=False, eq=False, repr=False)
    """The addresses of :attr:`all_vips`: one set, for all that ask again and again."""

    def __attrs_post_init__(self) -> None:
        moving = frozenset(vip.address for vip in self.vips + self.excluded_vips)
        object.__setattr__(self, "all_addresses", moving)
        text("the name of a router,", self.name, "'web'")
        _place(self.interface, self.netns)
        flag("preempt", self.preempt)
        flag("adverts_on_base", self.adverts_on_base)
        flag("wait_for_interface", self.wait_for_interface)
        if self.accept is not None:
            flag("accept", self.accept)
        flag("diagnose", self.diagnose)
        if self.diagnose and not self.peers:
            raise ConfigError(
                "diagnose=True goes with peers=: a router that uses multicast hears unicast "
                "adverts anyway"
            )
        if self.announcements is not None:
            of_kind(
                "announcements",
                self.announcements,
                Announcements,
                "an Announcements, such as Announcements(delay=1)",
            )
        whole_number("vrid", self.vrid, 1, 255, "the number that all routers of the group share")
        whole_number("priority", self.priority, 1, 255, "255 is for the owner of the addresses")
        whole_number("down_factor", self.down_factor, 1, 100, "adverts that may be missed")
        whole_number("version", self.version, 2, 3, "3 is RFC 9568, 2 is RFC 3768")
        interval_to_wire(self.version, self.interval)
        seconds("preempt_delay", self.preempt_delay, 0, 1000)
        seconds("startup_delay", self.startup_delay, 0, 1000)
        seconds("link_up_delay", self.link_up_delay, 0, 1000)
        seconds("link_down_delay", self.link_down_delay, 0, 1000)
        if not self.preempt and self.priority == OWNER:
            raise ConfigError(
                "preempt=False is impossible for an owner (priority 255), who always takes its "
                "addresses back; use a priority up to 254"
            )
        if self.accept is False and self.priority == OWNER:
            raise ConfigError(
                "accept=False is impossible for an owner (priority 255), whose own addresses these "
                "are; use a priority up to 254"
            )
        if self.foreign_address not in FOREIGN:
            raise ConfigError(
                f"foreign_address {self.foreign_address!r} must be one of {', '.join(FOREIGN)}"
            )
        if self.vip_lease is not None:
            whole_number(
                "vip_lease",
                self.vip_lease,
                2,
                86400,
                "seconds that the addresses outlive a dead process",
            )
        self._check_addresses()
        self._check_peers()
        self._check_auth()
        if not self.profile.extensions:
            self._check_strict()

    def _check_addresses(self) -> None:
        if not self.vips:
            raise ConfigError(
                "vips is empty: name at least one virtual address, for example "
                "vips=['192.0.2.10/32']"
            )
        if len(self.vips) > _MOST_ADDRESSES:
            raise ConfigError(
                f"{len(self.vips)} announced addresses do not fit an advert: move all but "
                f"{_MOST_ADDRESSES} to excluded_vips"
            )
        families = {vip.family for vip in self.vips}
        if len(families) > 1:
            raise ConfigError(
                "vips mixes IPv4 and IPv6: announce one family per router, and put the other in "
                "excluded_vips"
            )
        if self.version == 2 and 6 in families:
            raise ConfigError(
                f"version 2 knows no IPv6: use version=3, the default, or put {self.vips[0]} into "
                "excluded_vips of an IPv4 router"
            )
        seen: set[tuple[IPAddress, str | None]] = set()
        for vip in self.vips + self.excluded_vips:
            # On another interface it is another address, a link-local one most of all.
            if (vip.address, vip.dev) in seen:
                on = "" if vip.dev is None else f" on {vip.dev}"
                raise ConfigError(f"virtual address {vip.address}{on} is named twice")
            seen.add((vip.address, vip.dev))
            _no_host_part(vip)
            if vip.address.is_loopback:
                raise ConfigError(
                    f"virtual address {vip.address} is a loopback address, which every host has "
                    "for itself: name one that other hosts reach, such as '192.0.2.10/32'"
                )
        tentative = {v.address for v in self.all_vips if v.family == 6 and not v.nodad}
        for route in self.routes:
            if route.src in tentative:
                raise ConfigError(
                    f"route {route}: {route.src} cannot be a source while it is checked for "
                    "duplicates; leave nodad on for that address"
                )

    def _check_peers(self) -> None:
        if self.peers and self.group is not None:
            raise ConfigError(
                "peers and group exclude each other: adverts go to the peers, or to a multicast "
                "group"
            )
        if self.group is not None and not self.group.is_multicast:
            raise ConfigError(f"group {self.group} is no multicast address; for unicast use peers=")
        addresses = [peer.address for peer in self.peers]
        if len(set(addresses)) != len(addresses):
            raise ConfigError("a peer is named twice in peers")
        for what, value in [
            ("source", self.source),
            ("group", self.group),
            *(("peer", address) for address in addresses),
        ]:
            if value is not None and value.version != self.family:
                raise ConfigError(
                    f"{what} {value} is not IPv{self.family}, as the virtual addresses are"
                )
        if self.source is not None and (self.source.is_multicast or self.source.is_unspecified):
            raise ConfigError(
                f"source {self.source} must be an address of the interface; leave it out to use "
                "the primary one"
            )
        if self.source is not None and self.source in addresses:
            raise ConfigError(
                f"peer {self.source} is this router's own source; name the other routers only"
            )
        if self.source is not None and not self.owner and self.source in self.all_addresses:
            raise ConfigError(
                f"source {self.source} is a virtual address: it moves away; use an address that "
                "stays"
            )
        if not isinstance(self.virtual_mac, str):
            flag("virtual_mac, unless it is the name for the interface,", self.virtual_mac)
        elif not 1 <= len(self.virtual_mac.encode()) <= 15 or set(self.virtual_mac) & set("/: "):
            raise ConfigError(
                f"interface name {self.virtual_mac!r} must have 1 to 15 octets, and no '/', ':' or "
                "space"
            )

    def _check_auth(self) -> None:
        _known_auth(self.auth)
        if isinstance(self.auth, PasswordAuth) and self.version != 2:
            raise ConfigError(
                "a password exists in VRRP version 2 only: use version=2, or HMACAuth"
            )

    def _check_strict(self) -> None:
        for name, used in (
            ("peers", bool(self.peers)),
            ("auth", self.auth is not None),
            ("preempt_delay", self.preempt_delay > 0),
            ("startup_delay", self.startup_delay > 0),
            ("down_factor", self.down_factor != 3),
        ):
            if used:
                raise ConfigError(
                    f"the {self.profile.name} profile allows no {name}: no RFC in force knows it"
                )
        if self.family == 6 and not self.vips_in_order[0].address.is_link_local:
            raise ConfigError(
                "RFC 9568 section 5.2.9 wants a link-local IPv6 address first: add one, such as "
                "'fe80::10/64'"
            )

    @property
    def family(self) -> int:
        """4 or 6, of the announced addresses."""
        return self.vips[0].family

    @property
    def owner(self) -> bool:
        """Whether this router owns the addresses (priority 255)."""
        return self.priority == OWNER

    @property
    def accepts(self) -> bool:
        """Whether this router, as MASTER, accepts packets to the addresses: as an owner always."""
        return self.owner or (self.profile.accept if self.accept is None else self.accept)

    @property
    def vips_in_order(self) -> tuple[VIP, ...]:
        """The announced addresses as they go on the wire: in IPv6 a link-local one first."""
        if self.family == 4:
            return self.vips
        return tuple(sorted(self.vips, key=lambda vip: not vip.address.is_link_local))

    @property
    def all_vips(self) -> tuple[VIP, ...]:
        """Every address that moves with this router."""
        return self.vips_in_order + self.excluded_vips

    @property
    def devices(self) -> tuple[str, ...]:
        """The interfaces that virtual addresses and routes name."""
        named = {vip.dev: None for vip in self.all_vips if vip.dev is not None}
        named |= dict.fromkeys(way.dev for route in self.routes for way in route.ways if way.dev)
        return tuple(named)

    @property
    def tracked_devices(self) -> frozenset[frozenset[str]]:
        """Of each of these at least one must be up: the interface of an address or a route that is
        tracked, or those of the ways that a route has."""
        needed = {frozenset((vip.dev,)) for vip in self.all_vips if vip.dev and vip.track}
        for route in self.routes if self.routes else ():
            ways = [way.dev for way in route.ways]
            if route.track and ways:
                # One that is named by its gateway only may lead anywhere.
                needed.add(frozenset(dev for dev in ways if dev) if all(ways) else frozenset())
        return frozenset(needed - {frozenset()})

    @property
    def destination(self) -> IPAddress | None:
        """The multicast group, or ``None`` when adverts go to peers."""
        return None if self.peers else self.group or GROUPS[self.family]

    @property
    def wire_interval(self) -> int:
        """The interval in the unit of the version."""
        return interval_to_wire(self.version, self.interval)

    @property
    def used_announcements(self) -> Announcements:
        """The instance's announcements, or those of the profile."""
        return self.announcements or self.profile.announcements

    @property
    def key(self) -> tuple[object, ...]:
        """What must be unique on an interface."""
        where: object = self.destination or frozenset(peer.address for peer in self.peers)
        return (f"IPv{self.family}", self.vrid, where)

    def machine_config(self) -> MachineConfig:
        """What the state machine needs of all this."""
        return MachineConfig(
            router=self.name,
            version=self.version,
            priority=self.priority,
            interval=self.interval,
            preempt=self.preempt,
            preempt_delay=self.preempt_delay,
            down_factor=self.down_factor,
            startup_delay=self.startup_delay,
            address_lost=self.on_address_lost or self.profile.address_lost,
            profile=self.profile,
            repeat=self.used_announcements.repeat,
        )

    def advert_validator(self) -> AdvertValidator:
        """What this router demands of the adverts that it hears."""
        verifier = None
        if isinstance(self.auth, HMACAuth):
            verifier = Verifier(self.auth, self.interval, len(self.peers) or 4)
        return AdvertValidator(
            version=self.version,
            vrid=self.vrid,
            wire_interval=self.wire_interval,
            addresses=self.all_addresses
            if not self.excluded_vips
            else frozenset(vip.address for vip in self.vips),
            group=self.destination,
            peers={peer.address: peer for peer in self.peers},
            auth=self.auth,
            insist=self.insist_checksum,
            drop_address_list=self.profile.drop_address_list,
            deaf_owner=self.owner and self.profile.owner_deaf,
            owner=self.owner,
            verifier=verifier,
        )

    def advert_writer(self) -> AdvertWriter:
        """What writes the adverts of this router."""
        group = self.destination
        return AdvertWriter(
            version=self.version,
            vrid=self.vrid,
            interval=self.interval,
            wire_interval=self.wire_interval,
            # One that is on several interfaces is announced once.
            addresses=tuple(dict.fromkeys(vip.address for vip in self.vips_in_order)),
            destinations=(
                tuple(peer.address for peer in self.peers) if group is None else (group,)
            ),
            auth=self.auth,
            form=self.checksum or self.profile.checksum,
        )


@advised
@attrs.frozen
class SyncGroupConfig:
    """Describes one sync group by values alone.

    :param name: what events and logs call it.
    :param members: the names of 2 or more virtual routers, none of them in another group.
    :param member_weights: add the weights of the members' own trackers up, for every member
        (keepalived: ``sync_group_tracking_weight``). Without it a member's own tracker may have
        weight 0 only: moving the priority of one member alone would tear the group apart.
    :raises ConfigError: there are fewer members, or a name occurs twice.
    """

    name: str = attrs.field(converter=_group_name)
    members: tuple[str, ...] = attrs.field(converter=_members, metadata=from_keepalived("group"))
    member_weights: bool = attrs.field(
        default=False,
        kw_only=True,
        metadata=from_keepalived("sync_group_tracking_weight", "global_tracking"),
    )

    def __attrs_post_init__(self) -> None:
        flag("member_weights", self.member_weights)
        for member in self.members:
            text(f"each member of the sync group {self.name!r},", member, "'web'")
        if len(self.members) < 2:
            raise ConfigError(
                f"sync group {self.name!r} needs 2 members or more, not {len(self.members)}; a "
                "single VRRPInstance needs no group"
            )
        for name in self.members:
            if self.members.count(name) > 1:
                raise ConfigError(f"sync group {self.name!r} has two members {name!r}; rename one")
