"""What every checker is made of."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import attrs
import pytest

from checks.scripts import (
    FAIL,
    HANG,
    PASS,
    TARGET,
    Answer,
    ByCallback,
    Plain,
    Reaching,
    Script,
)
from vrrpkit.checks.base import CallbackChecker, Checker, Done, NetworkChecker, Weight
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.testing import virtual_time

PORTLESS = Target(ip_address("2001:db8::1"))


@pytest.mark.parametrize("value", [0, 1, 2**31 - 1])
def test_weight_takes(value: int) -> None:
    assert Weight(value).value == value


@pytest.mark.parametrize("value", [-1, 2**31, 1.5, True, "5", None])
def test_weight_refuses(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"weight .* must be a whole number from 0 to 2147483647"):
        Weight(value)


def test_a_relative_weight_may_be_negative() -> None:
    assert Weight(-(2**31 - 1), relative=True).value < 0
    with pytest.raises(ConfigError, match="-2147483648"):
        Weight(-(2**31), relative=True)


@pytest.mark.parametrize(
    ("name", "low", "below", "high", "above"),
    [
        ("interval", 0.01, 0.009, 86400, 86401),
        ("timeout", 0.001, 0, 86400, 86401),
        ("deadline", 0.001, 0, 86400, 86401),
        ("delay_before_retry", 0, -1, 86400, 86401),
        ("warmup", 0, -1, 86400, 86401),
        ("jitter", 0, -0.1, 1, 1.1),
        ("retry", 0, -1, 1_000_000, 1_000_001),
        ("rise", 1, 0, 1_000_000, 1_000_001),
        ("fall", 1, 0, 1_000_000, 1_000_001),
    ],
)
def test_schedule(name: str, low: float, below: float, high: float, above: float) -> None:
    for good in (low, high):
        assert getattr(Plain(**{name: good}), name) == good
    for bad in (below, above, math.nan, "1", True, [1]):
        with pytest.raises(ConfigError, match=f"Plain: {name} .* must be"):
            Plain(**{name: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["deadline", "warmup"])
def test_what_may_be_left_out(name: str) -> None:
    assert getattr(Plain(**{name: None}), name) is None


def test_a_checker_without_a_check_of_its_own_says_so() -> None:
    @attrs.frozen(kw_only=True)
    class EmptyChecker(Checker):
        pass

    with pytest.raises(ConfigError, match="EmptyChecker has no check"):
        EmptyChecker()
    with pytest.raises(NotImplementedError, match="Plain has no check"):
        asyncio.run(Checker.check(Plain(), TARGET))


def test_is_called_by_what_it_checks() -> None:
    @attrs.frozen(kw_only=True)
    class RedisChecker(Checker):
        async def check(self, target: Target) -> None:
            return None

    assert str(RedisChecker()) == "Redis"
    assert str(Plain()) == "Plain"


@pytest.mark.parametrize("kind", [Checker, NetworkChecker])
def test_one_that_checks_nothing_is_refused(kind: type[Checker]) -> None:
    with pytest.raises(
        ConfigError, match=rf"{kind.__name__} has no check\(\) of its own, so checks"
    ):
        kind()

    class Empty(kind):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(ConfigError, match="Empty has no check"):
        Empty()


def test_checks_any_target_and_calls_nobody_by_default() -> None:
    Plain().validate(PORTLESS)
    assert Plain().attach(TARGET, lambda: None) is None
    assert str(Plain().endpoint(TARGET)) == "192.0.2.1:80"


# --- network ------------------------------------------------------------------------------------


def test_goes_to_the_server_unless_it_is_told_a_way() -> None:
    assert str(Reaching().endpoint(TARGET)) == "192.0.2.1:80"
    endpoint = Reaching(
        address="198.51.100.7",  # type: ignore[arg-type]
        port=8080,
        source="198.51.100.1",  # type: ignore[arg-type]
        source_port=99,
        interface="eth1",
        fwmark=7,
    ).endpoint(TARGET)
    assert (str(endpoint), str(endpoint.source), endpoint.source_port) == (
        "198.51.100.7:8080",
        "198.51.100.1",
        99,
    )
    assert (endpoint.interface, endpoint.fwmark) == ("eth1", 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "nowhere"}, "address 'nowhere' is no IPv4 or IPv6 address"),
        ({"source": "::g"}, "source '::g' is no IPv4 or IPv6 address"),
        ({"address": "fe80::1%eth0"}, "carries a zone; .* name the link in interface="),
        ({"source": ip_address("fe80::1%eth0")}, "source 'fe80::1%eth0' carries a zone"),
        ({"interface": ""}, "interface '' must be the name of a network interface"),
        ({"interface": "a23456789012345\u00e4"}, "interface .* must be the name"),
        ({"interface": "a234567890123456"}, "interface .* must be the name"),
        ({"interface": "eth\0"}, "interface .* must be the name"),
        ({"interface": 5}, "interface 5 must be the name"),
        ({"port": 0}, "port 0 must be"),
        ({"port": 65536}, "port 65536 must be"),
        ({"source_port": 0}, "source_port 0 must be"),
        ({"source_port": 65536}, "source_port 65536 must be"),
        ({"fwmark": -1}, "fwmark -1 must be"),
        ({"fwmark": 2**32}, "fwmark 4294967296 must be"),
    ],
)
def test_refuses_a_way_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Reaching(**options)


def test_takes_both_ends_of_each_range() -> None:
    for name in ("a", "a23456789012345"):
        assert Reaching(interface=name).interface == name
    for port in (1, 65535):
        assert Reaching(port=port, source_port=port).port == port
    for mark in (0, 2**32 - 1):
        assert Reaching(fwmark=mark).fwmark == mark


def test_needs_a_port_from_somewhere() -> None:
    with pytest.raises(ConfigError, match="there is no port to connect to; give the checker port="):
        Reaching().validate(PORTLESS)
    with pytest.raises(ConfigError, match="no port"):
        Reaching().validate(Target(PORTLESS.address, 0))
    Reaching(port=80).validate(PORTLESS)
    Reaching().validate(TARGET)


def test_source_and_destination_are_of_one_family() -> None:
    checker = Reaching(source="192.0.2.9", port=80)  # type: ignore[arg-type]
    checker.validate(TARGET)
    with pytest.raises(ConfigError, match="different address families"):
        checker.validate(PORTLESS)


# --- direct -------------------------------------------------------------------------------------


@virtual_time()
async def test_a_direct_checker_can_be_awaited_too() -> None:
    weight = Weight(5)
    script = Script([PASS, Answer(weight, 0.5), FAIL, Answer(CheckFailed("late"), 0.5)])
    checker = ByCallback(script=script)
    assert await checker.check(TARGET) is None
    assert await checker.check(TARGET) == weight
    with pytest.raises(CheckFailed, match="refused"):
        await checker.check(TARGET)
    with pytest.raises(CheckFailed, match="late"):
        await checker.check(TARGET)
    assert script.abandoned == []


@virtual_time()
async def test_a_direct_checker_that_is_cancelled_abandons_its_attempt() -> None:
    script = Script([HANG])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await ByCallback(script=script).check(TARGET)
    assert script.abandoned == [2]


@virtual_time()
async def test_a_direct_checker_may_report_twice_to_no_effect() -> None:
    @attrs.frozen(kw_only=True)
    class Twice(CallbackChecker):
        def begin(
            self, target: Target, report: Done, loop: asyncio.AbstractEventLoop | None = None
        ) -> Callable[[], None]:
            report(None)
            report(CheckFailed("too late"))
            return lambda: None

    assert await Twice().check(TARGET) is None


def test_begin_is_for_subclasses() -> None:
    with pytest.raises(NotImplementedError):
        CallbackChecker().begin(TARGET, lambda outcome: None)
