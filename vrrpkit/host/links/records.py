"""What the kernel says about links and addresses, read straight from its messages.

By hand, because a takeover of 255 addresses brings 255 notices, and a general decoder takes
longer over each than everything else together.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

from vrrpkit.linux.netlink import Attributes, attributes, tolerant
from vrrpkit.values import IPAddress

__all__ = [
    "KEEPALIVED",
    "MARK",
    "AddressKey",
    "AddressRecord",
    "LinkRecord",
    "link_body",
    "parse_address_notice",
    "parse_link",
    "to_address",
]

MARK = 112
"""The IFA_PROTO value (Linux 5.18) of every address that this library adds: the IP protocol number
of VRRP."""

KEEPALIVED = 18
"""The same of keepalived, from its version 2.3 on."""

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40
IFF_NOARP = 0x80
ARPHRD_ETHER = 1

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_INFO_KIND = 1

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_FLAGS = 8
IFA_PROTO = 11

IFA_F_SECONDARY = 0x01
"""IPv4: not the first of its prefix. IPv6: a temporary address."""
IFA_F_DADFAILED = 0x08
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40

AF_INET = 2
AF_INET6 = 10

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")

AddressKey: TypeAlias = tuple[bytes, int]
"""An address as octets, with its prefix length."""


class LinkRecord(NamedTuple):
    """One link as the kernel tells it."""

    ifindex: int
    name: str
    flags: int
    hardware: int
    """ARPHRD_... type."""
    mac: bytes
    mtu: int
    parent: int
    """Index of the link below, 0 for none."""
    kind: str
    """As in ``ip link add type KIND``; empty for hardware."""
    alias: str = ""
    """As in ``ip link set alias``."""

    @property
    def up(self) -> bool:
        """Administratively up, with carrier."""
        return self.flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING

    @property
    def resolves(self) -> bool:
        """Whether neighbours find addresses here by ARP or neighbour discovery."""
        return self.hardware == ARPHRD_ETHER and not self.flags & (IFF_NOARP | IFF_LOOPBACK)


class AddressRecord(NamedTuple):
    """One address on a link as the kernel tells it."""

    ifindex: int
    key: AddressKey
    flags: int
    scope: int
    protocol: int = 0
    """Who put it there: its IFA_PROTO value."""
    peer: bytes = b""
    """The far end as octets, where that is another address."""

    def __str__(self) -> str:
        octets, prefix = self.key
        return f"{to_address(octets)}/{prefix}"

    @property
    def marked(self) -> bool:
        """Whether it carries :data:`MARK`."""
        return self.protocol == MARK

    @property
    def usable(self) -> bool:
        """Neither under duplicate address detection nor failed in it."""
        return not self.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)

    @property
    def tentative(self) -> bool:
        """Under duplicate address detection."""
        return self.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) == IFA_F_TENTATIVE

    @property
    def failed(self) -> bool:
        """Somebody else on the link has it, found duplicate address detection."""
        return bool(self.flags & IFA_F_DADFAILED)

    @property
    def rank(self) -> tuple[bool, bool]:
        """Sorts as the kernel prefers addresses as a source: primary first, deprecated last."""
        return bool(self.flags & IFA_F_DEPRECATED), bool(self.flags & IFA_F_SECONDARY)


def link_body(index: int) -> bytes:
    """The body of a request about one link."""
    return _IFINFOMSG.pack(0, 0, index, 0, 0)


@tolerant
def parse_link(payload: bytes) -> LinkRecord | None:
    """Read RTM_NEWLINK or RTM_DELLINK; ``None`` for one that is about something else, such as a
    bridge's port."""
    family, hardware, index, flags, _change = _IFINFOMSG.unpack_from(payload)
    if family:
        return None
    found = attributes(payload, 16)
    info = attributes(found.get(IFLA_LINKINFO, b""), 0)
    return LinkRecord(
        ifindex=index,
        name=_text(found, IFLA_IFNAME),
        flags=flags,
        hardware=hardware,
        mac=found.get(IFLA_ADDRESS, b""),
        mtu=_number(found, IFLA_MTU),
        parent=_number(found, IFLA_LINK),
        kind=_text(info, IFLA_INFO_KIND),
        alias=_text(found, IFLA_IFALIAS),
    )


def _text(found: Attributes, kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode(errors="surrogateescape")


def _number(found: Attributes, kind: int) -> int:
    value = found.get(kind, b"")
    return int(_U32.unpack(value)[0]) if len(value) == 4 else 0


@tolerant
def parse_address_notice(payload: bytes) -> AddressRecord | None:
    """Read RTM_NEWADDR or RTM_DELADDR; ``None`` for other address families than IP, and for what
    is no address."""
    family, prefix, flags, scope, index = _IFADDRMSG.unpack_from(payload)
    if family not in (AF_INET, AF_INET6):
        return None
    local = remote = b""
    protocol = 0
    start, end = 8, len(payload)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(payload, start)
        if length < 4:
            break
        if kind == IFA_LOCAL:
            local = payload[start + 4 : start + length]
        elif kind == IFA_ADDRESS:
            # The far end of a point-to-point link, or the address itself.
            remote = payload[start + 4 : start + length]
        elif kind == IFA_FLAGS:
            (flags,) = _U32.unpack_from(payload, start + 4)
        elif kind == IFA_PROTO:
            protocol = payload[start + 4]
        start += (length + 3) & ~3
    peer = remote if local and remote != local else b""
    octets = 4 if family == AF_INET else 16
    if len(local or remote) != octets or len(peer) not in (0, octets):
        return None
    return AddressRecord(index, (local or remote, prefix), flags, scope, protocol, peer)


def to_address(octets: bytes) -> IPAddress:
    """An address from its octets."""
    return IPv4Address(octets) if len(octets) == 4 else IPv6Address(octets)
