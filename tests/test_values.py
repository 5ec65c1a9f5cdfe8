"""Addresses, peers and announcements: what is understood, and what is refused with which advice."""

from __future__ import annotations

import math
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from typing import Any, get_args

import attrs
import pytest

from vrrpkit import (
    BFDSession,
    MemoryBus,
    MemoryTable,
    RealServer,
    SyncGroup,
    TCPChecker,
    TrackFile,
    VirtualServer,
    VRRPInstance,
)
from vrrpkit.errors import ConfigError
from vrrpkit.values import VIP, Announcements, Peer, Record, State, parse_address
from vrrpkit.vrrp.protocol.effects import Effect
from vrrpkit.vrrp.protocol.events import RouterEvent
from vrrpkit.vrrp.protocol.inputs import Input


def test_states_in_words() -> None:
    assert [str(state) for state in State] == ["INIT", "BACKUP", "MASTER", "FAULT"]


@pytest.mark.parametrize(
    ("value", "text", "family", "prefix"),
    [
        ("192.0.2.10/24", "192.0.2.10/24", 4, 24),
        ("192.0.2.10", "192.0.2.10/32", 4, 32),
        ("192.0.2.10/255.255.255.0", "192.0.2.10/24", 4, 24),
        ("2001:db8::10/64", "2001:db8::10/64", 6, 64),
        ("fe80::10", "fe80::10/128", 6, 128),
        (ip_address("192.0.2.10"), "192.0.2.10/32", 4, 32),
        (ip_interface("192.0.2.10/24"), "192.0.2.10/24", 4, 24),
        (VIP("192.0.2.10/24"), "192.0.2.10/24", 4, 24),
    ],
)
def test_vips(value: Any, text: str, family: int, prefix: int) -> None:
    vip = VIP.of(value)
    assert (str(vip), vip.family, vip.prefix) == (text, family, prefix)
    assert vip.address == ip_interface(text).ip


