"""Requests to the kernel, encoded with pyroute2's message classes.

Encoding takes 75 us each, so the requests about a virtual address are encoded once, beforehand;
what differs from one sending to the next is patched in. pyroute2 is loaded when the first request
is encoded: every part of it costs all of it, 13 MB and 80 ms.
"""

from __future__ import annotations

import math
import struct
from ipaddress import ip_interface
from typing import Protocol, cast

from vrrpkit.host.links.records import (
    AF_INET,
    AF_INET6,
    IFF_UP,
    MARK,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    AddressRecord,
    to_address,
)
from vrrpkit.linux.netlink import HEADER, REQUEST
from vrrpkit.values import SCOPES, VIP

__all__ = [
    "Encodable",
    "add_address",
    "add_found",
    "delete_address",
    "delete_found",
    "delete_link",
    "encode",
    "lifetimes",
    "new_macvlan",
    "no_link_local",
    "set_alias",
    "set_index",
    "set_up",
]

NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

IFA_F_NODAD = 0x02
IFA_F_NOPREFIXROUTE = 0x200

FOREVER = 0xFFFFFFFF
LONGEST = FOREVER - 1

IN6_ADDR_GEN_MODE_NONE = 1
MACVLAN_MODE_PRIVATE = "private"

INDEX_OFFSET = 20
"""Where the interface index is in struct nlmsghdr plus struct ifaddrmsg or struct ifinfomsg."""

_INDEX = struct.Struct("=I")


def set_index(message: bytearray, index: int) -> None:
    """Make a request be about the interface ``index``."""
    _INDEX.pack_into(message, INDEX_OFFSET, index)


def lifetimes(vip: VIP, lease: float | None) -> tuple[int, int]:
    """The preferred and the valid lifetime in whole seconds, as the kernel counts them."""
    valid = FOREVER if lease is None else _seconds(lease)
    if vip.preferred_lifetime is None:
        preferred = FOREVER if vip.family == 4 else 0
    else:
        preferred = _seconds(vip.preferred_lifetime)
    # The kernel refuses an address that is preferred for longer than it is valid.
    return min(preferred, valid), valid


def _seconds(value: float) -> int:
    return FOREVER if math.isinf(value) else min(math.ceil(value), LONGEST)


def add_address(vip: VIP, lease: float | None) -> bytearray:
    """RTM_NEWADDR: put ``vip`` on an interface, or give it new lifetimes there."""
    preferred, valid = lifetimes(vip, lease)
    flags = IFA_F_NOPREFIXROUTE if vip.noprefixroute else 0
    if vip.nodad and vip.family == 6:
        flags |= IFA_F_NODAD
    options: list[tuple[str, object]] = [
        ("IFA_FLAGS", flags),
        ("IFA_PROTO", MARK),
        ("IFA_CACHEINFO", {"ifa_preferred": preferred, "ifa_valid": valid}),
    ]
    if vip.broadcast is not None:
        options.append(("IFA_BROADCAST", str(vip.broadcast)))
    if vip.label is not None:
        options.append(("IFA_LABEL", vip.label))
    return _address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, vip, options)


def delete_address(vip: VIP) -> bytearray:
    """RTM_DELADDR: take ``vip`` off an interface."""
    return _address(RTM_DELADDR, 0, vip, [])


def delete_found(record: AddressRecord) -> bytearray:
    """RTM_DELADDR: take off an address that was found on an interface."""
    octets, prefix = record.key
    # Without its peer the kernel does not find it.
    peer = to_address(record.peer) if record.peer else None
    message = delete_address(VIP(ip_interface((to_address(octets), prefix)), peer=peer))
    set_index(message, record.ifindex)
    return message


def add_found(notice: bytes) -> bytearray:
    """RTM_NEWADDR: put an address back as the notice of its removal describes it."""
    header = HEADER.pack(16 + len(notice), RTM_NEWADDR, REQUEST | NLM_F_CREATE, 0, 0)
    return bytearray(header + notice)


def _address(kind: int, flags: int, vip: VIP, options: list[tuple[str, object]]) -> bytearray:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    message = cast(Encodable, ifaddrmsg())
    message["family"] = AF_INET if vip.family == 4 else AF_INET6
    message["prefixlen"] = vip.prefix
    message["scope"] = SCOPES[vip.scope]
    message["attrs"] = [
        ("IFA_LOCAL", str(vip.address)),
        ("IFA_ADDRESS", str(vip.peer or vip.address)),
        *options,
    ]
    return encode(message, kind, flags)


def new_macvlan(name: str, parent: int, mac: bytes) -> bytearray:
    """RTM_NEWLINK: make a macvlan in private mode, down."""
    return _link(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        {},
        [
            ("IFLA_IFNAME", name),
            ("IFLA_ADDRESS", mac.hex(":")),
            ("IFLA_LINK", parent),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "macvlan"),
                        (
                            "IFLA_INFO_DATA",
                            {"attrs": [("IFLA_MACVLAN_MODE", MACVLAN_MODE_PRIVATE)]},
                        ),
                    ]
                },
            ),
        ],
    )


def no_link_local(index: int) -> bytearray:
    """RTM_NEWLINK: let the kernel make no link-local address on a link."""
    mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE)]}
    return _link(
        RTM_NEWLINK, 0, {"index": index}, [("IFLA_AF_SPEC", {"attrs": [("AF_INET6", mode)]})]
    )


def set_alias(index: int, text: str) -> bytearray:
    """RTM_NEWLINK: ``ip link set alias TEXT``."""
    return _link(RTM_NEWLINK, 0, {"index": index}, [("IFLA_IFALIAS", text)])


def set_up(index: int) -> bytearray:
    """RTM_NEWLINK: ``ip link set up``."""
    return _link(RTM_NEWLINK, 0, {"index": index, "flags": IFF_UP, "change": IFF_UP}, [])


def delete_link(index: int) -> bytearray:
    """RTM_DELLINK: ``ip link delete``."""
    return _link(RTM_DELLINK, 0, {"index": index}, [])


def _link(
    kind: int, flags: int, fields: dict[str, int], options: list[tuple[str, object]]
) -> bytearray:
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    message = cast(Encodable, ifinfmsg())
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = options
    return encode(message, kind, flags)


class Encodable(Protocol):
    """What is used of a pyroute2 message."""

    data: bytearray

    def __getitem__(self, field: str) -> dict[str, int]: ...

    def __setitem__(self, field: str, value: object) -> None: ...

    def encode(self) -> None:
        """Fill :attr:`data`."""


def encode(message: Encodable, kind: int, flags: int) -> bytearray:
    """A request as octets."""
    message["header"]["type"] = kind
    message["header"]["flags"] = REQUEST | flags
    message.encode()
    return bytearray(message.data)
