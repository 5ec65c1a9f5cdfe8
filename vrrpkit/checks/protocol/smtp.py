"""What is said to an SMTP server and what it must answer (RFC 5321, RFC 3207). Pure.

Not aiosmtplib's, which sends the mail in ``notify/``: its connection is a transport of the event
loop, which cannot be closed at once. A TLS connection to a server that does not answer keeps its
descriptor for half a minute after the attempt was cancelled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from vrrpkit.errors import CheckFailed

if TYPE_CHECKING:
    from vrrpkit.checks.protocol.exchange import Exchange

__all__ = ["SMTPDialogue"]

REPLY_LIMIT = 16384
"""Octets of one reply; those to EHLO have a few hundred, in dozens of lines."""

SHOWN = 100
"""Characters of a reply that the failure's text quotes."""

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?\r?", re.DOTALL)


class _Reply:
    """One reply, which may have several lines."""

    __slots__ = ("code", "lines")

    def __init__(self, code: int, lines: list[bytes]) -> None:
        self.code = code
        self.lines = lines
        """What follows the code in each line."""

    def offers(self, keyword: bytes) -> bool:
        """Whether it is a server's list of extensions that has this one."""
        return any(line.split(maxsplit=1)[:1] == [keyword] for line in map(bytes.upper, self.lines))

    def __str__(self) -> str:
        said = b" / ".join(line.strip() for line in self.lines if line.strip())
        return f"{self.code} {_quoted(said)}" if said else str(self.code)


def _quoted(octets: bytes) -> str:
    shown = repr(octets[:SHOWN].decode("utf-8", "replace"))
    return f"{shown}..." if len(octets) > SHOWN else shown


class SMTPDialogue:
    """A conversation: from the greeting to the answer to QUIT.

    :param name: what EHLO and HELO say.
    :param esmtp: whether to say EHLO.
    :param encrypted: puts a conversation into TLS, if STARTTLS is to be said.
    :param greeted: the server has greeted already, before TLS.
    """

    farewell = b""
    forgiving = False
    __slots__ = (
        "_awaited",
        "_encrypted",
        "_esmtp",
        "_greeted",
        "_heard",
        "_inner",
        "_judge",
        "_lines",
        "_name",
        "_octets",
        "passed",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        esmtp: bool,
        encrypted: Callable[[Exchange], Exchange] | None = None,
        greeted: bool = False,
    ) -> None:
        self._name = name
        self._esmtp = esmtp
        self._encrypted = encrypted
        self._greeted = greeted
        self._inner: Exchange | None = None
        self._awaited = "greeting"
        self._judge: Callable[[_Reply], bytes] = self._on_greeting
        self._heard = bytearray()
        self._lines: list[bytes] = []
        self._octets = 0
        self.passed = False

    def opened(self) -> bytes:
        return self._hello() if self._greeted else b""

    def received(self, data: bytes) -> bytes:
        if self._inner is not None:
            return self._within(self._inner.received(data))
        if not data:
            raise CheckFailed(f"closed before the {self._awaited}")
        self._heard += data
        if b"\n" not in data:
            self._bounded(len(self._heard))
            return b""
        *lines, rest = self._heard.split(b"\n")
        for number, line in enumerate(lines):
            if (reply := self._take(bytes(line))) is not None:
                if number + 1 < len(lines) or rest:
                    # Whoever is between us and the server could put it there, to be taken for what
                    # is said within TLS (RFC 3207 section 6); and who speaks unasked is no server.
                    self._unasked(reply)
                self._heard.clear()
                self._octets = 0
                return self._judge(reply)
        self._heard[:] = rest
        self._bounded(len(rest))
        return b""

    def _bounded(self, more: int) -> None:
        if self._octets + more > REPLY_LIMIT:
            raise CheckFailed(f"the {self._awaited} has more than {REPLY_LIMIT} octets")

    def _unasked(self, reply: _Reply) -> None:
        if self._judge != self._on_quit:
            raise CheckFailed(f"more was sent than the {self._awaited}: after {reply}")

    def _take(self, line: bytes) -> _Reply | None:
        """One line of a reply; the reply if it is the last."""
        self._octets += len(line) + 1
        self._bounded(0)
        match = _LINE.fullmatch(line)
        if match is None:
            raise CheckFailed(f"the {self._awaited} is no SMTP: {_quoted(line)}")
        code, more, said = match.groups()
        if self._lines and self._lines[0] != code:
            first = self._lines[0].decode()
            raise CheckFailed(f"the {self._awaited} has both {first} and {code.decode()}")
        # The code comes first, then what each line says.
        self._lines += [said or b""] if self._lines else [code, said or b""]
        if more == b"-":
            return None
        lines, self._lines = self._lines, []
        return _Reply(int(code), lines[1:])

    # --- step by step ---------------------------------------------------------------------------

    def _on_greeting(self, reply: _Reply) -> bytes:
        self._require(reply, 220)
        return self._hello()

    def _hello(self) -> bytes:
        command = "EHLO" if self._esmtp else "HELO"
        self._await(f"answer to {command}", self._on_hello)
        return f"{command} {self._name}\r\n".encode()

    def _on_hello(self, reply: _Reply) -> bytes:
        if self._esmtp and self._encrypted is None and reply.code >= 500:
            # A server without extensions (RFC 5321 section 3.2).
            self._esmtp = False
            return self._hello()
        self._require(reply, 250)
        if self._encrypted is None:
            self._await("answer to QUIT", self._on_quit)
            return b"QUIT\r\n"
        if not reply.offers(b"STARTTLS"):
            raise CheckFailed("STARTTLS is not offered")
        self._await("answer to STARTTLS", self._on_starttls)
        return b"STARTTLS\r\n"

    def _on_starttls(self, reply: _Reply) -> bytes:
        self._require(reply, 220)
        assert self._encrypted is not None, "nobody has said STARTTLS"
        # All that was learned before counts no more: the session begins anew.
        inner = SMTPDialogue(self._name, esmtp=True, greeted=True)
        self._inner = self._encrypted(inner)
        return self._within(self._inner.opened())

    def _on_quit(self, reply: _Reply) -> bytes:
        self._require(reply, 221)
        self.passed = True
        return b""

    def _await(self, what: str, judge: Callable[[_Reply], bytes]) -> None:
        self._awaited = what
        self._judge = judge

    def _require(self, reply: _Reply, code: int) -> None:
        if reply.code != code:
            raise CheckFailed(f"the {self._awaited} is {reply}, expected {code}")

    def _within(self, answer: bytes) -> bytes:
        assert self._inner is not None, "there is no TLS"
        self.passed = self._inner.passed
        return answer
