"""Routes and rules as values and as text."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from vrrpkit.errors import ConfigError
from vrrpkit.routes.route import NextHop, Route, Rule, parse_routes, parse_rules
from vrrpkit.routes.syntax import read_address

A, B = ip_address("192.0.2.254"), ip_address("192.0.2.253")

# --- routes


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("10.0.0.0/8 via 192.0.2.254", Route("10.0.0.0/8", via="192.0.2.254")),
        ("unicast to 10.0.0.0/8 gw 192.0.2.254", Route("10.0.0.0/8", via=A)),
        (
            "10.0.0.0/8 via 192.0.2.254 dev eth1 table 100 metric 50 src 192.0.2.10 onlink "
            "mtu 1400",
            Route(
                "10.0.0.0/8",
                via=A,
                dev="eth1",
                table=100,
                metric=50,
                src="192.0.2.10",
                onlink=True,
                mtu=1400,
            ),
        ),
        ("10.0.0.0/8 dev eth1 scope link", Route("10.0.0.0/8", dev="eth1", scope="link")),
        ("10.0.0.0/8 dev eth1 scope universe", Route("10.0.0.0/8", dev="eth1", scope="global")),
        ("blackhole 10.1.0.0/16", Route("10.1.0.0/16", type="blackhole")),
        ("prohibit 10.1.0.0/16 table main", Route("10.1.0.0/16", type="prohibit", table=254)),
        (
            "unreachable 2001:db8::/32 metric 0x10",
            Route("2001:db8::/32", type="unreachable", metric=16),
        ),
        (
            "default nexthop via 192.0.2.254 weight 2 nexthop via 192.0.2.253 dev eth1 onlink",
            Route(
                "0.0.0.0/0",
                nexthops=[NextHop(A, weight=2), NextHop(B, dev="eth1", onlink=True)],
            ),
        ),
        (
            "0.0.0.0/0 gw 192.0.2.254 or 192.0.2.253 table 100 preference 1",
            Route("0.0.0.0/0", nexthops=[NextHop(A), NextHop(B)], table=100, metric=1),
        ),
        (
            "src 192.0.2.10 to 10.0.0.0/8 via 192.0.2.254",
            Route("10.0.0.0/8", via=A, src="192.0.2.10"),
        ),
        ("default via fe80::1 dev eth0", Route("::/0", via="fe80::1", dev="eth0")),
        ("inet6 default dev eth0", Route("::/0", dev="eth0")),
        ("-4 default via inet6 fe80::1 dev eth0", Route("0.0.0.0/0", via="fe80::1", dev="eth0")),
        ("10.0.0.0/8 via inet6 fe80::1 dev eth0", Route("10.0.0.0/8", via="fe80::1", dev="eth0")),
        ("inet6 2001:db8::/32 via fe80::1 dev x", Route("2001:db8::/32", via="fe80::1", dev="x")),
    ],
)
def test_text_of_routes(text: str, route: Route) -> None:
    assert Route.of(text) == route
    assert Route.of(str(route)) == route
    assert Route.of(route) is route
    assert route.described == f"route {route}"


def test_the_family_of_default_is_that_of_the_addresses() -> None:
    assert Route("default", dev="eth0").destination == IPv4Network("0.0.0.0/0")
    for other in (
        Route("default", via="2001:db8::1"),
        Route("default", dev="eth0", src="2001:db8::1"),
        Route("default", nexthops=[NextHop("2001:db8::1"), NextHop("2001:db8::2")]),
    ):
        assert other.destination == IPv6Network("::/0") and other.family == 6
    assert attrs.evolve(Route("::/0", dev="eth0"), dev="eth1").family == 6
    # An explicit prefix is what it is, whatever the gateway.
    assert Route("0.0.0.0/0", via="fe80::1", dev="eth0").family == 4


def test_what_the_kernel_takes_for_a_metric() -> None:
    assert Route("10.0.0.0/8", via=A).used_metric == 0
    assert Route("2001:db8::/32", via="2001:db8::1").used_metric == 1024
    assert Route("2001:db8::/32", via="2001:db8::1", metric=0).used_metric == 1024
    assert Route("10.0.0.0/8", via=A, metric=7).used_metric == 7


def test_ways() -> None:
    assert Route("10.0.0.0/8", via=A, dev="e", onlink=True).ways == (
        NextHop(A, dev="e", onlink=True),
    )
    assert Route("10.0.0.0/8", type="blackhole").ways == ()
    two = (NextHop(A), NextHop(B))
    assert Route("10.0.0.0/8", nexthops=two).ways == two


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the destination is missing; write '10.0.0.0/8 ...'"),
        ("via 192.0.2.254", "the destination is missing"),
        ("10.0.0.0/8", "where to\\? Write 'via ADDRESS' or 'dev NAME'"),
        ("10.0.0.1/8 via 192.0.2.254", "host bits set; write '10.0.0.0/8'"),
        ("10.0.0.0/99 via 192.0.2.254", "'10.0.0.0/99' is not of the form"),
        ("nowhere via 192.0.2.254", "destination 'nowhere' is not of the form"),
        ("fe80::%eth0/64 dev eth0", "carries a zone; leave out the part after '%'"),
        ("10.0.0.0/8 via", "a value must follow 'via'"),
        ("10.0.0.0/8 via inet6", "a value must follow 'inet6'"),
        ("10.0.0.0/8 via there", "via 'there' is no IPv4 or IPv6 address"),
        ("10.0.0.0/8 via 0.0.0.0", "must be the address of a router"),
        ("10.0.0.0/8 via 224.0.0.1", "must be the address of a router"),
        ("2001:db8::/32 via 192.0.2.254", "an IPv6 route takes an IPv6 gateway"),
        ("2001:db8::/32 via fe80::1", "link-local address: say on which link with dev"),
        ("10.0.0.0/8 via 192.0.2.254 onlink", "onlink .* takes via and dev"),
        ("10.0.0.0/8 dev eth0 onlink", "onlink .* takes via and dev"),
        ("10.0.0.0/8 via 192.0.2.254 src here", "src 'here' is no IPv4 or IPv6 address"),
        ("10.0.0.0/8 via 192.0.2.254 src 2001:db8::1", "src must be an IPv4 address"),
        ("10.0.0.0/8 dev an-interface-name", "'an-interface-name' must be the name of an interf"),
        ("10.0.0.0/8 dev a/b", "'a/b' must be the name of an interface"),
        ("10.0.0.0/8 dev eth0 table 0", "table 0 must be a whole number from 1 to 4294967295"),
        ("10.0.0.0/8 dev eth0 table 4294967296", "table 4294967296 must be"),
        ("10.0.0.0/8 dev eth0 table uplink", "has no name here but .*; write its number"),
        ("10.0.0.0/8 dev eth0 metric low", "metric 'low' is no number"),
        ("10.0.0.0/8 dev eth0 metric 4294967296", "metric 4294967296 must be"),
        ("10.0.0.0/8 dev eth0 metric -1", "metric -1 must be"),
        ("10.0.0.0/8 dev eth0 scope near", "scope 'near' must be one of global, site, link, host"),
        ("2001:db8::/32 dev eth0 scope link", "IPv6 routes have no scope; leave it out"),
        ("10.0.0.0/8 dev eth0 mtu 67", "mtu 67 must be a whole number from 68 to 65535"),
        ("10.0.0.0/8 dev eth0 mtu 65536", "mtu 65536 must be"),
        ("2001:db8::/32 dev eth0 mtu 1279", "mtu 1279 must be a whole number from 1280"),
        ("10.0.0.0/8 dev eth0 advmss 5", "'advmss' is not known here; a route may have via, dev"),
        ("10.0.0.0/8 dev eth0 proto static", "leave out 'proto'.* by their protocol, 112"),
        ("default nexthop via 192.0.2.254", "a single nexthop is no multipath; write via and dev"),
        ("default nexthop weight 2 nexthop via 192.0.2.1", "nexthop leads nowhere"),
        (
            "default nexthop via 192.0.2.254 nexthop via 192.0.2.254",
            "a nexthop is named twice; use weight",
        ),
        (
            "default dev eth0 nexthop via 192.0.2.254 nexthop via 192.0.2.253",
            "give via, dev and onlink to each nexthop",
        ),
        (
            "default nexthop via 192.0.2.254 weight 0 nexthop via 192.0.2.253",
            "nexthop: weight 0 must be a whole number from 1 to 256",
        ),
        (
            "default nexthop via 192.0.2.254 weight 257 nexthop via 192.0.2.253",
            "nexthop: weight 257 must be",
        ),
        (
            "default nexthop via 192.0.2.254 nexthop via 192.0.2.253 metric 5",
            "'metric' is not known behind nexthop.* before the first nexthop",
        ),
        ("::/0 nexthop via fe80::1 nexthop via fe80::2 dev e", "say on which link with dev"),
        *(
            (f"blackhole 10.1.0.0/16 {more}", "blackhole takes no .*, for nothing goes there")
            for more in ("via 192.0.2.1", "dev eth0", "src 192.0.2.1", "scope link", "mtu 1400")
        ),
        ("prohibit ::/0 nexthop dev a nexthop dev b", "prohibit takes no nexthops"),
    ],
)
def test_bad_routes(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Route.of(text)
    assert text in str(caught.value)


def test_values_that_text_cannot_have() -> None:
    with pytest.raises(ConfigError, match="route 5 must be text"):
        Route.of(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="route type 'throw' must be one of unicast, blackhole"):
        Route("10.0.0.0/8", type="throw")
    with pytest.raises(ConfigError, match="table 'x' has no name"):
        Route("10.0.0.0/8", dev="eth0", table="x")


def test_lists_of_routes() -> None:
    two = parse_routes(["10.0.0.0/8 via 192.0.2.254", Route("default", via=A)])
    assert [str(route) for route in two] == [
        "10.0.0.0/8 via 192.0.2.254",
        "default via 192.0.2.254",
    ]
    with pytest.raises(ConfigError, match=r"write routes as a list: routes=\['10.0.0.0/8'\]"):
        parse_routes("10.0.0.0/8")
    with pytest.raises(ConfigError, match="same destination, table and metric; give one another"):
        parse_routes(["10.0.0.0/8 via 192.0.2.254", "10.0.0.0/8 via 192.0.2.253"])
    with pytest.raises(ConfigError, match="same destination, table and metric"):
        parse_routes(["2001:db8::/32 dev a", "2001:db8::/32 dev b metric 1024"])
    assert len(parse_routes(["default dev a", "::/0 dev a", "default dev a metric 1"])) == 3


devices = st.none() | st.sampled_from(["eth0", "vrrp.51"])
metrics = st.none() | st.integers(0, 0xFFFFFFFF)
tables = st.integers(1, 0xFFFFFFFF)
unicast4 = st.integers(0x01000000, 0xDFFFFFFF).map(IPv4Address)
unicast6 = st.integers(1, 0xFFFF).map(lambda last: IPv6Address(f"2001:db8::{last:x}"))


def prefixes(version: int) -> st.SearchStrategy[Any]:
    bits = 32 if version == 4 else 128
    return st.builds(
        lambda address, length: ip_network((address, length), strict=False),
        st.integers(0, 2**bits - 1).map(IPv4Address if version == 4 else IPv6Address),
        st.integers(0, bits),
    )


@st.composite
def routes(draw: st.DrawFn) -> Route:
    version = draw(st.sampled_from([4, 6]))
    addresses = unicast4 if version == 4 else unicast6
    options: dict[str, Any] = {"table": draw(tables), "metric": draw(metrics)}
    kind = draw(st.sampled_from(["one", "many", "blackhole", "unreachable", "prohibit"]))
    if kind in ("one", "many"):
        options["src"] = draw(st.none() | addresses)
        options["mtu"] = draw(st.none() | st.integers(1280, 65535))
        if version == 4:
            options["scope"] = draw(st.sampled_from([None, "global", "link", "host", "site"]))
    if kind == "one":
        options["via"] = draw(st.none() | addresses | unicast6)
        options["dev"] = draw(st.just("eth0") if options["via"] is None else devices)
        options["onlink"] = None not in (options["via"], options["dev"]) and draw(st.booleans())
    elif kind == "many":
        hops = st.builds(NextHop, addresses, dev=devices, weight=st.integers(1, 256))
        options["nexthops"] = draw(
            st.lists(hops, min_size=2, max_size=4, unique_by=lambda hop: (hop.via, hop.dev))
        )
    else:
        options["type"] = kind
    return Route(draw(prefixes(version)), **options)


@given(routes())
def test_every_route_survives_its_text(route: Route) -> None:
    assert Route.of(str(route)) == route


# --- rules


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            "from 10.0.0.0/8 table 100 priority 1000",
            Rule(source="10.0.0.0/8", table=100, priority=1000),
        ),
        ("from all lookup main pref 5", Rule(table="main", priority=5)),
        (
            "to 2001:db8::/32 table 7 order 9",
            Rule(destination="2001:db8::/32", table=7, priority=9),
        ),
        (
            "from 192.0.2.1 to 10.0.0.0/8 fwmark 0x10/0xff iif lo oif eth1 table 7 preference 9",
            Rule(
                source="192.0.2.1/32",
                destination="10.0.0.0/8",
                fwmark=16,
                mask=255,
                iif="lo",
                oif="eth1",
                table=7,
                priority=9,
            ),
        ),
        ("fwmark 1 dev eth0 table 7 priority 9", Rule(fwmark=1, iif="eth0", table=7, priority=9)),
        ("inet6 from all table 7 priority 9", Rule(family=6, table=7, priority=9)),
    ],
)
def test_text_of_rules(text: str, rule: Rule) -> None:
    assert Rule.of(text) == rule
    assert Rule.of(str(rule)) == rule
    assert Rule.of(rule) is rule
    assert rule.described == f"rule {rule}"


def test_family_and_mask_of_rules() -> None:
    assert Rule(table=7, priority=9).family == 4
    assert Rule(table=7, priority=9, family=6).family == 6
    assert Rule(table=7, priority=9, destination="2001:db8::/32").family == 6
    assert Rule(table=7, priority=9).used_mask == 0
    assert Rule(table=7, priority=9, fwmark=1).used_mask == 0xFFFFFFFF
    assert Rule(table=7, priority=9, fwmark=1, mask=3).used_mask == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from 10.0.0.0/8 priority 5", "the table is missing; write for example 'table 100'"),
        (
            "from 10.0.0.0/8 table 100",
            "the priority is missing.* write for example 'priority 1000'",
        ),
        ("from 10.0.0.0/8 table 100 priority 0", "priority 0 must be a whole number from 1"),
        ("from 10.0.0.0/8 table 100 priority 4294967296", "priority 4294967296 must be"),
        ("from 10.0.0.1/8 table 100 priority 5", "host bits set; write '10.0.0.0/8'"),
        ("from 10.0.0.0/8 to 2001:db8::/32 table 1 priority 5", "IPv4 and IPv6 in one rule"),
        ("inet6 from 10.0.0.0/8 table 1 priority 5", "IPv4 and IPv6 in one rule"),
        ("table 1 priority 5 fwmark x", "fwmark 'x' is no number"),
        ("table 1 priority 5 fwmark 1/y", "mask 'y' is no number"),
        ("table 1 priority 5 fwmark 4294967296", "fwmark 4294967296 must be"),
        ("table 1 priority 5 fwmark 1/4294967296", "mask 4294967296 must be"),
        ("table 1 priority 5 fwmark 0x10/0xf", "mask 0xf leaves bits of the mark 0x10 out"),
        ("table 1 priority 5 iif a/b", "iif 'a/b' must be the name of an interface"),
        ("table 1 priority 5 oif an-interface-name", "oif .* must be the name of an interface"),
        ("table 1 priority 5 tos 4", "'tos' is not known here; a rule may have from, to"),
        ("table", "a value must follow 'table'"),
    ],
)
def test_bad_rules(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Rule.of(text)
    assert text in str(caught.value)


def test_rules_that_text_cannot_say() -> None:
    with pytest.raises(ConfigError, match="mask goes with fwmark"):
        Rule(table=1, priority=5, mask=1)
    with pytest.raises(ConfigError, match="family 5 must be 4 or 6"):
        Rule(table=1, priority=5, family=5)


def test_lists_of_rules() -> None:
    one = "from 10.0.0.0/8 table 100 priority 1000"
    assert parse_rules([one, Rule(table=7, priority=9)]) == (
        Rule.of(one),
        Rule(table=7, priority=9),
    )
    with pytest.raises(ConfigError, match="write rules as a list"):
        parse_rules(one)
    with pytest.raises(ConfigError, match="is named twice"):
        parse_rules([one, one])


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    version = draw(st.sampled_from([4, 6]))
    mark = draw(st.none() | st.integers(0, 0xFFFFFFFF))
    mask = None if mark is None else draw(st.none() | st.integers(0, 0xFFFFFFFF))
    source = draw(st.none() | prefixes(version))
    destination = draw(st.none() | prefixes(version))
    return Rule(
        table=draw(tables),
        priority=draw(st.integers(1, 0xFFFFFFFF)),
        source=source,
        destination=destination,
        fwmark=mark,
        mask=None if mask is None or mark is None else mask | mark,
        iif=draw(devices),
        oif=draw(devices),
        family=6 if version == 6 and source is None and destination is None else None,
    )


@given(rules())
def test_every_rule_survives_its_text(rule: Rule) -> None:
    assert Rule.of(str(rule)) == rule


# --- addresses


def test_text_of_addresses() -> None:
    text = (
        "192.0.2.7/24 brd 192.0.2.255 dev eth1 scope link label eth1:1 peer 192.0.2.8 "
        "noprefixroute nodad"
    )
    assert read_address(text) == {
        "interface": "192.0.2.7/24",
        "broadcast": "192.0.2.255",
        "dev": "eth1",
        "scope": "link",
        "label": "eth1:1",
        "peer": "192.0.2.8",
        "noprefixroute": True,
        "nodad": True,
    }
    with pytest.raises(ConfigError, match="the address is missing; write for example"):
        read_address("dev eth1")
    with pytest.raises(ConfigError, match="'metric' is not known here; an address may have dev"):
        read_address("192.0.2.7/24 dev eth1 metric 5")
