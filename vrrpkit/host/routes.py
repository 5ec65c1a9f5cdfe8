"""Routes and rules as users write them. Pure.

Both are values: by their fields, or as text in the words of ``ip route`` and ``ip rule`` and of
keepalived's ``virtual_routes`` and ``virtual_rules``.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.host import route_text
from vrrpkit.values import SCOPES, IPAddress, parse_address, whole_number

__all__ = [
    "MAIN",
    "Entry",
    "IPNetwork",
    "NextHop",
    "Route",
    "Rule",
    "parse_routes",
    "parse_rules",
]

IPNetwork: TypeAlias = IPv4Network | IPv6Network

TABLES = {"default": 253, "main": 254, "local": 255}
"""The tables that the kernel itself has names for."""
MAIN = TABLES["main"]

TYPES = ("unicast", "blackhole", "unreachable", "prohibit")

U32 = 0xFFFFFFFF
DEFAULT_METRIC = {4: 0, 6: 1024}
"""What the kernel takes for a metric that is not given."""

_EITHER = IPv4Network("0.0.0.0/0")
"""Stands for ``default``, by its identity, until the family is known."""


def _network(value: str | IPNetwork, what: str) -> IPNetwork:
    try:
        network = ip_network(value)
    except ValueError as problem:
        hint = ""
        if "host bits" in str(problem):
            hint = f"; write {str(ip_network(value, strict=False))!r}"
        raise ConfigError(
            f"{what} {value!r} is not of the form '10.0.0.0/8' or '2001:db8::/32': {problem}{hint}"
        ) from None
    if isinstance(network, IPv6Network) and network.network_address.scope_id is not None:
        raise ConfigError(f"{what} '{network}' carries a zone; leave out the part after '%'")
    return network


def _destination(value: str | IPNetwork) -> IPNetwork:
    if value == "default":
        return _EITHER
    return _network(value, "destination")


def _selector(value: str | IPNetwork | None) -> IPNetwork | None:
    return None if value in (None, "all") else _network(value, "prefix")


def _via(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "via")


def _src(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "src")


def _table(value: str | int) -> int:
    number = TABLES.get(value) if isinstance(value, str) else value
    if number is None:
        raise ConfigError(
            f"table {value!r} has no name here but {', '.join(TABLES)}; write its number, which "
            "/etc/iproute2/rt_tables tells"
        )
    whole_number("table", number, 1, U32, "254 is 'main'")
    return number


def _check_device(name: str | None, what: str) -> None:
    if name is None:
        return
    if not 1 <= len(name.encode()) <= 15 or "/" in name or name.split() != [name]:
        raise ConfigError(f"{what} {name!r} must be the name of an interface: 1 to 15 octets")


def _check_hop(via: IPAddress | None, dev: str | None, onlink: bool, family: int) -> None:
    _check_device(dev, "dev")
    if via is not None:
        if via.is_unspecified or via.is_multicast:
            raise ConfigError(f"via {via} must be the address of a router")
        if family == 6 and via.version == 4:
            raise ConfigError(f"via {via}: an IPv6 route takes an IPv6 gateway")
        if via.version == 6 and via.is_link_local and dev is None:
            raise ConfigError(f"via {via} is a link-local address: say on which link with dev")
    if onlink and (via is None or dev is None):
        raise ConfigError("onlink says where a gateway is: it takes via and dev")


@attrs.frozen
class NextHop:
    """One of the ways of a multipath route (``nexthop``).

    :param via: the gateway.
    :param dev: the interface; one of both is needed.
    :param weight: the share of the traffic, 1 to 256.
    :param onlink: the gateway is on the link of ``dev``, although no prefix there says so.
    :raises ConfigError: a value, or a combination, is unusable.
    """

    via: IPAddress | None = attrs.field(default=None, converter=_via)
    dev: str | None = attrs.field(default=None, kw_only=True)
    weight: int = attrs.field(default=1, kw_only=True)
    onlink: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.via is None and self.dev is None:
            raise ConfigError("nexthop leads nowhere: write 'nexthop via ADDRESS dev NAME'")
        whole_number("nexthop: weight", self.weight, 1, 256, "the share of the traffic")

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f" weight {self.weight}"
        return f"nexthop{_hop_text(self.via, self.dev)}{weight}{' onlink' if self.onlink else ''}"


def _hops(values: Iterable[NextHop]) -> tuple[NextHop, ...]:
    return tuple(values)


def _hop_text(via: IPAddress | None, dev: str | None) -> str:
    return ("" if via is None else f" via {via}") + ("" if dev is None else f" dev {dev}")


@attrs.frozen
class Route:
    """A route that comes and goes with a virtual router, or is kept in place (keepalived:
    ``virtual_routes``, ``static_routes``).

    As text, :meth:`of` reads what ``ip route add`` takes::

        Route("10.0.0.0/8", via="192.0.2.254", dev="eth1", table=100, metric=50)
        Route.of("10.0.0.0/8 via 192.0.2.254 dev eth1 table 100 metric 50")

    :param destination: a prefix, or ``"default"``, whose family is that of the addresses given
        (IPv4 without any; ``"::/0"`` is always the IPv6 one).
    :param via: the gateway; an IPv4 route may have an IPv6 one (RFC 9229).
    :param dev: the interface. A unicast route needs ``via``, ``dev`` or ``nexthops``.
    :param src: the source address that the host prefers on this route; a virtual address may be
        named.
    :param table: 1 to 4294967295, ``"main"``, ``"local"`` or ``"default"``.
    :param metric: 0 to 4294967295, the lowest wins; by default 0 in IPv4 and 1024 in IPv6.
    :param scope: IPv4 only: ``global``, ``site``, ``link`` or ``host``. By default ``link`` for a
        route without a gateway, else ``global``.
    :param onlink: the gateway is on the link of ``dev``, although no prefix there says so.
    :param mtu: the path MTU in octets, 68 to 65535; in IPv6 from 1280.
    :param type: ``unicast``, or ``blackhole`` (drop in silence), ``unreachable`` or ``prohibit``
        (drop, and tell the sender by ICMP).
    :param nexthops: several gateways that share the traffic, instead of ``via`` and ``dev``.
    :raises ConfigError: a value, or a combination, is unusable.
    """

    destination: IPNetwork = attrs.field(converter=_destination)
    via: IPAddress | None = attrs.field(default=None, kw_only=True, converter=_via)
    dev: str | None = attrs.field(default=None, kw_only=True)
    src: IPAddress | None = attrs.field(default=None, kw_only=True, converter=_src)
    table: int = attrs.field(default=MAIN, kw_only=True, converter=_table)
    metric: int | None = attrs.field(default=None, kw_only=True)
    scope: str | None = attrs.field(default=None, kw_only=True)
    onlink: bool = attrs.field(default=False, kw_only=True)
    mtu: int | None = attrs.field(default=None, kw_only=True)
    type: str = attrs.field(default="unicast", kw_only=True)
    nexthops: tuple[NextHop, ...] = attrs.field(default=(), kw_only=True, converter=_hops)

    def __attrs_post_init__(self) -> None:
        if self.destination is _EITHER:
            given = (self.via, self.src, *(hop.via for hop in self.nexthops))
            six = any(isinstance(address, IPv6Address) for address in given)
            object.__setattr__(self, "destination", ip_network("::/0" if six else "0.0.0.0/0"))
        if self.metric is not None:
            whole_number("metric", self.metric, 0, U32, "the lowest wins")
        if self.mtu is not None:
            least = 68 if self.family == 4 else 1280
            whole_number("mtu", self.mtu, least, 65535, "octets of a packet")
        if self.scope is not None:
            if self.family == 6:
                raise ConfigError(f"{self}: IPv6 routes have no scope; leave it out")
            if self.scope not in SCOPES:
                raise ConfigError(f"scope {self.scope!r} must be one of {', '.join(SCOPES)}")
        if self.src is not None and self.src.version != self.family:
            raise ConfigError(f"{self}: src must be an IPv{self.family} address")
        if self.type == "unicast":
            self._check_ways()
        elif self.type in TYPES:
            self._check_nothing_goes()
        else:
            raise ConfigError(f"route type {self.type!r} must be one of {', '.join(TYPES)}")

    def _check_ways(self) -> None:
        if self.nexthops and (self.via is not None or self.dev is not None or self.onlink):
            raise ConfigError(f"{self}: give via, dev and onlink to each nexthop, not to the route")
        if len(self.nexthops) == 1:
            raise ConfigError(f"{self}: a single nexthop is no multipath; write via and dev")
        if len({(hop.via, hop.dev) for hop in self.nexthops}) < len(self.nexthops):
            raise ConfigError(f"{self}: a nexthop is named twice; use weight")
        if not self.nexthops and self.via is None and self.dev is None:
            raise ConfigError(f"{self}: where to? Write 'via ADDRESS' or 'dev NAME'")
        for hop in self.nexthops:
            _check_hop(hop.via, hop.dev, hop.onlink, self.family)
        _check_hop(self.via, self.dev, self.onlink, self.family)

    def _check_nothing_goes(self) -> None:
        for name in ("via", "dev", "src", "scope", "onlink", "mtu", "nexthops"):
            if getattr(self, name):
                raise ConfigError(f"{self}: {self.type} takes no {name}, for nothing goes there")

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.destination.version

    @property
    def used_metric(self) -> int:
        """The metric as the kernel shows it."""
        return self.metric or DEFAULT_METRIC[self.family]

    @property
    def ways(self) -> tuple[NextHop, ...]:
        """The next hops, also of a route that has one, or none."""
        if self.nexthops or self.type != "unicast":
            return self.nexthops
        return (NextHop(self.via, dev=self.dev, onlink=self.onlink),)

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells routes apart: another one with the same is the same route another way."""
        return (self.destination, self.table, self.used_metric)

    @property
    def described(self) -> str:
        """With the word for what it is."""
        return f"route {self}"

    def __str__(self) -> str:
        parts = [] if self.type == "unicast" else [self.type]
        parts.append(self._destination_text() + _hop_text(self.via, self.dev))
        if self.src is not None:
            parts.append(f"src {self.src}")
        if self.table != MAIN:
            parts.append(f"table {self.table}")
        if self.metric is not None:
            parts.append(f"metric {self.metric}")
        if self.scope is not None:
            parts.append(f"scope {self.scope}")
        if self.onlink:
            parts.append("onlink")
        if self.mtu is not None:
            parts.append(f"mtu {self.mtu}")
        return " ".join([*parts, *map(str, self.nexthops)])

    def _destination_text(self) -> str:
        given = (self.via, self.src, *(hop.via for hop in self.nexthops))
        six = any(isinstance(address, IPv6Address) for address in given)
        if self.destination.prefixlen == 0 and six is (self.family == 6):
            return "default"
        return str(self.destination)

    @classmethod
    def of(cls, value: str | Route) -> Route:
        """Accept whatever a user may write for a route.

        :raises ConfigError: the text is none, or a value is unusable.
        """
        if isinstance(value, Route):
            return value
        fields, hops = route_text.read_route(value)
        with route_text.said_of(value):
            return cls(**fields, nexthops=[NextHop(**hop) for hop in hops])


