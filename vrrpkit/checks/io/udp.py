"""One datagram of one attempt: sent, what comes back judged, the socket closed, the end told."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import TypeAlias

from vrrpkit.checks.base import Done
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.target import Endpoint, is_self_connection
from vrrpkit.errors import CheckFailed, CouldNotAsk
from vrrpkit.local_errors import own_trouble

__all__ = ["Heard", "ask"]

Heard: TypeAlias = Callable[[bytes], bool]
"""Judges a datagram that came: ``True`` is a healthy server, ``False`` is no answer to what was
asked, so that others are waited for. Raises when the server is not healthy."""

BATCH = 16
"""Datagrams read in one turn of the loop."""

# linux/in.h, linux/in6.h. Without it errors that may pass, as "no route to host", are not told.
IP_RECVERR = 11
IPV6_RECVERR = 25

_SAID_BY_ICMP = {
    errno.ECONNREFUSED: "nobody listens there (ICMP: port unreachable)",
    errno.EHOSTUNREACH: "the host cannot be reached",
    errno.ENETUNREACH: "the network cannot be reached",
}


def ask(
    endpoint: Endpoint,
    question: bytes,
    heard: Heard,
    report: Done,
    *,
    limit: int,
    silence: float | None = None,
    opened: Callable[[Endpoint], socket.SocketType] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Callable[[], None]:
    """Send ``question``, show what comes back to ``heard``, and report; return what abandons it.

    Only datagrams from where the question went to are heard, and ICMP errors about it end the
    attempt. ``report`` is called once, perhaps before this returns, and never after the attempt was
    abandoned.

    :param limit: octets of a datagram that ``heard`` is shown; what is beyond is cut off.
    :param silence: seconds without an answer or an error after which the server counts as healthy;
        ``None`` waits for an answer.
    :param opened: makes the socket, if it is not UDP.
    :param loop: the running one, if known.
    """
    attempt = _DatagramAttempt(endpoint, heard, report, limit)
    try:
        attempt.start(question, opened or _udp, loop)
    except OSError as problem:
        attempt.fail(problem, own_trouble(problem))
    else:
        if silence is not None:
            attempt.limit_to(silence)
    return attempt.close


def _udp(endpoint: Endpoint) -> socket.SocketType:
    return endpoint.socket(socket.SOCK_DGRAM)


class _DatagramAttempt:
    __slots__ = ("_endpoint", "_heard", "_limit", "_poller", "_report", "_socket", "_timer")

    def __init__(self, endpoint: Endpoint, heard: Heard, report: Done, limit: int) -> None:
        self._endpoint = endpoint
        self._heard = heard
        self._report: Done | None = report
        self._limit = limit
        self._socket: socket.SocketType | None = None
        self._poller: Poller | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(
        self,
        question: bytes,
        opened: Callable[[Endpoint], socket.SocketType],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        """Send.

        :raises OSError: it cannot be.
        """
        poller = Poller.current(loop)
        sock = self._socket = opened(self._endpoint)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        sock.connect(self._endpoint.sockaddr)
        if is_self_connection(self._endpoint, sock):
            # Its own question would be the answer.
            raise OSError(errno.ECONNREFUSED, "nobody listens there")
        poller.watch(sock.fileno(), self._ready)
        self._poller = poller
        sock.send(question)

    def limit_to(self, silence: float) -> None:
        """Be content if nothing is heard for so many seconds."""
        self._timer = asyncio.get_running_loop().call_later(silence, self._finish, None)

    def close(self) -> None:
        """Close without a report; harmless when closed."""
        sock, poller, timer = self._socket, self._poller, self._timer
        self._report = self._socket = self._poller = self._timer = None
        if timer is not None:
            timer.cancel()
        if sock is not None:
            if poller is not None:
                poller.forget(sock.fileno())
            sock.close()

    def fail(self, problem: OSError, ours: bool) -> None:
        """Close, and report what the system said.

        :param ours: it says nothing about the server.
        """
        number = problem.errno or 0
        why = problem.strerror or str(problem)
        # What was said about our own end has words of its own.
        if why == os.strerror(number):
            why = _SAID_BY_ICMP.get(number, why)
        text = f"asking {self._endpoint} failed: {why}"
        self._finish(CouldNotAsk(text, number) if ours else CheckFailed(text))

    def _finish(self, outcome: BaseException | None) -> None:
        report = self._report
        self.close()
        if report is not None:
            report(outcome)

    def _ready(self, _what: int) -> None:
        for _ in range(BATCH):
            sock = self._socket
            if sock is None:
                return
            try:
                data = sock.recv(self._limit)
            except BlockingIOError:
                return
            except OSError as problem:
                # What is forbidden was, by a router on the way (RFC 4443 section 3.1).
                ours = own_trouble(problem) and not isinstance(problem, PermissionError)
                self.fail(problem, ours)
                return
            try:
                passed = self._heard(data)
            except BaseException as problem:
                # Whatever it is, the attempt ends with it, and the report carries it on.
                self._finish(problem)
                return
            if passed:
                self._finish(None)
                return
        # Others have their turn before the rest is read.
        asyncio.get_running_loop().call_soon(self._ready, 0)
