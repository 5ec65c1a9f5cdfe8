"""The TCP checker: a connection, and perhaps a word or two."""

from __future__ import annotations

import re
from functools import partial

import attrs

from vrrpkit.checks.base import Begin, CallbackChecker
from vrrpkit.checks.io.tcp import connect
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.keyword_advice import advised
from vrrpkit.validate import whole_number
from vrrpkit.values import hidden

__all__ = ["TCPChecker"]

SHOWN = 60
"""Octets of an unexpected answer that the failure's text quotes."""


SEARCHES = 256
"""Pieces of an answer after each of which a regular expression is searched for; then only when it
is an eighth longer, and at its end."""


@advised
@attrs.frozen(kw_only=True)
class TCPChecker(CallbackChecker):
    """A server is healthy if it accepts a TCP connection (keepalived: ``TCP_CHECK``), and, if asked
    for, answers as expected::

        TCPChecker(interval=2, timeout=1)
        TCPChecker(send=b"PING\\r\\n", expect=b"+PONG")
        TCPChecker(expect=re.compile(rb"\\ASSH-2\\.0-"))

    The connection is closed as soon as the verdict is known.

    :param send: octets to send once connected.
    :param expect: what must come: octets, found anywhere in what the server sends, or a compiled
        regular expression over octets, searched for likewise (``\\\\A`` ties it to the beginning).
    :param limit: octets that the server may send before ``expect`` is found, 1 to 16777216; beyond
        them it has failed.
    :raises ConfigError: a value is of the wrong kind or out of range.
    """

    send: bytes | None = attrs.field(default=None, repr=hidden)
    expect: bytes | re.Pattern[bytes] | None = None
    limit: int = 65536

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.send is not None and not _octets(self.send):
            raise ConfigError(
                f"TCPChecker: send must be octets, not {type(self.send).__name__}, and not empty; "
                "write b'PING\\r\\n'"
            )
        pattern = self.expect.pattern if isinstance(self.expect, re.Pattern) else self.expect
        if self.expect is not None and not _octets(pattern):
            raise ConfigError(
                f"TCPChecker: expect {self.expect!r} must be octets or a regular "
                "expression over octets; write b'+PONG' or re.compile(rb'...')"
            )
        whole_number("TCPChecker: limit", self.limit, 1, 2**24, "octets until expect is found")

    def prepare(self, target: Target) -> Begin:
        endpoint = self.endpoint(target)
        if self.send is None and self.expect is None:
            return lambda report, loop: connect(endpoint, None, report, loop)
        talk = partial(_TextExchange, self.send or b"", self.expect, self.limit)
        return lambda report, loop: connect(endpoint, talk(), report, loop)


def _octets(value: object) -> bool:
    return isinstance(value, bytes) and value != b""


class _TextExchange:
    """Send something, then look for something."""

    farewell = b""
    forgiving = False
    __slots__ = ("_expect", "_heard", "_limit", "_next", "_searches", "_send", "passed")

    def __init__(self, send: bytes, expect: bytes | re.Pattern[bytes] | None, limit: int) -> None:
        self._send = send
        self._expect = expect
        self._limit = limit
        self._heard = bytearray()
        self._searches = 0
        self._next = 0
        self.passed = False

    def opened(self) -> bytes:
        self.passed = self._expect is None
        return self._send

    def received(self, data: bytes) -> bytes:
        heard = self._heard
        heard += data[: self._limit - len(heard)]
        expect = self._expect
        assert expect is not None, "without an expectation nothing is waited for"
        if isinstance(expect, bytes):
            # What was searched before needs no second look.
            start = max(0, len(heard) - len(data) - len(expect) + 1)
            found = heard.find(expect, start) >= 0
            wanted = expect
        else:
            found = self._worth(data) and expect.search(heard) is not None
            wanted = expect.pattern
        if found:
            self.passed = True
        elif not data:
            raise CheckFailed(f"closed after {self._shown()}, expected {wanted!r}")
        elif len(heard) >= self._limit:
            raise CheckFailed(
                f"sent {self._limit} octets without the expected {wanted!r}: {self._shown()}"
            )
        return b""

    def _worth(self, data: bytes) -> bool:
        """Whether to search: all of it again each time, so not for every octet of many."""
        heard = len(self._heard)
        last = not data or heard >= self._limit
        if last or self._searches < SEARCHES or heard >= self._next:
            self._searches += 1
            self._next = heard + heard // 8
            return True
        return False

    def _shown(self) -> str:
        if len(self._heard) > SHOWN:
            return f"{bytes(self._heard[:SHOWN])!r}..."
        return repr(bytes(self._heard)) if self._heard else "no answer"
