"""Netlink sockets of our own: requests in batches, dumps, and notices.

The kernel carries out a request before ``send`` returns, and its answer waits in the socket then.
So an exchange is synchronous without ever waiting: sockets are non-blocking, there is no reader to
schedule, and dumps cannot overlap.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import socket
import struct
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, ParamSpec, TypeAlias, TypeVar

from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.socketfilter import Instruction, attach_filter

__all__ = [
    "CHUNK",
    "DUMP",
    "GENERIC",
    "HEADER",
    "REQUEST",
    "Attributes",
    "Netlink",
    "NetlinkMessage",
    "Overrun",
    "Subscription",
    "attributes",
    "tolerant",
]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

CHUNK = 64
"""Messages in one system call and one turn of the event loop. Answers and notices overflow a
default socket at 256, and a thousand requests at once would block the loop for 20 ms."""

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
REQUEST = NLM_F_REQUEST | NLM_F_ACK
"""NLM_F_REQUEST | NLM_F_ACK."""
DUMP = NLM_F_REQUEST | 0x300
"""NLM_F_REQUEST | NLM_F_DUMP."""

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
GENERIC = 16
"""NETLINK_GENERIC."""
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
SO_RCVBUFFORCE = 33

ANSWERS = 1 << 20
NOTICES = 8 << 20
"""Octets of receive buffers. The kernel charges about 800 for one notice: this is room for some
ten thousand of them while the process is stopped."""

READ = 1 << 16
DUMP_TRIES = 5

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""

_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_FLAGS = struct.Struct("=H")
_FLAGS_SEQUENCE = struct.Struct("=HI")

Attributes: TypeAlias = dict[int, bytes]


class NetlinkMessage(NamedTuple):
    """One message in a datagram, without its struct nlmsghdr."""

    kind: int
    flags: int
    sequence: int
    payload: bytes
    port: int = 0
    """Of a notice: the socket by which what it tells was done, as far as the kernel says."""


class Overrun(Exception):
    """The kernel dropped notices: what is known about the machine is stale."""


def attributes(payload: bytes, start: int) -> Attributes:
    """The attributes of a message or of a nested attribute, by type."""
    found: Attributes = {}
    end = len(payload)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(payload, start)
        if length < 4:
            break
        found[kind & 0x3FFF] = payload[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def tolerant(decoder: Callable[P, T | None]) -> Callable[P, T | None]:
    """Let a decoder answer ``None`` to a message that is cut short, or strange: it shall not lose
    those behind it, nor who reads them."""

    @functools.wraps(decoder)
    def decode(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return decoder(*args, **kwargs)
        except (struct.error, ValueError, LookupError) as problem:
            log.debug("%s does not understand a message: %r", decoder.__name__, problem)
            return None

    return decode


def _messages(datagram: bytes) -> Generator[NetlinkMessage]:
    start, end = 0, len(datagram)
    while start + 16 <= end:
        length, kind, flags, sequence, port = HEADER.unpack_from(datagram, start)
        if length < 16 or start + length > end:
            return
        yield NetlinkMessage(kind, flags, sequence, datagram[start + 16 : start + length], port)
        start += (length + 3) & ~3


def _open(
    namespace: Namespace, groups: int, buffer: int, protocol: int = socket.NETLINK_ROUTE
) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = namespace.socket(socket.AF_NETLINK, kind, protocol)
    try:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
        except PermissionError:  # in a user namespace: up to net.core.rmem_max
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.bind((0, groups))
    except BaseException:
        sock.close()
        raise
    return sock


class Netlink:
    """The socket for requests, to NETLINK_ROUTE or to another netlink protocol.

    A message is a ``bytearray`` that starts with its struct nlmsghdr; the sequence number is
    patched in.

    :param strict: the kernel heeds what the body of a dump says about what is asked for (Linux
        4.20).
    """

    def __init__(
        self,
        namespace: Namespace,
        protocol: int = socket.NETLINK_ROUTE,
        *,
        strict: bool = False,
    ) -> None:
        self._socket = _open(namespace, 0, ANSWERS, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        if strict:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self.port: int = self._socket.getsockname()[0]
        """Which socket this is, in notices of what is done by it."""
        self._sequence = 0

    async def batch(self, messages: Sequence[bytearray]) -> list[OSError | None]:
        """Have requests carried out in order; what the kernel answered to each.

        Other callbacks of the event loop run between two chunks.
        """
        answers: list[OSError | None] = []
        for start in range(0, len(messages), CHUNK):
            if start:
                await asyncio.sleep(0)
            answers += self.exchange(messages[start : start + CHUNK])
        return answers

    def request(self, message: bytearray) -> None:
        """Have one request carried out.

        :raises OSError: the kernel refused; ``strerror`` tells more than the number does.
        """
        (answer,) = self.exchange([message])
        if answer is not None:
            raise answer

    def dump(self, kind: int, body: bytes) -> list[NetlinkMessage]:
        """Every object of a kind.

        :raises OSError: the kernel refused.
        """
        for _try in range(DUMP_TRIES):
            whole, found = self._dump(kind, body)
            if whole:
                return found
        # It changes faster than it can be read; the notices will bring the rest.
        return self._dump(kind, body)[1]

    def get(self, kind: int, body: bytes) -> NetlinkMessage:
        """One object. The answer is taken after any change to it that is under way.

        :raises OSError: the kernel refused, for example because there is none such (ENODEV).
        """
        self._sequence += 1
        sequence = self._sequence & 0xFFFFFFFF
        self._socket.send(HEADER.pack(16 + len(body), kind, NLM_F_REQUEST, sequence, 0) + body)
        while True:
            for message in _messages(self._socket.recv(READ)):
                if message.sequence != sequence:
                    continue
                problem = _problem(message) if message.kind == NLMSG_ERROR else None
                if problem is not None:
                    raise problem
                return message

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def exchange(self, messages: Sequence[bytearray]) -> list[OSError | None]:
        """Have at most :data:`CHUNK` requests carried out in order, and return at once."""
        numbers: list[int] = []
        # Unasked, the kernel answers to what it refuses only. So one answer for all is enough.
        quiet = len(messages) - 1
        for place, message in enumerate(messages):
            self._sequence += 1
            number = self._sequence & 0xFFFFFFFF
            (flags,) = _FLAGS.unpack_from(message, 6)
            flags = flags & ~NLM_F_ACK if place < quiet else flags | NLM_F_ACK
            _FLAGS_SEQUENCE.pack_into(message, 6, flags, number)
            numbers.append(number)
        self._socket.send(b"".join(messages))
        answers: dict[int, OSError | None] = {}
        # What is said of a request that was not answered to, once the last one was.
        otherwise: OSError | None = None
        while numbers and numbers[-1] not in answers:
            try:
                datagram = self._socket.recv(READ)
            except BlockingIOError:
                otherwise = OSError(errno.EIO, "the kernel gave no answer")
                break
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    raise
                otherwise = OSError(errno.EIO, "the kernel's answer was lost")
                continue
            for answer in _messages(datagram):
                if answer.kind == NLMSG_ERROR:
                    answers[answer.sequence] = _problem(answer)
        return [answers.get(number, otherwise) for number in numbers]

    def _dump(self, kind: int, body: bytes) -> tuple[bool, list[NetlinkMessage]]:
        found: list[NetlinkMessage] = []
        whole = True
        for part_whole, part in self.parts(kind, body):
            whole = whole and part_whole
            found += part
        return whole, found

    def parts(self, kind: int, body: bytes) -> Generator[tuple[bool, list[NetlinkMessage]]]:
        """Every object of a kind, one datagram of them at a time, each with ``False`` if objects
        have changed meanwhile, so that some may be missing.

        The socket serves nothing else until the end; who does not go that far closes it.

        :raises OSError: the kernel refused.
        """
        self._sequence += 1
        sequence = self._sequence & 0xFFFFFFFF
        self._socket.send(HEADER.pack(16 + len(body), kind, DUMP, sequence, 0) + body)
        while True:
            found: list[NetlinkMessage] = []
            whole = True
            for message in _messages(self._socket.recv(READ)):
                if message.sequence != sequence:
                    continue
                whole = whole and not message.flags & NLM_F_DUMP_INTR
                if message.kind == NLMSG_DONE:
                    yield whole, found
                    return
                if message.kind == NLMSG_ERROR:
                    problem = _problem(message)
                    if problem is not None:
                        raise problem
                elif message.kind != NLMSG_NOOP:
                    found.append(message)
            yield whole, found


def _problem(message: NetlinkMessage) -> OSError | None:
    payload = message.payload
    if len(payload) < _ERROR.size:
        return OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
    (number,) = _ERROR.unpack_from(payload)
    if number == 0:
        return None
    text = os.strerror(-number)
    if message.flags & NLM_F_ACK_TLVS and len(payload) >= 20:
        # Behind the header of the request, or behind all of it.
        skip = 16 if message.flags & NLM_F_CAPPED else HEADER.unpack_from(payload, 4)[0]
        said = attributes(payload, 4 + ((skip + 3) & ~3)).get(NLMSGERR_ATTR_MSG)
        if said:
            text = f"{text} ({said.rstrip(bytes(1)).decode(errors='replace')})"
    return OSError(-number, text)


class Subscription:
    """The socket for notices, of the multicast groups in the bit mask ``groups``."""

    def __init__(self, namespace: Namespace, groups: int) -> None:
        self._socket = _open(namespace, groups, NOTICES)

    def heed(self, program: Sequence[Instruction]) -> None:
        """Hear only what a classic BPF program lets through."""
        attach_filter(self._socket, program)

    def fileno(self) -> int:
        """The descriptor, to wait for."""
        return self._socket.fileno()

    def read(self) -> list[NetlinkMessage]:
        """The next datagram's messages; an empty list when none waits.

        :raises Overrun: notices were lost.
        """
        try:
            return list(_messages(self._socket.recv(READ)))
        except BlockingIOError:
            return []
        except OSError as problem:
            if problem.errno == errno.ENOBUFS:
                raise Overrun from None
            raise

    def discard(self) -> None:
        """Drop every notice that waits."""
        while True:
            try:
                if not self.read():
                    return
            except Overrun:
                continue

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
