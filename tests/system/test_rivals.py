"""What a hostile or a healing link does to a MASTER: a healed split brain, a flood of forged
adverts, an own address that is removed."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from ipaddress import IPv4Address

import pytest

from system.lab import Host, wait_until
from system.ours import DOWN, INTERVAL, mastered, router
from system.peers import Keepalived, keepalived_conf
from system.scenario import (
    HIGH,
    LOW,
    VIP4,
    VRID,
    Bench,
    announcements,
    goodbyes,
    reached,
    skew,
)
from system.wire import socket_in
from vrrpkit.vrrp.protocol.packet import Advertisement, encode

pytestmark = pytest.mark.system

GROUP = IPv4Address("224.0.0.18")


def silence(host: Host) -> None:
    """Let no advert in, as a switch does that snoops without a querier."""
    host.run(
        [
            "nft",
            "add table ip t; add chain ip t i { type filter hook input priority 0; };"
            "add rule ip t i ip protocol 112 drop",
        ]
    )


def heal(host: Host) -> None:
    host.run(["nft", "delete table ip t"])


def their(host: Host, priority: int) -> Keepalived:
    conf = keepalived_conf(
        vrid=VRID, priority=priority, vips=[f"{VIP4}/32"], interval=0.2, version=3
    )
    return Keepalived(host, conf)


def test_after_a_split_brain_the_clients_come_back(bench: Bench) -> None:
    """The loser was the last to announce the address, and the client has a long ARP timeout."""
    bench.watch.sysctl(
        {
            "net/ipv4/conf/eth0/arp_accept": 1,
            "net/ipv4/neigh/eth0/base_reachable_time_ms": 600000,
        }
    )
    ours, loser = router(bench.a, priority=HIGH), their(bench.b, LOW)
    ours.start()
    mastered(ours, VIP4)
    loser.start()
    silence(bench.a)
    silence(bench.b)
    wait_until(lambda: bench.b.has(VIP4), 10, "two masters")
    reached(bench, VIP4, bench.b, bench.b.mac)
    begin = time.monotonic()
    heal(bench.a)
    wait_until(
        lambda: bool(announcements(bench, VIP4, begin, bench.a.mac)), 5, "announced to the loser"
    )
    heal(bench.b)
    wait_until(lambda: not bench.b.has(VIP4), 5, "the loser gives way")
    gone = time.monotonic()
    assert bench.a.has(VIP4)
    wait_until(
        lambda: bool(announcements(bench, VIP4, gone, bench.a.mac)),
        3,
        "announced once more when the other has been silent",
    )
    reached(bench, VIP4, bench.a, bench.a.mac)
    assert ours.state() == "MASTER"


def frame(source: str, addresses: int) -> bytes:
    """A forged advert of priority 1, from the Ethernet header on."""
    listed = tuple(IPv4Address(0xC0000264 + number) for number in range(addresses))
    advert = Advertisement(version=3, vrid=VRID, priority=1, wire_interval=20, addresses=listed)
    payload = encode(advert, IPv4Address(source), GROUP)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0xC0,
        20 + len(payload),
        0,
        0,
        255,
        112,
        0,
        IPv4Address(source).packed,
        GROUP.packed,
    )
    total = sum(struct.unpack("!10H", head))
    total = ~((total >> 16) + (total & 0xFFFF)) & 0xFFFF
    header = head[:10] + struct.pack("!H", total) + head[12:]
    return bytes.fromhex("01005e0000120200000000990800") + header + payload


def flood(host: Host, seconds: float, rate: int) -> int:
    """Send forged adverts from 180 addresses; how many left."""
    frames = [frame(f"192.0.2.{number}", 255) for number in range(20, 200)]
    with socket_in(host.namespace, socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((host.dev, 0))
        begin, sent = time.monotonic(), 0
        while (passed := time.monotonic() - begin) < seconds:
            while sent < passed * rate:
                sock.send(frames[sent % len(frames)])
                sent += 1
            time.sleep(0.0005)
    return sent


@pytest.mark.parametrize("signed", [True, False])
def test_a_flood_of_forged_adverts_silences_nobody(bench: Bench, signed: bool) -> None:
    """6,000/s of 255 addresses: with HMAC none is accepted, without each is a losing advert."""
    options = {"hmac": "hex:" + os.urandom(32).hex()} if signed else {}
    ours = router(bench.a, priority=HIGH, **options)
    backup = router(bench.b, priority=LOW, **options)
    ours.start()
    mastered(ours, VIP4)
    backup.start()
    time.sleep(2 * DOWN)
    before = ours.report()["statistics"]
    # It hears nothing but ARP, so that the flood does not reach it.
    with socket_in(bench.watch.namespace, socket.AF_PACKET, socket.SOCK_RAW, 0) as arp:
        arp.bind((bench.watch.dev, 0x0806))
        arp.setblocking(False)
        begin = time.monotonic()
        flood(bench.watch, 4, 6000)
        took = time.monotonic() - begin
        after = ours.report()["statistics"]
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(arp.recv(2048))
    assert ours.transitions(since=begin) == backup.transitions(since=begin) == []
    sent = after["advertisement_sent"] - before["advertisement_sent"]
    assert 0.7 * took / INTERVAL < sent < 10 * (took + 2) / INTERVAL
    ours_mac = bytes.fromhex(bench.a.mac.replace(":", ""))
    announced = sum(each[6:12] == ours_mac and each[28:32] == each[38:42] for each in frames)
    assert announced <= 5 * (took + 2), "one set of five a second at most"
    assert (announced > 0) is not signed
    assert (after["rejected"].get("hmac-missing", 0) > 1000) is signed


def test_the_goodbye_comes_before_the_own_address_is_left(bench: Bench) -> None:
    """keepalived takes over after its skew, and not after a silence of three intervals."""
    ours, other = router(bench.a, priority=HIGH, interval=1.0), their(bench.b, LOW)
    other.config = keepalived_conf(
        vrid=VRID, priority=LOW, vips=[f"{VIP4}/32"], interval=1, version=3
    )
    ours.start()
    mastered(ours, VIP4)
    other.start()
    time.sleep(1.5)
    gone = time.monotonic()
    bench.a.ip("address", "delete", bench.a.own_addresses[0], "dev", bench.a.dev)
    wait_until(lambda: bench.b.has(VIP4), 5, "keepalived takes over")
    assert time.monotonic() - gone < skew(LOW, 1.0) + 0.5
    (goodbye,) = goodbyes(bench, gone)
    assert goodbye.source == bench.a.address
    report = ours.report()
    assert report["statistics"]["priority_zero_pkts_sent"] == 1
    assert report["statistics"]["send_errors"] == 0
    bench.a.ip("address", "add", bench.a.own_addresses[0], "dev", bench.a.dev)
    wait_until(lambda: ours.state() == "MASTER", 10, "back")


def test_nothing_is_counted_that_cannot_be_said(bench: Bench) -> None:
    ours = router(bench.a, wait_for_interface=True)
    ours.start()
    mastered(ours, VIP4)
    bench.a.ip("link", "delete", bench.a.dev)
    wait_until(lambda: ours.state() == "FAULT", 5, "FAULT")
    statistics = ours.report()["statistics"]
    assert statistics["priority_zero_pkts_sent"] == 0
    # Tried, and refused, if the kernel told that the link is down before it was gone.
    assert statistics["send_errors"] <= 1


def test_a_keepalived_that_uses_unicast_is_heard_and_told(bench: Bench) -> None:
    ours = router(bench.a)
    ours.start()
    mastered(ours, VIP4)
    conf = keepalived_conf(
        vrid=VRID,
        priority=LOW,
        vips=[f"{VIP4}/32"],
        interval=0.2,
        version=3,
        unicast_src=bench.b.address,
        unicast_peers=[bench.a.address],
    )
    Keepalived(bench.b, conf).start()
    wait_until(lambda: bench.b.has(VIP4), 10, "two masters")
    wait_until(lambda: bool(ours.events("AdvertRejected")), 5, "told")
    assert ours.report()["statistics"]["rejected"]["destination"] > 0
    assert "unicast_peer" in ours.log()


def test_an_unicast_router_joins_the_group_only_to_diagnose(bench: Bench) -> None:
    peers = {"peers": [bench.b.address], "source": bench.a.address}
    ours, other = router(bench.a, **peers), their(bench.b, LOW)
    joined = "224.0.0.18"
    ours.start()
    mastered(ours, VIP4)
    assert joined not in bench.a.run(["ip", "maddress", "show", "dev", bench.a.dev])
    ours.stop()
    ours.options["diagnose"] = True
    ours.start()
    mastered(ours, VIP4)
    assert joined in bench.a.run(["ip", "maddress", "show", "dev", bench.a.dev])
    other.start()
    wait_until(lambda: bench.b.has(VIP4), 10, "two masters")
    wait_until(
        lambda: ours.report()["statistics"]["rejected"].get("destination", 0) > 0, 5, "counted"
    )
