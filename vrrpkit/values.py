"""Small values that every room shares: addresses, peers, states. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from typing import Any, ClassVar, TypeAlias, cast

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.keyword_advice import advised
from vrrpkit.validate import flag, is_number, seconds, text, whole_number

__all__ = [
    "NO_NAMES",
    "OWNER",
    "VIP",
    "Announcements",
    "IPAddress",
    "Peer",
    "Record",
    "Stamped",
    "State",
    "hidden",
    "parse_address",
]

IPAddress: TypeAlias = IPv4Address | IPv6Address

OWNER = 255
"""The priority of the router that owns the virtual addresses (RFC 9568 section 6.1)."""

SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254}
"""Address scopes by the names that ``ip address`` uses."""

NO_NAMES: frozenset[str] = frozenset()
"""No faults, no causes: one for all, for Python makes a new empty set each time."""

EXAMPLES = {"label": "eth0:1", "dev": "eth1"}

LABEL_LIMIT = 15
"""Octets in an address label: IFNAMSIZ less the terminator."""


class State(enum.StrEnum):
    """The state of a virtual router, in the operator's words (RFC 9568 calls MASTER *Active*)."""

    INIT = "INIT"
    """Not started, or ended."""
    BACKUP = "BACKUP"
    """Listening; takes over when the master falls silent."""
    MASTER = "MASTER"
    """Holds the virtual addresses and announces itself."""
    FAULT = "FAULT"
    """Unfit: takes no part in the election until every fault has cleared."""


class Record:
    """What many small attrs classes have in common: two are equal if they are of one class and all
    their fields are, and ``repr()`` names the fields.

    attrs would write and compile both for each class, which is half the time that loading one
    takes. Those that derive from this say ``eq=False, repr=False``. As with attrs, a field may be
    left out by its own ``eq=False`` and ``repr=False``.
    """

    __slots__ = ()
    __attrs_attrs__: ClassVar[tuple[Any, ...]] = ()

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, each.name) for each in self.__attrs_attrs__ if each.eq)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record) or type(other) is not type(self):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((type(self), self._fields()))

    def __repr__(self) -> str:
        shown = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in self.__attrs_attrs__
            if each.repr
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Stamped(Record):
    """An event that is stamped with the wall time when it is published.

    The clock of ``at`` is that of the event loop: it never jumps, and is good for differences.
    ``time`` is good for people, logs and other machines; it is no part of what makes two events
    equal.
    """

    time: float = attrs.field(default=0.0, init=False, eq=False, repr=False)
    """When it was published, in seconds since 1970; 0 before that."""


HIDDEN = "<hidden>"
"""What stands for a secret wherever people read."""


def hidden(value: object) -> str:
    """The representation of what may be a password, key or token, for ``attrs.field(repr=)``:
    nothing of it but whether there is one.

    The names in a mapping, or in pairs of name and value, are no secret and are shown.
    """
    if value is None or value in (b"", ""):
        return repr(value)
    if isinstance(value, Mapping):
        value = tuple(cast(Mapping[object, object], value).items())
    if isinstance(value, tuple):
        pairs = cast(tuple[tuple[object, object], ...], value)
        return "{" + ", ".join(f"{name!r}: {HIDDEN}" for name, _ in pairs) + "}"
    return HIDDEN


def parse_address(value: str | IPAddress, what: str) -> IPAddress:
    """Turn text into an address.

    :raises ConfigError: ``value`` is no IPv4 or IPv6 address; ``what`` names it in the message.
    """
    try:
        # As text, for a number would be taken too: 5 for 0.0.0.5.
        address = ip_address(str(value))
    except ValueError:
        raise ConfigError(
            f"{what} {value!r} is no IPv4 or IPv6 address; write it as '192.0.2.1' or '2001:db8::1'"
        ) from None
    _no_zone(address, what)
    return address


def _no_zone(address: IPAddress, what: str) -> None:
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ConfigError(
            f"{what} '{address}' carries a zone; leave out the part after '%': the interface is "
            "known"
        )


def _interface(value: str | IPv4Interface | IPv6Interface) -> IPv4Interface | IPv6Interface:
    try:
        return ip_interface(value)
    except ValueError as problem:
        raise ConfigError(
            f"virtual address {value!r} is not of the form 'ADDRESS/PREFIX': {problem}"
        ) from None


def _optional_address(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "address")


