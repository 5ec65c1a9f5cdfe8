"""The SMTP checker: greeting, EHLO or HELO, perhaps STARTTLS, QUIT."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from vrrpkit.checks.base import Begin, CallbackChecker
from vrrpkit.checks.io.tcp import connect
from vrrpkit.checks.protocol.exchange import Exchange
from vrrpkit.checks.protocol.http_options import server_name
from vrrpkit.checks.protocol.smtp import SMTPDialogue
from vrrpkit.checks.target import Endpoint, Target
from vrrpkit.errors import ConfigError
from vrrpkit.hostnames import fault_in_name
from vrrpkit.validate import flag_field, optional_path

if TYPE_CHECKING:
    import ssl

__all__ = ["SMTPChecker"]

PORT = 25
"""Where a server without a port is asked."""

# RFC 5321 section 4.1.2: an address literal, in place of a domain.
_LITERAL = re.compile(r"\[[!-Z^-~]+\]")
_LONGEST = 255


def _ca(value: str | Path | None) -> Path | None:
    return optional_path("ca", value)


def _valid(name: object) -> bool:
    if not isinstance(name, str) or len(name) > _LONGEST:
        return False
    if _LITERAL.fullmatch(name):
        return True
    # RFC 5321 knows no underscores and no dot at the end.
    return "_" not in name and not name.endswith(".") and fault_in_name(name) is None


def _helo(value: str | None) -> str | None:
    if value is not None and not _valid(value):
        raise ConfigError(
            f"SMTPChecker: helo_name {value!r} must be a domain name or an address literal: "
            "'checker.example.net', '[192.0.2.1]'"
        )
    return value


@attrs.frozen(kw_only=True)
class SMTPChecker(CallbackChecker):
    """A server is healthy if it talks SMTP (keepalived: ``SMTP_CHECK``)::

        SMTPChecker()
        SMTPChecker(starttls=True, server_name="mail.example.net")

    It must greet with 220, answer EHLO with 250 - or, where EHLO is refused, HELO - and QUIT with
    221 (RFC 5321). No mail is sent, and nobody logs in. With ``starttls`` it must also offer
    STARTTLS, enter TLS with a certificate that is good, and answer EHLO again (RFC 3207).

    The server's port is used, or 25 if it has none. A server that says more than it was asked for,
    or more than 16384 octets at a time, has failed.

    :param helo_name: who we say we are: a domain name or an address literal like ``"[192.0.2.1]"``
        (``helo_name``, by default ``smtpchecker.keepalived.org``). ``None`` is the host's name,
        looked at in each attempt.
    :param esmtp: ``False`` says HELO instead of EHLO, as keepalived does.
    :param starttls: enter TLS.
    :param verify: ``False`` accepts any certificate.
    :param ca: a file of PEM certificates to trust instead of the system's; read on construction.
    :param server_name: the name or address that the certificate must be for, a name is also told to
        the server (SNI); without it the address that is connected to.
    :raises ConfigError: a value is unusable, or ``ca`` is no such file.
    """

    helo_name: str | None = attrs.field(default=None, converter=_helo)
    esmtp: bool = attrs.field(default=True, validator=flag_field)
    starttls: bool = attrs.field(default=False, validator=flag_field)
    verify: bool = attrs.field(default=True, validator=flag_field)
    ca: Path | None = attrs.field(default=None, converter=_ca)
    server_name: str | None = attrs.field(default=None, converter=server_name)
    _context: ssl.SSLContext | None = attrs.field(default=None, init=False, eq=False, repr=False)

    needs_port = False

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.starttls:
            for option, given in (
                ("ca", self.ca is not None),
                ("server_name", self.server_name is not None),
                ("verify=False", not self.verify),
            ):
                if given:
                    raise ConfigError(
                        f"SMTPChecker: {option} is of no use without TLS; add starttls=True"
                    )
            return
        if not self.esmtp:
            raise ConfigError(
                "SMTPChecker: STARTTLS is an extension, which HELO does not ask for; leave out "
                "esmtp=False"
            )
        if not self.verify and self.ca is not None:
            raise ConfigError(
                "SMTPChecker: ca is of no use with verify=False; leave one of them out"
            )
        # ssl is loaded when something needs it, not when vrrpkit is imported.
        from vrrpkit.checks.io.tls import context

        made = context(
            verify=self.verify, ca=self.ca, cert=None, key=None, password=None, alpn=None
        )
        object.__setattr__(self, "_context", made)

    def endpoint(self, target: Target) -> Endpoint:
        endpoint = super().endpoint(target)
        return endpoint if endpoint.port else attrs.evolve(endpoint, port=PORT)

    def prepare(self, target: Target) -> Begin:
        endpoint = self.endpoint(target)
        encrypted: Callable[[Exchange], Exchange] | None = None
        if self._context is not None:
            from vrrpkit.checks.io.tls import TLSExchange

            encrypted = partial(TLSExchange, self._context, self.server_name or endpoint.host)

        def session() -> SMTPDialogue:
            # The host's name may change.
            name = self.helo_name or _own_name()
            return SMTPDialogue(name, esmtp=self.esmtp, encrypted=encrypted)

        return lambda report, loop: connect(endpoint, session(), report, loop)


def _own_name() -> str:
    """The host's name; nobody is asked for its domain, which might take long."""
    name = os.uname().nodename
    # What is no name at all becomes what clients without a name say.
    return name if _valid(name) else "[127.0.0.1]"
