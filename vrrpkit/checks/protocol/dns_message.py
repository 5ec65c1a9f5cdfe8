"""DNS messages: a query to octets, an answer from octets (RFC 1035). Pure.

Not dpkt's, which refuses a whole message for one record of a type that it does not know (DNSKEY,
RRSIG, CAA, HTTPS ...) or one TXT that is no UTF-8, and would so take healthy servers down; and
which writes a label of more than 63 octets as a compression pointer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import TypeAlias

import attrs

from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.hostnames import ascii_form

__all__ = [
    "RCODES",
    "TYPES",
    "Answer",
    "Malformed",
    "ResourceRecord",
    "answer",
    "encode_name",
    "query",
]

TYPES = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "HINFO": 13,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "LOC": 29,
    "SRV": 33,
    "NAPTR": 35,
    "DNAME": 39,
    "DS": 43,
    "SSHFP": 44,
    "RRSIG": 46,
    "NSEC": 47,
    "DNSKEY": 48,
    "TLSA": 52,
    "SVCB": 64,
    "HTTPS": 65,
    "SPF": 99,
    "ANY": 255,
    "CAA": 257,
}
"""Record types by name; others are written as TYPE123 (RFC 3597)."""

RCODES = {
    "NOERROR": 0,
    "FORMERR": 1,
    "SERVFAIL": 2,
    "NXDOMAIN": 3,
    "NOTIMP": 4,
    "REFUSED": 5,
    "YXDOMAIN": 6,
    "YXRRSET": 7,
    "NXRRSET": 8,
    "NOTAUTH": 9,
    "NOTZONE": 10,
}
"""Response codes by name."""

IN = 1
ANY = TYPES["ANY"]
NAME_LIMIT = 255
LABEL_LIMIT = 63
POINTER_LIMIT = 255
"""Twice the labels that a name may have: more lead nowhere."""

Names: TypeAlias = "dict[int, tuple[str, int]]"
"""The names of a message by their offsets, without the dot of the root, and their octets."""

_HEADER = struct.Struct("!HHHHHH")
_QUESTION_END = struct.Struct("!HH")
_RECORD_END = struct.Struct("!HHIH")

_RESPONSE = 0x8000
_OPCODE = 0x7800
_TRUNCATED = 0x0200
_RECURSION_DESIRED = 0x0100
_RCODE = 0x000F

_LABEL = re.compile(r"[!-\[\]-~]+")
_SLIP = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@]*@)?([^/:]*).*|([^:]+):[0-9]+", re.DOTALL)


class Malformed(CheckFailed):
    """The server's message breaks the format."""


def encode_name(name: str) -> bytes:
    """A domain name as it is sent.

    :raises ConfigError: it is none.
    """
    labels = _labels(name)
    # '/' and ':' may stand in a label (RFC 2317), but not where a URL has them.
    if (slip := _SLIP.fullmatch(name)) is not None:
        raise ConfigError(
            f"DNS name {name!r} is a URL, or has a port in it: write the name alone, "
            f"{slip[1] or slip[2]!r}"
        )
    for label in labels:
        if not _LABEL.fullmatch(label) or len(label) > LABEL_LIMIT:
            raise ConfigError(
                f"DNS name {name!r}: between dots there must be 1 to {LABEL_LIMIT} visible ASCII "
                f"characters other than '\\'; write an international name {_in_ascii(name)}"
            )
    wire = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    if len(wire) > NAME_LIMIT:
        raise ConfigError(f"DNS name {name!r} has more than {NAME_LIMIT} octets; shorten it")
    return wire


def _in_ascii(name: str) -> str:
    try:
        written = ascii_form(name)
    except UnicodeError:
        written = name
    return "in its xn-- form" if written == name else f"in its xn-- form, {written!r}"


def _labels(name: object) -> list[str]:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"DNS name {name!r} must be a name, or '.' for the root")
    text = name.removesuffix(".")
    return text.split(".") if text else []


def query(identifier: int, name: bytes, kind: int, *, recursion: bool) -> bytes:
    """A query of class IN for an encoded name."""
    flags = _RECURSION_DESIRED if recursion else 0
    header = _HEADER.pack(identifier, flags, 1, 0, 0, 0)
    return header + name + _QUESTION_END.pack(kind, IN)


@attrs.frozen
class ResourceRecord:
    """A record of an answer, its content not yet read."""

    kind: int
    message: bytes = attrs.field(repr=False)
    start: int
    """Where its content begins in the message: names in it may point elsewhere."""
    end: int
    names: Names = attrs.field(factory=dict[int, "tuple[str, int]"], repr=False, eq=False)
    """The names of its message that have been read."""

    @property
    def content(self) -> bytes:
        return self.message[self.start : self.end]

    def name(self, at: int) -> tuple[str, int]:
        """The name at an offset in the content, and the offset after it.

        :raises Malformed: there is none, or it goes on beyond the content.
        """
        name, after = read_name(self.message, self.start + at, self.names)
        if after > self.end:
            raise Malformed("a name is longer than its record")
        return name, after - self.start


