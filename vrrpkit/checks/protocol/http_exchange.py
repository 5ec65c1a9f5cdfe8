"""One HTTP request and its answer, read by h11 and judged by the rules. Does no I/O."""

from __future__ import annotations

import functools

import h11

from vrrpkit.checks.protocol.http import Question
from vrrpkit.checks.protocol.http_status import Chunks
from vrrpkit.errors import CheckFailed

__all__ = ["HTTPExchange", "body_in_chunks"]

SHOWN = 40
"""Octets of what is no HTTP that the failure's text quotes."""

_BEGINNING = b"HTTP/"
_HEAD_TOO_LONG = 431
"""What h11 would have a server answer to a request with such a head (RFC 6585 section 5)."""
_END = h11.EndOfMessage()


@functools.cache
def _asked(method: str) -> h11.Request:
    # h11 must know that a request has left, and its method, to tell where the answer ends. It would
    # write HTTP/1.1 only, so the octets are ours.
    return h11.Request(method=method, target="/", headers=[("Host", "-"), ("Connection", "close")])


def body_in_chunks(header_limit: int) -> Chunks:
    """What reads a body in chunks, whatever its head was like.

    :param header_limit: octets that a chunk's head or the trailers may have.
    """
    parser = h11.Connection(h11.CLIENT, header_limit)
    parser.send(_asked("GET"))
    parser.send(_END)
    parser.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.next_event()

    def read(data: bytes) -> tuple[int, bool] | None:
        octets = 0
        parser.receive_data(data)
        try:
            while isinstance(event := parser.next_event(), h11.Data):
                octets += len(event.data)
        except h11.RemoteProtocolError:
            return None
        return octets, isinstance(event, h11.EndOfMessage)

    return read


class HTTPExchange:
    """A conversation: the request, then the answer, until the verdict.

    :param request: the octets to send.
    :param header_limit: octets that a head, a chunk's head or the trailers may have.
    :param body_limit: octets that the body may have.
    """

    farewell = b""
    forgiving = False
    __slots__ = (
        "_body",
        "_body_limit",
        "_header_limit",
        "_left",
        "_parser",
        "_question",
        "_request",
        "_started",
        "passed",
    )

    def __init__(
        self, question: Question, request: bytes, header_limit: int, body_limit: int
    ) -> None:
        self._question = question
        self._request = request
        self._header_limit = header_limit
        self._body_limit = body_limit
        self._left = header_limit + body_limit
        self._body = bytearray()
        self._started = False
        self._parser = h11.Connection(h11.CLIENT, header_limit)
        self.passed = False

    def opened(self) -> bytes:
        self._parser.send(_asked(self._question.method))
        self._parser.send(_END)
        return self._request

    def received(self, data: bytes) -> bytes:
        if not self._started:
            if not data:
                raise self._failed("closed without an answer")
            # A head may take its time, octets that are none need not be waited for.
            if data[: len(_BEGINNING)] != _BEGINNING[: len(data)]:
                raise self._failed(f"the answer is no HTTP: {data[:SHOWN]!r}")
            self._started = True
        self._left -= len(data)
        try:
            self._parser.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as problem:
            if problem.error_status_hint == _HEAD_TOO_LONG:
                why = f"the answer has a head of more than {self._header_limit} octets"
            else:
                why = f"the answer is broken: {problem}"
            raise self._failed(why) from None
        except CheckFailed as problem:
            raise self._failed(str(problem)) from None
        if self._left < 0 and not self.passed:
            # Heads without end, chunks of nothing but heads: no body limit would see them.
            limit = self._header_limit + self._body_limit
            raise self._failed(f"the answer has more than {limit} octets in all")
        return b""

    def _read(self) -> None:
        parser, rules = self._parser, self._question.rules
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Data):
                self._body += event.data
                self._bounded(len(self._body))
            elif isinstance(event, h11.EndOfMessage):
                rules.judge_body(bytes(self._body))
                self.passed = True
                return
            elif isinstance(event, h11.Response):
                rules.judge_status(event.status_code)
                self._announced(event)
            elif not isinstance(event, h11.InformationalResponse):
                return

    def _announced(self, response: h11.Response) -> None:
        """A body that is going to be too long need not be waited for."""
        if self._question.method == "HEAD":
            return
        for name, value in response.headers:
            if name == b"content-length":
                self._bounded(int(value))

    def _bounded(self, octets: int) -> None:
        if octets > self._body_limit:
            raise CheckFailed(f"the body has more than {self._body_limit} octets")

    def _failed(self, why: str) -> CheckFailed:
        return CheckFailed(f"{self._question.path}: {why}")
