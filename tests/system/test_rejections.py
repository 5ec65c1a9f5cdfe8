"""Adverts that are dropped or remarked upon: told, counted, and harmless otherwise."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from system.lab import Host, require_root_and, wait_until
from system.ours import Vrrpkit
from system.peers import KEEPALIVED, Keepalived, keepalived_conf
from system.scenario import (
    HIGH,
    LOW,
    VIP4,
    VRID,
    Bench,
    last_advert,
    skew,
)
from system.wire import Advert, socket_in

REASON = require_root_and(KEEPALIVED) or ""

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

VIPS = (f"{VIP4}/24",)
#: How early a takeover may seem, for clocks are read on both sides of a wire.
EARLY = 0.002


def keepalived_with(host: Host, **options: object) -> Keepalived:
    settings = {"vrid": VRID, "priority": HIGH, "vips": VIPS, "interval": 0.3}
    return Keepalived(host, keepalived_conf(**{**settings, **options}))


def vrrpkit_with(host: Host, **options: object) -> Vrrpkit:
    settings = {"vrid": VRID, "priority": LOW, "vips": VIPS, "interval": 0.3}
    return Vrrpkit(host, **{**settings, **options})


def test_another_password_is_rejected_and_silences_nobody(bench: Bench) -> None:
    version_2 = {"version": 2, "interval": 1}
    theirs = keepalived_with(bench.a, auth_pass="wrong", **version_2)
    ours = vrrpkit_with(bench.b, password="secret", **version_2)
    theirs.start()
    wait_until(lambda: theirs.state() == "MASTER", 10)
    ours.start()
    started = time.monotonic()
    # What it hears is no master's: it takes over as if there were none.
    wait_until(lambda: ours.state() == "MASTER", 10)
    assert time.monotonic() - started < 3 + skew(LOW, 1, 2) + 0.5
    rejected = ours.events("AdvertRejected")
    assert {(line["reason"], line["peer"]) for line in rejected} == {
        ("auth-failure", bench.a.address)
    }
    # Passwords are secrets even when they are wrong.
    assert "wrong" not in ours.log() and "secret" not in ours.log()
    statistics = ours.report()["statistics"]
    counted = statistics["rejected"]["auth-failure"]
    heard = [a for a in bench.wire.adverts(VRID, started) if a.source == bench.a.address]
    assert len(heard) - 1 <= counted <= len(heard) + 1
    assert statistics["peers"][bench.a.address]["rejected"] == {"auth-failure": counted}
    assert statistics["advertisement_rcvd"] == 0


def test_another_version_is_rejected(bench: Bench) -> None:
    theirs = keepalived_with(bench.a, version=2, interval=1)
    ours = vrrpkit_with(bench.b)
    theirs.start()
    ours.start()
    wait_until(lambda: bool(ours.events("AdvertRejected")), 10, "a rejection")
    rejected = ours.events("AdvertRejected")[0]
    assert (rejected["reason"], rejected["peer"]) == ("version", bench.a.address)
    assert (rejected["got"], rejected["want"]) == ("2", "3")
    statistics = ours.report()["statistics"]
    assert statistics["version_errors"] == statistics["rejected"]["version"] >= 1


def test_another_list_of_addresses_is_accepted_and_told(bench: Bench) -> None:
    theirs = keepalived_with(bench.a, vips=[*VIPS, "192.0.2.77/32"])
    ours = vrrpkit_with(bench.b)
    theirs.start()
    wait_until(lambda: theirs.state() == "MASTER", 10)
    ours.start()
    time.sleep(1.5)
    assert ours.state() == "BACKUP"
    first, *later = ours.events("AdvertAnomaly")
    assert (first["anomaly"], first["peer"]) == ("address-list", bench.a.address)
    assert (first["got"], first["want"]) == ("192.0.2.77", "nothing else")
    assert len(later) <= 1, "once a second"
    report = ours.report()
    assert report["master"] == bench.a.address
    assert report["statistics"]["address_list_errors"] >= 4
    assert report["statistics"]["anomalies"] == {
        "address-list": report["statistics"]["address_list_errors"]
    }


@pytest.fixture
def forger(bench: Bench) -> Iterator[socket.socket]:
    """A raw socket of the watcher's, to send anything as an advert."""
    with socket_in(bench.watch.namespace, socket.AF_INET, socket.SOCK_RAW, 112) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        interface = IPv4Address(bench.watch.address).packed
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
        yield sock


def forge(sock: socket.socket, seconds: float, every: float = 0.5) -> int:
    """Send adverts of the highest priority with a wrong checksum; how many."""
    end, sent = time.monotonic() + seconds, 0
    payload = struct.pack("!BBBBHH4s", 0x31, VRID, 254, 1, 30, 0xBAD, IPv4Address(VIP4).packed)
    while time.monotonic() < end:
        sock.sendto(payload, ("224.0.0.18", 0))
        sent += 1
        time.sleep(every)
    return sent


def test_bad_checksums_neither_stop_a_master_nor_keep_one_alive(
    bench: Bench, forger: socket.socket
) -> None:
    ours = vrrpkit_with(bench.b)
    theirs = keepalived_with(bench.a)
    theirs.start()
    wait_until(lambda: theirs.state() == "MASTER", 10)
    ours.start()
    wait_until(lambda: len(bench.wire.adverts(VRID)) > 3, 5)
    assert ours.state() == "BACKUP"
    theirs.kill9()
    silent = last_advert(bench, HIGH, time.monotonic()).time
    sent = forge(forger, 2.5)
    first = bench.wire.wait_for(Advert, lambda seen: seen.priority == LOW, timeout=1)
    down = 0.9 + skew(LOW, 0.3)
    assert down - EARLY < first.time - silent < down + 0.3
    since = time.monotonic()
    sent += forge(forger, 2)
    assert ours.state() == "MASTER"
    own = [seen.time for seen in bench.wire.adverts(VRID, since) if seen.priority == LOW]
    assert 5 <= len(own) <= 8
    assert max(later - sooner for sooner, later in pairwise(own)) < 0.45
    statistics = ours.report()["statistics"]
    assert statistics["checksum_errors"] == sent
    assert statistics["peers"][bench.watch.address]["rejected"] == {"checksum": sent}
    events = ours.events("AdvertRejected")
    assert {(line["reason"], line["peer"]) for line in events} == {
        ("checksum", bench.watch.address)
    }
    # At most one a second, each with the number that it stands for.
    assert 3 <= len(events) <= 6
    assert sent - 3 <= sum(line["count"] for line in events) <= sent


def test_a_rejecting_pair_recovers_when_the_password_is_mended(bench: Bench) -> None:
    version_2 = {"version": 2, "interval": 1}
    config = {"vrid": VRID, "priority": HIGH, "vips": VIPS, **version_2}
    theirs = keepalived_with(bench.a, auth_pass="other", **version_2)
    ours = vrrpkit_with(bench.b, password="secret", **version_2)
    theirs.start()
    ours.start()
    wait_until(lambda: ours.state() == theirs.state() == "MASTER", 10)
    theirs.reload(keepalived_conf(**config, auth_pass="secret"))
    wait_until(lambda: ours.state() == "BACKUP", 10)
    assert not ours.owns(VIP4)
    assert ours.transitions()[-1] == ("BACKUP", "higher-priority")
