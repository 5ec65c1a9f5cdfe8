"""Routes as users write them. Pure.

They are values: by their fields, or as text in the words of ``ip route`` and of keepalived's
``virtual_routes``. So are rules, which are in a module of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, ip_network
from typing import TypeAlias

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.routes import syntax
from vrrpkit.routes.rule import Rule, parse_rules
from vrrpkit.routes.values import MAIN, U32, IPNetwork, check_device, network, table
from vrrpkit.validate import flag, listed, whole_number
from vrrpkit.values import SCOPES, IPAddress, parse_address

__all__ = ["Entry", "NextHop", "Route", "Rule", "parse_routes", "parse_rules"]

TYPES = ("unicast", "blackhole", "unreachable", "prohibit")

DEFAULT_METRIC = {4: 0, 6: 1024}
"""What the kernel takes for a metric that is not given."""

_EITHER = IPv4Network("0.0.0.0/0")
"""Stands for ``default``, by its identity, until the family is known."""


def _destination(value: str | IPNetwork) -> IPNetwork:
    if value == "default":
        return _EITHER
    return network(value, "destination")


def _via(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "via")


def _src(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "src")


def _check_hop(via: IPAddress | None, dev: str | None, onlink: bool, family: int) -> None:
    check_device(dev, "dev")
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
    :param track: a router is in FAULT while the interface that ``dev`` names, or all those of the
        nexthops, are down or missing (``no_track`` in text is ``track=False``).
    :raises ConfigError: a value, or a combination, is unusable.
    """

    destination: IPNetwork = attrs.field(converter=_destination)
    via: IPAddress | None = attrs.field(default=None, kw_only=True, converter=_via)
    dev: str | None = attrs.field(default=None, kw_only=True)
    src: IPAddress | None = attrs.field(default=None, kw_only=True, converter=_src)
    table: int = attrs.field(default=MAIN, kw_only=True, converter=table)
    metric: int | None = attrs.field(default=None, kw_only=True)
    scope: str | None = attrs.field(default=None, kw_only=True)
    onlink: bool = attrs.field(default=False, kw_only=True)
    mtu: int | None = attrs.field(default=None, kw_only=True)
    type: str = attrs.field(default="unicast", kw_only=True)
    nexthops: tuple[NextHop, ...] = attrs.field(default=(), kw_only=True, converter=_hops)
    track: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.destination is _EITHER:
            given = (self.via, self.src, *(hop.via for hop in self.nexthops))
            six = any(isinstance(address, IPv6Address) for address in given)
            object.__setattr__(self, "destination", ip_network("::/0" if six else "0.0.0.0/0"))
        flag("track", self.track)
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
        if not self.track:
            parts.append("no_track")
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
        fields, hops = syntax.read_route(value)
        with syntax.said_of(value):
            return cls(**fields, nexthops=[NextHop(**hop) for hop in hops])


Entry: TypeAlias = Route | Rule


def parse_routes(values: Iterable[str | Route]) -> tuple[Route, ...]:
    """Read a list of routes.

    :raises ConfigError: one is unusable, or two are one and the same.
    """
    routes = tuple(Route.of(value) for value in listed("routes", values))
    seen: dict[tuple[object, ...], Route] = {}
    for route in routes:
        other = seen.setdefault(route.identity, route)
        if other is not route:
            raise ConfigError(
                f"the routes '{other}' and '{route}' have the same destination, table and metric; "
                "give one another metric, or write one route with several nexthop"
            )
    return routes
