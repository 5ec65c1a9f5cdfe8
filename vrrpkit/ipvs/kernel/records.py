"""What the kernel's IPVS answers, decoded.

Other kernels may leave attributes out, cut them short, or send what is unknown here. Whatever
comes, a decoder returns a value or raises :class:`Garbled`.
"""

from __future__ import annotations

import errno
import functools
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import ParamSpec, TypeVar

from vrrpkit.errors import KernelRefused
from vrrpkit.ipvs.base import ConnectionTimeouts, SyncDaemon, SyncRole
from vrrpkit.ipvs.kernel import constants as n
from vrrpkit.ipvs.model.entries import (
    Destination,
    DestinationEntry,
    DestinationKey,
    Forward,
    Service,
    ServiceEntry,
    ServiceKey,
    TrafficCounters,
    Tunnel,
    TunnelType,
    flag_names,
)
from vrrpkit.linux.netlink import Attributes, attributes
from vrrpkit.values import IPAddress

__all__ = ["Garbled", "daemon", "destination", "family", "service", "timeouts"]

P = ParamSpec("P")
T = TypeVar("T")

GENERIC = 4
"""Octets of struct genlmsghdr."""

_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")
_U64 = struct.Struct("=Q")
_PAIR = struct.Struct("=II")
_PORT = struct.Struct(">H")

_PROTOCOLS = {number: protocol for protocol, number in n.PROTOCOLS.items()}
_FORWARDS = {number: forward for forward, number in n.FORWARDS.items()}
_TUNNELS = {number: tunnel for tunnel, number in n.TUNNELS.items()}
_ROLES = {number: role for role, number in n.ROLES.items()}
_IPIP = Tunnel()
_NOTHING = TrafficCounters()


class Garbled(KernelRefused):
    """The kernel's answer says something else than is known here."""


