"""The entries of an IPVS table, and what may be done to it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeAlias

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.validate import flag_field
from vrrpkit.values import IPAddress

__all__ = [
    "ENGINES",
    "MIXED",
    "SCHEDULERS",
    "WEIGHT_LIMIT",
    "AddDestination",
    "AddService",
    "DeleteDestination",
    "DeleteService",
    "Destination",
    "DestinationEntry",
    "DestinationKey",
    "EditDestination",
    "EditService",
    "Forward",
    "Operation",
    "Protocol",
    "Service",
    "ServiceEntry",
    "ServiceKey",
    "Snapshot",
    "TrafficCounters",
    "Tunnel",
    "TunnelType",
    "flag_names",
]

MIXED = (
    "connection sync daemons and real servers of another address family than their service exclude "
    "each other"
)
"""A rule of the kernel, which answers by EINVAL."""

SCHEDULERS = (
    *("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh"),
    *("mh", "dh", "fo", "ovf", "sed", "nq", "twos"),
)
"""What the kernel has, each in its module ``ip_vs_NAME``."""

ENGINES = ("sip",)
"""Persistence engines, each in its module ``ip_vs_pe_NAME``."""

WEIGHT_LIMIT = 2**31 - 1
"""The kernel keeps the weight of a real server in a signed 32-bit number."""

_FLAGS = ("flag-1", "flag-2", "flag-3")
_FLAGS_OF = {
    "sh": ("sh-fallback", "sh-port", "flag-3"),
    "mh": ("mh-fallback", "mh-port", "flag-3"),
}


def flag_names(scheduler: str) -> tuple[str, str, str]:
    """What the three flags of a scheduler are called, the first one first."""
    return _FLAGS_OF.get(scheduler, _FLAGS)


class Protocol(enum.StrEnum):
    """The transport protocol of a service."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class Forward(enum.StrEnum):
    """How packets reach a real server (keepalived: ``lvs_method``; ipvsadm: -m, -g, -i)."""

    NAT = "nat"
    """Masquerading: the director rewrites the addresses, replies pass it again."""
    DR = "dr"
    """Direct routing: only the MAC address is changed, replies go straight to the client."""
    TUN = "tun"
    """Tunnelling: packets are wrapped, replies go straight to the client."""
    LOCAL = "local"
    """Delivered on the director itself; the kernel reports it for an address of its own."""
    BYPASS = "bypass"
    """Sent to where they were going; the kernel's own, reported and never asked for."""


class TunnelType(enum.StrEnum):
    """What the packets of ``forward="tun"`` are wrapped in."""

    IPIP = "ipip"
    GUE = "gue"
    GRE = "gre"


def _tunnel_type(value: str | TunnelType) -> TunnelType:
    for kind in TunnelType:
        if value in (kind, kind.value):
            return kind
    known = ", ".join(repr(kind.value) for kind in TunnelType)
    raise ConfigError(f"tunnel: type {value!r} must be one of {known}")


@attrs.frozen(kw_only=True)
class Tunnel:
    """Encapsulation of ``forward="tun"`` (ipvsadm: ``--tun-type``, ``--tun-port``, ...)."""

    type: TunnelType = attrs.field(default=TunnelType.IPIP, converter=_tunnel_type)
    """Or its text: ``"ipip"``, ``"gue"``, ``"gre"``."""
    port: int = 0
    """UDP port of a GUE tunnel."""
    checksum: bool = attrs.field(default=False, validator=flag_field)
    """GUE and GRE only: the outer header has a checksum."""
    remote_checksum: bool = attrs.field(default=False, validator=flag_field)
    """GUE only: remote checksum offload."""


IPIP = Tunnel()


@attrs.frozen
class ServiceKey:
    """What a service is found by: a protocol, an address and a port, or a firewall mark."""

    family: int
    """4 or 6, of the clients."""
    protocol: Protocol | None = None
    address: IPAddress | None = None
    port: int = 0
    """0 takes every port, of a persistent service."""
    fwmark: int = 0

    def __str__(self) -> str:
        if self.fwmark:
            return f"fwmark {self.fwmark}" + (" (IPv6)" if self.family == 6 else "")
        assert self.protocol is not None
        host = f"[{self.address}]" if self.family == 6 else str(self.address)
        return f"{host}:{self.port}/{self.protocol.value}"