@attrs.frozen(kw_only=True)
class Answer:
    """What a server has said."""

    rcode: int
    truncated: bool
    message: bytes = attrs.field(repr=False)
    start: int
    """Where its answer section begins."""
    count: int
    """Records in that section, as its header says."""

    def records(self, kind: int) -> Iterator[ResourceRecord]:
        """The records of a type in the answer section; of all types for ANY.

        :raises Malformed: the section breaks the format.
        """
        message, at = self.message, self.start
        names: Names = {}
        for _ in range(self.count):
            at = _skip_name(message, at)
            if at + _RECORD_END.size > len(message):
                raise Malformed("the answer ends within a record")
            found, group, _ttl, length = _RECORD_END.unpack_from(message, at)
            at += _RECORD_END.size
            if at + length > len(message):
                raise Malformed("the answer ends within a record")
            if group == IN and kind in (found, ANY):
                yield ResourceRecord(found, message, at, at + length, names)
            at += length


def answer(message: bytes, asked: bytes) -> Answer | None:
    """The answer to the query ``asked``; ``None`` if ``message`` has another identifier, and so is
    the answer to something else, or nothing at all.

    :raises Malformed: it has that identifier, and is no answer to the query.
    """
    if len(message) < 2 or message[:2] != asked[:2]:
        return None
    if len(message) < _HEADER.size:
        raise Malformed(f"the answer has {len(message)} octets, its header alone has 12")
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if not flags & _RESPONSE:
        raise Malformed("the message that came is a query, not an answer")
    if flags & _OPCODE:
        raise Malformed(f"the answer is to an operation {(flags & _OPCODE) >> 11}, not to a query")
    truncated = bool(flags & _TRUNCATED)
    end = len(asked)
    rcode = flags & _RCODE
    if (questions == 0 and (rcode or truncated)) or (truncated and len(message) < end):
        # Who could not read the question, or refuses everything, may leave it out; and so may who
        # has no room for it. The response code says all there is to know.
        end = _HEADER.size
    elif questions != 1 or _comparable(message[:end]) != _comparable(asked):
        raise Malformed("the answer is to another question")
    return Answer(
        rcode=rcode,
        truncated=truncated,
        message=message,
        start=end,
        count=answers,
    )


def _comparable(message: bytes) -> tuple[bytes, bytes]:
    """The question, which ends the message: upper and lower case are the same in its name."""
    end = len(message) - _QUESTION_END.size
    return message[_HEADER.size : end].lower(), message[end:]


def _skip_name(message: bytes, at: int) -> int:
    end = at + NAME_LIMIT
    while True:
        if at >= end:
            raise Malformed(f"a name has more than {NAME_LIMIT} octets")
        if at >= len(message):
            raise Malformed("the answer ends within a name")
        length = message[at]
        if length >= 0xC0:
            return at + 2
        if length > LABEL_LIMIT:
            raise Malformed(f"a label of a name begins with {length:#04x}")
        at += 1 + length
        if not length:
            return at


def read_name(message: bytes, at: int, names: Names | None = None) -> tuple[str, int]:
    """The name at an offset in lower case with its final dot, and the offset after it.

    :param names: what has been read of this message, which grows: every offset is read once, so
        that all names of a message take as many steps as it has octets, wherever they point.
    :raises Malformed: there is none.
    """
    known: Names = {} if names is None else names
    after = _skip_name(message, at)
    text, octets = "", 1
    walked: list[tuple[int, bytes]] = []
    pointers, lowest = 0, at
    while True:
        if at in known:
            text, octets = known[at]
            break
        if at >= len(message):
            raise Malformed("the answer ends within a name")
        length = message[at]
        if length >= 0xC0:
            if at + 1 >= len(message):
                raise Malformed("the answer ends within a name")
            walked.append((at, b""))
            at = (length & 0x3F) << 8 | message[at + 1]
            # Each pointer leads further back than the one before, or it might go round for ever.
            if at >= lowest:
                raise Malformed("a name is compressed in a circle")
            lowest = at
            pointers += 1
            if pointers > POINTER_LIMIT:
                raise Malformed(f"a name has more than {POINTER_LIMIT} compression pointers")
            continue
        if length > LABEL_LIMIT:
            raise Malformed(f"a label of a name begins with {length:#04x}")
        if not length:
            break
        end = at + 1 + length
        if end > len(message):
            raise Malformed("the answer ends within a name")
        walked.append((at, message[at + 1 : end]))
        at = end
    for start, label in reversed(walked):
        if label:
            octets += 1 + len(label)
            if octets > NAME_LIMIT:
                raise Malformed(f"a name has more than {NAME_LIMIT} octets")
            text = f"{_label(label)}.{text}"
        known[start] = text, octets
    return text or ".", after


def _label(octets: bytes) -> str:
    """As zone files write it (RFC 1035 section 5.1), in lower case."""
    return "".join(
        f"\\{octet:03d}"
        if not 0x21 <= octet <= 0x7E
        else f"\\{chr(octet)}"
        if octet in b".\\"
        else chr(octet)
        for octet in octets.lower()
    )
