"""Accept_Mode off: a MASTER that answers who asks for its addresses, and nobody else; and virtual
MAC addresses that say nothing by themselves."""

from __future__ import annotations

import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.lab import BRIDGE, Host, require_root_and, wait_until
from system.ours import INTERVAL, Vrrpkit, mastered, router
from system.scenario import (
    HIGH,
    LOW,
    VIP4,
    VIP6,
    VRID,
    Bench,
    announced,
    family_of,
    taken,
    virtual_mac,
)
from system.wire import Report, socket_in

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        require_root_and("nft", "arping", "unshare") is not None,
        reason=require_root_and("nft", "arping", "unshare") or "installed",
    ),
]

PORT = 8080
SERVER = f"""
import socket
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    server.accept()[0].close()
"""
LOCAL = "fe80::10"
ADDRESSES = pytest.mark.parametrize("vip", [VIP4, VIP6], ids=["IPv4", "IPv6"])
REFUSING: dict[str, dict[str, Any]] = {"accept": {"accept": False}, "strict": {"profile": "strict"}}


def strict_vips(vip: str) -> list[str]:
    """What the strict profile takes: in IPv6 a link-local address comes first."""
    return [vip] if family_of(vip) == 4 else [LOCAL, vip]


def serve(host: Host) -> None:
    """Have a TCP server on all addresses of a host, those to come too."""
    host.python("-c", SERVER)
    wait_until(lambda: f":{PORT}" in host.run(["ss", "-Hltn"]), 5, "a server")


def connects(host: Host, address: str) -> bool:
    """Whether a TCP connection to the server comes about within a second."""
    scope = f"%{host.dev}" if address.startswith("fe80") else ""
    code = f"import socket; socket.create_connection(({address + scope!r}, {PORT}), 1).close()"
    return "Error" not in host.run([sys.executable, "-c", code], check=False)


def resolves(bench: Bench, vip: str, mac: str) -> bool:
    """Whether a fresh question for the MAC address of a VIP is answered."""
    bench.watch.ip("neighbour", "flush", "all")
    if family_of(vip) == 4:
        command = ["arping", "-c", "1", "-w", "2", "-I", bench.watch.dev, vip]
        return mac in bench.watch.run(command, check=False).lower()
    bench.watch.ping(vip)
    return bench.watch.neighbour(vip) == mac


def tables(host: Host) -> list[str]:
    """The tables of nftables in a namespace."""
    return re.findall(r"^table (.+)$", host.run(["nft", "list", "tables"]), re.MULTILINE)


def refuses(bench: Bench, vip: str, mac: str) -> None:
    """The VIP is on the link, and accepts nothing."""
    assert resolves(bench, vip, mac)
    assert bench.watch.ping(vip, count=2) == 0
    assert not connects(bench.watch, vip)


@ADDRESSES
@pytest.mark.parametrize("options", REFUSING.values(), ids=REFUSING)
def test_accept_off_drops_what_goes_to_the_addresses(
    bench: Bench, options: dict[str, Any], vip: str
) -> None:
    serve(bench.a)
    ours = router(bench.a, vips=strict_vips(vip), **options)
    ours.start()
    mastered(ours, vip)
    announced(bench, vip, 0, bench.a.mac)
    for address in strict_vips(vip):
        refuses(bench, address, bench.a.mac)
    for own in bench.a.own_addresses:
        address = own.split("/")[0]
        assert bench.watch.ping(address) == 1
        assert connects(bench.watch, address)
    assert "firewall rule" not in ours.log()
    ours.stop()
    assert tables(bench.a) == []


ACCEPTING: dict[str, dict[str, Any]] = {
    "default": {},
    "strict": {"profile": "strict", "accept": True},
    "owner": {"profile": "strict", "priority": 255},
}


@ADDRESSES
@pytest.mark.parametrize("options", ACCEPTING.values(), ids=ACCEPTING)
def test_accept_on_accepts_and_needs_no_table(
    bench: Bench, options: dict[str, Any], vip: str
) -> None:
    serve(bench.a)
    ours = router(bench.a, vips=strict_vips(vip), **options)
    ours.start()
    mastered(ours, vip)
    taken(bench, bench.a, vip, 0)
    assert connects(bench.watch, vip)
    assert tables(bench.a) == []


