"""Requests to the kernel's IPVS, encoded.

The encoder is our own: the classes of pyroute2 take ninety times as long for one real server, lack
the attributes of the sync daemon, and have the octets of a tunnel's port in the wrong order. What
would be left of it are a few numbers, for 13 MB and 80 ms.
"""

from __future__ import annotations

import struct
from typing import assert_never

from vrrpkit.ipvs.base import SyncDaemon, SyncRole
from vrrpkit.ipvs.kernel import constants as n
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    DeleteDestination,
    DeleteService,
    Destination,
    DestinationKey,
    EditDestination,
    EditService,
    Forward,
    Operation,
    Service,
    ServiceKey,
    flag_names,
)
from vrrpkit.linux.netlink import HEADER, REQUEST
from vrrpkit.values import IPAddress

__all__ = [
    "about",
    "header",
    "operation",
    "probe",
    "request",
    "set_timeouts",
    "start_daemon",
    "stop_daemon",
    "which_family",
]

_GENERIC = struct.Struct("=BBH")
"""struct genlmsghdr: command, version, nothing."""

# An attribute is its length, its type, its value, and zeros up to a multiple of four octets.
_ATTRIBUTE = struct.Struct("=HH")
_U8 = struct.Struct("=HHB3x")
_U16 = struct.Struct("=HHH2x")
_U32 = struct.Struct("=HHI")
_S32 = struct.Struct("=HHi")
_PAIR = struct.Struct("=HHII")
_PORT = struct.Struct(">H2x")
_TYPED = struct.Struct("=HH4s")
_ADDRESS = struct.Struct("=HH16s")

ALL = 0xFFFFFFFF
_FLAGS = n.F_PERSISTENT | n.F_ONEPACKET | sum(n.F_SCHED)


def request(family: int, command: int, payload: bytes = b"") -> bytearray:
    """A message to the generic netlink family that has the number ``family``."""
    head = HEADER.pack(20 + len(payload), family, REQUEST, 0, 0)
    return bytearray(head + header(command) + payload)


def header(command: int) -> bytes:
    """What stands behind the netlink header: the command, and no attributes yet."""
    return _GENERIC.pack(command, n.VERSION, 0)


def which_family(name: str) -> bytes:
    """The question to the controller for the number of a generic netlink family; the kernel loads
    the family's module if it can."""
    return header(n.CTRL_GETFAMILY) + _text(n.CTRL_FAMILY_NAME, name)


def operation(family: int, wanted: Operation) -> bytearray:
    """The request that carries out ``wanted``."""
    match wanted:
        case AddService(service):
            return request(family, n.NEW_SERVICE, _service(service))
        case EditService(service):
            return request(family, n.SET_SERVICE, _service(service))
        case DeleteService(key):
            return request(family, n.DEL_SERVICE, about(key))
        case AddDestination(key, destination):
            return request(family, n.NEW_DEST, about(key) + _destination(destination))
        case EditDestination(key, destination):
            return request(family, n.SET_DEST, about(key) + _destination(destination))
        case DeleteDestination(service, key):
            payload = about(service) + _nested(n.ATTR_DEST, _destination_key(key))
            return request(family, n.DEL_DEST, payload)
        case _:
            assert_never(wanted)


def probe(family: int, scheduler: str, engine: str = "") -> bytearray:
    """A request for a service that the kernel refuses for the length of its prefix, 0 (EINVAL).

    Before that it looks for the scheduler and the persistence engine, loads them if need be, and
    refuses what it cannot find with ENOENT.
    """
    key = ServiceKey(family=6, fwmark=ALL)
    never = Service(key=key, scheduler=scheduler, engine=engine, granularity=0)
    return request(family, n.NEW_SERVICE, _service(never))


def start_daemon(family: int, wanted: SyncDaemon) -> bytearray:
    """The request that starts a sync daemon."""
    parts = [
        _U32.pack(8, n.DAEMON_STATE, n.ROLES[wanted.role]),
        _text(n.DAEMON_MCAST_IFN, wanted.interface),
        _U32.pack(8, n.DAEMON_SYNC_ID, wanted.id),
    ]
    if wanted.maxlen is not None:
        parts.append(_U16.pack(6, n.DAEMON_SYNC_MAXLEN, wanted.maxlen))
    if wanted.group is not None:
        kind = n.DAEMON_MCAST_GROUP if wanted.group.version == 4 else n.DAEMON_MCAST_GROUP6
        parts.append(_nested(kind, wanted.group.packed))
    if wanted.port is not None:
        parts.append(_U16.pack(6, n.DAEMON_MCAST_PORT, wanted.port))
    if wanted.ttl is not None:
        parts.append(_U8.pack(5, n.DAEMON_MCAST_TTL, wanted.ttl))
    return request(family, n.NEW_DAEMON, _nested(n.ATTR_DAEMON, b"".join(parts)))