@attrs.frozen(kw_only=True)
class Rule:
    """Which routing table decides on which packets (keepalived: ``virtual_rules``,
    ``static_rules``).

    As text, :meth:`of` reads what ``ip rule add`` takes::

        Rule(source="10.0.0.0/8", table=100, priority=1000)
        Rule.of("from 10.0.0.0/8 table 100 priority 1000")

    :param table: where the packets are looked up: 1 to 4294967295, ``"main"``, ``"local"`` or
        ``"default"``.
    :param priority: 1 to 4294967295; rules are tried from the lowest on, and the table ``main`` is
        looked up at 32766. It must be given: one that the kernel chooses puts the rule in front of
        all others but ``local``, whatever they are.
    :param source: only packets from this prefix (``from``).
    :param destination: only packets to this prefix (``to``).
    :param fwmark: only packets with this firewall mark, 0 to 4294967295.
    :param mask: the bits of the mark that count; by default all.
    :param iif: only packets that came in by this interface; ``lo`` is this host itself.
    :param oif: only packets of sockets that are bound to this interface.
    :param family: 4 or 6, for a rule without prefixes; by default 4.
    :raises ConfigError: a value, or a combination, is unusable.
    """

    table: int = attrs.field(converter=_table)
    priority: int
    source: IPNetwork | None = attrs.field(default=None, converter=_selector)
    destination: IPNetwork | None = attrs.field(default=None, converter=_selector)
    fwmark: int | None = None
    mask: int | None = None
    iif: str | None = None
    oif: str | None = None
    _family: int | None = attrs.field(default=None, alias="family")

    def __attrs_post_init__(self) -> None:
        whole_number("priority", self.priority, 1, U32, "rules are tried from the lowest on")
        for name, value in (("fwmark", self.fwmark), ("mask", self.mask)):
            if value is not None:
                whole_number(name, value, 0, U32, "32 bits")
        if self.mask is not None and self.fwmark is None:
            raise ConfigError(f"{self}: mask goes with fwmark")
        if self.fwmark is not None and self.mask is not None and self.fwmark & ~self.mask:
            raise ConfigError(
                f"{self}: the mask {self.mask:#x} leaves bits of the mark {self.fwmark:#x} out, so "
                "no packet would fit"
            )
        _check_device(self.iif, "iif")
        _check_device(self.oif, "oif")
        families: set[int] = {
            prefix.version for prefix in (self.source, self.destination) if prefix is not None
        }
        if self._family not in (None, 4, 6):
            raise ConfigError(f"family {self._family!r} must be 4 or 6")
        if self._family is not None:
            families.add(self._family)
        if len(families) > 1:
            raise ConfigError(f"{self}: IPv4 and IPv6 in one rule; write one for each")

    @property
    def family(self) -> int:
        """4 or 6."""
        for prefix in (self.source, self.destination):
            if prefix is not None:
                return prefix.version
        return self._family or 4

    @property
    def used_mask(self) -> int:
        """The mask as the kernel shows it; 0 without a mark."""
        if self.fwmark is None:
            return 0
        return U32 if self.mask is None else self.mask

    @property
    def described(self) -> str:
        """With the word for what it is."""
        return f"rule {self}"

    def __str__(self) -> str:
        bare = self.source is None and self.destination is None
        parts = ["inet6"] if bare and self._family == 6 else []
        parts.append(f"from {self.source or 'all'}")
        if self.destination is not None:
            parts.append(f"to {self.destination}")
        if self.fwmark is not None:
            mask = "" if self.mask is None else f"/{self.mask:#x}"
            parts.append(f"fwmark {self.fwmark:#x}{mask}")
        if self.iif is not None:
            parts.append(f"iif {self.iif}")
        if self.oif is not None:
            parts.append(f"oif {self.oif}")
        return " ".join([*parts, f"table {self.table} priority {self.priority}"])

    @classmethod
    def of(cls, value: str | Rule) -> Rule:
        """Accept whatever a user may write for a rule.

        :raises ConfigError: the text is none, or a value is unusable.
        """
        if isinstance(value, Rule):
            return value
        fields = route_text.read_rule(value)
        with route_text.said_of(value):
            return cls(**fields)


Entry: TypeAlias = Route | Rule


def parse_routes(values: Iterable[str | Route]) -> tuple[Route, ...]:
    """Read a list of routes.

    :raises ConfigError: one is unusable, or two are one and the same.
    """
    if isinstance(values, str):
        raise ConfigError(f"write routes as a list: [{values!r}]")
    routes = tuple(Route.of(value) for value in values)
    seen: dict[tuple[object, ...], Route] = {}
    for route in routes:
        other = seen.setdefault(route.identity, route)
        if other is not route:
            raise ConfigError(
                f"the routes '{other}' and '{route}' have the same destination, table and metric; "
                "give one another metric, or write one route with several nexthop"
            )
    return routes


def parse_rules(values: Iterable[str | Rule]) -> tuple[Rule, ...]:
    """Read a list of rules.

    :raises ConfigError: one is unusable, or is named twice.
    """
    if isinstance(values, str):
        raise ConfigError(f"write rules as a list: [{values!r}]")
    rules = tuple(Rule.of(value) for value in values)
    seen: set[Rule] = set()
    for rule in rules:
        if rule in seen:
            raise ConfigError(f"the rule '{rule}' is named twice")
        seen.add(rule)
    return rules
