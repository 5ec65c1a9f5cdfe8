"""Routes and rules of a virtual router as the kernel shows them, and what happens to them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from system.lab import Host, wait_until
from system.ours import INTERVAL, Vrrpkit, mastered, router
from system.scenario import LOW, VIP4, VIP6, Bench, goodbyes

pytestmark = pytest.mark.system

ROUTES = [
    f"10.0.0.0/8 via 192.0.2.254 src {VIP4}",
    "10.1.0.0/16 nexthop via 192.0.2.254 weight 2 nexthop via 192.0.2.253",
    "blackhole 10.2.0.0/16",
    "default via 192.0.2.253 table 100",
    f"2001:db8:1::/48 via 2001:db8::fe src {VIP6}",
    "unreachable 2001:db8:2::/48 metric 7",
    "::/0 via fe80::fe dev eth0 table 100",
]
RULES = [
    "from 10.3.0.0/16 table 100 priority 1000",
    "inet6 from all fwmark 0x1/0xf iif eth0 table 100 priority 1001",
]
OPTIONS: dict[str, Any] = {"routes": ROUTES, "rules": RULES, "excluded_vips": [f"{VIP6}/128"]}


def ours_in(host: Host) -> list[str]:
    """The routes and rules of a host with our mark."""
    found: list[str] = []
    for family in ("-4", "-6"):
        routes = host.ip(family, "route", "show", "table", "all", "proto", "112")
        found += [line.strip() for line in routes.splitlines() if not line.startswith("\t")]
        rules = host.ip(family, "rule").splitlines()
        found += [line for line in rules if "proto 112" in line]
    return found


def count(host: Host, number: int) -> None:
    """Wait until so many are there."""
    wait_until(lambda: len(ours_in(host)) == number, 3, f"{number} routes and rules")


ALL = len(ROUTES) + len(RULES)


class Watched:
    """What ``ip monitor`` says of virtual addresses, and of routes and rules of ours."""

    def __init__(self, host: Host) -> None:
        self._log = host.directory / "monitor.log"
        host.popen(["ip", "monitor", "address", "route", "rule"], log=self._log)

        # It is there once it has seen what is done for it.
        def seen() -> bool:
            for what in ("add", "del"):
                host.ip("route", what, "203.0.113.0/24", "dev", host.dev)
            return "Deleted 203.0.113.0/24" in self._log.read_text()

        wait_until(seen, 5, "ip monitor")
        self._read = len(self._log.read_text())

    def lines(self) -> list[str]:
        """Each as ``+`` or ``-`` and its kind."""
        found: list[str] = []
        for line in self._log.read_text()[self._read :].splitlines():
            kind = _kind(line)
            if kind is not None:
                found.append(("-" if line.startswith("Deleted") else "+") + kind)
        return found

    def settled(self, last: str) -> list[str]:
        """The same, once the last of a kind is there; then from now on."""
        wait_until(lambda: self.lines()[-1:] == [last], 5, f"{last} at the end")
        time.sleep(0.2)
        lines = self.lines()
        self._read = len(self._log.read_text())
        return lines


def _kind(line: str) -> str | None:
    # The notice of an IPv6 address comes later, from a kernel thread.
    if f"inet {VIP4}/" in line:
        return "address"
    if "proto 112" not in line:
        return None
    return "rule" if "lookup" in line else "route"


def in_order(lines: Sequence[str], *kinds: str) -> None:
    """All of one kind, then all of the next."""
    numbers = {"address": 1, "route": len(ROUTES), "rule": len(RULES)}
    assert lines == [kind for kind in kinds for _ in range(numbers[kind[1:]])]


# --- in place and gone


def test_keepaliveds_order(bench: Bench) -> None:
    watched = Watched(bench.a)
    ours = router(bench.a, **OPTIONS)
    ours.start()
    mastered(ours, VIP4, VIP6)
    in_order(watched.settled("+rule"), "+address", "+route", "+rule")
    assert len(ours_in(bench.a)) == ALL
    assert f"src {VIP4}" in bench.a.ip("route", "get", "10.0.0.1")
    ours.do("demote", seconds=2)
    in_order(watched.settled("-address"), "-rule", "-route", "-address")
    mastered(ours, VIP4, VIP6)
    in_order(watched.settled("+rule"), "+address", "+route", "+rule")
    ours.stop()
    in_order(watched.settled("-address"), "-rule", "-route", "-address")
    assert ours_in(bench.a) == []


def test_they_move_with_the_addresses(bench: Bench) -> None:
    a, b = router(bench.a, **OPTIONS), router(bench.b, LOW, **OPTIONS)
    a.start()
    mastered(a, VIP4)
    b.start()
    count(bench.a, ALL)
    assert ours_in(bench.b) == []
    a.do("demote", seconds=2)
    mastered(b, VIP4)
    count(bench.b, ALL)
    count(bench.a, 0)
    mastered(a, VIP4)
    count(bench.a, ALL)
    count(bench.b, 0)
    # Nobody leaves by priority 0 here: the link is gone.
    bench.a.unplug()
    mastered(b, VIP4)
    count(bench.b, ALL)
    count(bench.a, 0)
    a.stop()
    b.stop()
    assert ours_in(bench.b) == []


# --- removed by others


DELETIONS = {
    "-4": [
        "route del 10.0.0.0/8",
        "route del 10.1.0.0/16",
        "route replace 10.2.0.0/16 via 192.0.2.253",
        "route flush table 100",
    ],
    "-6": ["route del 2001:db8:1::/48", "rule del priority 1001"],
}


def test_what_others_remove_comes_back(bench: Bench) -> None:
    ours = router(bench.a, **OPTIONS)
    ours.start()
    mastered(ours, VIP4, VIP6)
    count(bench.a, ALL)
    before = sorted(ours_in(bench.a))
    since = time.monotonic()
    for family, commands in DELETIONS.items():
        bench.a.run(["ip", family, "-batch", "-"], stdin="\n".join(commands) + "\n")
    lost = ROUTES[:5]
    wanted = {f"route {route}" for route in lost} | {f"rule {RULES[1]}"}
    wait_until(lambda: len(ours.events("RouteLost")) >= len(wanted), 2, "RouteLost")
    count(bench.a, ALL)
    assert sorted(ours_in(bench.a)) == before
    assert "10.2.0.0/16 via 192.0.2.253" in bench.a.ip("route")
    assert {line["action"] for line in ours.events("RouteLost")} == {"reinstated"}
    assert {line["route"] for line in ours.events("RouteLost")} == wanted
    assert ours.transitions(since) == [] and goodbyes(bench, since) == []
    ours.stop()
    assert ours_in(bench.a) == []


def test_again_and_again_it_steps_down(bench: Bench) -> None:
    ours = router(bench.a, **OPTIONS)
    ours.start()
    mastered(ours, VIP4, VIP6)
    since = time.monotonic()
    for _ in range(4):
        count(bench.a, ALL)
        time.sleep(0.2)
        bench.a.ip("route", "del", "10.0.0.0/8")
    wait_until(lambda: len(ours.events("RouteLost")) == 4, 2, "four losses")
    actions = [line["action"] for line in ours.events("RouteLost")]
    assert actions == ["reinstated"] * 3 + ["stepped down"]
    wait_until(lambda: len(ours.transitions(since)) == 2, 3, "an election")
    assert ours.transitions(since) == [("BACKUP", "route-lost"), ("MASTER", "no-response")]
    count(bench.a, ALL)
    assert len(goodbyes(bench, since)) == 1
    ours.stop()


def test_with_its_address_a_route_comes_back(bench: Bench) -> None:
    """The kernel removes an IPv4 route that prefers an address as a source together with it, and
    tells nobody."""
    ours = router(bench.a, **OPTIONS)
    ours.start()
    mastered(ours, VIP4, VIP6)
    count(bench.a, ALL)
    since = time.monotonic()
    bench.a.ip_batch(
        f"address del {VIP4}/32 dev {bench.a.dev}", f"address del {VIP6}/128 dev {bench.a.dev}"
    )
    wait_until(lambda: len(ours.events("AddressLost")) == 2, 2, "AddressLost")
    count(bench.a, ALL)
    assert ours.transitions(since) == []
    ours.stop()
    assert ours_in(bench.a) == []


def test_other_policies(bench: Bench) -> None:
    ignoring = router(bench.a, on_address_lost="ignore", **OPTIONS)
    ignoring.start()
    mastered(ignoring, VIP4, VIP6)
    count(bench.a, ALL)
    bench.a.ip("route", "del", "10.0.0.0/8")
    time.sleep(3 * INTERVAL)
    count(bench.a, ALL - 1)
    assert [line["action"] for line in ignoring.events("RouteLost")] == ["ignored"]
    ignoring.stop()
    assert ours_in(bench.a) == []

    giving_way = router(bench.b, on_address_lost="step_down", **OPTIONS)
    giving_way.start()
    mastered(giving_way, VIP4, VIP6)
    count(bench.b, ALL)
    since = time.monotonic()
    bench.b.ip("rule", "del", "priority", "1000")
    wait_until(lambda: len(giving_way.transitions(since)) == 2, 3, "an election")
    assert giving_way.transitions(since)[0] == ("BACKUP", "route-lost")
    giving_way.stop()


def test_routes_of_another_interface_return_with_it(bench: Bench) -> None:
    bench.a.ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    up = ["address add 198.51.100.1/24 dev up0", "link set up1 up", "link set up0 up"]
    bench.a.ip_batch(*up)
    # Not tracked: a tracked device that is down is a fault before its routes are looked at.
    ways = ["10.1.0.0/16 dev up0 no_track", "2001:db8:9::/48 dev up0 no_track"]
    routes = ["10.0.0.0/8 via 198.51.100.9", *ways]
    ours = router(bench.a, routes=routes)
    ours.start()
    mastered(ours, VIP4)
    count(bench.a, 3)
    since = time.monotonic()
    bench.a.ip("link", "set", "up0", "down")
    count(bench.a, 0)
    time.sleep(2 * INTERVAL)
    bench.a.ip("link", "set", "up0", "up")
    count(bench.a, 3)
    bench.a.ip("link", "del", "up0")
    count(bench.a, 0)
    bench.a.ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    bench.a.ip_batch(*up)
    count(bench.a, 3)
    assert ours.transitions(since) == [] and ours.events("RouteLost") == []
    ours.stop()
    assert ours_in(bench.a) == []


# --- refused, killed, and there before


def test_a_route_that_the_kernel_refuses_is_a_fault(bench: Bench) -> None:
    # Tracked, the missing device would be a fault before the kernel is asked for the route.
    routes = ["10.0.0.0/8 via 203.0.113.1", "10.1.0.0/16 dev none0 no_track"]
    ours = router(bench.a, routes=routes)
    other = router(bench.b, LOW)
    ours.start()
    other.start()
    wait_until(lambda: ours.state() == "FAULT", 3, "FAULT")
    (refused,) = ours.events("AddressesRefused")
    first, second = refused["failures"]
    assert first.startswith("route 10.0.0.0/8 via 203.0.113.1: Network is unreachable")
    assert second == "route 10.1.0.0/16 dev none0 no_track: there is no network interface none0"
    mastered(other, VIP4)
    assert not ours.owns(VIP4) and ours_in(bench.a) == []
    ours.stop()


def test_after_a_kill_the_next_run_cleans_up(bench: Bench) -> None:
    static = ("10.9.0.0/16", "via", "192.0.2.254")
    bench.a.ip("route", "add", *static, "proto", "static")
    ours = router(bench.a, **OPTIONS)
    ours.start()
    mastered(ours, VIP4, VIP6)
    count(bench.a, ALL)
    ours.kill9()
    assert len(ours_in(bench.a)) == ALL
    ours.start()
    # A BACKUP of the same configuration has none of it.
    assert ours.state() == "BACKUP" and ours_in(bench.a) == []
    mastered(ours, VIP4, VIP6)
    count(bench.a, ALL)
    ours.kill9()
    changed = _changed(ours, routes=["10.8.0.0/16 via 192.0.2.254"], rules=[])
    changed.start()
    mastered(changed, VIP4)
    count(bench.a, 1)
    assert ours_in(bench.a)[0].startswith("10.8.0.0/16")
    changed.stop()
    assert ours_in(bench.a) == [] and "10.9.0.0/16" in bench.a.ip("route")


def _changed(ours: Vrrpkit, **options: Any) -> Vrrpkit:
    """The same program with another configuration."""
    ours.options |= options
    return ours


def test_what_was_there_is_used_and_left(bench: Bench) -> None:
    bench.a.ip("route", "add", "10.0.0.0/8", "via", "192.0.2.254", "proto", "static")
    bench.a.ip("route", "add", "10.1.0.0/16", "via", "192.0.2.254", "proto", "static")
    rule = ("from", "10.3.0.0/16", "table", "100", "priority", "1000")
    bench.a.ip("rule", "add", *rule)
    before = bench.a.ip("route"), bench.a.ip("rule")
    ours = router(
        bench.a,
        routes=["10.0.0.0/8 via 192.0.2.254", "10.1.0.0/16 via 192.0.2.253"],
        rules=[" ".join(rule)],
    )
    ours.start()
    mastered(ours, VIP4)
    count(bench.a, 1)
    # The other way for 10.1.0.0/16 stands back as long as this router is MASTER.
    assert "via 192.0.2.253" in bench.a.ip("route", "get", "10.1.0.1")
    ours.stop()
    assert (bench.a.ip("route"), bench.a.ip("rule")) == before