def stop_daemon(family: int, which: SyncRole) -> bytearray:
    """The request that stops a sync daemon."""
    state = _U32.pack(8, n.DAEMON_STATE, n.ROLES[which])
    return request(family, n.DEL_DAEMON, _nested(n.ATTR_DAEMON, state))


def set_timeouts(family: int, tcp: int, tcp_fin: int, udp: int) -> bytearray:
    """The request that changes timeouts; 0 leaves one as it is."""
    payload = (
        _U32.pack(8, n.ATTR_TIMEOUT_TCP, tcp)
        + _U32.pack(8, n.ATTR_TIMEOUT_TCP_FIN, tcp_fin)
        + _U32.pack(8, n.ATTR_TIMEOUT_UDP, udp)
    )
    return request(family, n.SET_CONFIG, payload)


def about(key: ServiceKey) -> bytes:
    """The attribute that says which service is meant."""
    return _nested(n.ATTR_SERVICE, _service_key(key))


def _service_key(key: ServiceKey) -> bytes:
    family = _U16.pack(6, n.SVC_AF, n.FAMILIES[key.family])
    if key.fwmark:
        return family + _U32.pack(8, n.SVC_FWMARK, key.fwmark)
    assert key.protocol is not None
    assert key.address is not None
    return (
        family
        + _U16.pack(6, n.SVC_PROTOCOL, n.PROTOCOLS[key.protocol])
        + _address(n.SVC_ADDR, key.address)
        + _TYPED.pack(6, n.SVC_PORT, _PORT.pack(key.port))
    )


def _service(service: Service) -> bytes:
    flags = n.F_ONEPACKET if service.one_packet else 0
    if service.persistence is not None:
        flags |= n.F_PERSISTENT
    for name, bit in zip(flag_names(service.scheduler), n.F_SCHED, strict=True):
        if name in service.flags:
            flags |= bit
    parts = [
        _service_key(service.key),
        _text(n.SVC_SCHED_NAME, service.scheduler),
        _PAIR.pack(12, n.SVC_FLAGS, flags, _FLAGS),
        _U32.pack(8, n.SVC_TIMEOUT, service.persistence or 0),
        _TYPED.pack(8, n.SVC_NETMASK, _netmask(service)),
    ]
    if service.engine:
        parts.append(_text(n.SVC_PE_NAME, service.engine))
    return _nested(n.ATTR_SERVICE, b"".join(parts))


def _netmask(service: Service) -> bytes:
    # A mask in network order for IPv4, the length of the prefix in host order for IPv6.
    if service.key.family == 6:
        length = 128 if service.granularity is None else service.granularity
        return struct.pack("=I", length)
    length = 32 if service.granularity is None else service.granularity
    return struct.pack(">I", ALL << (32 - length) & ALL)


def _destination_key(key: DestinationKey) -> bytes:
    return (
        _U16.pack(6, n.DEST_ADDR_FAMILY, n.FAMILIES[key.address.version])
        + _address(n.DEST_ADDR, key.address)
        + _TYPED.pack(6, n.DEST_PORT, _PORT.pack(key.port))
    )


def _destination(destination: Destination) -> bytes:
    payload = (
        _destination_key(destination.key)
        + _U32.pack(8, n.DEST_FWD_METHOD, n.FORWARDS[destination.forward])
        + _S32.pack(8, n.DEST_WEIGHT, destination.weight)
        + _U32.pack(8, n.DEST_U_THRESH, destination.upper)
        + _U32.pack(8, n.DEST_L_THRESH, destination.lower)
    )
    tunnel = destination.tunnel
    if destination.forward is Forward.TUN and tunnel is not None:
        flags = n.TUNNEL_CSUM if tunnel.checksum else 0
        if tunnel.remote_checksum:
            flags |= n.TUNNEL_REMCSUM
        payload += (
            _U8.pack(5, n.DEST_TUN_TYPE, n.TUNNELS[tunnel.type])
            + _TYPED.pack(6, n.DEST_TUN_PORT, _PORT.pack(tunnel.port))
            + _U16.pack(6, n.DEST_TUN_FLAGS, flags)
        )
    return _nested(n.ATTR_DEST, payload)


def _address(kind: int, address: IPAddress) -> bytes:
    return _ADDRESS.pack(20, kind, address.packed)


def _text(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value
