"""One TCP connection of one attempt: connected, a conversation held, closed, told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable

from vrrpkit.checks.base import Done
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.protocol.exchange import Exchange
from vrrpkit.checks.target import Endpoint, is_self_connection
from vrrpkit.errors import CheckFailed, CouldNotAsk
from vrrpkit.local_errors import own_trouble

__all__ = ["connect", "failure"]

CHUNK = 16384
"""Octets read in one turn of the loop: a server that sends without end keeps nobody waiting."""

_BROKEN = select.EPOLLERR | select.EPOLLHUP
_ENDING = select.EPOLLRDHUP | _BROKEN
_READABLE = select.EPOLLIN | _ENDING


def connect(
    endpoint: Endpoint,
    conversation: Exchange | None,
    report: Done,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Callable[[], None]:
    """Connect, hold the conversation, close and report; return what abandons it.

    ``None`` for a conversation: to connect is all. ``report`` is called once, perhaps before this
    returns, and never after the attempt was abandoned. ``loop`` is the running one, if known.
    """
    connection = _Connection(endpoint, conversation, report)
    try:
        connection.start(loop)
    except OSError as problem:
        connection.finish(failure(f"cannot connect to {endpoint}", problem))
    return connection.close


def failure(what: str, problem: OSError) -> CheckFailed | CouldNotAsk:
    """The outcome of an attempt that the system refused something: the server's trouble or ours.

    :param what: what was being done.
    """
    text = f"{what}: {problem.strerror or problem}"
    return CouldNotAsk(text, problem.errno) if own_trouble(problem) else CheckFailed(text)


class _Connection:
    __slots__ = ("_conversation", "_endpoint", "_open", "_poller", "_report", "_socket", "_unsent")

    def __init__(self, endpoint: Endpoint, conversation: Exchange | None, report: Done) -> None:
        self._endpoint = endpoint
        self._conversation = conversation
        self._report: Done | None = report
        self._socket: socket.SocketType | None = None
        self._poller: Poller | None = None
        self._open = False
        self._unsent = b""

    def start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Begin to connect.

        :raises OSError: it failed at once.
        """
        endpoint = self._endpoint
        poller = Poller.current(loop)
        sock = self._socket = endpoint.socket(socket.SOCK_STREAM)
        number = sock.connect_ex(endpoint.sockaddr)
        if number not in (0, errno.EINPROGRESS):
            raise OSError(number, os.strerror(number))
        poller.watch(sock.fileno(), self._ready)
        self._poller = poller

    def close(self) -> None:
        """Close without a report; harmless when closed."""
        sock, poller = self._socket, self._poller
        self._report = self._conversation = self._socket = self._poller = None
        if sock is not None:
            if poller is not None:
                poller.forget(sock.fileno())
            sock.close()

    def finish(self, outcome: BaseException | None) -> None:
        """Close and report."""
        report = self._report
        assert report is not None, "it was neither reported nor abandoned"
        self.close()
        report(outcome)

    def _ready(self, what: int) -> None:
        sock = self._socket
        assert sock is not None, "a closed socket is not watched"
        if not self._open:
            if what & _BROKEN and (number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                problem = OSError(number, os.strerror(number))
                # Said by a router on the way (RFC 4443 section 3.1: administratively prohibited);
                # what this machine forbids has been said at once.
                said = isinstance(problem, PermissionError)
                endpoint = f"cannot connect to {self._endpoint}"
                self.finish(
                    CheckFailed(f"{endpoint}: {problem.strerror}")
                    if said
                    else failure(endpoint, problem)
                )
                return
            if is_self_connection(self._endpoint, sock):
                self.finish(
                    CheckFailed(f"cannot connect to {self._endpoint}: nobody listens there")
                )
                return
            self._open = True
            if self._conversation is None:
                self.finish(None)
                return
            if not self._say(self._conversation.opened):
                return
        elif self._unsent and what & select.EPOLLOUT and not self._send(b""):
            return
        if what & _READABLE:
            self._read(bool(what & _ENDING))

    def _read(self, ending: bool) -> None:
        sock, talk = self._socket, self._conversation
        while sock is not None and talk is not None and not talk.passed:
            try:
                data = sock.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError as problem:
                self._lost(problem)
                return
            if not self._say(talk.received, data):
                return
            if not data:
                self.finish(CheckFailed(f"{self._endpoint} closed the connection"))
                return
            if len(data) == CHUNK:
                asyncio.get_running_loop().call_soon(self._read, ending)
                return
            # That was all there was. What comes later is told again; the other side's end is not,
            # if it has been told already.
            if not ending:
                return

    def _say(self, step: Callable[..., bytes], *heard: bytes) -> bool:
        """Take a step of the conversation; whether it goes on."""
        conversation = self._conversation
        assert conversation is not None, "there is nobody to talk to"
        try:
            answer = step(*heard)
        except BaseException as problem:
            # Whatever it is, the attempt ends with it, and the report carries it on.
            self.finish(problem)
            return False
        return self._send(answer)

    def _send(self, data: bytes) -> bool:
        """Send as much as fits, later the rest; whether the conversation goes on."""
        sock, conversation = self._socket, self._conversation
        assert sock is not None, "the connection stands"
        assert conversation is not None, "there is somebody to talk to"
        if unsent := self._unsent + data:
            try:
                sent = sock.send(unsent, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError as problem:
                self._lost(problem)
                return False
            self._unsent = unsent[sent:]
        if conversation.passed and not self._unsent:
            if conversation.farewell:
                with contextlib.suppress(OSError):
                    sock.send(conversation.farewell, socket.MSG_NOSIGNAL)
            self.finish(None)
            return False
        return True

    def _lost(self, problem: OSError) -> None:
        self.finish(failure(f"lost the connection to {self._endpoint}", problem))
