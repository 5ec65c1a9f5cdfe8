"""BFD on the wire: UDP sockets, one to receive for each address family and port, and one to send
for each session."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import random
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from vrrpkit.bfd.base import BFDDatagram, BFDSender, BFDTransport, ReceiveCallback
from vrrpkit.bfd.config import BFDSessionConfig
from vrrpkit.errors import HostError, InterfaceMissing, PermissionMissing, SourceMissing
from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.timerfd import TimerfdAlarm
from vrrpkit.timers import Deadlines
from vrrpkit.transport import sockets
from vrrpkit.values import IPAddress

__all__ = ["KernelBFDTransport"]

log = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds until a receive socket is opened again that could not be."""

_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What is over some time. Meanwhile a session is Down, as one whose neighbour is silent."""

# From the kernel's headers; the socket module of Python 3.11 does not name them.
IP_PKTINFO = 8
IP_RECVTTL = 12
SO_BINDTOIFINDEX = 62
SO_TIMESTAMPNS_NEW = 64

CLASS_SELECTOR_6 = 0xC0
"""Traffic class of routing protocols, as keepalived and FRR send it."""
TC_PRIO_INTERACTIVE = 6
"""The highest priority in the queues of an interface that needs no privilege."""

FIRST_SOURCE_PORT, LAST_SOURCE_PORT = 49152, 65535
"""RFC 5881 section 4."""
TRIES = 64
"""Ports tried at random before sending is given up for now."""

TURN = 0.005
"""Seconds for which packets are read in one go, so that a flood cannot hold the event loop."""
GLANCE = 16
"""Packets read between two looks at the clock."""
FULL = 3
"""Fewer packets read prove that none was dropped."""
BACKLOG = 64
"""Packets of one session that may wait: some seconds at the default rate."""
CHARGE = 1280
"""Octets that one waiting packet is charged with."""
SIZE = 512
"""Octets read of one packet: with any authentication one has 52 at most."""
CONTROL = 256

_STAMP = struct.Struct("=qq")
_INTEGER = struct.Struct("=i")
_PKTINFO = struct.Struct("=i4s4s")
_PKTINFO6 = struct.Struct("=16sI")

_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL, errno.EINVAL, errno.EBADF})
"""A socket that fails like this is made again: its interface or address is another one by now."""


@functools.lru_cache(maxsize=4096)
def _address(text: str) -> IPAddress:
    return ip_address(text.partition("%")[0])


class _ReceiveSocket:
    """A receive socket and those who listen."""

    def __init__(self, transport: KernelBFDTransport, version: int, port: int) -> None:
        self.listeners: dict[object, tuple[ReceiveCallback, Callable[[], None]]] = {}
        self._transport = transport
        self._version = version
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._drained_at = transport.deadlines.now()
        self._latest = self._drained_at
        self._room = 0
        self._lost = 0
        self._sock: socket.socket | None = None
        self._again = transport.deadlines.new(self._retry)
        self._complained = False
        try:
            self._start()
        except OSError as problem:
            if problem.errno not in _PASSING:
                raise
            self._put_off(problem)

    def _start(self) -> None:
        self._sock = self._open()
        self._lost = sockets.drops(self._sock)
        self._loop.add_reader(self._sock.fileno(), self.drain)
        self._complained = False

    def _retry(self) -> None:
        try:
            self._start()
        except (HostError, OSError) as problem:
            self._put_off(problem)
        else:
            self.grow()

    def _put_off(self, problem: Exception) -> None:
        log.log(
            logging.DEBUG if self._complained else logging.WARNING,
            "BFD cannot listen on UDP port %d, and tries again every %g s: %s",
            *(self._port, RETRY, problem),
        )
        self._complained = True
        self._again.set(self._transport.deadlines.now() + RETRY)

    def _open(self) -> socket.socket:
        family = socket.AF_INET if self._version == 4 else socket.AF_INET6
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        sock = self._transport.namespace.socket(family, kind, socket.IPPROTO_UDP)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS_NEW, 1)
            if self._version == 4:
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            sock.bind(("0.0.0.0" if self._version == 4 else "::", self._port))
        except OSError as problem:
            sock.close()
            if problem.errno == errno.EADDRINUSE:
                raise HostError(
                    f"UDP port {self._port} is taken: another BFD runs on this host (FRR's bfdd, "
                    "keepalived with a bfd_instance, another process of this library); only one can"
                ) from None
            raise
        return sock

    def grow(self) -> None:
        """Let as many packets wait as the sessions may get."""
        if self._sock is None:
            return
        room = len(self.listeners) * BACKLOG * CHARGE
        if room > self._room or not self._room:
            self._room = room + room // 2
            sockets.enlarge(self._sock, self._room)

    def drain(self) -> float | None:
        """Deliver what had arrived when this began, for :data:`TURN` at most, and tell everybody if
        the kernel had to drop something; up to when everything was read."""
        sock = self._sock
        if sock is None:
            return None
        now = self._transport.deadlines.now()
        offset = now - time.clock_gettime(time.CLOCK_REALTIME)
        count = 0
        while self._sock is sock and self._latest < now:
            if count % GLANCE == GLANCE - 1 and self._transport.deadlines.now() - now > TURN:
                break
            count += 1
            try:
                read = sock.recvmsg(SIZE, CONTROL)
            except BlockingIOError:
                self._drained_at = self._latest = now
                break
            except OSError:
                # What the network said about an earlier packet is no packet, and must not put off
                # for ever what is due.
                self._latest = max(self._latest, now - TURN)
                continue
            payload, extra, _flags, sender = read
            self._deliver(payload, extra, sender[0], now, offset)
        if count > FULL:
            self._check_drops()
        return self._latest

    def _deliver(
        self,
        payload: bytes,
        extra: list[tuple[int, int, bytes]],
        sender: str,
        now: float,
        offset: float,
    ) -> None:
        received, ttl, ifindex = now, 0, 0
        destination: IPAddress | None = None
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS_NEW):
                seconds, nanoseconds = _STAMP.unpack_from(data)
                # The wall clock may have been set meanwhile: only the age is of use.
                received = min(max(seconds + nanoseconds * 1e-9 + offset, self._drained_at), now)
            elif kind in (socket.IP_TTL, socket.IPV6_HOPLIMIT):
                (ttl,) = _INTEGER.unpack_from(data)
            elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                ifindex, _local, packed = _PKTINFO.unpack_from(data)
                destination = IPv4Address(packed)
            elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                packed, ifindex = _PKTINFO6.unpack_from(data)
                destination = IPv6Address(packed)
        self._latest = received
        assert destination is not None, "the kernel was asked for it"
        datagram = BFDDatagram(
            payload, self._port, _address(sender), destination, ifindex, ttl, received
        )
        # All who listen here share one that knows for whom it is.
        take, _deaf = next(iter(self.listeners.values()), (None, None))
        if take is not None:
            take(datagram)

    def _check_drops(self) -> None:
        if self._sock is None:
            return
        lost = sockets.drops(self._sock)
        if lost != self._lost:
            self._lost = lost
            for _take, overflowed in list(self.listeners.values()):
                overflowed()

    def close(self) -> None:
        self._again.drop()
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            sock.close()


class _UDPSender(BFDSender):
    """Not connected: the kernel then looks for a route and a source each time, and keeps to itself
    that no program listens over there."""

    def __init__(self, namespace: Namespace, config: BFDSessionConfig) -> None:
        self._namespace = namespace
        self._config = config
        # One for all packets of a session (RFC 5881 section 4), also when the socket is made again.
        self._port = random.randint(FIRST_SOURCE_PORT, LAST_SOURCE_PORT)
        self._sock: socket.socket | None = None
        self._destination: tuple[str, int] | tuple[str, int, int, int] = ("", 0)
        self._closed = False
        try:
            self._sock = self._open()
        except OSError as problem:
            # Sending opens it then.
            if problem.errno not in _PASSING:
                raise

    def send(self, payload: bytes) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "this outlet is closed")
        if self._sock is None:
            try:
                self._sock = self._open()
            except HostError as problem:
                raise OSError(errno.ENODEV, str(problem)) from None
        try:
            self._sock.sendto(payload, self._destination)
        except OSError as problem:
            if problem.errno in _GONE:
                self._sock.close()
                self._sock = None
            raise

    def close(self) -> None:
        self._closed = True
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _open(self) -> socket.socket:
        config = self._config
        version = config.neighbor.version
        self.ifindex = self._find_interface()
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        sock = self._namespace.socket(family, kind, socket.IPPROTO_UDP)
        try:
            sock.setblocking(False)
            # Nothing that is sent to this port is wanted.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, TC_PRIO_INTERACTIVE)
            if self.ifindex is not None:
                _leave_by(sock, self.ifindex)
            if version == 4:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, config.ttl)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, CLASS_SELECTOR_6)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, config.ttl)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, CLASS_SELECTOR_6)
            self._bind(sock)
        except BaseException:
            sock.close()
            raise
        self._destination = self._endpoint(config.neighbor, config.port)
        return sock

    def _find_interface(self) -> int | None:
        name = self._config.link
        if name is None:
            return None
        with self._namespace.inside():
            try:
                return socket.if_nametoindex(name)
            except OSError:
                raise InterfaceMissing(name) from None

    def _endpoint(
        self, address: IPAddress, port: int
    ) -> tuple[str, int] | tuple[str, int, int, int]:
        if address.version == 4:
            return (str(address), port)
        return (str(address), port, 0, self.ifindex or 0 if address.is_link_local else 0)

    def _bind(self, sock: socket.socket) -> None:
        config = self._config
        anywhere = ip_address("0.0.0.0" if config.neighbor.version == 4 else "::")
        for _ in range(TRIES):
            try:
                sock.bind(self._endpoint(config.source or anywhere, self._port))
            except OSError as problem:
                if problem.errno == errno.EADDRNOTAVAIL:
                    raise SourceMissing(
                        f"{config.source} is no address of this host, so BFD to "
                        f"{config.neighbor} cannot be sent from it. Check it with 'ip address'"
                    ) from None
                if problem.errno != errno.EADDRINUSE:
                    raise
                self._port = random.randint(FIRST_SOURCE_PORT, LAST_SOURCE_PORT)
            else:
                return
        raise HostError(
            f"no free UDP port from {FIRST_SOURCE_PORT} to {LAST_SOURCE_PORT} for BFD to "
            f"{config.neighbor}"
        )


def _leave_by(sock: socket.socket, ifindex: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, ifindex)
    except PermissionError:
        raise PermissionMissing("CAP_NET_RAW", "BFD on one interface only") from None


class KernelBFDTransport(BFDTransport):
    """The real network. Needs a running event loop, and no privilege as long as no interface is
    given.

    :param netns: the name of a network namespace, ``None`` for the thread's own.
    :raises HostError: there is no such namespace.
    """

    def __init__(self, netns: str | None = None) -> None:
        self.namespace = Namespace(netns)
        self.deadlines = Deadlines(TimerfdAlarm())
        self.deadlines.drains[self] = self.drain
        self._inlets: dict[tuple[int, int], _ReceiveSocket] = {}

    def listen(
        self, config: BFDSessionConfig, take: ReceiveCallback, overflowed: Callable[[], None]
    ) -> Callable[[], None]:
        key = (config.neighbor.version, config.port)
        inlet = self._inlets.get(key)
        if inlet is None:
            inlet = self._inlets[key] = _ReceiveSocket(self, *key)
        listener = object()
        inlet.listeners[listener] = (take, overflowed)
        inlet.grow()

        def stop() -> None:
            inlet.listeners.pop(listener, None)
            if not inlet.listeners and self._inlets.get(key) is inlet:
                del self._inlets[key]
                inlet.close()

        return stop

    def sender(self, config: BFDSessionConfig) -> BFDSender:
        return _UDPSender(self.namespace, config)

    def drain(self) -> float | None:
        """Deliver what waits in any socket, for some milliseconds each at most. Called before a
        deadline may fire.

        :return: up to when everything that arrived was delivered.
        """
        read = [inlet.drain() for inlet in list(self._inlets.values())]
        return min((to for to in read if to is not None), default=None)

    def close(self) -> None:
        for inlet in self._inlets.values():
            inlet.close()
        self._inlets.clear()
        self.deadlines.close()
        self.namespace.close()
