"""What a user may say about a virtual router, checked as it is said. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.validate import flag, listed, of_kind, seconds, text, whole_number
from vrrpkit.values import OWNER, VIP, Announcements, IPAddress, Peer, parse_address
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth
from vrrpkit.vrrp.protocol.election import MachineConfig
from vrrpkit.vrrp.protocol.packet import ChecksumForm, interval_to_wire
from vrrpkit.vrrp.protocol.profile import DEFAULT, AddressLostPolicy, Profile

if TYPE_CHECKING:
    from vrrpkit.routes.route import Route, Rule

__all__ = ["GROUPS", "VRRPInstanceConfig"]

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


@attrs.frozen(kw_only=True)
class VRRPInstanceConfig:
    """The options of :class:`vrrpkit.VRRPInstance`, whose docstring explains them."""

    name: str
    vrid: int
    vips: tuple[VIP, ...] = attrs.field(converter=_vips)
    excluded_vips: tuple[VIP, ...] = attrs.field(default=(), converter=_excluded)
    priority: int = 100
    version: int = 3
    interval: float = 1.0
    preempt: bool = True
    preempt_delay: float = 0.0
    startup_delay: float = 0.0
    link_up_delay: float = 0.0
    link_down_delay: float = 0.0
    down_factor: int = 3
    source: IPAddress | None = attrs.field(default=None, converter=_source)
    peers: tuple[Peer, ...] = attrs.field(default=(), converter=_peers)
    group: IPAddress | None = attrs.field(default=None, converter=_group)
    auth: PasswordAuth | HMACAuth | None = None
    profile: Profile = attrs.field(default=DEFAULT, converter=_profile)
    checksum: ChecksumForm | None = attrs.field(default=None, converter=_checksum)
    insist_checksum: ChecksumForm | None = attrs.field(default=None, converter=_checksum)
    announcements: Announcements | None = None
    on_address_lost: AddressLostPolicy | None = attrs.field(default=None, converter=_policy)
    foreign_address: str = "tell"
    vip_lease: int | None = None
    accept: bool | None = None
    diagnose: bool = False
    virtual_mac: bool | str = False
    adverts_on_base: bool = False
    routes: tuple[Route, ...] = attrs.field(default=(), converter=_routes)
    rules: tuple[Rule, ...] = attrs.field(default=(), converter=_rules)

    all_addresses: frozenset[IPAddress] = attrs.field(init=False, eq=False, repr=False)
    """The addresses of :attr:`all_vips`: one set, for all that ask again and again."""

    def __attrs_post_init__(self) -> None:
        moving = frozenset(vip.address for vip in self.vips + self.excluded_vips)
        object.__setattr__(self, "all_addresses", moving)
        text("the name of a router,", self.name, "'web'")
        for what, given in (("preempt", self.preempt), ("adverts_on_base", self.adverts_on_base)):
            flag(what, given)
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