def _careful(decoder: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(decoder)
    def decode(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return decoder(*args, **kwargs)
        except (LookupError, ValueError, struct.error) as problem:
            # A KeyError's text is the number of the attribute that is missing.
            raise Garbled(
                errno.EBADMSG,
                f"this kernel's answer about an IPVS {decoder.__name__} is not understood: "
                f"{type(problem).__name__} {problem}; please report it with the kernel's version",
            ) from problem

    return decode


@_careful
def family(payload: bytes) -> int:
    """The controller's answer: the number of a generic netlink family."""
    return _u16(attributes(payload, GENERIC)[n.CTRL_FAMILY_ID])


@_careful
def service(payload: bytes) -> ServiceEntry | None:
    """A service, still without its real servers; ``None`` is one that no :class:`ServiceKey`
    describes, of a protocol that other tools can ask for (AH, ESP)."""
    found = attributes(attributes(payload, GENERIC)[n.ATTR_SERVICE], 0)
    key = _service_key(found)
    if key is None:
        return None
    scheduler = _text(found[n.SVC_SCHED_NAME])
    flags, _mask = _PAIR.unpack(found[n.SVC_FLAGS])
    persistent = flags & n.F_PERSISTENT
    named = zip(flag_names(scheduler), n.F_SCHED, strict=True)
    return ServiceEntry(
        service=Service(
            key=key,
            scheduler=scheduler,
            flags=frozenset(name for name, bit in named if flags & bit),
            persistence=_u32(found[n.SVC_TIMEOUT]) if persistent else None,
            granularity=_granularity(key.family, found[n.SVC_NETMASK]),
            engine=_text(found.get(n.SVC_PE_NAME, b"")),
            one_packet=bool(flags & n.F_ONEPACKET),
        ),
        counters=_counters(found.get(n.SVC_STATS64)),
    )


def _service_key(found: Attributes) -> ServiceKey | None:
    family = 6 if _u16(found[n.SVC_AF]) == n.FAMILIES[6] else 4
    mark = found.get(n.SVC_FWMARK)
    if mark is not None:
        return ServiceKey(family=family, fwmark=_u32(mark))
    protocol = _PROTOCOLS.get(_u16(found[n.SVC_PROTOCOL]))
    if protocol is None:
        return None
    address = _address(family, found[n.SVC_ADDR])
    return ServiceKey(family, protocol, address, _port(found[n.SVC_PORT]))


def _granularity(family: int, netmask: bytes) -> int:
    return _u32(netmask) if family == 6 else int.from_bytes(netmask, "big").bit_count()


@_careful
def destination(payload: bytes, family: int) -> DestinationEntry:
    """A real server of a service of this address family."""
    found = attributes(attributes(payload, GENERIC)[n.ATTR_DEST], 0)
    own = found.get(n.DEST_ADDR_FAMILY)
    if own is not None:  # kernels before 3.18 knew no other family than the service's
        family = 6 if _u16(own) == n.FAMILIES[6] else 4
    address = _address(family, found[n.DEST_ADDR])
    # What cannot be asked for is shown as the kernel's own.
    forward = _FORWARDS.get(_u32(found[n.DEST_FWD_METHOD]), Forward.BYPASS)
    return DestinationEntry(
        destination=Destination(
            key=DestinationKey(address, _port(found[n.DEST_PORT])),
            weight=_S32.unpack(found[n.DEST_WEIGHT])[0],
            forward=forward,
            tunnel=_tunnel(found) if forward is Forward.TUN else None,
            upper=_u32(found[n.DEST_U_THRESH]),
            lower=_u32(found[n.DEST_L_THRESH]),
        ),
        active=_u32(found[n.DEST_ACTIVE_CONNS]),
        inactive=_u32(found[n.DEST_INACT_CONNS]),
        persistent=_u32(found[n.DEST_PERSIST_CONNS]),
        counters=_counters(found.get(n.DEST_STATS64)),
    )


def _tunnel(found: Attributes) -> Tunnel:
    if n.DEST_TUN_TYPE not in found:  # kernels before 5.2 know IPIP only
        return _IPIP
    flags = _u16(found[n.DEST_TUN_FLAGS])
    return Tunnel(
        type=_TUNNELS.get(found[n.DEST_TUN_TYPE][0], TunnelType.IPIP),
        port=_port(found[n.DEST_TUN_PORT]),
        checksum=bool(flags & n.TUNNEL_CSUM),
        remote_checksum=bool(flags & n.TUNNEL_REMCSUM),
    )


def _counters(nested: bytes | None) -> TrafficCounters:
    if nested is None:  # kernels before 4.1 have 32-bit numbers only
        return _NOTHING
    found = attributes(nested, 0)
    values = [_U64.unpack(found[kind])[0] for kind in range(1, 11)]
    if not any(values):
        return _NOTHING
    return TrafficCounters(
        connections=values[0],
        packets_in=values[1],
        packets_out=values[2],
        bytes_in=values[3],
        bytes_out=values[4],
        connection_rate=values[5],
        packet_rate_in=values[6],
        packet_rate_out=values[7],
        byte_rate_in=values[8],
        byte_rate_out=values[9],
    )


@_careful
def daemon(payload: bytes) -> SyncDaemon:
    """A connection sync daemon that runs."""
    found = attributes(attributes(payload, GENERIC)[n.ATTR_DAEMON], 0)
    group = found.get(n.DAEMON_MCAST_GROUP, found.get(n.DAEMON_MCAST_GROUP6))
    port = found.get(n.DAEMON_MCAST_PORT)
    ttl = found.get(n.DAEMON_MCAST_TTL)
    maxlen = found.get(n.DAEMON_SYNC_MAXLEN)
    return SyncDaemon(
        role=_ROLES.get(_u32(found[n.DAEMON_STATE]), SyncRole.BACKUP),
        interface=_text(found[n.DAEMON_MCAST_IFN]),
        # Others may have asked for more than the octet that travels.
        id=_u32(found[n.DAEMON_SYNC_ID]) & 0xFF,
        maxlen=None if maxlen is None else _u16(maxlen),
        group=None if group is None else _address(4 if len(group) == 4 else 6, group),
        port=None if port is None else _u16(port),
        ttl=None if ttl is None else ttl[0],
    )


@_careful
def timeouts(payload: bytes) -> ConnectionTimeouts:
    """The timeouts; 0 of a protocol that the kernel was built without."""
    found = attributes(payload, GENERIC)
    kinds = (n.ATTR_TIMEOUT_TCP, n.ATTR_TIMEOUT_TCP_FIN, n.ATTR_TIMEOUT_UDP)
    tcp, tcp_fin, udp = (_u32(found.get(kind, bytes(4))) for kind in kinds)
    return ConnectionTimeouts(tcp=tcp, tcp_fin=tcp_fin, udp=udp)


def _address(family: int, value: bytes) -> IPAddress:
    return IPv4Address(value[:4]) if family == 4 else IPv6Address(value)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _u16(value: bytes) -> int:
    return int(_U16.unpack(value)[0])


def _u32(value: bytes) -> int:
    return int(_U32.unpack(value)[0])


def _port(value: bytes) -> int:
    return int(_PORT.unpack(value)[0])