def test_a_vip_that_was_made_is_kept() -> None:
    vip = VIP("192.0.2.10/24", dev="eth1", label="eth1:v", scope="link", broadcast="192.0.2.255")
    assert VIP.of(vip) is vip
    assert vip.broadcast == ip_address("192.0.2.255")
    assert VIP("192.0.2.1", peer="192.0.2.2").peer == ip_address("192.0.2.2")
    assert VIP("fe80::1", preferred_lifetime=math.inf).preferred_lifetime == math.inf


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ("192.0.2.300/24", {}, "'192.0.2.300/24' is not of the form 'ADDRESS/PREFIX'"),
        ("192.0.2.1/33", {}, "not of the form"),
        ("", {}, "not of the form"),
        ("224.0.0.18", {}, "must be a unicast address"),
        ("0.0.0.0", {}, "must be a unicast address"),
        ("::", {}, "must be a unicast address"),
        ("fe80::1%eth0/64", {}, "leave out the part after '%'"),
        ("fe80::1", {"label": "eth0:1"}, "labels for IPv4 only; leave it out"),
        ("192.0.2.1", {"label": "a" * 16}, "must have 1 to 15 octets; shorten it"),
        ("192.0.2.1", {"label": ""}, "must have 1 to 15 octets"),
        ("192.0.2.1", {"label": "ä" * 8}, "must have 1 to 15 octets"),
        ("fe80::1", {"broadcast": "192.0.2.255"}, "only IPv4 has broadcast"),
        ("192.0.2.1", {"broadcast": "fe80::1"}, "only IPv4 has broadcast"),
        ("192.0.2.1", {"broadcast": "all"}, "'all' is no IPv4 or IPv6 address"),
        ("192.0.2.1", {"scope": "galaxy"}, "must be one of global, site, link, host"),
        ("192.0.2.1", {"peer": "fe80::1"}, "same address family"),
        ("192.0.2.1", {"preferred_lifetime": -1}, "must be 0 seconds or more"),
        ("192.0.2.1", {"preferred_lifetime": math.nan}, "must be 0 seconds or more"),
    ],
)
def test_bad_vips(value: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VIP(value, **options)


def test_addresses() -> None:
    address = ip_address("192.0.2.1")
    assert parse_address("192.0.2.1", "source") == parse_address(address, "source") == address
    with pytest.raises(ConfigError, match="source 'host' is no IPv4 or IPv6 address; write it as"):
        parse_address("host", "source")
    for zoned in ("fe80::1%eth0", ip_address("fe80::1%eth0")):
        with pytest.raises(ConfigError, match="source 'fe80::1%eth0' carries a zone"):
            parse_address(zoned, "source")


def test_peers() -> None:
    peer = Peer("192.0.2.2", min_ttl=254)
    assert Peer.of(peer) is peer
    assert (peer.address, peer.min_ttl, peer.max_ttl) == (ip_address("192.0.2.2"), 254, 255)
    assert Peer.of("fe80::2") == Peer.of(ip_address("fe80::2")) == Peer("fe80::2")


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("nobody", {}, "peer 'nobody' is no IPv4"),
        ("224.0.0.18", {}, "must be a unicast address; for a group use group="),
        ("::", {}, "must be a unicast address"),
        ("192.0.2.2", {"min_ttl": 0}, "min_ttl 0 must be a whole number from 1 to 255"),
        ("192.0.2.2", {"max_ttl": 256}, "max_ttl 256 must be"),
        ("192.0.2.2", {"min_ttl": 3, "max_ttl": 2}, "min_ttl 3 is above max_ttl 2"),
    ],
)
def test_bad_peers(address: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Peer(address, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeat": 0}, "repeat 0 must be a whole number from 1 to 60"),
        ({"repeat": 61}, "repeat 61"),
        ({"refresh_repeat": 1.5}, "refresh_repeat 1.5"),
        ({"delay": -1}, "delay -1 must be 0 to 86400 seconds"),
        ({"refresh": 86401}, "refresh 86401"),
        ({"interval": math.nan}, "interval nan"),
    ],
)
def test_bad_announcements(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Announcements(**options)


def test_announcements_of_keepalived() -> None:
    usual = Announcements()
    assert (usual.repeat, usual.delay, usual.refresh, usual.interval) == (5, 5, 0, 0)


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[2J", "a\u2028b", "\x7f", "a\x00"])
def test_names_with_control_characters_are_refused_with_advice(name: str) -> None:
    bus, table = MemoryBus(), MemoryTable()
    one: dict[str, Any] = {"vrid": 1, "vips": ["192.0.2.10/24"]}
    members = [VRRPInstance(f"r{n}", bus.interface(f"192.0.2.{n}"), **one) for n in (1, 2)]
    makers: list[Callable[[], object]] = [
        lambda: VRRPInstance(name, bus.interface("192.0.2.1"), **one),
        lambda: SyncGroup(name, members),
        lambda: VirtualServer(
            "192.0.2.10:80", servers=["10.0.0.1:80"], name=name, check=TCPChecker(), table=table
        ),
        lambda: RealServer("10.0.0.1:80", name=name),
        lambda: BFDSession("192.0.2.2", name=name),
        lambda: TrackFile("/run/x", name=name),
        lambda: VIP("192.0.2.10/24", label=name),
        lambda: VIP("192.0.2.10/24", dev=name),
    ]
    for make in makers:
        with pytest.raises(ConfigError, match="has control characters, or a line end, in it"):
            make()


@attrs.frozen(eq=False, repr=False)
class Point(Record):
    x: int
    y: int = attrs.field(default=0, eq=False)
    z: str = attrs.field(default="", repr=False)


@attrs.frozen(eq=False, repr=False)
class Spot(Record):
    x: int


def test_records_compare_and_show_themselves_as_attrs_would_have_them() -> None:
    assert Point(1) == Point(1, 5) and hash(Point(1)) == hash(Point(1, 5))
    assert Point(1) != Point(2) and Point(1) != Point(1, z="more")
    # Not by their values alone: an event is one of a class.
    assert Spot(1) != Point(1) and Spot(1) != (1,) and hash(Spot(1)) != hash(Point(1))
    assert len({Point(1), Point(1, 5), Point(2)}) == 2
    assert repr(Point(1, 2, "hidden")) == "Point(x=1, y=2)"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]


def test_what_a_router_hears_does_and_tells_is_compared_by_one_method() -> None:
    """A method of its own for each class is compiled at each start of a program."""
    kinds = [*get_args(Input), *get_args(Effect), *get_args(RouterEvent)]
    assert len(kinds) > 30
    assert [kind for kind in kinds if {"__eq__", "__hash__", "__repr__"} & vars(kind).keys()] == []