def test_excluded_addresses_are_refused_too(bench: Bench) -> None:
    serve(bench.a)
    ours = router(bench.a, excluded_vips=["192.0.2.20/32", VIP6], accept=False)
    ours.start()
    mastered(ours, VIP4, "192.0.2.20", VIP6)
    for vip in (VIP4, "192.0.2.20", VIP6):
        announced(bench, vip, 0, bench.a.mac)
        refuses(bench, vip, bench.a.mac)


def test_a_link_local_address_is_refused_on_its_own_interface_only(bench: Bench) -> None:
    second = ["eth1", "type", "veth", "peer", "name", "eth1", "netns", bench.watch.namespace]
    bench.a.ip("link", "add", *second)
    for host, address in ((bench.a, LOCAL), (bench.watch, "fe80::9")):
        host.ip("link", "set", "dev", "eth1", "addrgenmode", "none", "up")
        host.ip("address", "add", f"{address}/64", "dev", "eth1", "nodad")
    ours = router(bench.a, vips=[LOCAL], accept=False)
    ours.start()
    wait_until(lambda: bench.a.where(LOCAL) == ["eth0", "eth1"], 5, "the address")
    announced(bench, LOCAL, 0, bench.a.mac)
    refuses(bench, LOCAL, bench.a.mac)
    other = bench.watch.run(["ping", "-n", "-c", "1", "-W", "1", f"{LOCAL}%eth1"], check=False)
    assert "1 received" in other


