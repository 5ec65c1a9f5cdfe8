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
from vrrpkit.transport.base import Datagram, Membership, Port, Receiver, Transport
from vrrpkit.transport.inlet import Counters, Inlet4, Inlet6, Member
from vrrpkit.transport.sockets import MakeSocket
from vrrpkit.values import IPAddress

__all__ = ["RawTransport"]

log = logging.getLogger(__name__)

NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})
"""Connecting failed for want of a route, which may come with the link or later."""

TWIN = 0.005
"""Seconds within which two equal messages are one that was heard twice: half of the shortest
interval of VRRP (1 cs), so that no two periodic adverts are ever taken for one."""

AnyInlet: TypeAlias = Inlet4 | Inlet6
InletKey: TypeAlias = tuple[int, IPAddress]
OutletKey: TypeAlias = tuple[int, IPAddress, IPAddress, int]


class RawTransport(Transport):
    """Sends and hears adverts with raw sockets. Needs CAP_NET_RAW and a running event loop.

    :param now: seconds of the clock that :attr:`Datagram.received` is told in.
    :param sockets: makes a socket from family, type and protocol, perhaps in another network
        namespace.
    """

    counters: Counters
    """What was heard and could not be handed to anybody."""

    def __init__(self, *, now: Callable[[], float], sockets: MakeSocket = socket.socket) -> None:
        self.counters = Counters()
        self._now = now
        self._make = sockets
        self._inlets: dict[InletKey, AnyInlet] = {}
        self._outlets: dict[OutletKey, _Outlet] = {}
        self._sweeping = False

    def join(self, membership: Membership, receiver: Receiver) -> Port:
        """Take a virtual router in.

        :raises PermissionMissing: CAP_NET_RAW is missing.
        :raises OSError: the kernel refused, for example because the interface is gone (ENODEV) or
            the source address is (EADDRNOTAVAIL). A missing route is an error of ``send`` only.
        """
        port = _RawPort(self, membership)
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
        return min((inlet.drain() for inlet in list(self._inlets.values())), default=None)

    def close(self) -> None:
        """Close every socket; calling it twice is harmless."""
        for inlet in self._inlets.values():
            inlet.close()
        self._inlets.clear()
        for outlet in self._outlets.values():
            outlet.sock.close()
        self._outlets.clear()

    def inlet(self, ifindex: int, address: IPAddress) -> AnyInlet:
        """The receive socket for a group or an own address, made when there is none."""
        found = self._inlets.get((ifindex, address))
        if found is None:
            make = sockets.multicast_receiver if address.is_multicast else sockets.unicast_receiver
            build = partial(make, self._make, ifindex, address)
            kind = Inlet4 if address.version == 4 else Inlet6
            found = self._inlets[ifindex, address] = kind(address, build, self._now, self.counters)
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
        for key, inlet in list(self._inlets.items()):
            if inlet.empty:
                inlet.close()
                del self._inlets[key]

    def outlet(self, membership: Membership, destination: IPAddress) -> _Outlet:
        """A send socket, made when there is none; :meth:`give_back` ends its use."""
        key = (membership.ifindex, membership.source, destination, membership.hop_limit)
        found = self._outlets.get(key)
        if found is None:
            # One of a macvlan pair has none of the other's addresses.
            sock = sockets.sender(self._make, *key, elsewhere=bool(membership.also))
            found = self._outlets[key] = _Outlet(key, sock)
        found.users += 1
        return found

    def give_back(self, outlet: _Outlet) -> None:
        """End one use of a send socket; the last one closes it."""
        outlet.users -= 1
        if not outlet.users:
            outlet.sock.close()
            self._outlets.pop(outlet.key, None)


class _Outlet:
    """A send socket and how many ports use it."""

    __slots__ = ("key", "sock", "users")

    def __init__(self, key: OutletKey, sock: socket.socket) -> None:
        self.key = key
        self.sock = sock
        self.users = 0


class _RawPort(Port):
    def __init__(self, transport: RawTransport, membership: Membership) -> None:
        self._transport = transport
        self._membership = membership
        self._places: list[tuple[AnyInlet, Member]] = []
        self._outlets: dict[IPAddress, _Outlet] = {}
        self._latest: IPAddress | None = None
        self._send: Callable[[bytes], int] | None = None
        self._closed = False

    def open(self, receiver: Receiver) -> None:
        membership = self._membership
        heard_at = membership.source if membership.group is None else membership.group
        halves = (membership.ifindex, *membership.also)
        twins = _Twins(receiver.received)
        for half, ifindex in enumerate(halves):
            inlet = self._transport.inlet(ifindex, heard_at)
            take = receiver.received if len(halves) == 1 else partial(twins.take, half)
            member = Member(membership.vrid, membership.interval, take, receiver.deaf)
            inlet.enter(member)
            self._places.append((inlet, member))
        for ifindex, address in membership.strays:
            try:
                inlet = self._transport.inlet(ifindex, address)
            except OSError as problem:  # nothing is lost but some advice
                log.debug("strays at %s are not heard: %s", address, problem)
                continue
            member = Member(membership.vrid, membership.interval, receiver.received, _nothing)
            inlet.enter(member)
            self._places.append((inlet, member))
        peers = (peer.address for peer in membership.peers)
        for destination in peers if membership.group is None else (membership.group,):
            try:
                self._outlet(destination)
            except OSError as problem:
                if problem.errno not in NO_WAY:
                    raise

    def send(self, payload: bytes, destination: IPAddress) -> None:
        # Hashing an address costs more than all the rest, and it is nearly always the same object.
        if destination is not self._latest or self._send is None:
            self._send = self._outlet(destination).sock.send
            self._latest = destination
        self._send(payload)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for inlet, member in self._places:
            inlet.leave(member)
        self._places.clear()
        self._transport.sweep()
        for outlet in self._outlets.values():
            self._transport.give_back(outlet)
        self._outlets.clear()
        self._latest = self._send = None

    def drain(self) -> float | None:
        return min((inlet.drain() for inlet, _member in list(self._places)), default=None)

    def relax(self, period: float | None) -> None:
        for inlet, member in self._places:
            inlet.relax(member, period)

    def _outlet(self, destination: IPAddress) -> _Outlet:
        found = self._outlets.get(destination)
        if found is None:
            if self._closed:
                raise OSError(errno.EBADF, "this port is closed")
            found = self._transport.outlet(self._membership, destination)
            self._outlets[destination] = found
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
