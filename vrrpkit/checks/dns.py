"""The DNS checker: a query by UDP, and by TCP where the answer does not fit."""

from __future__ import annotations

import asyncio
import random
import re
import struct
from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs

from vrrpkit.checks.base import Begin, CallbackChecker, Done, Weight
from vrrpkit.checks.io.tcp import connect
from vrrpkit.checks.io.udp import ask
from vrrpkit.checks.protocol import dns_records
from vrrpkit.checks.protocol.dns_message import (
    ANY,
    RCODES,
    TYPES,
    Answer,
    answer,
    encode_name,
    query,
)
from vrrpkit.checks.target import Endpoint, Target
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.validate import flag_field, is_whole, times_field, whole_number
from vrrpkit.values import IPAddress

__all__ = ["DNSChecker"]

PORT = 53
"""Where a server without a port is asked."""

DATAGRAM = 65535
"""Octets of an answer by UDP that are read. More than 512 are not sent to us, who know no EDNS."""

HEALTHY = frozenset({RCODES["NOERROR"]})
"""What is accepted unless something else is said."""

STRAYS = 100
"""Datagrams with another identifier that are passed over in one attempt."""

SHOWN = 20
"""Records that a failure's text quotes."""

_GENERIC_TYPE = re.compile("TYPE([0-9]{1,5})")

Codes: TypeAlias = "str | int | Iterable[str | int]"
Expected: TypeAlias = "str | IPAddress | Iterable[str | IPAddress]"


def _name(value: str) -> str:
    encode_name(value)
    return value


def _type(value: str) -> str:
    if not _known(value):
        raise ConfigError(
            f"DNSChecker: type {value!r} must be one of {', '.join(TYPES)}, or a number as in "
            "'TYPE257'"
        )
    return value.upper()


def _known(kind: object) -> bool:
    if not isinstance(kind, str):
        return False
    found = _GENERIC_TYPE.fullmatch(kind.upper())
    return kind.upper() in TYPES or (found is not None and 0 < int(found[1]) < 65536)


def _number(kind: str) -> int:
    return TYPES[kind] if kind in TYPES else int(kind.removeprefix("TYPE"))


def _codes(value: Codes) -> frozenset[int]:
    several: Iterable[object] = (value,)
    if isinstance(value, Iterable) and not isinstance(value, str):
        several = value
    found = frozenset(map(_code, several))
    if not found:
        raise ConfigError("DNSChecker: rcode must name at least one; write 'NOERROR'")
    return found


def _code(value: object) -> int:
    if isinstance(value, str) and value.upper() in RCODES:
        return RCODES[value.upper()]
    if is_whole(value) and 0 <= value <= 15:
        return value
    raise ConfigError(
        f"DNSChecker: rcode {value!r} must be one of {', '.join(RCODES)}, or a number from 0 to 15"
    )


def _spelled(codes: Iterable[int]) -> str:
    names = {number: name for name, number in RCODES.items()}
    return ", ".join(names.get(code, str(code)) for code in sorted(codes))


def _several(value: Expected | None) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (str(value),)
    return tuple(map(str, value))


