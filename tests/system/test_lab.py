"""The laboratory, the sniffer and the real peers do what the other system tests rely on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from system.lab import (
    NETNS_DIRECTORY,
    Host,
    Lab,
    alive,
    remove_leftovers,
    require_root_and,
    wait_until,
)
from system.peers import (
    FRR,
    FRR_PROGRAMS,
    KEEPALIVED,
    Keepalived,
    Peer,
    keepalived_conf,
)
from system.scenario import HIGH, LOW, VIP4, VIP6, VRID, Bench, goodbyes, last_advert, skew, taken
from system.wire import Advert, Sniffer

pytestmark = pytest.mark.system

INTERVAL = 0.5
VIPS = {4: [f"{VIP4}/24"], 6: ["fe80::51:10/64", f"{VIP6}/64"]}

#: Skew_Time and Master_Down_Interval of the lower one. FRR counts in whole centiseconds.
SKEW = skew(LOW, INTERVAL)
MASTER_DOWN = 3 * INTERVAL + SKEW
EARLY = 0.012
#: A stalled machine is late by this much at most; far less than what is told apart.
LATE = 1.2


def keepalived(host: Host, priority: int, family: int) -> Peer:
    options = {"garp_master_delay": 1}
    config = keepalived_conf(
        vrid=VRID, priority=priority, vips=VIPS[family], interval=INTERVAL, options=options
    )
    return Keepalived(host, config)


def frr(host: Host, priority: int, family: int) -> Peer:
    return FRR(host, vrid=VRID, priority=priority, vips=VIPS[family], interval=INTERVAL)


REASON = require_root_and(KEEPALIVED, *FRR_PROGRAMS) or ""

Factory = Callable[[Host, int, int], Peer]
PAIRS = {
    "keepalived-keepalived-ipv4": (keepalived, keepalived, 4),
    "frr-frr-ipv6": (frr, frr, 6),
    "keepalived-frr-ipv6": (keepalived, frr, 6),
    "frr-keepalived-ipv4": (frr, keepalived, 4),
}


@pytest.mark.skipif(bool(REASON), reason=REASON)
@pytest.mark.parametrize(("make_high", "make_low", "family"), PAIRS.values(), ids=PAIRS)
def test_two_real_peers_fail_over(
    bench: Bench, make_high: Factory, make_low: Factory, family: int
) -> None:
    address = VIP4 if family == 4 else VIP6
    high = make_high(bench.a, HIGH, family)
    low = make_low(bench.b, LOW, family)
    start = time.monotonic()
    high.start()
    first = taken(bench, bench.a, address, start)
    assert first - start > 3 * INTERVAL
    advert = bench.wire.wait_for(Advert, lambda seen: seen.priority == HIGH)
    # Not before: FRR's first IPv6 advert comes an interval after its takeover, and a router that
    # waits for it would take over in between and spoil the neighbour caches.
    low.start()
    assert high.owns(address)
    assert not low.owns(address)
    assert (advert.version, advert.vrid, advert.ttl) == (3, VRID, 255)
    assert (advert.family, advert.interval) == (family, round(INTERVAL * 100))
    assert advert.addresses == tuple(vip.split("/")[0] for vip in VIPS[family])
    assert advert.destination == ("224.0.0.18" if family == 4 else "ff02::12")
    assert ip_address(advert.source).is_link_local == (family == 6)
    assert advert.source not in advert.addresses

    stopped = time.monotonic()
    high.stop()
    released = bench.wire.wait_for(Advert, lambda seen: seen.priority == 0, since=stopped)
    after = taken(bench, bench.b, address, stopped) - released.time
    assert SKEW - EARLY < after < SKEW + LATE
    assert low.owns(address)
    assert not high.owns(address)

    started = time.monotonic()
    high.start()
    taken(bench, bench.a, address, started)
    wait_until(lambda: not low.owns(address), 10, "the lower one's retreat")

    bench.wire.wait_for(Advert, lambda seen: seen.priority == HIGH, since=started)
    killed = time.monotonic()
    high.kill9()
    silent = last_advert(bench, HIGH, time.monotonic()).time
    after = taken(bench, bench.b, address, killed) - silent
    assert MASTER_DOWN - EARLY < after < MASTER_DOWN + LATE
    assert not goodbyes(bench, killed)
    assert low.owns(address)
    # Nobody cleaned up behind the dead one.
    assert high.owns(address)

    started = time.monotonic()
    high.restart()
    taken(bench, bench.a, address, started)
    wait_until(lambda: not low.owns(address), 10, "the lower one's retreat")


needs_keepalived = pytest.mark.skipif(
    require_root_and(KEEPALIVED) is not None, reason=require_root_and(KEEPALIVED) or "installed"
)


@needs_keepalived
def test_the_switch_shows_unicast_adverts_too(bench: Bench) -> None:
    peer = Keepalived(
        bench.a,
        keepalived_conf(
            vrid=VRID,
            vips=VIPS[4],
            interval=0.1,
            unicast_src=bench.a.address,
            unicast_peers=[bench.b.address],
        ),
    )
    with Sniffer(bench.watch) as elsewhere:
        peer.start()
        advert = bench.wire.wait_for(Advert)
        assert (advert.source, advert.destination) == ("192.0.2.1", "192.0.2.2")
        taken(bench, bench.a, VIP4, 0)
        assert elsewhere.garps(VIP4)
        assert not elsewhere.adverts()


@needs_keepalived
def test_keepalived_with_a_virtual_mac(bench: Bench) -> None:
    for host in (bench.a, bench.b):
        # Otherwise eth0 asks for the pinging host's address with the VIP as sender: the asked
        # one then learns the physical MAC.
        host.sysctl({"net/ipv4/conf/all/arp_announce": 2})
    high, low = (
        Keepalived(
            host,
            keepalived_conf(
                vrid=VRID, priority=priority, vips=[f"{VIP4}/32"], interval=INTERVAL, use_vmac=True
            ),
        )
        for host, priority in ((bench.a, HIGH), (bench.b, LOW))
    )
    low.start()
    high.start()
    taken(bench, bench.a, VIP4, 0)
    virtual = f"00:00:5e:00:01:{VRID:02x}"
    assert bench.a.where(VIP4) == [f"vrrp.{VRID}"]
    assert bench.watch.neighbour(VIP4) == virtual
    assert bench.lab.port(virtual) == "a"
    stopped = time.monotonic()
    high.stop()
    taken(bench, bench.b, VIP4, stopped)
    assert bench.watch.neighbour(VIP4) == virtual
    assert bench.lab.port(virtual) == "b"


@needs_keepalived
def test_keepalived_speaks_version_2_with_a_password(bench: Bench) -> None:
    config = keepalived_conf(vrid=VRID, vips=VIPS[4], version=2, auth_pass="secret")
    peer = Keepalived(bench.a, config)
    peer.start()
    assert peer.state() == "BACKUP"
    advert = bench.wire.wait_for(Advert)
    assert (advert.version, advert.interval) == (2, 1)
    assert advert.payload[4] == 1
    assert advert.payload[-8:] == b"secret\0\0"
    wait_until(lambda: peer.state() == "MASTER", 5)
    peer.stop()
    assert peer.state() is None


def test_hosts_are_joined_by_the_switch(lab: Lab) -> None:
    a = lab.host("a", "192.0.2.1/24", "2001:db8::1/64")
    b = lab.host("b", "192.0.2.2/24", "2001:db8::2/64")
    assert a.addresses() == ["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"]
    assert [a.ping(target) for target in ("192.0.2.2", "2001:db8::2", "fe80::2")] == [1, 1, 1]
    assert a.neighbour("192.0.2.2") == b.mac == "02:00:00:00:00:02"
    assert lab.port(b.mac) == "b"
    assert a.has("2001:db8:0::1")
    assert not a.has("192.0.2.2")

    a.link_down()
    assert a.ping("192.0.2.2") == 0
    a.link_up()
    assert a.addresses() == ["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"]
    assert a.ping("2001:db8::2") == 1

    a.cut()
    assert "LOWER_UP" in a.ip("link", "show", "dev", a.dev)
    assert a.ping("192.0.2.2") == 0
    a.heal()
    # The next ARP request may be a second away.
    wait_until(lambda: a.ping("192.0.2.2") == 1, 5, "healed")

    a.unplug()
    assert "NO-CARRIER" in a.ip("link", "show", "dev", a.dev)
    a.plug()
    wait_until(lambda: a.ping("192.0.2.2") == 1, 5, "plugged in again")


def test_the_laboratory_ends_with_its_block_and_takes_its_processes_along() -> None:
    if reason := require_root_and():
        pytest.skip(reason)
    lab = Lab()

    def fail() -> None:
        with lab:
            lab.host("a", "192.0.2.1/24").popen(["sh", "-c", "setsid sleep 300 & sleep 300"])
            wait_until(lambda: len(inhabitants()) == 3, 5, "both sleepers and the shell")
            before.update(inhabitants())
            raise ZeroDivisionError

    def inhabitants() -> list[int]:
        output = subprocess.check_output(["ip", "netns", "pids", lab.hosts["a"].namespace])
        return [int(pid) for pid in output.split()]

    before: set[int] = set()
    with pytest.raises(ZeroDivisionError):
        fail()
    wait_until(lambda: not any(map(alive, before)), 5, "the processes' end")
    for host in (lab.switch, *lab.hosts.values()):
        assert not (NETNS_DIRECTORY / host.namespace).exists()
    assert not lab.directory.exists()


def test_leftovers_of_a_killed_run_are_removed() -> None:
    if reason := require_root_and():
        pytest.skip(reason)
    code = """
import time
from system.lab import Lab
with Lab() as lab:
    host = lab.host("a", "192.0.2.1/24")
    print(host.namespace, lab.directory, host.popen(["sleep", "300"]).pid, flush=True)
    time.sleep(300)
"""
    tests = str(Path(__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    )
    with child:
        assert child.stdout is not None
        namespace, directory, sleeper = child.stdout.readline().split()
        remove_leftovers()
        assert (NETNS_DIRECTORY / namespace).exists(), "its process lives"
        child.kill()
    remove_leftovers()
    assert not (NETNS_DIRECTORY / namespace).exists()
    assert not Path(directory).exists()
    wait_until(lambda: not alive(int(sleeper)), 5, "the orphan's end")
