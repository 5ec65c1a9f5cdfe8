"""The HTTP and HTTPS checkers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs

from vrrpkit.checks.base import Begin, CallbackChecker, Done, Weight
from vrrpkit.checks.io.tcp import connect
from vrrpkit.checks.protocol.exchange import Exchange
from vrrpkit.checks.protocol.http import SUCCESS, URL, Question, Rules, compose
from vrrpkit.checks.protocol.http_options import (
    body_pattern,
    digest_digits,
    header_lines,
    host_name,
    http_version,
    method_name,
    no_match_pattern,
    server_name,
    spelled,
    status_codes,
    without_port,
)
from vrrpkit.checks.protocol.http_status import Chunks, StatusExchange
from vrrpkit.checks.target import Endpoint, Target
from vrrpkit.errors import ConfigError
from vrrpkit.keyword_advice import advised
from vrrpkit.validate import flag_field, optional_path, whole_number
from vrrpkit.values import hidden

if TYPE_CHECKING:
    import ssl

__all__ = ["URL", "HTTPChecker", "HTTPSChecker"]


def _urls(value: str | URL | Iterable[str | URL]) -> tuple[URL, ...]:
    try:
        # Octets are a sequence too, of numbers.
        several = (value,) if isinstance(value, str | bytes | URL) else tuple(value)
    except TypeError:
        several = ()
    if not several:
        raise ConfigError(
            f"urls {value!r} must be a path, a URL, or at least one of them in a sequence; write "
            "'/', or ['/', URL('/version', regex='^4')]"
        )
    return tuple(item if isinstance(item, URL) else URL(item) for item in several)


@advised
@attrs.frozen
class HTTPChecker(CallbackChecker):
    """A server is healthy if it answers HTTP requests as it should (keepalived: ``HTTP_GET``)::

        HTTPChecker("/healthz", status=200, interval=2, timeout=1)
        HTTPChecker(["/", URL("/version", regex="^4\\\\.")], host="www.example.net")

    Every URL is asked for in every attempt, one after the other and each on a connection of its
    own, and all must pass; ``timeout`` is for all of them together. An answer must arrive in full.
    Redirects are not followed: a 302 is a status like any other. No compression is asked for.

    The rules are applied in keepalived's order: something was received, status, digest, regular
    expressions. The status is judged as soon as it is known.

    :param urls: a path, a :class:`URL` with rules of its own, or several of both (``url``).
    :param status: accepted status codes: a number, a range, or several of both, 200 to 599; without
        it 200 to 299 (``status_code``).
    :param digest: the body's MD5 or SHA-256 digest, in hexadecimal (``digest``).
    :param regex: a regular expression that must be found in the body (``regex``).
    :param no_match: a regular expression that must not be found in the body (``regex_no_match``).
    :param host: the Host header (``virtualhost``); without it the address that is connected to,
        with the port unless it is the usual one.
    :param method: ``GET``, ``HEAD``, ``OPTIONS``, ... (always GET in keepalived). No body is sent.
    :param headers: further headers, by name.
    :param version: of HTTP, ``1.1`` or ``1.0`` (``http_protocol``, there 1.0 unless it is given).
    :param header_limit: octets that the answer's head may have, 256 to 1048576.
    :param body_limit: octets that the answer's body may have, 0 to 67108864. One that has more
        fails as soon as that is known.
    :param strict: fail servers whose answer breaks the format, though no rule is about what is
        broken. Without it (as in keepalived) an answer of which only the status is asked for may
        have header lines that are none, a length that makes no sense or trouble between its chunks,
        and may end without TLS's goodbye; it must arrive in full all the same.
    :raises ConfigError: a value is unusable.
    """

    urls: tuple[URL, ...] = attrs.field(default=(URL("/"),), converter=_urls)
    status: frozenset[int] = attrs.field(
        default=SUCCESS, kw_only=True, converter=status_codes, repr=spelled
    )
    digest: str | None = attrs.field(default=None, kw_only=True, converter=digest_digits)
    regex: re.Pattern[bytes] | None = attrs.field(
        default=None, kw_only=True, converter=body_pattern
    )
    no_match: re.Pattern[bytes] | None = attrs.field(
        default=None, kw_only=True, converter=no_match_pattern
    )
    host: str | None = attrs.field(default=None, kw_only=True, converter=host_name)
    method: str = attrs.field(default="GET", kw_only=True, converter=method_name)
    headers: tuple[tuple[str, str], ...] = attrs.field(
        default=(), kw_only=True, converter=header_lines, repr=hidden
    )
    version: str = attrs.field(default="1.1", kw_only=True, converter=http_version)
    header_limit: int = attrs.field(default=16384, kw_only=True)
    body_limit: int = attrs.field(default=2**20, kw_only=True)
    strict: bool = attrs.field(default=False, kw_only=True, validator=flag_field)
    _questions: tuple[Question, ...] = attrs.field(init=False, eq=False, repr=False)

    usual_port = 80
    """The port that a Host header leaves out."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        what = type(self).__name__
        whole_number(f"{what}: header_limit", self.header_limit, 256, 2**20, "octets of the head")
        whole_number(f"{what}: body_limit", self.body_limit, 0, 2**26, "octets of the body")
        rules = Rules(
            status=self.status, digest=self.digest, regex=self.regex, no_match=self.no_match
        )
        questions = tuple(
            compose(
                url,
                rules,
                method=self.method,
                host=self.host,
                headers=self.headers,
                version=self.version,
            )
            for url in self.urls
        )
        object.__setattr__(self, "_questions", questions)

    def prepare(self, target: Target) -> Begin:
        endpoint = self.endpoint(target)
        authority = endpoint.authority(self.usual_port)
        talks = [
            self._conversation(endpoint, question, question.request(authority))
            for question in self._questions
        ]
        if len(talks) > 1:
            return lambda report, _loop: _Tour(endpoint, talks, report).abandon
        [talk] = talks
        return lambda report, loop: connect(endpoint, talk(), report, loop)

    def _conversation(
        self, endpoint: Endpoint, question: Question, request: bytes
    ) -> Callable[[], Exchange]:
        """What holds the conversation of each attempt."""
        header_limit, body_limit = self.header_limit, self.body_limit
        if self.strict or question.rules.need_body:
            # h11 is loaded when something needs it, not when vrrpkit is imported.
            from vrrpkit.checks.protocol.http_exchange import HTTPExchange

            return partial(HTTPExchange, question, request, header_limit, body_limit)
        return partial(
            StatusExchange,
            question.path,
            request,
            question.rules,
            question.method,
            header_limit,
            body_limit,
            partial(_in_chunks, header_limit),
        )


