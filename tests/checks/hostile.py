"""Servers that behave badly, on loopback and in the test's own event loop.

::

    async with serving(drip(b"220 hello\\r\\n")) as server:
        outcome = await attempt(checker, server.target)
        assert server.connections == 1

A behaviour is a coroutine function of a reader and a writer; the connection is closed when it
returns, and cancelled when the server's block ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import ip_address

import attrs

from vrrpkit.checks.target import Target

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
GARBAGE = bytes(range(255, -1, -1)) * 4
TEN_GIGABYTES = 10 * 2**30


@attrs.define
class Server:
    """What :func:`serving` gives: where it listens, and what it has seen."""

    address: str
    port: int = 0
    connections: int = 0
    heard: bytearray = attrs.field(factory=bytearray)
    """What clients have sent."""
    sources: list[tuple[str, int]] = attrs.field(factory=list)
    """Where each connection came from."""
    errors: list[BaseException] = attrs.field(factory=list)
    """What ended a connection early, seen from the server."""

    @property
    def target(self) -> Target:
        """The server, for a checker."""
        return Target(ip_address(self.address), self.port)


@contextlib.asynccontextmanager
async def serving(
    behaviour: Behaviour, *, family: int = 4, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Listen on a free port of loopback and treat each connection to ``behaviour``."""
    server = Server(LOOPBACK[family])
    conversations: set[asyncio.Task[None]] = set()

    def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        server.sources.append(writer.get_extra_info("peername")[:2])
        name = f"hostile connection {server.connections}"
        task = asyncio.create_task(_treat(server, behaviour, reader, writer), name=name)
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: asyncio.StreamReaderProtocol(_Recording(server), converse),
        server.address,
        0,
        ssl=tls,
        backlog=1024,
        ssl_shutdown_timeout=1 if tls else None,
    )
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        # What was accepted a moment ago has no conversation yet.
        for _ in range(5):
            await asyncio.sleep(0)
        left = list(conversations)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _treat(
    server: Server,
    behaviour: Behaviour,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    try:
        await behaviour(reader, writer)
    except OSError as problem:
        server.errors.append(problem)
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class _Recording(asyncio.StreamReader):
    """A reader that writes down what arrives."""

    def __init__(self, server: Server) -> None:
        super().__init__(limit=2**16)
        self._server = server

    def feed_data(self, data: bytes) -> None:
        self._server.heard += data
        super().feed_data(data)


async def request(reader: asyncio.StreamReader) -> bytes:
    """The head of an HTTP request, up to its empty line."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (line := await reader.readline()):
            break
        head += line
    return head


def answering(data: bytes) -> Behaviour:
    """Wait for an HTTP request, answer with ``data`` and close: a good server."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(data)
        await writer.drain()

    return behave


def saying(data: bytes) -> Behaviour:
    """Send ``data`` at once, and then nothing more, without closing."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await reader.read()

    return behave


def echoing(prefix: bytes = b"") -> Behaviour:
    """Send back what comes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(prefix)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    return behave


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything, answer nothing."""
    while await reader.read(65536):
        pass


def drip(data: bytes, pause: float = 1.0) -> Behaviour:
    """One octet each second, for ever: ``data`` over and over."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            for octet in data:
                writer.write(bytes([octet]))
                await asyncio.sleep(pause)

    return behave


def flood(first: bytes = b"", filling: bytes = b"x" * 65536) -> Behaviour:
    """``first``, and then ten gigabytes of ``filling``, as fast as they are taken."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        for _ in range(TEN_GIGABYTES // len(filling)):
            writer.write(filling)
            await writer.drain()

    return behave


def cut(data: bytes, *, wait: bool = True) -> Behaviour:
    """Send ``data``, which is not all, and close; ``wait``: once something was heard."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if wait:
            await reader.read(65536)
        writer.write(data)

    return behave


def reset(data: bytes = b"", *, wait: bool = True) -> Behaviour:
    """As :func:`cut`, but reset the connection."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if wait:
            await reader.read(65536)
        writer.write(data)
        await writer.drain()
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return behave


def garbage(data: bytes = GARBAGE) -> Behaviour:
    """Octets of no protocol, at once, and then nothing more."""
    return saying(data)


@contextlib.contextmanager
def unanswered(family: int = 4) -> Iterator[Target]:
    """A port where connections are neither accepted nor refused: a listener that is full."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(kind))
        listener.bind((LOOPBACK[family], 0))
        listener.listen(0)
        address, port = listener.getsockname()[:2]
        for _ in range(2):
            filler = stack.enter_context(socket.socket(kind))
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield Target(ip_address(address), port)


def refused(family: int = 4) -> Target:
    """A port of loopback where nobody listens."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with socket.socket(kind) as unused:
        unused.bind((LOOPBACK[family], 0))
        address, port = unused.getsockname()[:2]
    return Target(ip_address(address), port)
