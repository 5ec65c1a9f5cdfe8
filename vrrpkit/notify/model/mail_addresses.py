"""Names and addresses as mail needs them, and header text that nothing is read into. Pure."""

from __future__ import annotations

import contextlib
import re
from email.errors import HeaderParseError
from email.header import Header
from email.headerregistry import Address
from email.policy import Policy
from email.utils import getaddresses
from ipaddress import ip_address

from vrrpkit.errors import ConfigError
from vrrpkit.hostnames import ascii_form, fault_in_name
from vrrpkit.validate import one_line
from vrrpkit.values import IPAddress

__all__ = [
    "PlainSubject",
    "address_literal",
    "check_helo",
    "check_server",
    "is_full_name",
    "mailbox",
    "own_mailbox",
]

_LITERAL = re.compile(r"\[(IPv6:)?([0-9A-Fa-f:.]+)\]")

ENCODED = "=?"
"""What an encoded word (RFC 2047) begins with."""


class PlainSubject(str):
    """The text of a subject, to be shown as it is.

    The ``email`` package decodes the encoded words of a text that it is given, and old versions
    write out the line ends that such a word may hold (CVE-2024-6923): a server that answers a check
    could put a header into mail about it. A value that has a ``name`` and can ``fold`` is taken as
    it is.
    """

    name = "Subject"

    def fold(self, *, policy: Policy) -> str:
        """The header as it is sent, with its line ends."""
        plain = self.isascii() and ENCODED not in self
        header = Header(str(self), None if plain else "utf-8", header_name=self.name)
        return f"{self.name}: {header.encode(linesep=policy.linesep)}{policy.linesep}"


def address_literal(address: IPAddress) -> str:
    """How an address stands in place of a name (RFC 5321, section 4.1.3)."""
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"


def is_full_name(name: str) -> bool:
    """Whether it is the name of a host with its domain."""
    return "." in name.removesuffix(".") and fault_in_name(name) is None


def _is_literal(text: str) -> bool:
    found = _LITERAL.fullmatch(text)
    if found is not None:
        with contextlib.suppress(ValueError):
            return (ip_address(found[2]).version == 6) is bool(found[1])
    return False


def check_helo(helo: object) -> None:
    """Refuse what a server would refuse as the name in EHLO.

    :raises ConfigError: it is no full host name, no address literal and not ``localhost``.
    """
    if isinstance(helo, str) and (is_full_name(helo) or _is_literal(helo) or helo == "localhost"):
        return
    raise ConfigError(
        f"mail: helo {helo!r} is no full name of a host, and servers refuse it; write it as "
        "'lb1.example.net', or as an address in brackets: '[192.0.2.1]', '[IPv6:2001:db8::1]'"
    )


def check_server(host: object) -> None:
    """Refuse what is no name or address of a server.

    :raises ConfigError: it is something else, for example with a port; the message says what to
        write.
    """
    given = host if isinstance(host, str) else ""
    with contextlib.suppress(ValueError):
        ip_address(given)
        return
    name, _, port = given.rpartition(":")
    if name and port.isdigit() and ("[" in name or ":" not in name):
        raise ConfigError(
            f"mail: host {host!r} has a port in it; write it apart: Mail({name.strip('[]')!r}, "
            f"port={int(port)})"
        )
    if given.startswith("[") and given.endswith("]"):
        raise ConfigError(f"mail: host {host!r}: write the address without brackets")
    with contextlib.suppress(UnicodeError):
        # The resolver and TLS take an international name as it is.
        given = ascii_form(given)
    if (fault := fault_in_name(given)) is not None:
        raise ConfigError(
            f"mail: host {host!r} is no name or address of a server; write it as "
            f"'smtp.example.net' or '192.0.2.25': {fault}"
        )


def mailbox(what: str, value: object) -> Address:
    """Turn text into the address of somebody who gets or sends mail.

    :raises ConfigError: it is none, or more than one; ``what`` names it in the message.
    """
    if isinstance(value, str) and value == one_line(value) and ENCODED not in value:
        found = getaddresses([value])
        if len(found) > 1:
            raise ConfigError(
                f"mail: {what} {value!r} is more than one address; write a list with one address "
                "each, and a name with a comma in double quotes"
            )
        with contextlib.suppress(ValueError, IndexError, HeaderParseError):
            name, spec = found[0]
            address = Address(display_name=name, addr_spec=spec)
            if address.username and address.domain and spec.isascii() and " " not in spec:
                return address
    raise ConfigError(
        f"mail: {what} {value!r} is no address; write it as 'ops@example.net', a name before it in "
        "plain letters, and a domain of other letters in its ASCII form ('xn--...')"
    )


def own_mailbox(what: str, value: object) -> Address:
    """Like :func:`mailbox`, of this host: servers want to know where an answer could go.

    :raises ConfigError: its domain is no full host name, no address literal and not ``localhost``.
    """
    address = mailbox(what, value)
    domain = address.domain
    if is_full_name(domain) or _is_literal(domain) or domain == "localhost":
        return address
    raise ConfigError(
        f"mail: {what} {value!r}: {domain!r} is no full name of a host, and servers refuse it; "
        f"write it as '{address.username}@{domain}.example.net'"
    )