@ADDRESSES
def test_a_backup_forwards_to_the_master_what_it_would_refuse(bench: Bench, vip: str) -> None:
    master, backup = router(bench.a, vips=[vip]), router(bench.b, LOW, vips=[vip], accept=False)
    master.start()
    mastered(master, vip)
    backup.start()
    assert len(tables(bench.b)) == 1
    bench.b.sysctl({"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1})
    # It would tell the client of the shorter way.
    bench.b.sysctl({f"net/ipv4/conf/{name}/send_redirects": 0 for name in ("all", "eth0")})
    client = bench.lab.host("client", "198.51.100.7/24", "2001:db8:1::7/64")
    if family_of(vip) == 4:
        prefix, via, default = "198.51.100.0/24", bench.b.address, "198.51.100.2"
        bench.b.ip("address", "add", f"{default}/24", "dev", "eth0")
    else:
        prefix, via, default = "2001:db8:1::/64", "2001:db8::2", "2001:db8:1::2"
        bench.b.ip("address", "add", f"{default}/64", "dev", "eth0", "nodad")
    bench.a.ip("route", "add", prefix, "via", via)
    client.ip("route", "add", f"{vip}/{32 if family_of(vip) == 4 else 128}", "via", default)
    assert client.ping(vip) == 1
    assert client.neighbour(default) == bench.b.mac
    assert client.neighbour(vip) is None
    master.stop()
    mastered(backup, vip)
    assert client.ping(vip) == 0


def test_a_takeover_accepts_nothing_from_the_start(bench: Bench) -> None:
    serve(bench.b)
    master, backup = router(bench.a), router(bench.b, LOW, accept=False)
    master.start()
    mastered(master, VIP4)
    backup.start()
    began = time.monotonic()
    # Without a pause, from before the takeover until after it.
    pings = ["ping", "-n", "-q", "-i", "0.01", "-w", "3", VIP4]
    flood = bench.watch.popen(pings, log=(said := bench.watch.directory / "pings"))
    taken_from = time.monotonic()
    bench.a.ip("link", "set", "dev", "eth0", "down")
    at = announced(bench, VIP4, began, bench.b.mac)
    # While there were pings.
    assert at - taken_from < 2.5
    flood.wait(10)
    answered = re.search(r"(\d+) received", said.read_text())
    assert answered and int(answered[1]) * 0.01 < taken_from - began + 0.1
    refuses(bench, VIP4, bench.b.mac)


# --- virtual MAC addresses


def reports(bench: Bench, mac: str, since: float = 0.0) -> set[str]:
    """The groups that a MAC address has reported."""
    found = [frame for frame in bench.wire.frames(Report, since) if frame.source_mac == mac]
    return {group for frame in found for group in frame.groups}


@ADDRESSES
def test_accept_off_on_a_virtual_mac(bench: Bench, vip: str) -> None:
    serve(bench.a)
    ours = router(bench.a, vips=[vip], virtual_mac=True, accept=False)
    ours.start()
    mastered(ours, vip)
    mac = virtual_mac(family_of(vip))
    announced(bench, vip, 0, mac)
    refuses(bench, vip, mac)
    ours.stop()
    assert tables(bench.a) == []


def test_kernels_do_report_the_memberships_of_a_macvlan(bench: Bench) -> None:
    # Else the next test could not fail.
    link = ["link", "eth0", "name", "above", "address", virtual_mac(4), "type", "macvlan"]
    bench.a.ip("link", "add", *link)
    bench.a.ip("link", "set", "dev", "above", "up")
    index = int(bench.a.run(["cat", "/sys/class/net/above/ifindex"]))
    four = socket_in(bench.a.namespace, socket.AF_INET, socket.SOCK_DGRAM)
    six = socket_in(bench.a.namespace, socket.AF_INET6, socket.SOCK_DGRAM)
    with four, six:
        request = socket.inet_aton("224.0.0.18") + struct.pack("=4xi", index)
        four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        group = socket.inet_pton(socket.AF_INET6, "ff02::12")
        six.setsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=I", index)
        )
        wanted = {"224.0.0.18", "ff02::12"}
        wait_until(lambda: reports(bench, virtual_mac(4)) >= wanted, 5, "reports")


@ADDRESSES
@pytest.mark.parametrize("forwarding", [0, 1])
def test_a_virtual_mac_reports_no_memberships(bench: Bench, vip: str, forwarding: int) -> None:
    for host in (bench.a, bench.b):
        host.sysctl({"net/ipv4/ip_forward": forwarding, "net/ipv6/conf/all/forwarding": forwarding})
    mac = virtual_mac(family_of(vip))
    master = router(bench.a, vips=[vip], virtual_mac=True)
    backup = router(bench.b, LOW, vips=[vip], virtual_mac=True)
    master.start()
    mastered(master, vip)
    taken(bench, bench.a, vip, 0)
    backup.start()
    group = "224.0.0.18" if family_of(vip) == 4 else "ff02::12"
    for host in (bench.a, bench.b):
        wait_until(lambda mac=host.mac: group in reports(bench, mac), 5, "the base's report")
    # An answer to a query takes a while, and repeats of a report come within a second or two.
    time.sleep(2.5)
    assert reports(bench, mac) == set()
    assert bench.lab.port(mac) == "a"
    backup.stop()
    master.stop()
    time.sleep(1)
    assert reports(bench, mac) == set()
    assert (tables(bench.a), tables(bench.b)) == ([], [])


@pytest.fixture
def snooping(bench: Bench) -> Iterator[None]:
    """Have the switch deliver IPv6 multicasts to those only who have reported the group."""
    switch = bench.lab.switch
    switch.sysctl({f"net/ipv6/conf/{BRIDGE}/disable_ipv6": 0})
    switch.ip("address", "add", "fe80::ff/64", "dev", BRIDGE, "nodad")
    timing = ["mcast_query_response_interval", "50", "mcast_startup_query_interval", "50"]
    switch.ip("link", "set", BRIDGE, "type", "bridge", *timing)
    switch.ip("link", "set", BRIDGE, "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1")
    yield
    switch.ip("link", "set", BRIDGE, "type", "bridge", "mcast_snooping", "0")


@pytest.mark.usefixtures("snooping")
def test_neighbours_find_a_virtual_mac_behind_a_switch_that_snoops(bench: Bench) -> None:
    # The switch delivers everything to everybody until the answers to its first query are due.
    time.sleep(2)
    ours = router(bench.a, vips=[f"{LOCAL}/64", VIP6], virtual_mac=True)
    ours.start()
    mastered(ours, VIP6, LOCAL)
    snooped = ["bridge", "mdb", "show", "dev", BRIDGE]
    group = "ff02::1:ff00:10"
    wait_until(lambda: group in bench.lab.switch.run(snooped), 5, "the report of the base")
    for vip in (VIP6, LOCAL):
        assert resolves(bench, vip, virtual_mac(6))
        assert bench.watch.ping(vip) == 1
    ours.stop()
    wait_until(lambda: group not in bench.lab.switch.run(snooped), 5, "the end of the membership")


# --- the end


def test_a_killed_router_leaves_rules_that_the_next_replaces(bench: Bench) -> None:
    ours = router(bench.a, excluded_vips=[VIP6], accept=False)
    ours.start()
    mastered(ours, VIP4, VIP6)
    (left,) = tables(bench.a)
    ours.kill9()
    assert tables(bench.a) == [left]
    assert bench.watch.ping(VIP4) == 0
    ours.start()
    mastered(ours, VIP4, VIP6)
    (new,) = tables(bench.a)
    assert new != left
    refuses(bench, VIP4, bench.a.mac)
    refuses(bench, VIP6, bench.a.mac)
    ours.stop()
    assert tables(bench.a) == []


def test_what_a_killed_router_refused_is_accepted_by_a_run_that_accepts(bench: Bench) -> None:
    ours = router(bench.a, accept=False)
    ours.start()
    mastered(ours, VIP4)
    ours.kill9()
    ours.options["accept"] = True
    ours.start()
    mastered(ours, VIP4)
    assert tables(bench.a) == []
    taken(bench, bench.a, VIP4, 0)
    assert "left behind by runs that were killed" in ours.log()


def test_tables_of_others_stay(bench: Bench) -> None:
    bench.a.run(["nft", "add", "table", "inet", "filter"])
    one = router(bench.a, accept=False)
    one.start()
    mastered(one, VIP4)
    before = tables(bench.a)
    other = Vrrpkit(
        bench.b,
        run_on=bench.a,
        netns=bench.a.namespace,
        vrid=VRID + 1,
        vips=["192.0.2.78/32"],
        priority=HIGH,
        interval=INTERVAL,
        accept=False,
    )
    other.start()
    assert len(tables(bench.a)) == 3 and set(before) < set(tables(bench.a))
    wait_until(lambda: bench.a.has("192.0.2.78"), 5, "the other address")
    assert bench.watch.ping("192.0.2.78") == 0
    one.stop()
    assert len(tables(bench.a)) == 2
    assert bench.watch.ping("192.0.2.78") == 0
    other.stop()
    assert tables(bench.a) == ["inet filter"]


def test_rules_that_are_flushed_come_back(bench: Bench) -> None:
    ours = router(bench.a, accept=False)
    ours.start()
    mastered(ours, VIP4)
    before = tables(bench.a)
    bench.a.run(["nft", "flush", "ruleset"])
    wait_until(lambda: tables(bench.a) == before, 2, "the table")
    assert bench.watch.ping(VIP4) == 0
    assert "is gone; putting it back" in ours.log()


# --- what it needs

NEEDY: dict[str, dict[str, Any]] = {**REFUSING, "virtual-mac": {"virtual_mac": True}}


def instead_of_nft(path: Path) -> list[str]:
    """A wrapper that runs a command where the program nft is another file."""
    hide = f'mount --bind {path} "$(command -v nft)" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", hide, "sh"]


@pytest.mark.parametrize("options", NEEDY.values(), ids=NEEDY)
def test_a_missing_program_is_named_at_the_start(bench: Bench, options: dict[str, Any]) -> None:
    ours = router(bench.a, wrapper=instead_of_nft(Path("/dev/null")), **options)
    before = bench.a.ip("address", "show")
    said = ours.fails()
    assert "HostError: changing the packet filter needs the program nft" in said
    assert "package 'nftables'" in said
    assert bench.a.ip("address", "show") == before
    assert not ours.transitions() and not bench.wire.adverts()


def test_a_router_that_needs_no_rules_does_without_the_program(bench: Bench) -> None:
    ours = router(bench.a, wrapper=instead_of_nft(Path("/dev/null")))
    ours.start()
    mastered(ours, VIP4)
    ours.stop()
    assert "nft" not in ours.log()


def test_a_kernel_without_nftables_is_named(bench: Bench) -> None:
    fake = bench.a.directory / "nft"
    fake.write_text("#!/bin/sh\necho 'Error: cache failed: Operation not supported'\nexit 1\n")
    fake.chmod(0o755)
    said = router(bench.a, wrapper=instead_of_nft(fake), accept=False).fails()
    assert "HostError: this kernel has no nftables for IPv4 and IPv6" in said
    assert not bench.a.has(VIP4)
