"""Routes and rules in a real kernel: in place, watched, and gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from namespaces import Listener, Net
from vrrpkit.errors import Closed, KernelRefused
from vrrpkit.host.base import RouteClaim
from vrrpkit.host.host import Host
from vrrpkit.host.kernel_interface import KernelInterface
from vrrpkit.host.liveness import SETTLE, Liveness
from vrrpkit.host.routing import reconciler as routing, records
from vrrpkit.host.routing.kernel import RouteTable
from vrrpkit.host.routing.records import (
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    key_of,
)
from vrrpkit.linux.netlink import Netlink, NetlinkMessage, Overrun, Subscription
from vrrpkit.linux.netns import Namespace
from vrrpkit.routes.route import Entry, Route, Rule
from vrrpkit.values import VIP, Announcements

pytestmark = pytest.mark.system

R = Route.of
PLAIN = R("10.0.0.0/8 via 198.51.100.9")
PLAIN_6 = R("2001:db8:1::/48 via fe80::9 dev eth0")
RULE = Rule.of("from 10.0.0.0/8 table 100 priority 1000")
RULE_6 = Rule.of("from 2001:db8::/32 table 100 priority 1000")


class Bench:
    """An open interface in a namespace, and what its holds hear."""

    def __init__(self, net: Net, interface: KernelInterface) -> None:
        self.net = net
        self.interface = interface
        self.lost: list[Entry] = []

    def hold(self, *entries: Entry) -> RouteClaim:
        routes = [entry for entry in entries if isinstance(entry, Route)]
        rules = [entry for entry in entries if isinstance(entry, Rule)]
        return self.interface.hold_routes(routes, rules, self.lost.append)

    def shown(self) -> list[str]:
        """The routes that are there with our mark, without their next hops."""
        return [
            line.strip()
            for family in ("-4", "-6")
            for line in self.net.ip(f"{family} route show table all proto 112").splitlines()
            if not line.startswith("\t")
        ]

    def rules(self) -> list[str]:
        lines = (self.net.ip("rule") + self.net.ip("-6 rule")).splitlines()
        return [line for line in lines if "proto 112" in line]


@contextlib.asynccontextmanager
async def bench(net: Net) -> AsyncIterator[Bench]:
    interface = Host.current(net.name).interface("eth0")
    await interface.open()
    try:
        yield Bench(net, interface)
    finally:
        await interface.close()


def run(net: Net, test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with bench(net) as made:
            await test(made)

    asyncio.run(main())


async def soon(condition: Callable[[], object], seconds: float = 4) -> None:
    for _ in range(round(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


class Monitor:
    """Every notice about routes of ours and about rules in a namespace, in order."""

    def __init__(self, net: Net) -> None:
        self._namespace = Namespace(net.name)
        self._subscription = Subscription(self._namespace, records.GROUPS)
        self._subscription.heed(records.notice_filter({112}))

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._subscription.close()
        self._namespace.close()

    def read(self) -> list[tuple[str, object]]:
        found: list[tuple[str, object]] = []
        while messages := self._subscription.read():
            for kind, _flags, _sequence, payload, _port in messages:
                if kind in (RTM_NEWROUTE, RTM_DELROUTE):
                    record = records.parse_route(payload)
                    assert record is not None
                    found.append(("+" if kind == RTM_NEWROUTE else "-", record.key))
                elif kind in (RTM_NEWRULE, RTM_DELRULE):
                    rule = records.parse_rule(payload)
                    assert rule is not None
                    found.append(("+" if kind == RTM_NEWRULE else "-", rule[0]))
        return found


# --- in place and gone


def test_routes_come_before_rules_and_go_after_them(net: Net) -> None:
    async def test(bench: Bench) -> None:
        with Monitor(net) as monitor:
            entries = (PLAIN, PLAIN_6, RULE, RULE_6)
            hold = bench.hold(*entries)
            assert monitor.read() == [] and hold.missing == list(entries)
            assert hold.acquire() == []
            assert monitor.read() == [("+", key_of(entry)) for entry in entries]
            assert hold.missing == []
            hold.release()
            # Nothing waits: it is done when the call returns.
            assert monitor.read() == [
                ("-", key_of(entry)) for entry in (RULE_6, RULE, PLAIN_6, PLAIN)
            ]
            hold.release()
            hold.close()
            assert monitor.read() == []
        assert bench.lost == []

    run(net, test)


def test_every_option(net: Net) -> None:
    net.ip("address add 2001:db8::1/64 dev eth0 nodad")

    async def test(bench: Bench) -> None:
        hold = bench.hold(
            R("10.1.0.0/16 via 203.0.113.1 dev eth0 onlink src 198.51.100.1 metric 50 mtu 1400"),
            R("10.2.0.0/16 dev eth0"),
            R("10.3.0.0/16 via 198.51.100.9 scope site table 1000"),
            R("10.4.0.0/16 via inet6 fe80::9 dev eth0"),
            R("10.5.0.0/16 nexthop via 198.51.100.9 weight 3 nexthop dev eth1"),
            R("10.6.0.0/16 nexthop via fe80::9 dev eth0 nexthop via 10.9.9.9 dev eth1 onlink"),
            R("blackhole 10.7.0.0/16"),
            R("unreachable 10.8.0.0/16"),
            R("prohibit 10.9.0.0/16"),
            R("default via 198.51.100.9 table 100"),
            R("2001:db8:1::/48 via 2001:db8::9 src 2001:db8::1 mtu 1300 metric 50"),
            R("2001:db8:2::/48 dev eth0 table 1000"),
            R("2001:db8:3::/48 nexthop via fe80::9 dev eth0 nexthop via 2001:db8::9 weight 2"),
            R("blackhole 2001:db8:4::/48"),
            R("prohibit 2001:db8:5::/48"),
            R("inet6 default via fe80::9 dev eth0"),
        )
        assert hold.acquire() == []
        found = {
            route["dst"]: route
            for family in ("-4", "-6")
            for route in json.loads(net.ip(f"-j -d {family} route show table all proto 112"))
        }
        one = found["10.1.0.0/16"]
        assert (one["gateway"], one["dev"], one["flags"]) == ("203.0.113.1", "eth0", ["onlink"])
        assert (one["prefsrc"], one["metric"], one["metrics"]) == (
            "198.51.100.1",
            50,
            [{"mtu": 1400}],
        )
        assert (found["10.2.0.0/16"]["dev"], found["10.2.0.0/16"]["scope"]) == ("eth0", "link")
        three = found["10.3.0.0/16"]
        assert (three["scope"], three["table"], one["scope"]) == ("site", "1000", "global")
        assert found["10.4.0.0/16"]["via"] == {"family": "inet6", "host": "fe80::9"}
        hops = found["10.5.0.0/16"]["nexthops"]
        assert [(hop.get("gateway"), hop["dev"], hop["weight"]) for hop in hops] == [
            ("198.51.100.9", "eth0", 3),
            (None, "eth1", 1),
        ]
        first, second = found["10.6.0.0/16"]["nexthops"]
        assert first["via"]["host"] == "fe80::9" and second["flags"] == ["onlink"]
        types = {n: found[f"10.{n}.0.0/16"]["type"] for n in (7, 8, 9)}
        assert types == {7: "blackhole", 8: "unreachable", 9: "prohibit"}
        six = found["2001:db8:1::/48"]
        assert (six["prefsrc"], six["metric"], six["metrics"]) == (
            "2001:db8::1",
            50,
            [{"mtu": 1300}],
        )
        assert found["2001:db8:2::/48"]["table"] == "1000"
        assert [hop["weight"] for hop in found["2001:db8:3::/48"]["nexthops"]] == [1, 2]
        assert found["2001:db8:4::/48"]["type"] == "blackhole"
        assert found["2001:db8:5::/48"]["type"] == "prohibit"
        # The IPv6 one, which has taken the key of the IPv4 one in table 100.
        assert found["default"]["gateway"] == "fe80::9"
        assert "default via 198.51.100.9" in net.ip("route show table 100")
        # Known as its own, every one of them.
        assert hold.missing == [] and hold.acquire() == []
        hold.release()
        assert bench.shown() == []

    run(net, test)


def test_every_option_of_a_rule(net: Net) -> None:
    rules = [
        Rule.of("from 10.0.0.0/8 to 192.0.2.1 fwmark 0x1/0xf iif lo oif eth1 table 7 priority 5"),
        Rule.of("fwmark 0/0xf0 table 1000 priority 6"),
        Rule.of("from 0.0.0.0/0 to 0.0.0.0/0 table main priority 7"),
        Rule.of("inet6 iif none0 table 7 priority 8"),
        Rule.of("to 2001:db8::/32 fwmark 7 table 7 priority 9"),
    ]

    async def test(bench: Bench) -> None:
        hold = bench.hold(*rules)
        assert hold.acquire() == []
        found = {
            rule["priority"]: rule
            for family in ("-4", "-6")
            for rule in json.loads(net.ip(f"-j -d {family} rule"))
        }
        one = found[5]
        assert (one["src"], one["srclen"], one["dst"]) == ("10.0.0.0", 8, "192.0.2.1")
        assert (one["fwmark"], one["fwmask"], one["iif"], one["oif"], one["table"]) == (
            "0x1",
            "0xf",
            "lo",
            "eth1",
            "7",
        )
        assert found[6]["table"] == "1000" and found[6]["fwmask"] == "0xf0"
        assert found[8]["iif"] == "none0"
        assert hold.acquire() == [] and len(bench.rules()) == len(rules)
        hold.release()
        assert bench.rules() == []

    run(net, test)


def test_what_the_kernel_refuses(net: Net) -> None:
    async def test(bench: Bench) -> None:
        away = R("10.1.0.0/16 via 203.0.113.1")
        none = R("10.2.0.0/16 dev none0")
        source = R("10.3.0.0/16 via 198.51.100.9 src 192.0.2.77")
        hold = bench.hold(PLAIN, away, none, source)
        failures = dict(hold.acquire())
        assert failures.keys() == {away, none, source}
        assert failures[away].errno == errno.ENETUNREACH
        assert "Nexthop has invalid gateway" in str(failures[away])
        assert str(failures[none]).endswith("there is no network interface none0")
        assert "prefsrc" in str(failures[source])
        assert hold.missing == [away, none, source]
        hold.release()
        assert bench.shown() == []

    run(net, test)


def test_a_broken_socket_is_a_refusal(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN)

        def exchange(self: Netlink, requests: Sequence[bytearray]) -> list[OSError | None]:
            raise OSError(errno.ENOBUFS, "no room")

        with monkeypatch.context() as patch:
            patch.setattr(Netlink, "exchange", exchange)
            ((entry, problem),) = hold.acquire()
        assert entry is PLAIN and problem.errno == errno.ENOBUFS

    run(net, test)


def test_what_two_want_stays_until_both_have_released(net: Net) -> None:
    async def test(bench: Bench) -> None:
        one, other = bench.hold(PLAIN, RULE), bench.hold(PLAIN, PLAIN_6, RULE)
        assert one.acquire() == [] and other.acquire() == []
        one.close()
        assert len(bench.shown()) == 2 and len(bench.rules()) == 1
        assert other.missing == []
        other.close()
        assert bench.shown() == [] and bench.rules() == []
        with pytest.raises(Closed, match="make a new hold"):
            one.acquire()

    run(net, test)


def test_interfaces_that_close_take_their_routes_along(net: Net) -> None:
    async def test(bench: Bench) -> None:
        bench.hold(PLAIN, RULE).acquire()

    run(net, test)
    assert "proto 112" not in net.ip("route") + net.ip("rule")


def test_hundreds(net: Net) -> None:
    async def test(bench: Bench) -> None:
        routes = [R(f"10.{n >> 8}.{n & 255}.0/24 via 198.51.100.9") for n in range(500)]
        hold = bench.hold(*routes)
        assert hold.acquire() == []
        assert len(bench.shown()) == 500
        net.ip("route flush 10.0.5.0/24")
        await soon(lambda: bench.lost == [routes[5]])
        hold.release()
        assert bench.shown() == []

    run(net, test)


def test_what_the_kernel_keeps(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN)
        assert hold.acquire() == []

        def refuse(self: Netlink, requests: Sequence[bytearray]) -> list[OSError | None]:
            return [OSError(errno.EPERM, "Operation not permitted")] * len(requests)

        with monkeypatch.context() as patch:
            patch.setattr(Netlink, "exchange", refuse)
            hold.release()
        assert f"the kernel kept route {PLAIN}" in caplog.text
        # What is gone already is no trouble.
        caplog.clear()
        assert hold.acquire() == []
        net.ip("route del 10.0.0.0/8")
        hold.release()
        assert caplog.text == ""

    run(net, test)


def test_next_hops_that_make_no_sense_end_the_reading() -> None:
    header = bytes([2, 8, 0, 0, 254, 112, 0, 1]) + bytes(4)
    multipath = bytes([12, 0, 9, 0]) + bytes(8)
    record = records.parse_route(header + multipath)
    assert record is not None and record.hops == ()


# --- what was there before


SAME = [
    ("route add 10.0.0.0/8 via 198.51.100.9 proto static", "route del 10.0.0.0/8", PLAIN),
    (
        "-6 route add 2001:db8:1::/48 via fe80::9 dev eth0 proto static",
        "-6 route del 2001:db8:1::/48",
        PLAIN_6,
    ),
    ("route add blackhole 10.1.0.0/16", "route del 10.1.0.0/16", R("blackhole 10.1.0.0/16")),
    (
        "-6 route add prohibit 2001:db8:2::/48",
        "-6 route del 2001:db8:2::/48",
        R("prohibit 2001:db8:2::/48"),
    ),
    (
        "-6 route add 2001:db8:3::/48 nexthop via fe80::8 dev eth0 nexthop via fe80::9 dev eth0",
        "-6 route del 2001:db8:3::/48",
        R("2001:db8:3::/48 nexthop via fe80::9 dev eth0 nexthop via fe80::8 dev eth0"),
    ),
    (
        "rule add from 10.0.0.0/8 table 100 priority 1000 protocol static",
        "rule del priority 1000",
        RULE,
    ),
]


@pytest.mark.parametrize(("add", "delete", "entry"), SAME)
def test_the_very_same_of_others_is_used_and_left(
    net: Net, add: str, delete: str, entry: Entry
) -> None:
    net.ip(add)
    before = net.ip("route show table all") + net.ip("-6 route show table all") + net.ip("rule")

    async def test(bench: Bench) -> None:
        hold = bench.hold(entry)
        assert hold.acquire() == [] and hold.missing == []
        assert bench.shown() == [] and bench.rules() == []
        hold.release()
        now = net.ip("route show table all") + net.ip("-6 route show table all") + net.ip("rule")
        assert now == before
        # Used in place, it is missed when it goes; then ours takes its place, and goes itself.
        assert hold.acquire() == []
        net.ip(delete)
        await soon(lambda: bench.lost == [entry])
        assert hold.missing == [entry]
        assert hold.acquire() == [] and hold.missing == []
        assert len(bench.shown() + bench.rules()) == 1
        hold.release()
        assert bench.shown() + bench.rules() == []

    run(net, test)


@pytest.mark.parametrize(
    "add",
    [
        "10.0.0.0/8 via 198.51.100.8",
        "10.0.0.0/8 via 198.51.100.9 mtu 1400",
        "10.0.0.0/8 via 198.51.100.9 src 198.51.100.1",
        "blackhole 10.0.0.0/8",
    ],
)
def test_an_ipv4_route_goes_in_front_of_another_for_the_same(net: Net, add: str) -> None:
    net.ip(f"route add {add} proto static")

    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN)
        assert hold.acquire() == []
        first, second = net.ip("route show 10.0.0.0/8").splitlines()
        assert "proto 112" in first and "proto static" in second
        assert "via 198.51.100.9" in net.ip("route get 10.0.0.1")
        assert hold.acquire() == [] and len(net.ip("route show 10.0.0.0/8").splitlines()) == 2
        hold.release()
        assert "proto static" in net.ip("route show 10.0.0.0/8")

    run(net, test)


@pytest.mark.parametrize(
    "add",
    [
        "2001:db8:1::/48 via fe80::8 dev eth0",
        "2001:db8:1::/48 via fe80::9 dev eth1",
        "2001:db8:1::/48 via fe80::9 dev eth0 mtu 1400",
        "2001:db8:1::/48 via fe80::9 dev eth0 src fe80::1",
        "blackhole 2001:db8:1::/48",
        "2001:db8:1::/48 proto static nexthop via fe80::9 dev eth0 nexthop via fe80::8 dev eth0",
    ],
)
def test_an_ipv6_route_needs_its_metric_for_itself(net: Net, add: str) -> None:
    net.ip(f"-6 route add {add}")
    before = net.ip("-6 route")

    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN_6)
        ((entry, problem),) = hold.acquire()
        assert entry is PLAIN_6 and problem.errno == errno.EEXIST
        assert "give one of both another metric" in str(problem)
        assert net.ip("-6 route") == before
        hold.close()
        other = bench.hold(R(f"{PLAIN_6} metric 5"))
        assert other.acquire() == []

    run(net, test)


def test_two_of_ours_for_the_same(net: Net) -> None:
    async def test(bench: Bench) -> None:
        other, other_6 = R("10.0.0.0/8 via 198.51.100.8"), R("2001:db8:1::/48 via fe80::8 dev eth0")
        one = bench.hold(PLAIN, PLAIN_6)
        assert one.acquire() == []
        two = bench.hold(other, other_6)
        # In IPv6 the first one stays whole.
        assert [entry for entry, _problem in two.acquire()] == [other_6]
        assert one.missing == [] and len(net.ip("route show 10.0.0.0/8").splitlines()) == 2
        net.ip("route del 10.0.0.0/8 via 198.51.100.9")
        await soon(lambda: bench.lost == [PLAIN])
        two.release()
        one.release()
        assert bench.shown() == []

    run(net, test)


def test_rules_that_only_look_alike_do_not_count(net: Net) -> None:
    for more in ("not from 10.0.0.0/8", "from 10.0.0.0/8 ipproto tcp", "from 10.0.0.0/8 tos 4"):
        net.ip(f"rule add {more} table 100 priority 1000")
    net.ip("rule add from 10.0.0.0/8 table 100 priority 1000 suppress_prefixlength 0")
    net.ip("rule add from 10.0.0.0/8 priority 1000 prohibit")
    net.ip("route add 10.0.0.0/8 tos 4 via 198.51.100.9 proto 112")

    async def test(bench: Bench) -> None:
        hold = bench.hold(RULE, PLAIN)
        assert hold.acquire() == [] and len(bench.rules()) == 1
        for more in ("not from 10.0.0.0/8", "from 10.0.0.0/8 ipproto tcp"):
            net.ip(f"rule del {more} table 100 priority 1000")
        net.ip("route del 10.0.0.0/8 tos 4")
        await asyncio.sleep(0.05)
        assert bench.lost == [] and hold.missing == []
        hold.release()
        assert bench.rules() == []

    run(net, test)


# --- removed by others


@pytest.mark.parametrize(
    ("delete", "entry"),
    [
        ("route del 10.0.0.0/8", PLAIN),
        ("-6 route del 2001:db8:1::/48", PLAIN_6),
        ("route flush table 100", R("10.1.0.0/16 dev eth0 table 100")),
        ("route del blackhole 10.2.0.0/16 table 1000", R("blackhole 10.2.0.0/16 table 1000")),
        ("-6 route del 2001:db8:2::/48", R("unreachable 2001:db8:2::/48")),
        (
            "route del 10.3.0.0/16",
            R("10.3.0.0/16 nexthop via 198.51.100.9 nexthop via 198.51.100.8"),
        ),
        (
            "-6 route del 2001:db8:3::/48 via fe80::8 dev eth0",
            R("2001:db8:3::/48 nexthop via fe80::9 dev eth0 nexthop via fe80::8 dev eth0"),
        ),
        ("rule del priority 1000", RULE),
        ("-6 rule del priority 1000", RULE_6),
    ],
)
def test_a_removal_by_others_is_told_once(net: Net, delete: str, entry: Entry) -> None:
    async def test(bench: Bench) -> None:
        hold = bench.hold(entry, R("10.99.0.0/16 dev eth0"))
        assert hold.acquire() == []
        shown = sorted(bench.shown() + bench.rules())
        net.ip(delete)
        await soon(lambda: bench.lost)
        assert bench.lost == [entry] and hold.missing == [entry]
        assert hold.acquire() == [] and hold.missing == []
        assert sorted(bench.shown() + bench.rules()) == shown
        await asyncio.sleep(0.05)
        assert bench.lost == [entry]
        hold.release()
        assert bench.shown() + bench.rules() == []
        await asyncio.sleep(0.05)
        assert bench.lost == [entry]

    run(net, test)


def test_only_who_wants_it_hears(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        heard: list[str] = []

        def bug(entry: Entry) -> None:
            heard.append("bug")
            raise RuntimeError("a bug")

        holds = [
            bench.interface.hold_routes([PLAIN], [], lost)
            for lost in (bug, lambda _: heard.append("wants"), lambda _: heard.append("idle"))
        ]
        for hold in holds[:2]:
            hold.acquire()
        net.ip("route del 10.0.0.0/8")
        await soon(lambda: len(heard) == 2)
        assert heard == ["bug", "wants"] and "a listener failed" in caplog.text

    run(net, test)


def test_a_loss_that_acquire_meets_is_told_to_the_others(net: Net) -> None:
    async def test(bench: Bench) -> None:
        one, other = bench.hold(PLAIN), bench.hold(PLAIN_6)
        assert one.acquire() == []
        # No turn of the loop in between.
        net.ip("route del 10.0.0.0/8")
        assert other.acquire() == [] and bench.lost == []
        await asyncio.sleep(0)
        assert bench.lost == [PLAIN]

    run(net, test)


def test_a_loss_that_acquire_has_mended_is_told_all_the_same(net: Net) -> None:
    async def test(bench: Bench) -> None:
        one, other = bench.hold(PLAIN, RULE), bench.hold(PLAIN)
        assert one.acquire() == []
        net.ip("route del 10.0.0.0/8")
        # To who had it, and once; not to who only comes now.
        for hold in (one, other, one):
            assert hold.acquire() == [] and hold.missing == []
        assert bench.lost == [] and len(bench.shown()) == 1
        await asyncio.sleep(0)
        assert bench.lost == [PLAIN]
        # Not to who has given it back since.
        net.ip("rule del priority 1000")
        assert one.acquire() == []
        one.release()
        await asyncio.sleep(0.05)
        assert bench.lost == [PLAIN]

    run(net, test)


REPLACEMENTS: list[tuple[Route, str, str | None]] = [
    (PLAIN, "route replace 10.0.0.0/8 via 198.51.100.8", None),
    (PLAIN, "route replace 10.0.0.0/8 via 198.51.100.8 proto 112", None),
    (PLAIN, "route change 10.0.0.0/8 via 198.51.100.9 mtu 1300", None),
    (R("default via 198.51.100.9"), "route replace default dev eth1", None),
    (R("blackhole 10.0.0.0/8 table 100"), "route replace prohibit 10.0.0.0/8 table 100", None),
    (PLAIN_6, "-6 route replace 2001:db8:1::/48 via fe80::8 dev eth0", "give one of both another"),
    (
        R("2001:db8:1::/48 nexthop via fe80::8 dev eth0 nexthop via fe80::9 dev eth0"),
        "-6 route replace unreachable 2001:db8:1::/48",
        "give one of both another",
    ),
]


@pytest.mark.parametrize(("route", "replace", "refusal"), REPLACEMENTS)
def test_a_replacement_by_others_is_a_removal(
    net: Net, route: Route, replace: str, refusal: str | None
) -> None:
    other = R("10.9.0.0/24 dev eth0")

    async def test(bench: Bench) -> None:
        hold = bench.hold(route, other)
        assert hold.acquire() == []
        net.ip("link set eth1 up")
        before = bench.shown()
        net.ip(replace)
        await soon(lambda: bench.lost)
        assert bench.lost == [route] and hold.missing == [route]
        if refusal is None:
            # In front of the other one, which is there again in the end.
            assert hold.acquire() == [] and hold.missing == []
            assert set(before) <= set(bench.shown())
        else:
            ((entry, problem),) = hold.acquire()
            assert entry == route and refusal in str(problem)
        net.ip("route replace 10.9.1.0/24 dev eth0")
        await asyncio.sleep(0.05)
        assert bench.lost == [route]

    run(net, test)


def test_what_goes_before_a_look_at_it_is_no_conflict(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = Netlink.dump

    def too_late(self: Netlink, kind: int, body: bytes) -> list[NetlinkMessage]:
        if net.ip("-6 route show 2001:db8:1::/48"):
            net.ip("-6 route del 2001:db8:1::/48")
        return dump(self, kind, body)

    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN_6)
        assert hold.acquire() == []
        with monkeypatch.context() as patch:
            patch.setattr(Netlink, "dump", too_late)
            assert hold.acquire() == []
        assert len(bench.shown()) == 1
        await soon(lambda: bench.lost == [PLAIN_6])

    run(net, test)


def test_a_route_that_was_used_in_place_is_replaced(net: Net) -> None:
    net.ip("route add 10.0.0.0/8 via 198.51.100.9 proto static")

    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN)
        assert hold.acquire() == [] and bench.shown() == []
        net.ip("route replace 10.0.0.0/8 via 198.51.100.8 proto static")
        await soon(lambda: bench.lost == [PLAIN])
        assert hold.acquire() == [] and "198.51.100.9" in bench.shown()[0]

    run(net, test)
    assert "via 198.51.100.8" in net.ip("route show 10.0.0.0/8")


@pytest.mark.parametrize("route", [PLAIN, PLAIN_6], ids=["IPv4", "IPv6"])
def test_a_replacement_that_cannot_be_looked_at_is_none(
    net: Net, monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    def broken(self: Netlink, *_args: object, **_options: object) -> list[OSError]:
        raise OSError(errno.EIO, "no answer")

    async def test(bench: Bench) -> None:
        hold = bench.hold(route, RULE)
        assert hold.acquire() == []
        table = bench.interface._required.resources.routing._table
        assert table.there(route, 112) and table.there(RULE, 112)
        for method in ("exchange", "dump"):
            monkeypatch.setattr(Netlink, method, broken)
        assert table.there(route, 112)
        monkeypatch.undo()

    run(net, test)


def test_the_routes_of_others_are_not_even_read(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    parse = records.parse_route

    def counting(payload: bytes) -> records.RouteRecord | None:
        read.append(payload)
        return parse(payload)

    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN)
        assert hold.acquire() == []
        monkeypatch.setattr(records, "parse_route", counting)
        for n in range(50):
            net.ip(f"route add 10.99.{n}.0/24 via 198.51.100.9 proto bgp")
        net.ip("-6 route add 2001:db8:99::/48 dev eth0 proto bgp")
        net.ip("route del 10.99.0.0/24")
        await asyncio.sleep(0.05)
        assert read == []
        net.ip("route del 10.0.0.0/8")
        await soon(lambda: bench.lost == [PLAIN])
        assert len(read) == 1

    run(net, test)


def test_lost_notices(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        entries = (PLAIN, PLAIN_6, RULE, RULE_6)
        hold = bench.hold(*entries)
        assert hold.acquire() == []
        read = Subscription.read
        overruns = 1
        routing = bench.interface._host._resources.routing  # type: ignore[union-attr]

        def overrun(self: Subscription) -> object:
            nonlocal overruns
            # The monitor of links has one of its own.
            if overruns and self is routing._opened.subscription:  # type: ignore[union-attr]
                overruns -= 1
                raise Overrun
            return read(self)

        net.ip("route del 10.0.0.0/8")
        net.ip("-6 rule del priority 1000")
        monkeypatch.setattr(Subscription, "read", overrun)
        routing._readable()
        assert bench.lost == [PLAIN, RULE_6]
        assert "notices of the kernel about routes were lost" in caplog.text
        assert hold.missing == [PLAIN, RULE_6]

    run(net, test)


def test_routes_that_cannot_be_read_after_lost_notices_are_read_later(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vrrpkit.host.routing.reconciler.RETRY", 0.05)

    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN, RULE_6)
        assert hold.acquire() == []
        routing = bench.interface._host._resources.routing  # type: ignore[union-attr]
        lost = [Overrun()]
        read = Subscription.read

        def overrun(self: Subscription) -> object:
            if lost and self is routing._opened.subscription:  # type: ignore[union-attr]
                raise lost.pop()
            return read(self)

        def refused(_table: object) -> object:
            raise OSError(errno.ENOBUFS, "No buffer space available")

        with monkeypatch.context() as patch:
            patch.setattr(Subscription, "read", overrun)
            patch.setattr(RouteTable, "marked", refused)
            net.ip("route del 10.0.0.0/8")
            routing._readable()
            assert bench.lost == [] and "cannot be read" in caplog.text
            await soon(lambda: caplog.text.count("cannot be read") >= 2)
        await soon(lambda: bench.lost == [PLAIN])
        count = caplog.text.count("cannot be read")
        await asyncio.sleep(0.15)
        assert caplog.text.count("cannot be read") == count

    run(net, test)


# --- interfaces that go and come


def test_routes_come_back_with_their_interface(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test(bench: Bench) -> None:
        stays = R("blackhole 10.9.0.0/16")
        entries = (
            PLAIN,
            PLAIN_6,
            stays,
            R("10.1.0.0/16 dev eth0 table 100"),
            R("10.2.0.0/16 nexthop via 198.51.100.9 nexthop via 198.51.100.8"),
            R("2001:db8:2::/48 nexthop via fe80::9 dev eth0 nexthop via fe80::8 dev eth0"),
            R("2001:db8:3::/48 nexthop via fe80::9 dev eth0 nexthop via fe80::9 dev eth1"),
            RULE,
        )
        hold = bench.hold(*entries)
        assert hold.acquire() == []
        before = bench.shown()
        net.ip("link set eth0 down")
        await soon(lambda: hold.missing)
        await asyncio.sleep(0.05)
        assert hold.missing == [entry for entry in entries if entry not in (stays, RULE)]
        # Nobody removed them.
        assert bench.lost == []
        # Wanted again meanwhile, they are no failure: they wait for their interface.
        assert hold.acquire() == []
        net.ip("link set eth0 up")
        await soon(lambda: not hold.missing)
        assert sorted(bench.shown()) == sorted(before)
        assert bench.lost == [] and "route 10.0.0.0/8 via 198.51.100.9 is back" in caplog.text

    run(net, test)


def test_routes_come_back_when_their_gateway_can_be_reached_again(net: Net) -> None:
    net.ip("address add 2001:db8::1/64 dev eth0 nodad")

    async def test(bench: Bench) -> None:
        route = R("2001:db8:1::/48 via 2001:db8::9")
        hold = bench.hold(route)
        assert hold.acquire() == []
        net.ip("link set eth0 down")
        await soon(lambda: hold.missing == [route])
        net.ip("link set eth0 up")
        await asyncio.sleep(0.2)
        # The kernel has taken the prefix with the address, and brings neither back.
        assert hold.missing == [route] and bench.lost == []
        net.ip("address add 2001:db8::1/64 dev eth0 nodad")
        await soon(lambda: not hold.missing)
        hold.release()
        assert bench.shown() == []

    run(net, test)


def test_an_interface_that_is_made_anew(net: Net) -> None:
    async def test(bench: Bench) -> None:
        net.ip("link add up0 type veth peer name up1")
        net.ip("link set up0 up")
        route, both = R("10.1.0.0/16 dev up0"), R("10.2.0.0/16 nexthop dev up0 nexthop dev eth1")
        hold = bench.hold(route, both)
        await asyncio.sleep(0.05)
        assert hold.acquire() == []
        net.ip("link delete up0")
        await soon(lambda: hold.missing == [route, both])
        net.ip("link add up0 type veth peer name up1")
        net.ip("link set up0 up")
        await soon(lambda: not hold.missing)
        assert "10.1.0.0/16 dev up0 proto 112" in net.ip("route")
        hold.release()
        assert bench.shown() == [] and bench.lost == []

    run(net, test)


def test_an_interface_that_is_renamed_is_left(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    """A route over an interface is one over that of the name, whichever that is."""
    caplog.set_level(logging.INFO)
    route, route_6 = R("10.1.0.0/16 dev up0"), R("2001:db8:9::/48 dev up0")
    theirs = R("10.2.0.0/16 dev up0")
    net.ip("link add up0 type veth peer name up1")
    for command in ("link set up1 up", "link set up0 up", "route add 10.2.0.0/16 dev up0"):
        net.ip(command)

    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN, route, route_6, theirs, RULE)
        assert hold.acquire() == []
        net.ip("link set up0 name wan0")
        await soon(lambda: hold.missing == [route, route_6, theirs])
        assert len(bench.shown()) == 1 and "10.2.0.0/16 dev wan0" in net.ip("route")
        net.ip("link set up1 name up0")
        await soon(lambda: hold.missing == [])
        shown = bench.shown()
        assert len(shown) == 4 and sum("dev up0" in line for line in shown) == 3
        # And when nobody was told between both.
        net.ip("link set up0 name lan0")
        net.ip("link set wan0 name up0")
        await soon(lambda: len(bench.shown()) == 3)
        await soon(lambda: hold.missing == [])
        assert not any("lan0" in line for line in bench.shown())
        assert bench.lost == []
        # Told while routes are put in place.
        net.ip("link set up0 name wan0")
        hold.acquire()
        await soon(lambda: hold.missing == [route, route_6, theirs])

    run(net, test)
    assert net.ip("route show proto 112") == net.ip("-6 route show proto 112") == ""


def test_what_is_left_of_a_route_stays_when_it_cannot_be_mended(net: Net) -> None:
    """IPv6 keeps the other ways of a route when an interface of one goes."""
    route = R("2001:db8:1::/48 nexthop via fe80::9 dev eth0 nexthop via fe80::8 dev up0")
    up = ("link add up0 type veth peer name up1", "link set up1 up", "link set up0 up")
    for command in up:
        net.ip(command)

    async def test(bench: Bench) -> None:
        hold = bench.hold(route)
        assert hold.acquire() == []
        net.ip("link del up0")
        await soon(lambda: hold.missing == [route])
        net.ip(up[0])
        monitor = bench.interface._required.resources.monitor
        await soon(lambda: monitor.record("up0"))
        assert hold.acquire() == [] and hold.missing == [route]
        assert "2001:db8:1::/48 via fe80::9 dev eth0" in bench.shown()[0]
        for command in up[1:]:
            net.ip(command)
        await soon(lambda: hold.missing == [])
        assert "up0" in net.ip("-6 route show proto 112")

    run(net, test)


def test_what_is_released_does_not_come_back(net: Net) -> None:
    async def test(bench: Bench) -> None:
        hold = bench.hold(PLAIN)
        assert hold.acquire() == []
        net.ip("link set eth0 down")
        await soon(lambda: hold.missing)
        hold.release()
        net.ip("link set eth0 up")
        await asyncio.sleep(routing.RETRY + 0.2)
        assert bench.shown() == []

    run(net, test)


# --- leftovers


LEFT = [
    "route add 10.0.0.0/8 via 198.51.100.9 proto 112",
    "route add 10.2.0.0/16 proto 112 table 7 nexthop via 198.51.100.9 nexthop via 198.51.100.8",
    "route add blackhole 10.3.0.0/16 proto 112",
    "-6 route add 2001:db8:1::/48 via fe80::9 dev eth0 proto 112",
    "-6 route add 2001:db8:2::/48 proto 112 nexthop via fe80::9 dev eth0 nexthop via fe80::8 "
    "dev eth0",
    "-6 route add blackhole 2001:db8:3::/48 proto 112 metric 9",
    "rule add from 10.0.0.0/8 table 100 priority 1000 protocol 112",
    "-6 rule add from 2001:db8::/32 fwmark 1/3 table 100 priority 1000 protocol 112",
]
KEPT = [
    "route add 10.4.0.0/16 via 198.51.100.9 proto static",
    "-6 route add 2001:db8:4::/48 via fe80::9 dev eth0 proto 18",
    "rule add from 10.4.0.0/16 table 100 priority 1000",
]


def left_behind(net: Net) -> None:
    for command in LEFT + KEPT:
        net.ip(command)


def test_what_is_configured_and_left_behind_goes_at_the_start(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    left_behind(net)

    async def test(bench: Bench) -> None:
        # As the killed run may have had it: by its key, not by its gateway.
        hold = bench.hold(R("10.0.0.0/8 via 198.51.100.7"), PLAIN_6, RULE)
        assert len(bench.shown()) == 4 and len(bench.rules()) == 1
        assert "removing route 10.0.0.0/8 table 254 metric 0, which an earlier" in caplog.text
        assert hold.acquire() == []
        assert "10.0.0.0/8 via 198.51.100.7" in net.ip("route")

    run(net, test)


def test_other_leftovers_go_when_nobody_else_lives(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind(net)

    async def test(bench: Bench) -> None:
        hold = bench.hold(R("10.99.0.0/16 dev eth0"))
        assert hold.acquire() == []
        late = bench.hold(R("blackhole 10.3.0.0/16"))
        assert late.acquire() == []
        assert len(bench.shown()) == 7 and len(bench.rules()) == 2
        await soon(lambda: len(bench.shown()) == 2, SETTLE + 1)
        assert bench.rules() == [] and hold.missing == late.missing == []
        assert "left behind by a run that was killed" in caplog.text
        everything = net.ip("route") + net.ip("-6 route") + net.ip("rule")
        for kept in ("10.4.0.0/16 via", "2001:db8:4::/48 via", "from 10.4.0.0/16"):
            assert kept in everything
        assert bench.lost == []

    run(net, test)


def test_leftovers_stay_while_another_process_lives(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    left_behind(net)
    namespace = Namespace(net.name)
    other = Liveness(namespace)

    async def test(bench: Bench) -> None:
        hold = bench.hold(R("10.99.0.0/16 dev eth0"))
        await soon(lambda: "may be another process's" in caplog.text, SETTLE + 1)
        assert len(bench.shown()) == 6 and len(bench.rules()) == 2
        hold.close()

    try:
        run(net, test)
    finally:
        other.close()
        namespace.close()


def test_leftovers_go_without_routes_of_ones_own(net: Net) -> None:
    left_behind(net)

    async def test(bench: Bench) -> None:
        routing = bench.interface._required.resources.routing

        async def holds_an_address() -> None:
            hold = await bench.interface.hold([VIP("192.0.2.10")], Announcements(), Listener())
            await hold.close()

        await holds_an_address()
        assert len(bench.shown()) == 6 and len(bench.rules()) == 2
        await soon(lambda: bench.shown() == bench.rules() == [], SETTLE + 1)
        assert routing._opened is None
        # Once: what comes later is another process's.
        net.ip(LEFT[0])
        await holds_an_address()
        assert routing._leftovers._found == [] and len(bench.shown()) == 1

    run(net, test)


def test_a_kernel_that_does_not_tell_of_leftovers(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(self: Netlink, *_: object) -> list[NetlinkMessage]:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    async def test(bench: Bench) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Netlink, "dump", unknown)
            held = await bench.interface.hold([VIP("192.0.2.10")], Announcements(), Listener())
            hold = bench.hold(PLAIN)
        assert hold.acquire() == []
        await held.close()

    run(net, test)


def test_a_leftover_that_cannot_be_removed(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(net)

    async def test(bench: Bench) -> None:
        def refuse(self: Netlink, requests: Sequence[bytearray]) -> list[OSError | None]:
            return [OSError(errno.EPERM, "Operation not permitted")] * len(requests)

        with monkeypatch.context() as patch:
            patch.setattr(Netlink, "exchange", refuse)
            with pytest.raises(KernelRefused, match="is left from an earlier run and cannot be"):
                bench.hold(PLAIN)
        assert bench.hold(PLAIN).acquire() == []

    run(net, test)


# --- what it costs


def test_no_sockets_without_routes(net: Net) -> None:
    async def test(bench: Bench) -> None:
        own = bench.interface._host._resources.routing  # type: ignore[union-attr]
        assert own._opened is None
        hold, other = bench.hold(PLAIN), bench.hold(RULE)
        assert own._opened is not None
        hold.close()
        assert own._opened is not None
        other.close()
        assert own._opened is None
        # And again.
        assert bench.hold(PLAIN).acquire() == []

    run(net, test)
