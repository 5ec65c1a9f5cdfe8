"""Hosts of the laboratory with a raw transport on each."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from system.lab import Host
from system.wire import socket_in
from vrrpkit.transport.base import Datagram, Membership, TransportLink
from vrrpkit.transport.raw import RawTransport
from vrrpkit.values import IPAddress, Peer

GROUPS: dict[int, IPAddress] = {4: IPv4Address("224.0.0.18"), 6: IPv6Address("ff02::12")}


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def advert(vrid: int, priority: int = 100, more: bytes = b"") -> bytes:
    return bytes((0x31, vrid, priority, 1, 0, 100, 0, 0)) + (more or bytes((192, 0, 2, 10)))


def stall(seconds: float) -> None:
    """Hold the event loop, as a busy program does."""
    time.sleep(seconds)


class Listener:
    """A receiver that keeps what it hears."""

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self.heard: list[Datagram] = []
        self.at: list[float] = []
        self.deafened = 0
        self.then = then
        self._news = asyncio.Event()

    def received(self, datagram: Datagram) -> None:
        self.heard.append(datagram)
        self.at.append(now())
        self._news.set()
        if self.then is not None:
            self.then()

    def overflowed(self) -> None:
        self.deafened += 1

    @property
    def payloads(self) -> list[bytes]:
        return [datagram.payload for datagram in self.heard]

    async def wait(self, count: int, timeout: float = 3.0) -> None:
        async with asyncio.timeout(timeout):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()


class Station:
    """One host of the laboratory with a transport on it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.opened: list[socket.socket] = []
        self.transport = RawTransport(now=now, sockets=self.make)

    def make(self, family: int, kind: int, protocol: int) -> socket.socket:
        sock = socket_in(self.host.namespace, family, kind, protocol)
        self.opened.append(sock)
        return sock

    @property
    def sockets(self) -> int:
        return sum(sock.fileno() >= 0 for sock in self.opened)

    def ifindex(self, dev: str = "eth0") -> int:
        return int(self.host.run(["cat", f"/sys/class/net/{dev}/ifindex"]))

    def source(self, family: int) -> IPAddress:
        return ip_address(self.host.address if family == 4 else self.host.link_local)

    def membership(
        self,
        vrid: int,
        family: int = 4,
        *,
        peers: tuple[IPAddress, ...] = (),
        group: IPAddress | None = None,
        source: IPAddress | None = None,
        interval: float = 1.0,
        also: tuple[int, ...] = (),
        dev: str = "eth0",
    ) -> Membership:
        return Membership(
            interface=dev,
            ifindex=self.ifindex(dev),
            vrid=vrid,
            source=source or self.source(family),
            group=None if peers else group or GROUPS[family],
            peers=tuple(Peer(address, min_ttl=1) for address in peers),
            interval=interval,
            also=also,
        )

    def join(self, listener: Listener, membership: Membership) -> TransportLink:
        return self.transport.join(membership, listener)


@contextlib.asynccontextmanager
async def stations(hosts: tuple[Host, Host]) -> AsyncIterator[tuple[Station, Station]]:
    a, b = (Station(host) for host in hosts)
    try:
        yield a, b
    finally:
        a.transport.close()
        b.transport.close()
        assert a.sockets == b.sockets == 0
