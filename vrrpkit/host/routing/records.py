"""What the kernel says about routes and rules, read straight from its messages."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from vrrpkit.host.links.records import AF_INET, AF_INET6, IFF_UP, RTM_NEWLINK, to_address
from vrrpkit.linux.netlink import attributes, tolerant
from vrrpkit.linux.socketfilter import Instruction
from vrrpkit.routes.route import Entry, Rule

__all__ = [
    "GROUPS",
    "Hop",
    "Key",
    "LinkNotice",
    "RouteKey",
    "RouteRecord",
    "RuleRecord",
    "key_of",
    "notice_filter",
    "parse_link_notice",
    "parse_route",
    "parse_rule",
    "route_question",
    "rule_question",
    "rule_record",
]

NLM_F_REPLACE = 0x100
"""In a notice: the route has taken the place of another one, of which nothing is said."""

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34

GROUPS = 0x1 | 0x40 | 0x400 | 0x80 | 1 << 18
"""RTMGRP_LINK, the routes and the rules of IPv4 and IPv6."""

RTNH_F_ONLINK = 0x4
RTM_F_CLONED = 0x200
"""A route that the kernel made of another one for itself."""

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_PREFSRC = 7
RTA_METRICS = 8
RTA_MULTIPATH = 9
RTA_TABLE = 15
RTA_VIA = 18
RTAX_MTU = 2

FRA_DST = 1
FRA_SRC = 2
FRA_IIFNAME = 3
FRA_PRIORITY = 6
FRA_FWMARK = 10
FRA_SUPPRESS_PREFIXLEN = 14
FRA_TABLE = 15
FRA_FWMASK = 16
FRA_OIFNAME = 17
FRA_PROTOCOL = 21
FR_ACT_TO_TBL = 1

FRA_KNOWN = frozenset(
    {FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE}
    | {FRA_FWMASK, FRA_OIFNAME, FRA_PROTOCOL}
)
"""A rule with other attributes is none that a :class:`vrrpkit.routes.route.Rule` can say."""
SUPPRESS_NOTHING = b"\xff\xff\xff\xff"
FIB_RULE_INVERT = 0x2

_RTMSG = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBxxBI")
_NEXTHOP = struct.Struct("=HBBi")
_IFINFOMSG = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")

_LOAD = 0x30
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_JUMP_SET = 0x45
_RETURN = 0x06
_ALL: Instruction = (_RETURN, 0, 0, 0xFFFFFFFF)
_NONE: Instruction = (_RETURN, 0, 0, 0)


class RouteKey(NamedTuple):
    """What tells routes apart."""

    family: int
    """4 or 6."""
    table: int
    destination: bytes
    prefix: int
    metric: int

    def __str__(self) -> str:
        network = f"{to_address(self.destination)}/{self.prefix}"
        return f"route {network} table {self.table} metric {self.metric}"


class Hop(NamedTuple):
    """One way of a route."""

    via: bytes
    """The gateway; empty without one."""
    ifindex: int
    """Of the interface; 0 is none."""
    weight: int = 1
    onlink: bool = False


class RouteRecord(NamedTuple):
    """One route as the kernel tells it."""

    key: RouteKey
    protocol: int
    type: int
    src: bytes
    mtu: int
    hops: tuple[Hop, ...]

    @property
    def devices(self) -> set[int]:
        """The indexes of the interfaces that it leads over."""
        return {hop.ifindex for hop in self.hops if hop.ifindex}


class RuleRecord(NamedTuple):
    """One rule as the kernel tells it."""

    family: int
    table: int
    priority: int
    source: tuple[bytes, int]
    destination: tuple[bytes, int]
    fwmark: int
    mask: int
    iif: str
    oif: str

    def __str__(self) -> str:
        source = f"{to_address(self.source[0])}/{self.source[1]}"
        return f"rule from {source} table {self.table} priority {self.priority}"


class LinkNotice(NamedTuple):
    """What a change of an interface means for the routes over it."""

    ifindex: int
    up: bool
    """Administratively up."""


Key: TypeAlias = RouteKey | RuleRecord


def key_of(entry: Entry) -> Key:
    """How the kernel names what users write."""
    if isinstance(entry, Rule):
        return rule_record(entry)
    destination = entry.destination
    return RouteKey(
        entry.family,
        entry.table,
        destination.network_address.packed,
        destination.prefixlen,
        entry.used_metric,
    )


def rule_record(rule: Rule) -> RuleRecord:
    """A rule as the kernel would tell it."""
    empty = bytes(4 if rule.family == 4 else 16)
    source, destination = (
        (empty, 0) if prefix is None else (prefix.network_address.packed, prefix.prefixlen)
        for prefix in (rule.source, rule.destination)
    )
    return RuleRecord(
        rule.family,
        rule.table,
        rule.priority,
        source,
        destination,
        rule.fwmark or 0,
        rule.used_mask,
        rule.iif or "",
        rule.oif or "",
    )


def _number(found: dict[int, bytes], kind: int, otherwise: int = 0) -> int:
    value = found.get(kind)
    return otherwise if value is None else int(_U32.unpack(value)[0])


def _text(found: dict[int, bytes], kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode(errors="surrogateescape")


@tolerant
def parse_route(payload: bytes) -> RouteRecord | None:
    """Read RTM_NEWROUTE or RTM_DELROUTE; ``None`` for what no :class:`vrrpkit.Route` can be."""
    family, length, source, tos, table, protocol, _scope, kind, flags = _RTMSG.unpack_from(payload)
    if family not in (AF_INET, AF_INET6) or source or tos or flags & RTM_F_CLONED:
        return None
    version = 4 if family == AF_INET else 6
    found = attributes(payload, 12)
    destination = found.get(RTA_DST, bytes(4 if version == 4 else 16))
    if len(destination) != (4 if version == 4 else 16):
        return None
    key = RouteKey(
        version,
        _number(found, RTA_TABLE, table),
        destination,
        length,
        _number(found, RTA_PRIORITY),
    )
    if RTA_MULTIPATH in found:
        hops = tuple(_hops(found[RTA_MULTIPATH]))
    else:
        hops = (_hop(found, _number(found, RTA_OIF), 1, flags),)
    mtu = _number(attributes(found.get(RTA_METRICS, b""), 0), RTAX_MTU)
    return RouteRecord(key, protocol, kind, found.get(RTA_PREFSRC, b""), mtu, hops)


def _hop(found: dict[int, bytes], index: int, weight: int, flags: int) -> Hop:
    # Behind the family in RTA_VIA, which says the gateway of another one.
    via = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"")[2:]
    return Hop(via, index, weight, bool(flags & RTNH_F_ONLINK))


def _hops(octets: bytes) -> Iterable[Hop]:
    start, end = 0, len(octets)
    while start + 8 <= end:
        length, flags, less, index = _NEXTHOP.unpack_from(octets, start)
        if length < 8:
            return
        yield _hop(attributes(octets[start : start + length], 8), index, less + 1, flags)
        start += (length + 3) & ~3


@tolerant
def parse_rule(payload: bytes) -> tuple[RuleRecord, int] | None:
    """Read RTM_NEWRULE or RTM_DELRULE: the rule and its protocol; ``None`` for what no
    :class:`vrrpkit.Rule` can be."""
    family, to, source, tos, table, action, flags = _RULE.unpack_from(payload)
    found = attributes(payload, 12)
    if (
        family not in (AF_INET, AF_INET6)
        or action != FR_ACT_TO_TBL
        or tos
        or flags & FIB_RULE_INVERT
    ):
        return None
    suppressed = found.get(FRA_SUPPRESS_PREFIXLEN, SUPPRESS_NOTHING)
    if found.keys() - FRA_KNOWN or suppressed != SUPPRESS_NOTHING:
        return None
    empty = bytes(4 if family == AF_INET else 16)
    if any(len(found.get(each, empty)) != len(empty) for each in (FRA_SRC, FRA_DST)):
        return None
    record = RuleRecord(
        4 if family == AF_INET else 6,
        _number(found, FRA_TABLE, table),
        _number(found, FRA_PRIORITY),
        (found.get(FRA_SRC, empty), source),
        (found.get(FRA_DST, empty), to),
        _number(found, FRA_FWMARK),
        _number(found, FRA_FWMASK),
        _text(found, FRA_IIFNAME),
        _text(found, FRA_OIFNAME),
    )
    return record, found.get(FRA_PROTOCOL, b"\0")[0]


@tolerant
def parse_link_notice(kind: int, payload: bytes) -> LinkNotice | None:
    """Read RTM_NEWLINK or RTM_DELLINK."""
    _family, _hardware, index, flags, _change = _IFINFOMSG.unpack_from(payload)
    return LinkNotice(index, kind == RTM_NEWLINK and bool(flags & IFF_UP))


def route_question(family: int, *, table: int = 0, protocol: int = 0, index: int = 0) -> bytes:
    """The body of a dump of routes: of one table, protocol or interface, or of all (0)."""
    kind = AF_INET if family == 4 else AF_INET6
    body = _RTMSG.pack(kind, 0, 0, 0, table if table < 256 else 0, protocol, 0, 0, 0)
    if table:
        body += _ATTRIBUTE.pack(8, RTA_TABLE) + _U32.pack(table)
    if index:
        body += _ATTRIBUTE.pack(8, RTA_OIF) + _U32.pack(index)
    return body


def rule_question(family: int) -> bytes:
    """The body of a dump of rules."""
    return _RULE.pack(AF_INET if family == 4 else AF_INET6, 0, 0, 0, 0, 0, 0)


def notice_filter(protocols: Iterable[int], lengths: Iterable[int] = ()) -> list[Instruction]:
    """A program that lets notices of routes through if they are of these protocols, or tell that a
    route to a prefix of one of these lengths was replaced. A router with a million routes would
    have to read about every change of them otherwise."""
    little = sys.byteorder == "little"
    replaced = _among(16 + 1, lengths)  # rtm_dst_len
    return [
        (_LOAD, 0, 0, 4 if little else 5),  # The low octet of nlmsg_type.
        (_JUMP_EQUAL, 2, 0, RTM_NEWROUTE),
        (_JUMP_EQUAL, 1, 0, RTM_DELROUTE),
        _ALL,
        (_LOAD, 0, 0, 7 if little else 6),  # The high octet of nlmsg_flags.
        (_JUMP_SET, 0, len(replaced), NLM_F_REPLACE >> 8),
        *replaced,
        *_among(16 + 5, protocols),  # rtm_protocol
        _NONE,
    ]


def _among(offset: int, values: Iterable[int]) -> list[Instruction]:
    """Accept a message with one of these octets at ``offset``."""
    accepted = sorted(values)
    count = len(accepted)
    if not count:
        return []
    return [
        (_LOAD, 0, 0, offset),
        *((_JUMP_EQUAL, count - place, 0, value) for place, value in enumerate(accepted)),
        (_JUMP, 0, 0, 1),
        _ALL,
    ]
