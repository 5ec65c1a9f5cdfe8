"""Requests to the kernel about routes and rules, encoded with pyroute2's message classes.

An addition, the removal of the same, and the question whether it is there differ in their headers
only, so each is encoded once. pyroute2 is loaded when the first request is encoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import cast

from vrrpkit.host.links.records import AF_INET, AF_INET6, MARK
from vrrpkit.host.links.requests import Encodable, encode
from vrrpkit.host.routing.records import (
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTNH_F_ONLINK,
)
from vrrpkit.routes.route import Entry, NextHop, Route, Rule
from vrrpkit.values import SCOPES, IPAddress

__all__ = ["addition", "beside", "query", "removal"]

NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_REQUEST = 0x1

RT_TABLE_COMPAT = 252
"""Stands in a field of 8 bits for a table that an attribute names."""

FR_ACT_TO_TBL = 1
TYPES = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}

PROTOCOL_OFFSET = 16 + 5
"""Where the protocol is in struct nlmsghdr plus struct rtmsg."""

_KIND_FLAGS = struct.Struct("=HH")

Index = Callable[[str], int]
"""Tells the index of an interface.

:raises OSError: there is no such interface (ENODEV).
"""


def addition(entry: Entry, index: Index) -> bytearray:
    """RTM_NEWROUTE or RTM_NEWRULE: put a route or a rule in place, unless its identity is taken.

    :raises OSError: there is no such interface.
    """
    if isinstance(entry, Rule):
        return _rule(entry)
    return _route(entry, index)


def removal(added: bytearray) -> bytearray:
    """The removal of what ``added`` puts in place."""
    (kind, _flags) = _KIND_FLAGS.unpack_from(added, 4)
    kind = RTM_DELRULE if kind == RTM_NEWRULE else RTM_DELROUTE
    return _with_header(added, kind, NLM_F_REQUEST)


def beside(added: bytearray) -> bytearray:
    """The addition of an IPv4 route in front of others of the same identity, as ``ip route
    prepend``."""
    return _with_header(added, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE)


def query(added: bytearray, protocol: int) -> bytearray:
    """The question whether the IPv4 route that ``added`` puts in place is there, alike to the last
    option, with another mark. It changes nothing: the kernel answers EEXIST, or else ENOENT, for it
    is asked to append a route and not to create one."""
    message = _with_header(added, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_APPEND)
    message[PROTOCOL_OFFSET] = protocol
    return message


def _with_header(message: bytearray, kind: int, flags: int) -> bytearray:
    changed = bytearray(message)
    _KIND_FLAGS.pack_into(changed, 4, kind, flags)
    return changed


def _family(version: int) -> int:
    return AF_INET if version == 4 else AF_INET6


def _short(table: int) -> int:
    return table if table < 256 else RT_TABLE_COMPAT


def _route(route: Route, index: Index) -> bytearray:
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    options: list[tuple[str, object]] = [("RTA_TABLE", route.table)]
    if route.destination.prefixlen:
        options.append(("RTA_DST", str(route.destination.network_address)))
    if route.metric is not None:
        options.append(("RTA_PRIORITY", route.metric))
    if route.src is not None:
        options.append(("RTA_PREFSRC", str(route.src)))
    if route.mtu is not None:
        options.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", route.mtu)]}))
    if route.via is not None:
        options.append(_gateway(route.via, route.family))
    if route.dev is not None:
        options.append(("RTA_OIF", index(route.dev)))
    if route.nexthops:
        hops = [_hop(hop, route.family, index) for hop in route.nexthops]
        options.append(("RTA_MULTIPATH", hops))
    message = cast(Encodable, rtmsg())
    message["family"] = _family(route.family)
    message["dst_len"] = route.destination.prefixlen
    message["table"] = _short(route.table)
    message["proto"] = MARK
    message["scope"] = _scope(route)
    message["type"] = TYPES[route.type]
    message["flags"] = RTNH_F_ONLINK if route.onlink else 0
    message["attrs"] = options
    return encode(message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)


def _scope(route: Route) -> int:
    if route.scope is not None:
        return SCOPES[route.scope]
    direct = route.type == "unicast" and all(hop.via is None for hop in route.ways)
    return SCOPES["link" if direct and route.family == 4 else "global"]


def _gateway(via: IPAddress, family: int) -> tuple[str, object]:
    if via.version == family:
        return "RTA_GATEWAY", str(via)
    return "RTA_VIA", {"family": _family(via.version), "addr": str(via)}


def _hop(hop: NextHop, family: int, index: Index) -> dict[str, object]:
    return {
        "hops": hop.weight - 1,
        "oif": 0 if hop.dev is None else index(hop.dev),
        "flags": RTNH_F_ONLINK if hop.onlink else 0,
        "attrs": [] if hop.via is None else [_gateway(hop.via, family)],
    }


def _rule(rule: Rule) -> bytearray:
    from pyroute2.netlink.rtnl.fibmsg import fibmsg

    options: list[tuple[str, object]] = [
        ("FRA_TABLE", rule.table),
        ("FRA_PRIORITY", rule.priority),
        ("FRA_PROTOCOL", MARK),
    ]
    message = cast(Encodable, fibmsg())
    for field, name, prefix in (
        ("src_len", "FRA_SRC", rule.source),
        ("dst_len", "FRA_DST", rule.destination),
    ):
        if prefix is not None:
            message[field] = prefix.prefixlen
            if prefix.prefixlen:
                options.append((name, str(prefix.network_address)))
    if rule.fwmark is not None:
        options += [("FRA_FWMARK", rule.fwmark), ("FRA_FWMASK", rule.used_mask)]
    if rule.iif is not None:
        options.append(("FRA_IIFNAME", rule.iif))
    if rule.oif is not None:
        options.append(("FRA_OIFNAME", rule.oif))
    message["family"] = _family(rule.family)
    message["table"] = _short(rule.table)
    message["action"] = FR_ACT_TO_TBL
    message["attrs"] = options
    return encode(message, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL)
