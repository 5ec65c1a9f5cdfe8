"""Adverts on the wire: raw sockets for IP protocol 112, few of them, shared by all virtual routers.

==================  =======================================================================
receive, multicast  one per interface, address family and group
receive, unicast    one per interface and own address
send                one per interface, own address, destination and hop limit
==================  =======================================================================
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from vrrpkit.transport import sockets
from vrrpkit.transport.base import Datagram, Membership, Receiver, Transport, TransportLink
from vrrpkit.transport.receiver import Counters, ReceiveSocket4, ReceiveSocket6, Subscriber
from vrrpkit.transport.sockets import MakeSocket
from vrrpkit.values import IPAddress

__all__ = ["RawTransport"]

log = logging.getLogger(__name__)

NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})
"""Connecting failed for want of a route, which may come with the link or later."""

TWIN = 0.005
"""Seconds within which two equal messages are one that was heard twice: half of the shortest
interval of VRRP (1 cs), so that no two periodic adverts are ever taken for one."""

AnyInlet: TypeAlias = ReceiveSocket4 | ReceiveSocket6
InletKey: TypeAlias = tuple[int, IPAddress]
OutletKey: TypeAlias = tuple[int, IPAddress, IPAddress, int]


class RawTransport(Transport):
    """Sends and hears adverts with raw sockets. Needs CAP_NET_RAW and a running event loop.

    :param now: seconds of the clock that :attr:`Datagram.received` is told in.
    :param sockets: makes a socket from family, type and protocol, perhaps in another network
        namespace.
    """

    counters: Counters
    """What was heard and belongs to no member."""

    def __init__(self, *, now: Callable[[], float], sockets: MakeSocket = socket.socket) -> None:
        self.counters = Counters()
        self._now = now
        self._make = sockets
        self._receive_sockets: dict[InletKey, AnyInlet] = {}
        self._send_sockets: dict[OutletKey, _SendSocket] = {}
        self._sweeping = False

    def join(self, membership: Membership, receiver: Receiver) -> TransportLink:
        """Take a virtual router in.

        :raises PermissionMissing: CAP_NET_RAW is missing.
        :raises OSError: the kernel refused, for example because the interface is gone (ENODEV) or
            the source address is (EADDRNOTAVAIL). A missing route is an error of ``send`` only.
        """
        port = _RawLink(self, membership)
        try:
            port.open(receiver)
        except BaseException:
            port.close()
            raise
        return port

    def drain(self) -> float | None:
        """Deliver what waits in any socket, for some milliseconds each at most. Call it before a
        deadline may fire.

        :return: up to when everything that arrived was delivered.
        """
        return min(
            (receive_socket.drain() for receive_socket in list(self._receive_sockets.values())),
            default=None,
        )

    def close(self) -> None:
        """Close every socket; calling it twice is harmless."""
        for receive_socket in self._receive_sockets.values():
            receive_socket.close()
        self._receive_sockets.clear()
        for send_socket in self._send_sockets.values():
            send_socket.sock.close()
        self._send_sockets.clear()

    def receive_socket(self, ifindex: int, address: IPAddress) -> AnyInlet:
        """The receive socket for a group or an own address, made when there is none."""
        found = self._receive_sockets.get((ifindex, address))
        if found is None:
            make = sockets.multicast_receiver if address.is_multicast else sockets.unicast_receiver
            build = partial(make, self._make, ifindex, address)
            kind = ReceiveSocket4 if address.version == 4 else ReceiveSocket6
            found = self._receive_sockets[ifindex, address] = kind(
                address, build, self._now, self.counters
            )
        return found

    def sweep(self) -> None:
        """Close receive sockets without members, but in the next turn of the loop only.

        A virtual router whose own address changed leaves and joins again at once: its socket then
        stays, with what waits in it, and no switch hears that the group was left.
        """
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_soon(self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        for key, receive_socket in list(self._receive_sockets.items()):
            if receive_socket.empty:
                receive_socket.close()
                del self._receive_sockets[key]

    def send_socket(self, membership: Membership, destination: IPAddress) -> _SendSocket:
        """A send socket, made when there is none; :meth:`give_back` ends its use."""
        key = (membership.ifindex, membership.source, destination, membership.hop_limit)
        found = self._send_sockets.get(key)
        if found is None:
            # One of a macvlan pair has none of the other's addresses.
            sock = sockets.sender(self._make, *key, elsewhere=bool(membership.also))
            found = self._send_sockets[key] = _SendSocket(key, sock)
        found.users += 1
        return found

    def give_back(self, send_socket: _SendSocket) -> None:
        """End one use of a send socket; the last one closes it."""
        send_socket.users -= 1
        if not send_socket.users:
            send_socket.sock.close()
            self._send_sockets.pop(send_socket.key, None)


class _SendSocket:
    """A send socket and how many ports use it."""

    __slots__ = ("key", "sock", "users")

    def __init__(self, key: OutletKey, sock: socket.socket) -> None:
        self.key = key
        self.sock = sock
        self.users = 0


class _RawLink(TransportLink):
    def __init__(self, transport: RawTransport, membership: Membership) -> None:
        self._transport = transport
        self._membership = membership
        self._places: list[tuple[AnyInlet, Subscriber]] = []
        self._send_sockets: dict[IPAddress, _SendSocket] = {}
        self._latest: IPAddress | None = None
        self._send: Callable[[bytes], int] | None = None
        self._closed = False

    def open(self, receiver: Receiver) -> None:
        membership = self._membership
        heard_at = membership.source if membership.group is None else membership.group
        halves = (membership.ifindex, *membership.also)
        twins = _Twins(receiver.received)
        for half, ifindex in enumerate(halves):
            receive_socket = self._transport.receive_socket(ifindex, heard_at)
            take = receiver.received if len(halves) == 1 else partial(twins.take, half)
            member = Subscriber(membership.vrid, membership.interval, take, receiver.overflowed)
            receive_socket.enter(member)
            self._places.append((receive_socket, member))
        for ifindex, address in membership.strays:
            try:
                receive_socket = self._transport.receive_socket(ifindex, address)
            except OSError as problem:  # nothing is lost but some advice
                log.debug("strays at %s are not heard: %s", address, problem)
                continue
            member = Subscriber(membership.vrid, membership.interval, receiver.received, _nothing)
            receive_socket.enter(member)
            self._places.append((receive_socket, member))
        peers = (peer.address for peer in membership.peers)
        for destination in peers if membership.group is None else (membership.group,):
            try:
                self._send_socket(destination)
            except OSError as problem:
                if problem.errno not in NO_WAY:
                    raise

    def send(self, payload: bytes, destination: IPAddress) -> None:
        # Hashing an address costs more than all the rest, and it is nearly always the same object.
        if destination is not self._latest or self._send is None:
            self._send = self._send_socket(destination).sock.send
            self._latest = destination
        self._send(payload)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for receive_socket, member in self._places:
            receive_socket.leave(member)
        self._places.clear()
        self._transport.sweep()
        for send_socket in self._send_sockets.values():
            self._transport.give_back(send_socket)
        self._send_sockets.clear()
        self._latest = self._send = None

    def drain(self) -> float | None:
        return min(
            (receive_socket.drain() for receive_socket, _member in list(self._places)), default=None
        )

    def set_batching(self, period: float | None) -> None:
        for receive_socket, member in self._places:
            receive_socket.set_batching(member, period)

    def _send_socket(self, destination: IPAddress) -> _SendSocket:
        found = self._send_sockets.get(destination)
        if found is None:
            if self._closed:
                raise OSError(errno.EBADF, "this port is closed")
            found = self._transport.send_socket(self._membership, destination)
            self._send_sockets[destination] = found
            self._send, self._latest = found.sock.send, destination
        return found


def _nothing() -> None:
    """That some strays were lost means nothing."""


class _Twins:
    """Delivers once what both halves of a macvlan pair hear.

    The kernel stamps a packet before it copies it to the macvlan, so both copies arrived at the
    same moment, but for the reading of the clocks. Equal messages on the *same* half are two.
    """

    def __init__(self, deliver: Callable[[Datagram], object]) -> None:
        self._deliver = deliver
        self._recent: deque[tuple[int, Datagram]] = deque(maxlen=64)

    def take(self, half: int, datagram: Datagram) -> None:
        for other, twin in self._recent:
            if (
                other != half
                and abs(twin.received - datagram.received) < TWIN
                and twin.payload == datagram.payload
                and twin.source == datagram.source
            ):
                return
        self._recent.append((half, datagram))
        self._deliver(datagram)