@attrs.frozen(kw_only=True)
class Service:
    """A virtual service, as the kernel holds it."""

    key: ServiceKey
    scheduler: str = "wlc"
    flags: frozenset[str] = frozenset()
    """``flag-1``, ``flag-2``, ``flag-3``; of sh: ``sh-fallback`` (1), ``sh-port`` (2); of mh:
    ``mh-fallback`` (1), ``mh-port`` (2). A number becomes the name that the scheduler has for
    it."""
    persistence: int | None = None
    """Timeout in seconds; ``None`` is not persistent."""
    granularity: int | None = None
    """Prefix length by which clients share a template; 32 and 128, one client, become ``None``."""
    engine: str = ""
    """Persistence engine, ``sip`` or none."""
    one_packet: bool = False

    # One table entry has one form, so that what is wanted and what is read compare equal.
    def __attrs_post_init__(self) -> None:
        names = flag_names(self.scheduler)
        unknown = self.flags - {*names, *_FLAGS}
        if unknown:
            raise ConfigError(
                f"scheduler {self.scheduler} of {self.key} has no flag {min(unknown)!r}: it has "
                f"{', '.join(names)}"
            )
        numbered: dict[str, str] = dict(zip(_FLAGS, names, strict=True))
        flags = frozenset(numbered.get(flag, flag) for flag in self.flags)
        object.__setattr__(self, "flags", flags)
        if self.granularity == (32 if self.key.family == 4 else 128):
            object.__setattr__(self, "granularity", None)


@attrs.frozen
class DestinationKey:
    """What a real server is found by within a service."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@attrs.frozen(kw_only=True)
class Destination:
    """A real server of a service, as the kernel holds it."""

    key: DestinationKey
    weight: int = 1
    forward: Forward = Forward.NAT
    tunnel: Tunnel | None = None
    """``None`` unless forward is TUN, where it becomes IPIP."""
    upper: int = 0
    """Connections at which no new ones are sent, 0 is no limit (``uthreshold``)."""
    lower: int = 0
    """Connections below which they are sent again, 0 is three quarters of ``upper``
    (``lthreshold``)."""

    def __attrs_post_init__(self) -> None:
        if self.forward is Forward.TUN:
            if self.tunnel is None:
                object.__setattr__(self, "tunnel", IPIP)
        elif self.tunnel is not None:
            object.__setattr__(self, "tunnel", None)


@attrs.frozen
class AddService:
    """Make a service, without real servers."""

    service: Service


@attrs.frozen
class EditService:
    """Change the attributes of a service; its connections and real servers stay."""

    service: Service


@attrs.frozen
class DeleteService:
    """Remove a service with its real servers."""

    key: ServiceKey


@attrs.frozen
class AddDestination:
    """Add a real server to a service."""

    service: ServiceKey
    destination: Destination


@attrs.frozen
class EditDestination:
    """Change a real server of a service; its connections stay."""

    service: ServiceKey
    destination: Destination


@attrs.frozen
class DeleteDestination:
    """Remove a real server from a service; the packets of its connections are dropped."""

    service: ServiceKey
    key: DestinationKey


Operation: TypeAlias = (
    AddService | EditService | DeleteService | AddDestination | EditDestination | DeleteDestination
)


@attrs.frozen(kw_only=True)
class TrafficCounters:
    """What a service or a real server has carried since it is in the table, and at which rate.

    All are the kernel's 64-bit numbers; the rates are per second, over the kernel's few seconds.
    """

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connection_rate: int = 0
    packet_rate_in: int = 0
    packet_rate_out: int = 0
    byte_rate_in: int = 0
    byte_rate_out: int = 0


@attrs.frozen(kw_only=True)
class DestinationEntry:
    """A real server in the table, with its connections now."""

    destination: Destination
    active: int = 0
    """Established connections."""
    inactive: int = 0
    """Connections in any other state."""
    persistent: int = 0
    """Persistence templates that point here."""
    counters: TrafficCounters = TrafficCounters()


@attrs.frozen(kw_only=True)
class ServiceEntry:
    """A service in the table, with its real servers."""

    service: Service
    destinations: Mapping[DestinationKey, DestinationEntry] = attrs.field(
        factory=dict[DestinationKey, DestinationEntry]
    )
    counters: TrafficCounters = TrafficCounters()


Snapshot: TypeAlias = Mapping[ServiceKey, ServiceEntry]
"""A table, read at one moment."""
