"""The virtual MAC address on a macvlan: who answers with it, and what is left of it."""

from __future__ import annotations

import json
import time

import pytest

from system.lab import Host, wait_until
from system.ours import mastered, router
from system.scenario import (
    VIP4,
    VIP6,
    VRID,
    Bench,
    taken,
    virtual_mac,
)

pytestmark = pytest.mark.system


def settings(host: Host) -> dict[str, str]:
    """The kernel's settings of eth0 and of all interfaces, by path."""
    paths = "/proc/sys/net/ipv[46]/conf/eth0/* /proc/sys/net/ipv[46]/conf/all/*"
    lines = host.run(["sh", "-c", f"grep -s '' {paths}"], check=False).splitlines()
    return dict(line.split(":", 1) for line in lines if "stable_secret" not in line)


@pytest.mark.parametrize("family", [4, 6])
def test_a_virtual_mac_answers_and_is_removed_at_the_end(bench: Bench, family: int) -> None:
    vip = VIP4 if family == 4 else VIP6
    own = bench.a.own_addresses[0 if family == 4 else 2].split("/")[0]
    name = f"vrrp.{VRID}" if family == 4 else f"vrrp6.{VRID}"
    before = settings(bench.a)
    ours = router(bench.a, vips=[vip], virtual_mac=True)
    ours.start()
    mastered(ours, vip)
    assert bench.a.where(vip) == [name]
    mac = virtual_mac(family)
    taken(bench, bench.a, vip, 0)
    assert bench.watch.neighbour(vip) == mac
    assert {advert.source_mac for advert in bench.wire.adverts()} == {mac}
    # Whoever asks for whom, each address keeps its MAC in the watcher's cache.
    for target in (vip, own, vip):
        bench.a.ip("neighbour", "flush", "all")
        bench.watch.ip("neighbour", "flush", "all")
        assert bench.watch.ping(target, count=3) == 3
        assert bench.watch.neighbour(target) == (bench.a.mac if target == own else mac)
    # An address made from the virtual MAC would be the same on every router of the group.
    link_local = [a for a in bench.a.addresses(name) if a.startswith("fe80")]
    assert link_local == []
    ours.stop()
    assert name not in bench.a.ip("link", "show")
    assert settings(bench.a) == before


@pytest.mark.parametrize(
    ("vip", "priority", "first"),
    [(VIP4, 200, "BACKUP"), ("fe80::51:10", 200, "BACKUP"), (VIP4, 255, "MASTER")],
    ids=["IPv4", "IPv6", "owner"],
)
def test_an_ordinary_start_is_no_fault(bench: Bench, vip: str, priority: int, first: str) -> None:
    ours = router(bench.a, priority, vips=[vip], virtual_mac=True)
    ours.start()
    mastered(ours, vip)
    assert ours.transitions()[0][0] == first
    assert "FAULT" not in [state for state, _ in ours.transitions()]


def test_a_source_under_duplicate_detection_is_waited_for(bench: Bench) -> None:
    (own,) = [each for each in bench.a.own_addresses if each.startswith("fe80")]
    bench.a.ip("address", "delete", own, "dev", "eth0")
    bench.a.sysctl({"net/ipv6/conf/eth0/accept_dad": 1})
    ours = router(bench.a, vips=["fe80::51:10"])
    bench.a.ip("address", "add", own, "dev", "eth0")
    ours.start()
    assert ours.transitions()[0][0] == "BACKUP"


def test_a_virtual_mac_survives_a_kill_and_is_adopted(bench: Bench) -> None:
    before = settings(bench.a)
    ours = router(bench.a, virtual_mac=True)
    ours.start()
    mastered(ours, VIP4)
    taken(bench, bench.a, VIP4, 0)
    index = json.loads(bench.a.ip("-json", "link", "show", "dev", f"vrrp.{VRID}"))[0]["ifindex"]
    ours.kill9()
    assert bench.a.where(VIP4) == [f"vrrp.{VRID}"]
    again = time.monotonic()
    ours.start()
    assert not ours.owns(VIP4)
    mastered(ours, VIP4)
    taken(bench, bench.a, VIP4, again)
    links = json.loads(bench.a.ip("-json", "link", "show", "dev", f"vrrp.{VRID}"))
    assert links[0]["ifindex"] == index
    ours.stop()
    assert f"vrrp.{VRID}" not in bench.a.ip("link", "show")
    assert settings(bench.a) == before


def test_a_virtual_mac_on_an_interface_of_a_chosen_name(bench: Bench) -> None:
    ours = router(bench.a, virtual_mac="web", adverts_on_base=True)
    ours.start()
    mastered(ours, VIP4)
    assert bench.a.where(VIP4) == ["web"]
    taken(bench, bench.a, VIP4, 0)
    assert bench.watch.neighbour(VIP4) == virtual_mac(4)
    assert {advert.source_mac for advert in bench.wire.adverts()} == {bench.a.mac}
    ours.stop()
    assert "web" not in bench.a.ip("link", "show")


def test_a_removed_macvlan_is_made_again(bench: Bench) -> None:
    ours = router(bench.a, virtual_mac=True)
    ours.start()
    mastered(ours, VIP4)
    removed = time.monotonic()
    bench.a.ip("link", "delete", f"vrrp.{VRID}")
    wait_until(lambda: ours.owns(VIP4), 5, "the address")
    assert bench.a.where(VIP4) == [f"vrrp.{VRID}"]
    taken(bench, bench.a, VIP4, removed)
    ours.stop()
    assert f"vrrp.{VRID}" not in bench.a.ip("link", "show")


def test_another_interface_of_that_name_is_refused(bench: Bench) -> None:
    link = ["link", "eth0", "name", f"vrrp.{VRID}", "type", "macvlan", "mode", "bridge"]
    bench.a.ip("link", "add", *link)
    said = router(bench.a, virtual_mac=True).fails()
    assert f"HostError: an interface vrrp.{VRID} exists already and has MAC" in said
    assert f"vrrp.{VRID}" in bench.a.ip("link", "show")
