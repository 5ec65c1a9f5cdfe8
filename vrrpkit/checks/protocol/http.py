"""What is asked of an HTTP server, and what counts as a healthy answer. Pure.

The rules are applied in keepalived's order: something was received, status, digest, regular
expressions.
"""

from __future__ import annotations

import hashlib
import re

import attrs

from vrrpkit.checks.protocol.http_options import (
    DIGESTS,
    body_pattern,
    digest_digits,
    host_name,
    no_match_pattern,
    request_path,
    spelled,
    status_codes,
    status_codes_if_any,
)
from vrrpkit.errors import CheckFailed, ConfigError

__all__ = ["SUCCESS", "URL", "Question", "Rules", "compose"]

SUCCESS = frozenset(range(200, 300))
"""What is accepted unless something else is said, as in keepalived."""

SHOWN = 60
"""Octets of the body that the failure's text quotes."""

_EXPECTS_LENGTH = {"POST", "PUT", "PATCH"}
_BODILESS = {"HEAD"}


@attrs.frozen
class URL:
    """One thing to ask a server for, with rules of its own (keepalived: ``url``). What is left out
    is as the checker says.

    :param path: from ``/`` on, with its query if any (``path``).
    :param status: accepted status codes (``status_code``).
    :param digest: of the body, in hexadecimal: MD5 (``digest``, as ``genhash`` and ``md5sum``) or
        SHA-256, told apart by their length.
    :param regex: must be found in the body (``regex``).
    :param no_match: must not be found in the body (``regex_no_match``).
    :param host: the Host header, a name or an address, perhaps with a port (``virtualhost``).
    :raises ConfigError: a value is unusable.
    """

    path: str = attrs.field(converter=request_path)
    status: frozenset[int] | None = attrs.field(
        default=None, kw_only=True, converter=status_codes_if_any, repr=spelled
    )
    digest: str | None = attrs.field(default=None, kw_only=True, converter=digest_digits)
    regex: re.Pattern[bytes] | None = attrs.field(
        default=None, kw_only=True, converter=body_pattern
    )
    no_match: re.Pattern[bytes] | None = attrs.field(
        default=None, kw_only=True, converter=no_match_pattern
    )
    host: str | None = attrs.field(default=None, kw_only=True, converter=host_name)

    def __str__(self) -> str:
        return self.path


@attrs.frozen(kw_only=True)
class Rules:
    """What a healthy answer looks like."""

    status: frozenset[int] = attrs.field(default=SUCCESS, converter=status_codes, repr=spelled)
    digest: str | None = attrs.field(default=None, converter=digest_digits)
    regex: re.Pattern[bytes] | None = attrs.field(default=None, converter=body_pattern)
    no_match: re.Pattern[bytes] | None = attrs.field(default=None, converter=no_match_pattern)

    @property
    def need_body(self) -> bool:
        """Whether a rule is about the body."""
        return (self.digest or self.regex or self.no_match) is not None

    def judge_status(self, status: int) -> None:
        """The head of the answer has come.

        :raises CheckFailed: its status is not accepted.
        """
        if status not in self.status:
            raise CheckFailed(f"status {status}, expected {spelled(self.status)}")

    def judge_body(self, body: bytes) -> None:
        """The answer has come in full.

        :raises CheckFailed: a rule about the body does not hold.
        """
        if self.digest is not None:
            name = DIGESTS[len(self.digest)]
            # It compares, it protects nothing: MD5 is as good here as in keepalived.
            found = hashlib.new(name, body, usedforsecurity=False).hexdigest()
            if found != self.digest:
                raise CheckFailed(f"{name} digest {found}, expected {self.digest}")
        if self.regex is not None and not self.regex.search(body):
            raise CheckFailed(f"{self.regex.pattern!r} is not in the body: {_shown(body)}")
        if self.no_match is not None and (match := self.no_match.search(body)):
            raise CheckFailed(f"{self.no_match.pattern!r} is in the body: {_shown(match.group())}")


def _shown(body: bytes) -> str:
    return f"{body[:SHOWN]!r}..." if len(body) > SHOWN else repr(body)


@attrs.frozen(kw_only=True)
class Question:
    """A request but for the server's name, and the rules for the answer."""

    path: str
    method: str
    rules: Rules
    host: str | None
    before: bytes = attrs.field(repr=False)
    """The request up to the value of the Host header."""
    after: bytes = attrs.field(repr=False)
    """The request from there on."""

    def request(self, authority: str) -> bytes:
        """The request; ``authority`` names the server if nothing else does."""
        return self.before + (self.host or authority).encode() + self.after


def compose(
    url: URL,
    rules: Rules,
    *,
    method: str,
    host: str | None,
    headers: tuple[tuple[str, str], ...],
    version: str,
) -> Question:
    """What is asked for a URL by a checker with these rules and headers.

    :raises ConfigError: a rule is about the body of an answer that has none.
    """
    own = {
        name: value
        for name in ("status", "digest", "regex", "no_match")
        if (value := getattr(url, name)) is not None
    }
    rules = attrs.evolve(rules, **own)
    if method in _BODILESS and rules.need_body:
        raise ConfigError(
            f"the answer to {method} has no body: leave out digest, regex and no_match, or use GET"
        )
    given = {name.lower() for name, _ in headers}
    lines = [f"{name}: {value}" for name, value in headers]
    if "user-agent" not in given:
        lines.append("User-Agent: vrrpkit")
    if method in _EXPECTS_LENGTH:
        lines.append("Content-Length: 0")
    lines.append("Connection: close")
    return Question(
        path=url.path,
        method=method,
        rules=rules,
        host=url.host or host,
        before=f"{method} {url.path} HTTP/{version}\r\nHost: ".encode(),
        after="".join(["\r\n", *(f"{line}\r\n" for line in lines), "\r\n"]).encode("latin-1"),
    )