def _in_chunks(header_limit: int) -> Chunks:
    from vrrpkit.checks.protocol.http_exchange import body_in_chunks

    return body_in_chunks(header_limit)


class _Tour:
    """Several questions, each on a connection of its own, as one attempt."""

    def __init__(
        self,
        endpoint: Endpoint,
        talks: Iterable[Callable[[], Exchange]],
        report: Done,
    ) -> None:
        self._endpoint = endpoint
        self._talks = iter(talks)
        self._report = report
        self._close: Callable[[], None]
        self._go_on(None)

    def _go_on(self, outcome: Weight | BaseException | None) -> None:
        """What was asked last has this outcome: ask the next, or report."""
        talk = next(self._talks, None) if outcome is None else None
        if talk is None:
            self._report(outcome)
        else:
            self._close = connect(self._endpoint, talk(), self._go_on)

    def abandon(self) -> None:
        """Close without a report."""
        self._close()


def _ca(value: str | Path | None) -> Path | None:
    return optional_path("ca", value)


def _cert(value: str | Path | None) -> Path | None:
    return optional_path("cert", value)


def _key(value: str | Path | None) -> Path | None:
    return optional_path("key", value)


@attrs.frozen
class HTTPSChecker(HTTPChecker):
    """As :class:`HTTPChecker`, through TLS (keepalived: ``SSL_GET``, which verifies nothing)::

        HTTPSChecker("/healthz", host="www.example.net")
        HTTPSChecker("/healthz", server_name="node.internal", ca="/etc/ssl/internal-ca.pem")

    The server's certificate must come from a CA that is trusted, be valid now, and be for the
    server: for ``server_name``, else the name in the URL's Host header, else the address that is
    connected to (an IP address in the certificate's subjectAltName). A name, not an address, is
    also told to the server (SNI).

    The files are read on construction. A checker made later sees files that were renewed; this one
    does not.

    :param verify: ``False`` accepts any certificate.
    :param ca: a file of PEM certificates to trust instead of the system's.
    :param cert: a file with the certificate to show if the server asks, and its chain
        (``certificate`` in ``SSL``).
    :param key: a file with its private key; without it the key is in ``cert`` (``key``).
    :param password: of the private key (``password``).
    :param server_name: the name or address that the certificate must be for (``sni_name``).
    :raises ConfigError: a value is unusable, or a file is not what it should be.
    """

    verify: bool = attrs.field(default=True, kw_only=True, validator=flag_field)
    ca: Path | None = attrs.field(default=None, kw_only=True, converter=_ca)
    cert: Path | None = attrs.field(default=None, kw_only=True, converter=_cert)
    key: Path | None = attrs.field(default=None, kw_only=True, converter=_key)
    password: str | None = attrs.field(default=None, kw_only=True, repr=False)
    server_name: str | None = attrs.field(default=None, kw_only=True, converter=server_name)
    _context: ssl.SSLContext = attrs.field(init=False, eq=False, repr=False)

    usual_port = 443

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.verify and self.ca is not None:
            raise ConfigError(
                "HTTPSChecker: ca is of no use with verify=False; leave one of them out"
            )
        if self.cert is None and (self.key is not None or self.password is not None):
            raise ConfigError("HTTPSChecker: key and password need a cert; give cert=, a file")
        if not isinstance(cast(object, self.password), str | None):
            raise ConfigError("HTTPSChecker: password must be text; write str(...)")
        # ssl is loaded when something needs it, not when vrrpkit is imported.
        from vrrpkit.checks.io.tls import context

        made = context(
            verify=self.verify, ca=self.ca, cert=self.cert, key=self.key, password=self.password
        )
        object.__setattr__(self, "_context", made)

    def _conversation(
        self, endpoint: Endpoint, question: Question, request: bytes
    ) -> Callable[[], Exchange]:
        from vrrpkit.checks.io.tls import TLSExchange

        name = self.server_name or without_port(question.host or "") or endpoint.host
        inner = super()._conversation(endpoint, question, request)
        return lambda: TLSExchange(self._context, name, inner())