@attrs.frozen
class DNSChecker(CallbackChecker):
    """A server is healthy if it answers a DNS query (keepalived: ``DNS_CHECK``)::

        DNSChecker()
        DNSChecker("www.example.net", "A", expect="192.0.2.10")
        DNSChecker("gone.example.net", "A", rcode=["NOERROR", "NXDOMAIN"])

    The query goes to the server's port, or to 53 if it has none, by UDP; if the answer is marked as
    truncated, it is asked again by TCP within the same attempt. Identifier and local port are
    random, the question must be repeated in the answer (but a refusal may leave it out), and only
    datagrams from where the query went to are heard; one with another identifier is passed over.
    What the answer contains does not matter unless ``expect`` or ``min_answers`` is given, as in
    keepalived.

    ``retry`` is 3 unless something else is said, for datagrams get lost (as in keepalived).

    :param name: the name to ask for, ``"."`` is the root (``name``).
    :param type: the record type: A, AAAA, NS, CNAME, SOA, MX, TXT, PTR, SRV, CAA, ... or
        ``"TYPE123"`` (``type``).
    :param rcode: the response codes that are healthy: names or numbers, one or several (always
        NOERROR in keepalived).
    :param expect: what the answer must contain, one or several: an address, a name, the text of a
        TXT record, ``"10 mail.example.net"`` for MX; generally as ``dig +short`` prints it, types
        without a text form as hexadecimal digits. Records of the type asked for are compared, those
        that a CNAME leads to included; there may be others besides.
    :param min_answers: records of the type asked for that the answer must contain at least, 0 to
        65535.
    :param recursion: ask the server to find out from others what it does not know itself: the flag
        RD, set in keepalived too. A server with authority for the name needs no such request.
    :param tcp: ask by TCP only.
    :raises ConfigError: a value is unusable.
    """

    name: str = attrs.field(default=".", converter=_name)
    type: str = attrs.field(default="SOA", converter=_type)
    rcode: frozenset[int] = attrs.field(
        default=HEALTHY, kw_only=True, converter=_codes, repr=_spelled
    )
    expect: tuple[str, ...] = attrs.field(default=None, kw_only=True, converter=_several)
    min_answers: int = attrs.field(default=0, kw_only=True)
    recursion: bool = attrs.field(default=True, kw_only=True, validator=flag_field)
    tcp: bool = attrs.field(default=False, kw_only=True, validator=flag_field)
    retry: int = attrs.field(default=3, kw_only=True, validator=times_field(0))
    _encoded: bytes = attrs.field(init=False, repr=False, eq=False)
    _number: int = attrs.field(init=False, repr=False, eq=False)
    _wanted: tuple[str, ...] = attrs.field(init=False, repr=False, eq=False)

    needs_port = False

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        whole_number("DNSChecker: min_answers", self.min_answers, 0, 65535, "records")
        number = _number(self.type)
        if number == ANY and self.expect:
            raise ConfigError(
                "DNSChecker: a query for ANY may be answered with anything (RFC 8482), so that "
                "expect is of no use; ask for the type that you expect"
            )
        wanted = tuple(dns_records.expected(number, value) for value in self.expect)
        for name, value in (
            ("_encoded", encode_name(self.name)),
            ("_number", number),
            ("_wanted", wanted),
        ):
            object.__setattr__(self, name, value)

    def endpoint(self, target: Target) -> Endpoint:
        endpoint = super().endpoint(target)
        return endpoint if endpoint.port else attrs.evolve(endpoint, port=PORT)

    def prepare(self, target: Target) -> Begin:
        endpoint = self.endpoint(target)
        return lambda report, loop: _Attempt(self, endpoint, report, loop).abandon

    def query(self) -> bytes:
        """A query with a random identifier."""
        identifier = random.getrandbits(16)
        return query(identifier, self._encoded, self._number, recursion=self.recursion)

    def judge(self, said: Answer) -> None:
        """Judge an answer.

        :raises CheckFailed: the server is not healthy.
        """
        if said.rcode not in self.rcode:
            raise CheckFailed(
                f"answered {_spelled([said.rcode])} to {self.name} {self.type}, expected "
                f"{_spelled(self.rcode)}"
            )
        if not self._wanted and not self.min_answers:
            return
        found = list(said.records(self._number))
        if len(found) < self.min_answers:
            raise CheckFailed(
                f"the answer to {self.name} {self.type} has {len(found)} records of that type, "
                f"expected at least {self.min_answers}"
            )
        if not self._wanted:
            return
        texts = list(map(dns_records.text, found))
        for wanted in self._wanted:
            if wanted not in texts:
                has = ", ".join(map(repr, texts[:SHOWN])) or "no record of that type"
                if len(texts) > SHOWN:
                    has += f" and {len(texts) - SHOWN} others"
                raise CheckFailed(
                    f"the answer to {self.name} {self.type} lacks {wanted!r}, it has {has}"
                )


class _Truncated(Exception):
    """The answer does not fit into a datagram."""


class _Attempt:
    """First by UDP, then perhaps by TCP."""

    def __init__(
        self,
        checker: DNSChecker,
        endpoint: Endpoint,
        report: Done,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._checker = checker
        self._endpoint = endpoint
        self._report = report
        self._asked = checker.query()
        self._strays = 0
        if checker.tcp:
            self._close = self._by_tcp()
        else:
            self._close = ask(
                endpoint, self._asked, self._heard, self._reported, limit=DATAGRAM, loop=loop
            )

    def abandon(self) -> None:
        self._close()

    def _by_tcp(self) -> Callable[[], None]:
        return connect(self._endpoint, _Dialogue(self._checker), self._report)

    def _reported(self, outcome: BaseException | Weight | None) -> None:
        if isinstance(outcome, _Truncated):
            self._close = self._by_tcp()
        else:
            self._report(outcome)

    def _heard(self, message: bytes) -> bool:
        said = answer(message, self._asked)
        if said is None:
            self._strays += 1
            if self._strays > STRAYS:
                raise CheckFailed(f"{STRAYS} datagrams came, and none of them is the answer")
            return False
        if said.truncated:
            raise _Truncated
        self._checker.judge(said)
        return True


class _Dialogue:
    """The conversation by TCP: each message has its length before it (RFC 1035 section 4.2.2)."""

    farewell = b""
    forgiving = False

    def __init__(self, checker: DNSChecker) -> None:
        self._checker = checker
        self._asked = checker.query()
        self._heard = bytearray()
        self.passed = False

    def opened(self) -> bytes:
        return struct.pack("!H", len(self._asked)) + self._asked

    def received(self, data: bytes) -> bytes:
        heard = self._heard
        heard += data
        complete = 2 + int.from_bytes(heard[:2], "big") if len(heard) >= 2 else None
        if complete is not None and len(heard) >= complete:
            said = answer(bytes(heard[2:complete]), self._asked)
            if said is None:
                raise CheckFailed("the answer by TCP is to another query")
            self._checker.judge(said)
            self.passed = True
        elif not data:
            raise CheckFailed(
                f"closed the TCP connection after {len(heard)} octets, which are no whole answer"
            )
        return b""
