"""Raw sockets for IP protocol 112, set up so that each hears and says exactly what it should."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias

from vrrpkit.errors import PermissionMissing
from vrrpkit.linux.socketfilter import (
    DROP_ALL,
    SO_DETACH_FILTER,
    Instruction,
    attach_filter,
    discard,
)
from vrrpkit.values import IPAddress

__all__ = [
    "MakeSocket",
    "drops",
    "enlarge",
    "multicast_receiver",
    "sender",
    "unicast_receiver",
]

MakeSocket: TypeAlias = Callable[[int, int, int], socket.socket]
"""Makes a socket from family, type and protocol, as :class:`socket.socket` does."""

PROTOCOL = 112
"""VRRP (RFC 9568 section 5.1.1.4)."""

# From the kernel's headers; the socket module does not name them.
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
SO_BINDTOIFINDEX = 62
SO_TIMESTAMPNS_NEW = 64
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT = 0
IP_FREEBIND = 15
IP_TRANSPARENT = 19
IP_MULTICAST_ALL = 49
IPV6_MULTICAST_ALL = 29
IPV6_FREEBIND = 78

CLASS_SELECTOR_6 = 0xC0
"""Traffic class of routing protocols, as keepalived and FRR send it."""
TC_PRIO_CONTROL = 7
TC_PRIO_INTERACTIVE = 6

RECEIVE_FLOOR = 1024 * 1024
"""Octets; the kernel takes them only while something waits. 10,000 adverts a second of 255
addresses fill twice as much, which the kernel grants, in 80 ms."""
SEND_BUFFER = 512 * 1024
"""Octets; a burst of 255 adverts charges up to 330 kB until the network card has sent it."""

# The packet starts with the IP header in IPv4 and behind it in IPv6.
URGENT_4: Sequence[Instruction] = (
    (0xB1, 0, 0, 0),  # ldxb 4*([0]&0xf)
    (0x50, 0, 0, 2),  # ldb [x + 2]
    (0x15, 0, 1, 0),  # jeq #0, next, next + 1
    (0x06, 0, 0, 0xFFFF),  # ret #65535
    (0x06, 0, 0, 0),  # ret #0
)
URGENT_6: Sequence[Instruction] = ((0x30, 0, 0, 2), *URGENT_4[2:])  # ldb [2]


def multicast_receiver(
    make: MakeSocket, ifindex: int, group: IPAddress, urgent: bool = False
) -> socket.socket:
    """A socket that hears ``group`` on one interface and nothing else.

    ``urgent`` makes one that hears only adverts of priority 0.

    :raises PermissionMissing: CAP_NET_RAW is missing.
    :raises OSError: the kernel refused, for example because the interface is gone (ENODEV).
    """
    with _building(make, group.version) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, ifindex)
        _hear_joined_only(sock, group.version)
        sock.bind(_endpoint(group, ifindex))
        if group.version == 4:
            request = struct.pack("=4s4si", group.packed, bytes(4), ifindex)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            request = struct.pack("=16si", group.packed, ifindex)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        _listen(sock, group.version, urgent)
    return sock


def unicast_receiver(
    make: MakeSocket, ifindex: int, source: IPAddress, urgent: bool = False
) -> socket.socket:
    """A socket that hears what is sent to ``source`` by way of one interface.

    The errors are those of :func:`multicast_receiver`.
    """
    with _building(make, source.version) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, ifindex)
        # The address may sit on the other half of a macvlan pair, or be tentative for a moment.
        if source.version == 4:
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        _hear_joined_only(sock, source.version)
        sock.bind(_endpoint(source, ifindex))
        _listen(sock, source.version, urgent)
    return sock


def sender(
    make: MakeSocket,
    ifindex: int,
    source: IPAddress,
    destination: IPAddress,
    hop_limit: int,
    elsewhere: bool = False,
) -> socket.socket:
    """A connected socket whose ``send`` puts a message on the wire, and that hears nothing.

    ``elsewhere`` says that ``source`` may be on another interface (the base of a macvlan).

    The errors are those of :func:`multicast_receiver`; besides, ENETUNREACH or the like mean
    that there is no way to ``destination``.
    """
    with _building(make, source.version) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, ifindex)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if source.version == 4:
            level = socket.IPPROTO_IP
            by_index = struct.pack("=4s4si", bytes(4), bytes(4), ifindex)
            sock.setsockopt(level, socket.IP_MULTICAST_IF, by_index)
            sock.setsockopt(level, socket.IP_MULTICAST_LOOP, 0)
            sock.setsockopt(level, socket.IP_MULTICAST_TTL, hop_limit)
            sock.setsockopt(level, socket.IP_TTL, hop_limit)
            sock.setsockopt(level, socket.IP_TOS, CLASS_SELECTOR_6)
            sock.setsockopt(level, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        else:
            level = socket.IPPROTO_IPV6
            sock.setsockopt(level, socket.IPV6_MULTICAST_IF, ifindex)
            sock.setsockopt(level, socket.IPV6_MULTICAST_LOOP, 0)
            sock.setsockopt(level, socket.IPV6_MULTICAST_HOPS, hop_limit)
            sock.setsockopt(level, socket.IPV6_UNICAST_HOPS, hop_limit)
            sock.setsockopt(level, socket.IPV6_TCLASS, CLASS_SELECTOR_6)
            # A link-local address must otherwise be on the interface that the socket is bound to.
            sock.setsockopt(level, IPV6_FREEBIND, elsewhere)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, TC_PRIO_CONTROL)
        except PermissionError:  # without CAP_NET_ADMIN
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, TC_PRIO_INTERACTIVE)
        sock.bind(_endpoint(source, ifindex))
        sock.connect(_endpoint(destination, ifindex))
        if source.version == 4:
            # Else nothing can be said from an address that was removed, not even a goodbye. Only
            # now, for it would let any address pass above.
            sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    return sock


def enlarge(sock: socket.socket, octets: int) -> None:
    """Let ``octets`` of packets wait, as far as the kernel allows; never fewer than
    :data:`RECEIVE_FLOOR`.

    The kernel allows twice as many, so that a network card with wasteful buffers is no trouble.
    """
    octets = max(octets, RECEIVE_FLOOR)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, octets)
    except PermissionError:  # without CAP_NET_ADMIN: up to net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)


def drops(sock: socket.socket) -> int:
    """How many packets the kernel dropped because the socket was full (a counter of 32 bits)."""
    count: int = _DROPS.unpack_from(sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[0]
    return count


_DROPS = struct.Struct("=32xI")


@contextlib.contextmanager
def _building(make: MakeSocket, version: int) -> Generator[socket.socket]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        sock = make(family, kind, PROTOCOL)
    except PermissionError:
        raise PermissionMissing("CAP_NET_RAW", "a raw socket for adverts") from None
    try:
        sock.setblocking(False)
        # A raw socket hears everything of its protocol until it is bound.
        attach_filter(sock, DROP_ALL)
        discard(sock)
        yield sock
    except BaseException:
        sock.close()
        raise


def _endpoint(address: IPAddress, ifindex: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if address.version == 4:
        return (str(address), 0)
    scoped = address.is_link_local or address.is_multicast
    return (str(address), 0, 0, ifindex if scoped else 0)


def _hear_joined_only(sock: socket.socket, version: int) -> None:
    # By default a socket hears every group that any program on the host has joined.
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)


def _listen(sock: socket.socket, version: int, urgent: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS_NEW, 1)
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    if urgent:
        attach_filter(sock, URGENT_4 if version == 4 else URGENT_6)
    else:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
