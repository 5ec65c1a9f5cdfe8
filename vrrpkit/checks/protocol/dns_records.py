"""The contents of DNS records as text, as ``dig +short`` prints them in lower case. Pure."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from vrrpkit.checks.protocol.dns_message import TYPES, Malformed, ResourceRecord, encode_name
from vrrpkit.errors import ConfigError

__all__ = ["expected", "text"]

_ADDRESSES: dict[int, type[IPv4Address] | type[IPv6Address]] = {
    TYPES["A"]: IPv4Address,
    TYPES["AAAA"]: IPv6Address,
}
_NAMES = {TYPES["NS"], TYPES["CNAME"], TYPES["PTR"], TYPES["DNAME"]}
_TEXTS = {TYPES["TXT"], TYPES["SPF"]}

_BEFORE_NAME = {TYPES["MX"]: "!H", TYPES["SRV"]: "!HHH"}
"""Types that are numbers and then a name."""

_SOA_END = struct.Struct("!IIIII")

_GENERIC = re.compile(r"(?:\\#\s*\d+\s+)?((?:[0-9a-f]{2}\s*)*)", re.IGNORECASE)


def text(record: ResourceRecord) -> str:
    """What a record says.

    :raises Malformed: its content is not of its type's form.
    """
    reader = _READERS.get(record.kind, _generic)
    try:
        return reader(record)
    except (struct.error, ValueError):
        raise Malformed(f"a record of type {record.kind} has broken content") from None


def expected(kind: int, value: str | IPv4Address | IPv6Address) -> str:
    """What the user expects, in the form that :func:`text` gives.

    :raises ConfigError: no record of this type can say that.
    """
    given = str(value)
    if kind in _ADDRESSES:
        return _address(kind, given)
    if kind in _NAMES:
        return _name(given)
    if kind in _TEXTS:
        return given
    words = given.split()
    if kind in _BEFORE_NAME:
        numbers = len(_BEFORE_NAME[kind]) - 1
        shape = "10 mail.example.net" if numbers == 1 else "0 5 5060 sip.example.net"
        if len(words) != numbers + 1 or not all(map(_number, words[:-1])):
            raise ConfigError(f"DNSChecker: expect {given!r} must be of the form '{shape}'")
        return " ".join([*(str(int(word)) for word in words[:-1]), _name(words[-1])])
    if kind == TYPES["SOA"]:
        if len(words) != 7 or not all(map(_number, words[2:])):
            raise ConfigError(
                f"DNSChecker: expect {given!r} must be of the form 'ns.example.net "
                "admin.example.net 2024 7200 3600 1209600 300'"
            )
        return " ".join([*map(_name, words[:2]), *(str(int(word)) for word in words[2:])])
    found = _GENERIC.fullmatch(given.strip())
    if found is None:
        raise ConfigError(
            f"DNSChecker: expect {given!r}: records of this type are compared as octets; write "
            "their hexadecimal digits"
        )
    return _octets(bytes.fromhex(found[1]))


def _number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _address(kind: int, given: str) -> str:
    try:
        return str(_ADDRESSES[kind](given))
    except ValueError:
        version = 4 if kind == TYPES["A"] else 6
        raise ConfigError(f"DNSChecker: expect {given!r} must be an IPv{version} address") from None


def _name(given: str) -> str:
    encode_name(given)
    return given.lower().removesuffix(".") + "."


def _octets(content: bytes) -> str:
    """RFC 3597 section 5."""
    return f"\\# {len(content)} {content.hex()}".rstrip()


def _generic(record: ResourceRecord) -> str:
    return _octets(record.content)


def _read_address(record: ResourceRecord) -> str:
    return str(_ADDRESSES[record.kind](record.content))


def _read_name(record: ResourceRecord) -> str:
    return record.name(0)[0]


def _read_numbers_and_name(record: ResourceRecord) -> str:
    shape = _BEFORE_NAME[record.kind]
    numbers: tuple[int, ...] = struct.unpack_from(shape, record.content)
    name, _ = record.name(struct.calcsize(shape))
    return " ".join([*map(str, numbers), name])


def _read_soa(record: ResourceRecord) -> str:
    server, at = record.name(0)
    mailbox, at = record.name(at)
    numbers: tuple[int, ...] = _SOA_END.unpack_from(record.content, at)
    return " ".join([server, mailbox, *map(str, numbers)])


def _read_text(record: ResourceRecord) -> str:
    content, parts = record.content, bytearray()
    at = 0
    while at < len(content):
        end = at + 1 + content[at]
        if end > len(content):
            raise ValueError("a string is longer than its record")
        parts += content[at + 1 : end]
        at = end
    return parts.decode("utf-8", "backslashreplace")


_READERS: dict[int, Callable[[ResourceRecord], str]] = {
    **dict.fromkeys(_ADDRESSES, _read_address),
    **dict.fromkeys(_NAMES, _read_name),
    **dict.fromkeys(_TEXTS, _read_text),
    **dict.fromkeys(_BEFORE_NAME, _read_numbers_and_name),
    TYPES["SOA"]: _read_soa,
}
