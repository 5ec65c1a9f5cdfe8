"""Addresses and routes on another interface than the router's, and links with delays."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from system.lab import Host, wait_until
from system.ours import INTERVAL, Vrrpkit, mastered, router
from system.scenario import HIGH, LOW, VIP4, Bench, goodbyes

pytestmark = pytest.mark.system

ELSEWHERE4, ELSEWHERE6 = "198.51.100.10", "2001:db8:9::10"


def second(host: Host) -> None:
    """Another interface, that is up."""
    host.ip("link", "add", "lan1", "type", "veth", "peer", "name", "lan1-end")
    host.ip("link", "set", "lan1-end", "up")
    host.ip("link", "set", "lan1", "up")
    host.ip("address", "add", "198.51.100.1/24", "dev", "lan1")


def two(bench: Bench, **options: Any) -> tuple[Vrrpkit, Vrrpkit]:
    for host in (bench.a, bench.b):
        second(host)
    return router(bench.a, **options), router(bench.b, LOW, **options)


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"excluded_vips": [{"address": f"{ELSEWHERE4}/32", "dev": "lan1"}]}, ELSEWHERE4),
        ({"excluded_vips": [{"address": f"{ELSEWHERE6}/128", "dev": "lan1"}]}, ELSEWHERE6),
        ({"routes": ["203.0.113.0/24 via 198.51.100.2 dev lan1"]}, VIP4),
    ],
    ids=["IPv4", "IPv6", "route"],
)
@pytest.mark.parametrize("how", ["down", "gone"])
def test_a_device_that_goes_hands_over(
    bench: Bench, how: str, options: dict[str, Any], address: str
) -> None:
    ours, other = two(bench, **options)
    ours.start()
    mastered(ours, VIP4)
    wait_until(lambda: bench.a.has(address), 2, "the address elsewhere")
    other.start()
    since = time.monotonic()
    if how == "down":
        bench.a.ip("link", "set", "lan1", "down")
    else:
        bench.a.ip("link", "delete", "lan1")
    wait_until(lambda: ours.state() == "FAULT", 2, "FAULT")
    word = "interface-down" if how == "down" else "interface-missing"
    assert ours.report()["faults"] == [f"{word}:lan1"]
    assert goodbyes(bench, since)
    wait_until(lambda: bench.b.has(address) and bench.b.has(VIP4), 3, "takeover")
    wait_until(lambda: not bench.a.has(address) and not bench.a.has(VIP4), 1, "addresses gone")
    assert ours.events("AddressLost", since) == ours.events("RouteLost", since) == []
    if how == "down":
        bench.a.ip("link", "set", "lan1", "up")
    else:
        second(bench.a)
    mastered(ours, VIP4)
    wait_until(lambda: bench.a.has(address), 2, "the address elsewhere")


def test_what_is_not_tracked_waits_for_its_device(bench: Bench) -> None:
    vips = [
        {"address": f"{each}", "dev": "lan1", "track": False} for each in (ELSEWHERE4, ELSEWHERE6)
    ]
    ours = router(bench.a, excluded_vips=vips, on_address_lost="step_down")
    ours.start()
    mastered(ours, VIP4)
    second(bench.a)
    wait_until(lambda: bench.a.has(ELSEWHERE4) and bench.a.has(ELSEWHERE6), 3, "its addresses")
    bench.a.ip("link", "set", "lan1", "down")
    wait_until(lambda: not bench.a.has(ELSEWHERE6), 1, "the loss of IPv6")
    bench.a.ip("link", "set", "lan1", "up")
    wait_until(lambda: bench.a.has(ELSEWHERE6), 3, "its return")
    bench.a.ip("link", "delete", "lan1")
    time.sleep(0.3)
    second(bench.a)
    wait_until(lambda: bench.a.has(ELSEWHERE4) and bench.a.has(ELSEWHERE6), 3, "its addresses")
    assert ours.transitions() == [("BACKUP", "startup"), ("MASTER", "no-response")]
    ours.stop()
    assert not bench.a.has(ELSEWHERE4) and not bench.a.has(ELSEWHERE6)


@pytest.mark.parametrize("family", [4, 6])
def test_a_link_counts_as_up_after_its_delay(bench: Bench, family: int) -> None:
    vips = ["fe80::51:10/64"] if family == 6 else [f"{VIP4}/32"]
    ours = router(bench.a, vips=vips, link_up_delay=2, link_down_delay=0.5)
    ours.start()
    mastered(ours)
    since = time.monotonic()
    bench.a.unplug()
    time.sleep(0.2)
    bench.a.plug()
    time.sleep(0.6)
    assert ours.transitions(since) == []
    bench.a.unplug()
    wait_until(lambda: ours.state() == "FAULT", 2, "FAULT")
    bench.a.plug()
    up = time.monotonic()
    wait_until(lambda: ours.state() == "BACKUP", 4, "BACKUP")
    assert 1.9 < time.monotonic() - up < 3


def _is_backup(ours: Vrrpkit, name: str) -> bool:
    return ours.state(name) == "BACKUP"


def test_handing_over_takes_nothing_from_the_other_routers(bench: Bench) -> None:
    """Five routers with addresses in one prefix, of which the kernel removes all with the first."""
    bench.a.sysctl({"net/ipv4/conf/all/promote_secondaries": 0})
    bench.a.sysctl({"net/ipv4/conf/eth0/promote_secondaries": 0})
    settings = {"interface": "eth0", "interval": INTERVAL, "priority": HIGH}
    vips = [f"198.51.100.1{number}" for number in range(5)]
    routers = [
        {**settings, "name": f"r{number}", "vrid": number + 1, "vips": [f"{vip}/24"]}
        for number, vip in enumerate(vips)
    ]
    ours = Vrrpkit(bench.a, routers=routers)
    ours.start()
    wait_until(lambda: all(map(bench.a.has, vips)), 5, "addresses")
    since = time.monotonic()
    for number in range(4):
        ours.do("demote", router=f"r{number}", seconds=30)
        wait_until(partial(_is_backup, ours, f"r{number}"), 2, "BACKUP")
        time.sleep(0.1)
        assert bench.a.has(vips[4])
    assert ours.state("r4") == "MASTER"
    assert ours.events("AddressLost", since) == []
