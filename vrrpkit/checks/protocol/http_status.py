"""One HTTP request and its answer, of which only the status is judged. Pure.

What is asked of the rest is that it arrives: the head to its end, then the body as the head says,
by its length, in chunks, or until the server closes. Header lines that are none, a length that
makes no sense, trouble between chunks: clients get along with it, and keepalived keeps such a
server, so none of it fails a check that has no rule about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from vrrpkit.checks.protocol.http import Rules
from vrrpkit.errors import CheckFailed

__all__ = ["Chunks", "StatusExchange"]

SHOWN = 40
"""Octets of what is no HTTP that the failure's text quotes."""

BEFORE = 16
"""Informational answers before the one that counts."""

_BEGINNING = b"HTTP/"
_LINE = re.compile(rb"HTTP/[0-9]\.[0-9][ \t]+([1-5][0-9]{2})(?=[ \t\r\n])")
_FRAMING = re.compile(
    rb"\n(content-length|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE
)
_LENGTH = re.compile(rb"[0-9]{1,19}")
_BODILESS = (204, 304)
_SWITCHING = 101
"""Informational by its number; but what comes after it is no HTTP."""

Chunks: TypeAlias = "Callable[[bytes], tuple[int, bool] | None]"
"""Takes what came of a body in chunks: how many octets of the body are in it, and whether it has
ended; or ``None`` if it is no such thing."""


class StatusExchange:
    """A conversation: the request, then the answer, until the verdict.

    :param path: what messages begin with.
    :param request: the octets to send.
    :param method: the request's.
    :param header_limit: octets that a head may have, and all heads before it.
    :param body_limit: octets that the body may have.
    :param chunks: makes what reads a body in chunks.
    """

    farewell = b""
    forgiving = True
    """A connection that ends without the goodbye of TLS has ended."""

    __slots__ = (
        "_all",
        "_before",
        "_body_limit",
        "_chunks",
        "_head",
        "_header_limit",
        "_left",
        "_make_chunks",
        "_method",
        "_octets",
        "_path",
        "_request",
        "_rules",
        "passed",
    )

    def __init__(
        self,
        path: str,
        request: bytes,
        rules: Rules,
        method: str,
        header_limit: int,
        body_limit: int,
        chunks: Callable[[], Chunks],
    ) -> None:
        self._path = path
        self._request = request
        self._rules = rules
        self._method = method
        self._header_limit = header_limit
        self._body_limit = body_limit
        self._make_chunks = chunks
        self._chunks: Chunks | None = None
        self._head: bytearray | None = bytearray()
        """What has come of the head; ``None`` once it is complete."""
        self._before = 0
        """Informational answers so far."""
        self._octets = 0
        """What has come of the body."""
        self._all = 0
        """The same, with what is between the chunks."""
        self._left: int | None = None
        """Octets of the body that are still to come, if that is known."""
        self.passed = False

    def opened(self) -> bytes:
        return self._request

    def received(self, data: bytes) -> bytes:
        if self._head is not None:
            if not data:
                what = "within the head of its answer" if self._head else "without an answer"
                raise self._failed(f"closed {what}")
            self._read_head(self._head, data)
        elif data:
            self._read_body(data)
        elif self._left is not None:
            raise self._failed(f"closed with {self._left} octets of the body still to come")
        elif self._chunks is not None:
            raise self._failed("closed before the last chunk of the body")
        else:
            self.passed = True
        return b""

    def _read_head(self, head: bytearray, data: bytes) -> None:
        # The end may have begun with what came before; nothing is searched twice.
        start = max(0, len(head) - 3)
        head += data
        # A head may take its time, octets that are none need not be waited for.
        if not head.startswith(_BEGINNING[: len(head)]):
            raise self._failed(f"the answer is no HTTP: {bytes(head[:SHOWN])!r}")
        while (end := _end_of_head(head, start)) is not None:
            if end > self._header_limit:
                break
            status = self._status(head)
            rest = bytes(head[end:])
            if status >= 200 or status == _SWITCHING:
                self._head = None
                self._judge(status, bytes(head[:end]))
                if not self.passed and rest:
                    self._read_body(rest)
                return
            # An informational one; the answer comes after it, within what is left of the limit.
            self._before += 1
            if self._before > BEFORE:
                raise self._failed(f"the answer has more than {BEFORE} others before it")
            self._header_limit -= end
            head[:] = rest
            start = 0
        if len(head) > self._header_limit:
            raise self._failed(f"the answer has a head of more than {self._header_limit} octets")

    def _status(self, head: bytearray) -> int:
        found = _LINE.match(head)
        if found is None:
            line = bytes(head[:SHOWN]).partition(b"\n")[0]
            raise self._failed(f"the answer has no status: {line!r}")
        return int(found[1])

    def _judge(self, status: int, head: bytes) -> None:
        """The head is complete: whether more is to come."""
        try:
            self._rules.judge_status(status)
        except CheckFailed as problem:
            raise self._failed(str(problem)) from None
        if self._method == "HEAD" or status in _BODILESS:
            self.passed = True
            return
        lengths: set[bytes] = set()
        for name, value in _FRAMING.findall(head):
            if len(name) == len(b"content-length"):
                lengths.add(value.strip())
            elif value.strip().lower().endswith(b"chunked"):
                # It counts before a length (RFC 9112 section 6.3).
                self._chunks = self._make_chunks()
                return
        if len(lengths) == 1 and _LENGTH.fullmatch(value := lengths.pop()):
            self._left = int(value)
            if self._left > self._body_limit:
                raise self._too_long()
            self.passed = not self._left

    def _read_body(self, data: bytes) -> None:
        if self._left is not None:
            # What comes beyond is nobody's business.
            self._left = max(0, self._left - len(data))
            self.passed = not self._left
            return
        octets, ended = len(data), False
        if self._chunks is not None:
            self._all += len(data)
            found = self._chunks(data)
            if found is None:
                # Whatever it is, it ends when the server closes.
                self._chunks = None
            else:
                octets, ended = found
            limit = self._header_limit + self._body_limit
            if self._all > limit and not ended:
                # Chunks of nothing but heads: no body limit would see them.
                raise self._failed(f"the answer has more than {limit} octets in all")
        self._octets += octets
        if self._octets > self._body_limit:
            raise self._too_long()
        self.passed = ended

    def _too_long(self) -> CheckFailed:
        return self._failed(f"the body has more than {self._body_limit} octets")

    def _failed(self, why: str) -> CheckFailed:
        return CheckFailed(f"{self._path}: {why}")


def _end_of_head(head: bytearray, start: int) -> int | None:
    """Where the empty line ends that ends a head, with or without carriage returns."""
    crlf = head.find(b"\n\r\n", start)
    lf = head.find(b"\n\n", start) if crlf < 0 else head.find(b"\n\n", start, crlf)
    if lf >= 0:
        return lf + 2
    return crlf + 3 if crlf >= 0 else None
