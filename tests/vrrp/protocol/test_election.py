"""Who wins, and how skew follows from priority."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import assume, given, strategies as st

from strategies import addresses, quick
from vrrpkit.vrrp.protocol.election import advert_slack, advert_step, skew_time, wins

US = ip_address("192.0.2.9")


@pytest.mark.parametrize(
    ("version", "priority", "interval", "skew"),
    [
        (3, 100, 1.0, 0.609375),
        (3, 150, 1.0, 0.4140625),
        (3, 254, 1.0, 0.0078125),
        (3, 255, 0.01, 0.0000390625),
        (3, 1, 40.95, 40.7900390625),
        (2, 100, 1.0, 0.609375),
        (2, 100, 10.0, 0.609375),
    ],
)
def test_skew(version: int, priority: int, interval: float, skew: float) -> None:
    assert skew_time(version, priority, interval) == pytest.approx(skew, abs=1e-12)


@pytest.mark.parametrize(
    ("priority", "source", "expected"),
    [
        (101, "192.0.2.1", True),
        (99, "192.0.2.200", False),
        (100, "192.0.2.10", True),
        (100, "192.0.2.8", False),
        (100, "192.0.2.9", False),
        (100, "200.0.0.1", True),
    ],
)
def test_who_wins(priority: int, source: str, expected: bool) -> None:
    assert wins(priority, ip_address(source), 100, US) is expected


def test_a_tie_without_an_address_of_our_own() -> None:
    assert not wins(100, US, 100, None)


@quick
@given(st.data())
def test_exactly_one_of_two_wins(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from([4, 6]))
    one, other = data.draw(addresses(family)), data.draw(addresses(family))
    first, second = data.draw(st.integers(1, 255)), data.draw(st.integers(1, 255))
    assume(one != other)
    assert wins(first, one, second, other) is not wins(second, other, first, one)


@pytest.mark.parametrize(("interval", "slack"), [(1.0, 0.005), (0.1, 0.005), (0.01, 0.0005)])
def test_slack(interval: float, slack: float) -> None:
    assert advert_slack(interval) == pytest.approx(slack)


@pytest.mark.parametrize(
    ("interval", "step"), [(0.01, 0.01), (0.05, 0.05), (0.1, 0.05), (0.13, 0.13), (1.0, 0.05)]
)
def test_adverts_gather_at_multiples_of_a_step(interval: float, step: float) -> None:
    assert advert_step(interval) == step
