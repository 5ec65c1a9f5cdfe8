"""UDP servers on loopback, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import ip_address

import attrs

from checks.hostile import LOOPBACK
from vrrpkit.checks.target import Target

Answer = Callable[[bytes], Iterable[bytes]]
"""What a server sends back to a datagram."""


@attrs.define
class Server:
    """What :func:`answering` gives."""

    address: str
    port: int
    heard: list[bytes] = attrs.field(factory=list)
    sources: list[tuple[str, int]] = attrs.field(factory=list)

    @property
    def target(self) -> Target:
        """The server, for a checker."""
        return Target(ip_address(self.address), self.port)


@contextlib.asynccontextmanager
async def answering(answer: Answer, *, family: int = 4, port: int = 0) -> AsyncIterator[Server]:
    """Answer each datagram with those that ``answer`` makes of it."""
    loop = asyncio.get_running_loop()
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    server = Server(LOOPBACK[family], port)

    # Transports of asyncio pass over empty datagrams.
    def receive() -> None:
        data, source = sock.recvfrom(65536)
        server.heard.append(data)
        server.sources.append(source[:2])
        for reply in answer(data):
            sock.sendto(reply, source)

    with socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind((server.address, port))
        server.port = sock.getsockname()[1]
        loop.add_reader(sock, receive)
        try:
            yield server
        finally:
            loop.remove_reader(sock)


def saying(*answers: bytes) -> Answer:
    """The same answers to everything."""
    return lambda _: answers


def silent(_: bytes) -> Iterable[bytes]:
    """No answer to anything."""
    return ()


def refused(family: int = 4) -> Target:
    """A port of loopback that nobody has opened."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_DGRAM) as unused:
        unused.bind((LOOPBACK[family], 0))
        address, port = unused.getsockname()[:2]
    return Target(ip_address(address), port)
