"""What a session may be given."""

from __future__ import annotations

import inspect
import math
from ipaddress import ip_address
from typing import Any

import attrs
import pytest

from vrrpkit import ConfigError, MemoryBus
from vrrpkit.bfd.config import BFDSessionConfig, BFDSettings
from vrrpkit.bfd.session import BFDSession
from vrrpkit.checks.bfd import BFDChecker


def test_defaults() -> None:
    session = BFDSession("192.0.2.2")
    options = session.config
    assert (session.name, session.neighbor) == ("192.0.2.2", ip_address("192.0.2.2"))
    assert (options.port, options.least_ttl) == (3784, 255)
    assert (options.min_tx, options.min_rx, options.idle_tx, options.multiplier) == (0.1, 0.1, 1, 5)


def test_multihop() -> None:
    options = BFDSession("192.0.2.2", multihop=True, max_hops=3).config
    assert (options.port, options.least_ttl) == (4784, 252)
    options = BFDSession("192.0.2.2", multihop=True, max_hops=3, ttl=64).config
    assert options.least_ttl == 61
    assert BFDSession("192.0.2.2", multihop=True, max_hops=255, ttl=64).config.least_ttl == 0


@pytest.mark.parametrize(
    ("neighbor", "options", "message"),
    [
        ("here", {}, "neighbor 'here' is no IPv4 or IPv6 address"),
        ("fe80::1%eth0", {"interface": "eth0"}, "carries a zone"),
        ("224.0.0.1", {}, "must be a unicast address"),
        ("::", {}, "must be a unicast address"),
        ("fe80::1", {}, "a link-local address needs interface="),
        ("192.0.2.2", {"source": "2001:db8::1"}, "of the same address family"),
        ("192.0.2.2", {"source": "192.0.2.2"}, "are the same address"),
        ("192.0.2.2", {"source": "224.0.0.1"}, "source 224.0.0.1 must be a unicast address"),
        ("192.0.2.2", {"source": "me"}, "BFD source 'me'"),
        ("192.0.2.2", {"interface": ""}, "name of the interface is empty"),
        ("192.0.2.2", {"min_tx": 0.0009}, "BFD to 192.0.2.2: min_tx 0.0009 must be 0.001 to 60"),
        ("192.0.2.2", {"min_tx": 100}, r"looks like milliseconds.*write min_tx=0\.1"),
        ("192.0.2.2", {"min_tx": 10}, r"looks like milliseconds.*write min_tx=0\.01"),
        ("192.0.2.2", {"min_rx": 50}, r"looks like milliseconds.*write min_rx=0\.05"),
        ("192.0.2.2", {"min_tx": 10, "min_rx": 10}, r"looks like milliseconds"),
        ("192.0.2.2", {"idle_tx": 1000}, r"looks like milliseconds.*write idle_tx=1"),
        ("192.0.2.2", {"min_tx": 0.01, "min_rx": 60.1}, "min_rx 60.1 must be"),
        ("192.0.2.2", {"min_tx": 1e6}, "keepalived counts in ms"),
        ("192.0.2.2", {"name": "a\nb"}, "control characters.*write 'a b'"),
        ("192.0.2.2", {"min_rx": math.nan}, "min_rx"),
        ("192.0.2.2", {"min_rx": True}, "min_rx"),
        ("192.0.2.2", {"min_rx": "0.1"}, "min_rx"),
        ("192.0.2.2", {"idle_tx": 0.9}, "must not send faster than once a second"),
        ("192.0.2.2", {"multiplier": 0}, "multiplier 0 must be a whole number from 1 to 255"),
        ("192.0.2.2", {"multiplier": 256}, "multiplier"),
        ("192.0.2.2", {"interface": 5}, "interface 5 must be the name of one"),
        ("192.0.2.2", {"name": 5}, "name 5 must be text"),
        ("192.0.2.2", {"passive": 1}, "passive 1 must be True or False"),
        ("192.0.2.2", {"multihop": 1}, "multihop 1 must be True or False"),
        ("192.0.2.2", {"ttl": 64}, "must send with TTL 255"),
        ("192.0.2.2", {"ttl": 256}, "ttl 256 must be a whole number"),
        ("192.0.2.2", {"max_hops": 1}, "leave max_hops out, or set multihop=True"),
        ("192.0.2.2", {"multihop": True}, "multihop needs max_hops="),
        ("192.0.2.2", {"multihop": True, "max_hops": 256}, "max_hops 256"),
        ("192.0.2.2", {"multihop": True, "max_hops": -1}, "max_hops -1"),
        ("192.0.2.2", {"multihop": True, "max_hops": 1, "ttl": 0}, "ttl 0"),
    ],
)
def test_what_cannot_be_is_refused(neighbor: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BFDSession(neighbor, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"min_tx": 0.001, "min_rx": 60, "idle_tx": 60, "multiplier": 255},
        {"multihop": True, "max_hops": 0, "ttl": 1},
        {"interface": "eth0", "source": "192.0.2.1"},
    ],
)
def test_the_limits_themselves_will_do(options: dict[str, Any]) -> None:
    assert BFDSession("192.0.2.2", **options)


def test_an_interface_in_memory_is_in_no_namespace() -> None:
    with pytest.raises(ConfigError, match="netns goes with the real network"):
        BFDSession("192.0.2.2", interface=MemoryBus().interface("192.0.2.1"), netns="x")


def test_other_timers_are_checked_too() -> None:
    session = BFDSession("192.0.2.2")
    with pytest.raises(ConfigError, match="min_rx 0 must be"):
        session.set_timers(min_rx=0)


def test_a_description_makes_the_session_it_describes() -> None:
    config = BFDSessionConfig("192.0.2.2", min_tx=0.3, name="b", netns="blue")
    assert BFDSession.of(config).config == config
    assert BFDSession("192.0.2.2", min_tx=0.3, name="b", netns="blue").config == config
    assert attrs.evolve(config, netns=None).netns is None
    with pytest.raises(ConfigError, match=r"BFD to 192.0.2.2: multiplier 0 must be"):
        attrs.evolve(config, multiplier=0)


def test_the_constructor_shows_its_options() -> None:
    parameters = inspect.signature(BFDSession).parameters
    assert next(iter(parameters)) == "neighbor"
    described = inspect.signature(BFDSessionConfig).parameters
    assert set(parameters) - set(described) == {"random"}
    text = BFDSession.__init__.__doc__ or ""
    assert [name for name in parameters if f":param {name}:" not in text] == []


def test_the_options_are_written_once() -> None:
    settings = inspect.signature(BFDSettings).parameters
    for made in (BFDSession, BFDChecker):
        options = inspect.signature(made).parameters
        assert [name for name, option in settings.items() if options[name] != option] == []
