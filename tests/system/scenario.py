"""What the scenarios of the other files share: a bench of hosts, and what the wire says."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from system.lab import Host, Lab, wait_until
from system.wire import Advert, Sniffer, socket_in

VRID = 51
HIGH, LOW = 150, 100
VIP4 = "192.0.2.10"
VIP6 = "2001:db8::10"

#: IFA_PROTO of an address that vrrpkit has added.
OUR_MARK = 112

RTM_GETADDR = 22
NLM_F_REQUEST_DUMP = 0x301
NLMSG_DONE = 3
IFA_ADDRESS, IFA_LOCAL, IFA_PROTO = 1, 2, 11


@dataclass(frozen=True)
class Bench:
    """Two routers' hosts, a watcher, and what crosses the switch between them."""

    lab: Lab
    wire: Sniffer
    a: Host
    b: Host
    watch: Host


def bench_in(lab: Lab, wire: Sniffer) -> Bench:
    """A bench in an empty laboratory."""
    a, b, watch = (
        lab.host(name, f"192.0.2.{number}/24", f"2001:db8::{number}/64")
        for name, number in (("a", 1), ("b", 2), ("watch", 9))
    )
    return Bench(lab, wire, a, b, watch)


def family_of(address: str) -> int:
    """4 or 6."""
    return ip_address(address).version


def virtual_mac(family: int, vrid: int = VRID) -> str:
    """The virtual router's MAC address (RFC 9568 section 7.3)."""
    return f"00:00:5e:00:0{1 if family == 4 else 2}:{vrid:02x}"


def skew(priority: int, interval: float, version: int = 3) -> float:
    """Skew_Time in seconds."""
    return (256 - priority) / 256 * (interval if version == 3 else 1)


def announcements(bench: Bench, address: str, since: float, *macs: str) -> list[float]:
    """When an address was announced (gratuitous ARP or unsolicited NA) by one of some MACs."""
    frames = (
        bench.wire.garps(address, since)
        if family_of(address) == 4
        else bench.wire.unsolicited(address, since)
    )
    return [frame.time for frame in frames if frame.source_mac in macs]


def announced(bench: Bench, address: str, since: float, *macs: str) -> float:
    """When one of some MACs first announced an address; waits for it."""
    wait_until(
        lambda: bool(announcements(bench, address, since, *macs)),
        15,
        f"{address} announced by {' or '.join(macs)}",
    )
    return announcements(bench, address, since, *macs)[0]


def reached(bench: Bench, address: str, host: Host, *macs: str) -> None:
    """Wait until the watcher reaches an address at a host under one of some MACs."""

    def there() -> bool:
        if bench.watch.ping(address) != 1:
            return False
        mac = bench.watch.neighbour(address) or ""
        return mac in macs and bench.lab.port(mac) == host.name

    wait_until(there, 10, f"{address} reached at {host.name}")


def taken(bench: Bench, host: Host, address: str, since: float, vrid: int = VRID) -> float:
    """When a host first announced an address, under its own or the virtual MAC.

    Also waits until the watcher reaches the address there.
    """
    macs = (host.mac, virtual_mac(family_of(address), vrid))
    at = announced(bench, address, since, *macs)
    reached(bench, address, host, *macs)
    return at


def last_advert(bench: Bench, priority: int, before: float, vrid: int = VRID) -> Advert:
    """The last advert of a priority before a monotonic time."""
    found = [a for a in bench.wire.adverts(vrid) if a.priority == priority and a.time < before]
    return found[-1]


def goodbyes(bench: Bench, since: float, vrid: int = VRID) -> list[Advert]:
    """The adverts of priority 0."""
    return [advert for advert in bench.wire.adverts(vrid, since) if advert.priority == 0]


def address_marks(host: Host) -> dict[str, int]:
    """The IFA_PROTO value of each address in a namespace, 0 without one; old ``ip`` shows none."""
    marks: dict[str, int] = {}
    with socket_in(host.namespace, socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(5)
        request = struct.pack("=IHHIIBBBBI", 24, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0, *[0] * 5)
        sock.send(request)
        while True:
            data = sock.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_DONE:
                    return marks
                attributes = dict(_attributes(data[24:length]))
                octets = attributes.get(IFA_LOCAL, attributes[IFA_ADDRESS])
                marks[str(ip_address(octets))] = attributes.get(IFA_PROTO, b"\0")[0]
                data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]