@attrs.frozen
class VIP:
    """A virtual IP address and how it is put on the interface (keepalived: ``virtual_ipaddress``).

    :param interface: ``"192.0.2.10/32"``; without a prefix length it means /32 or /128, which is
        what a virtual address should have: within the prefix of the host it could become a source
        address.
    :param dev: put it on this network interface instead of the one that adverts leave by.
    :param label: interface label, IPv4 only, at most 15 octets.
    :param scope: ``global``, ``site``, ``link`` or ``host``.
    :param broadcast: broadcast address, IPv4 only.
    :param peer: the remote end of a point-to-point address.
    :param nodad: skip duplicate address detection (IPv6 only). On by default: a tentative address
        answers nobody for a second or two, and one that failed detection stays dead. With
        ``False`` a router repeats a failed detection once, after an interval, and is in FAULT then.
    :param noprefixroute: add no route for the prefix.
    :param track: a router is in FAULT while the interface that ``dev`` names is down or missing
        (keepalived: ``no_track`` is ``track=False``). Without it the address waits for its
        interface, and the router serves the others.
    :param preferred_lifetime: seconds, ``math.inf`` for ever. ``None`` is for ever in IPv4 and 0
        (deprecated) in IPv6, so that the host does not choose it as the source of its own
        connections. Without a lease the kernel counts no lifetime down in IPv4: there a finite
        value has no effect, except 0.
    :raises ConfigError: the address, its prefix length or an option is unusable.
    """

    interface: IPv4Interface | IPv6Interface = attrs.field(converter=_interface)
    dev: str | None = attrs.field(default=None, kw_only=True)
    label: str | None = attrs.field(default=None, kw_only=True)
    scope: str = attrs.field(default="global", kw_only=True)
    broadcast: IPAddress | None = attrs.field(
        default=None, kw_only=True, converter=_optional_address
    )
    peer: IPAddress | None = attrs.field(default=None, kw_only=True, converter=_optional_address)
    nodad: bool = attrs.field(default=True, kw_only=True)
    noprefixroute: bool = attrs.field(default=False, kw_only=True)
    preferred_lifetime: float | None = attrs.field(default=None, kw_only=True)
    track: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _no_zone(self.interface, "virtual address")
        flag(f"track of {self}", self.track)
        if self.address.is_multicast or self.address.is_unspecified:
            raise ConfigError(f"virtual address {self.address} must be a unicast address")
        for what, name in (("label", self.label), ("dev", self.dev)):
            if name is not None:
                text(f"{what} of {self}:", name, f"'{EXAMPLES[what]}'", empty=True)
        if self.label is not None:
            if self.family == 6:
                raise ConfigError(
                    f"label {self.label!r} on {self}: the kernel knows labels for IPv4 only; leave "
                    "it out"
                )
            if not 0 < len(self.label.encode()) <= LABEL_LIMIT:
                raise ConfigError(
                    f"label {self.label!r} on {self} must have 1 to {LABEL_LIMIT} octets; shorten "
                    "it"
                )
        if self.broadcast is not None and (self.family == 6 or self.broadcast.version == 6):
            raise ConfigError(
                f"broadcast {self.broadcast} on {self}: only IPv4 has broadcast addresses; leave "
                "it out"
            )
        if self.scope not in SCOPES:
            raise ConfigError(f"scope {self.scope!r} on {self} must be one of {', '.join(SCOPES)}")
        if self.peer is not None and self.peer.version != self.family:
            raise ConfigError(f"peer {self.peer} of {self} must be of the same address family")
        lifetime = self.preferred_lifetime
        if lifetime is not None and not (is_number(lifetime) and lifetime >= 0):
            raise ConfigError(
                f"preferred_lifetime {lifetime!r} of {self} must be 0 seconds or more, or math.inf"
            )

    @property
    def address(self) -> IPAddress:
        """The address without its prefix length."""
        return self.interface.ip

    @property
    def prefix(self) -> int:
        """The prefix length in bits."""
        return self.interface.network.prefixlen

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.interface.version

    def __str__(self) -> str:
        return str(self.interface)

    @classmethod
    def of(cls, value: str | IPAddress | IPv4Interface | IPv6Interface | VIP) -> VIP:
        """Accept whatever a user may write for a virtual address."""
        if isinstance(value, VIP):
            return value
        if isinstance(value, IPv4Interface | IPv6Interface):
            return cls(value)
        return cls(str(value))


def _peer_address(value: str | IPAddress) -> IPAddress:
    return parse_address(value, "peer")


@attrs.frozen
class Peer:
    """Another router of the group, addressed by unicast (keepalived: ``unicast_peer``).

    :param address: its IPv4 or IPv6 address.
    :param min_ttl: the lowest TTL or hop limit accepted from it, 1 to 255. The default 1 checks
        nothing, because unicast may be routed; 255 accepts only a neighbour on the same link.
    :param max_ttl: the highest TTL or hop limit accepted from it.
    :raises ConfigError: the address or the range is unusable.
    """

    address: IPAddress = attrs.field(converter=_peer_address)
    min_ttl: int = attrs.field(default=1, kw_only=True)
    max_ttl: int = attrs.field(default=255, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.address.is_multicast or self.address.is_unspecified:
            raise ConfigError(
                f"peer {self.address} must be a unicast address; for a group use group="
            )
        for name, value in (("min_ttl", self.min_ttl), ("max_ttl", self.max_ttl)):
            whole_number(f"peer {self.address}: {name}", value, 1, 255, "255 is the same link only")
        if self.min_ttl > self.max_ttl:
            raise ConfigError(
                f"peer {self.address}: min_ttl {self.min_ttl} is above max_ttl {self.max_ttl}, so "
                "nothing would be accepted; exchange them"
            )

    @classmethod
    def of(cls, value: str | IPAddress | Peer) -> Peer:
        """Accept whatever a user may write for a peer."""
        return value if isinstance(value, Peer) else cls(value)


@advised
@attrs.frozen(kw_only=True)
class Announcements:
    """How often a takeover is told to the network by gratuitous ARP and unsolicited neighbour
    advertisements.

    :param repeat: packets per address right after a takeover, 1 to 60 (keepalived:
        ``garp_master_repeat``).
    :param delay: seconds until the second set of ``repeat``, 0 for none (keepalived:
        ``garp_master_delay``).
    :param refresh: seconds between further announcements while MASTER, 0 for none
        (``garp_master_refresh``).
    :param refresh_repeat: packets per address in each refresh (``garp_master_refresh_repeat``).
    :param interval: least seconds between two packets on the interface, 0 for a burst
        (``vrrp_garp_interval``).
    """

    repeat: int = 5
    delay: float = 5.0
    refresh: float = 0.0
    refresh_repeat: int = 1
    interval: float = 0.0

    def __attrs_post_init__(self) -> None:
        for name, value in (("repeat", self.repeat), ("refresh_repeat", self.refresh_repeat)):
            whole_number(f"announcements: {name}", value, 1, 60, "packets per address")
        for name, pause in (
            ("delay", self.delay),
            ("refresh", self.refresh),
            ("interval", self.interval),
        ):
            seconds(f"announcements: {name}", pause, 0, 86400)
