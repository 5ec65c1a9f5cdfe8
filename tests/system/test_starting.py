"""What a router needs of its host, and interfaces that come later, go, or are elsewhere."""

from __future__ import annotations

import json
import time

import pytest

from system.lab import Host, require_root_and, wait_until
from system.ours import INTERVAL, Vrrpkit, mastered, router
from system.scenario import (
    VIP4,
    VIP6,
    VRID,
    Bench,
    goodbyes,
    taken,
    virtual_mac,
)
from system.wire import Advert

pytestmark = pytest.mark.system

needs_setpriv = pytest.mark.skipif(
    require_root_and("setpriv") is not None, reason=require_root_and("setpriv") or "installed"
)


def nothing_changed(ours: Vrrpkit) -> str:
    """Start it for an error; the host must stay as it was. Returns what it said."""
    settings = ["sh", "-c", "cat /proc/sys/net/ipv4/conf/eth0/*"]

    def look() -> tuple[str, str]:
        return ours.host.ip("address", "show"), ours.host.run(settings, check=False)

    before = look()
    said = ours.fails()
    assert look() == before
    assert not ours.transitions()
    return said


@needs_setpriv
@pytest.mark.parametrize("name", ["net_raw", "net_admin"])
def test_a_missing_capability_is_named(bench: Bench, name: str) -> None:
    wrapper = ["setpriv", f"--bounding-set=-{name}", f"--inh-caps=-{name}"]
    said = nothing_changed(router(bench.a, wrapper=wrapper, virtual_mac=True))
    assert f"PermissionMissing: CAP_{name.upper()} is missing" in said
    assert not bench.wire.adverts()


@needs_setpriv
def test_two_capabilities_are_enough(bench: Bench) -> None:
    wrapper = ["setpriv", "--bounding-set=-all,+net_raw,+net_admin", "--inh-caps=-all"]
    ours = router(bench.a, wrapper=wrapper, excluded_vips=[VIP6])
    ours.start()
    mastered(ours, VIP4, VIP6)
    taken(bench, bench.a, VIP4, 0)
    ours.stop()
    assert not ours.owns(VIP4)


def test_an_unknown_interface_is_named(bench: Bench) -> None:
    said = nothing_changed(router(bench.a, interface="eth7"))
    assert "InterfaceMissing: there is no network interface 'eth7'" in said
    assert "wait_for_interface=True" in said


@pytest.mark.parametrize("family", [4, 6])
def test_an_interface_without_a_source_is_refused(bench: Bench, family: int) -> None:
    own = bench.a.own_addresses[0 if family == 4 else 1]
    bench.a.ip("address", "delete", own, "dev", "eth0")
    vip = VIP4 if family == 4 else VIP6
    said = nothing_changed(router(bench.a, vips=[vip]))
    kind = "IPv4 address" if family == 4 else "link-local IPv6 address"
    assert f"SourceMissing: eth0 has no {kind}" in said


def test_an_unknown_namespace_is_named(bench: Bench) -> None:
    said = nothing_changed(router(bench.a, netns="vk-none"))
    assert "HostError: there is no network namespace 'vk-none'" in said


def test_one_virtual_router_cannot_run_twice(bench: Bench) -> None:
    each = {"interface": "eth0", "vrid": VRID, "interval": INTERVAL}
    ours = Vrrpkit(
        bench.a,
        routers=[
            {"name": "one", "vips": [VIP4], **each},
            {"name": "two", "vips": ["192.0.2.11"], **each},
        ],
    )
    said = ours.fails()
    assert "DuplicateRouter: a virtual router with" in said
    assert ours.transitions() == [("BACKUP", "startup"), ("INIT", "shutdown")]
    assert not bench.wire.adverts()


# --- interfaces that come and go


def add_second_interface(host: Host, address: str) -> None:
    link = ["link", "eth0", "name", "eth1", "address", "02:00:00:00:07:01"]
    host.ip("link", "add", *link, "type", "macvlan", "mode", "bridge")
    host.ip("link", "set", "dev", "eth1", "up")
    host.ip("address", "add", address, "dev", "eth1")


def test_an_interface_may_come_later_and_be_made_anew(bench: Bench) -> None:
    vip = "198.51.100.10"
    ours = router(
        bench.a,
        interface="eth1",
        vips=[f"{vip}/32"],
        wait_for_interface=True,
    )
    ours.start()
    assert ours.state() == "FAULT"
    assert ours.report()["faults"] == ["interface-missing"]
    appeared = time.monotonic()
    add_second_interface(bench.a, "198.51.100.1/24")
    mastered(ours, vip)
    assert bench.a.where(vip) == ["eth1"]
    changes = ours.transitions(appeared)
    assert changes == [("BACKUP", "fault-cleared"), ("MASTER", "no-response")]
    bench.wire.wait_for(Advert, lambda seen: seen.source == "198.51.100.1", 2, appeared)

    removed = time.monotonic()
    bench.a.ip("link", "delete", "eth1")
    wait_until(lambda: ours.state() == "FAULT", 2, "FAULT")
    assert ours.report()["faults"] == ["interface-missing"]
    time.sleep(0.5)
    returned = time.monotonic()
    add_second_interface(bench.a, "198.51.100.2/24")
    mastered(ours, vip)
    assert ours.transitions(removed) == [
        ("FAULT", "fault"),
        ("BACKUP", "fault-cleared"),
        ("MASTER", "no-response"),
    ]
    bench.wire.wait_for(Advert, lambda seen: seen.source == "198.51.100.2", 2, returned)
    ours.stop()
    assert not ours.owns(vip)


def test_a_waiting_router_leaves_in_good_order(bench: Bench) -> None:
    ours = router(bench.a, interface="eth1", wait_for_interface=True)
    ours.start()
    assert ours.state() == "FAULT"
    ours.stop()
    assert not bench.wire.adverts()


@pytest.mark.parametrize("virtual", [False, True], ids=["own-mac", "virtual-mac"])
def test_another_namespace_by_name(bench: Bench, virtual: bool) -> None:
    links = bench.watch.ip("-json", "link", "show")
    ours = router(
        bench.a,
        run_on=bench.watch,
        netns=bench.a.namespace,
        excluded_vips=[VIP6],
        virtual_mac=virtual,
    )
    ours.start()
    mastered(ours, VIP4, VIP6)
    taken(bench, bench.a, VIP4, 0)
    mac = virtual_mac(4) if virtual else bench.a.mac
    assert bench.watch.neighbour(VIP4) == mac
    assert not bench.watch.has(VIP4)
    assert names(bench.watch.ip("-json", "link", "show")) == names(links)
    ours.stop()
    assert not bench.a.has(VIP4)
    assert len(goodbyes(bench, 0)) == 1


def names(links: str) -> list[str]:
    return [link["ifname"] for link in json.loads(links)]
