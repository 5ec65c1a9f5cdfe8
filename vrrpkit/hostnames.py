"""Names of hosts as resolvers, TLS and HTTP take them (RFC 1123 section 2.1, RFC 5890). Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address

__all__ = ["ascii_form", "fault_in_name", "is_address"]

LABEL_LIMIT = 63
NAME_LIMIT = 253
"""Characters of a name without the dot at its end: 255 octets on the wire (RFC 1035)."""

SHOWN = 20

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")


def is_address(value: object) -> bool:
    """Whether it is the text of an IPv4 or IPv6 address."""
    if not isinstance(value, str):
        return False
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def ascii_form(name: str) -> str:
    """An international name as it is sent: each label in its ``xn--`` form.

    :raises UnicodeError: there is none.
    """
    return name if name.isascii() else name.encode("idna").decode()


def fault_in_name(name: str) -> str | None:
    """Why ``name`` is no name of a host, and what to write instead; ``None`` if it is one.

    A label has 1 to 63 letters, digits, hyphens and underscores, and no hyphen at its ends; the
    whole name has at most 253 characters, and a dot may end it. Resolvers and TLS take underscores,
    which names inside a company have, although RFC 1123 does not. A last label of digits alone is
    that of an address (RFC 3696 section 2).
    """
    if not name:
        return "it is empty; leave it out, or write a name such as 'www.example.net'"
    scheme, found, rest = name.partition("://")
    if found:
        return f"it has a scheme in it ({scheme}); write {_host_of(rest)!r}"
    if "/" in name:
        return f"it has a path in it; write {_host_of(name)!r}"
    host, colon, port = name.rpartition(":")
    if colon and ":" not in host and port.isdecimal():
        return f"it has a port in it; write {host!r}, and the port apart"
    if name.startswith("[") and name.endswith("]"):
        return f"it has brackets around it; write {name[1:-1]!r}"
    if not name.isascii():
        return _international(name)
    return _fault_in_labels(name.removesuffix("."))


def _host_of(rest: str) -> str:
    """The name or address in what follows the scheme of a URL."""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return host or "www.example.net"


def _international(name: str) -> str:
    try:
        written = ascii_form(name)
    except UnicodeError as problem:
        return f"it has no ASCII form ({problem}); write it in its xn-- form"
    return f"it is no ASCII; write its ASCII form {written!r}"


def _fault_in_labels(name: str) -> str | None:
    if len(name) > NAME_LIMIT:
        return f"it has {len(name)} characters, and a name has at most {NAME_LIMIT}"
    labels = name.split(".")
    for label in labels:
        if not label:
            return "there is nothing between two dots, or before the first; write 'www.example.net'"
        if len(label) > LABEL_LIMIT:
            return (
                f"the part '{label[:SHOWN]}...' has {len(label)} characters, and between two dots "
                f"there are at most {LABEL_LIMIT}"
            )
        if not _LABEL.fullmatch(label):
            return (
                f"{label!r} must have letters, digits, underscores and, but at its ends, hyphens; "
                "write 'www.example.net'"
            )
    if labels[-1].isdecimal():
        return "it ends as an address does, and is none; write '192.0.2.1' or 'www.example.net'"
    return None
