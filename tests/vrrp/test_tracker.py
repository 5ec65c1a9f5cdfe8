"""What trackers do to priorities and faults."""

from __future__ import annotations

import attrs
import pytest

from vrrpkit import ConfigError
from vrrpkit.vrrp.tracker import (
    Signal,
    Tally,
    Tracker,
    check,
    effective_priority,
    too_small,
)


def share(signal: Signal, weight: int, *, reverse: bool = False) -> tuple[int, bool]:
    tally = Tally([Tracker(weight=weight, reverse=reverse, name="t")])
    tally.set(0, signal)
    return tally.weight, bool(tally.faults)


@pytest.mark.parametrize(
    ("signal", "weight", "reverse", "expected"),
    [
        # Not known yet: nothing is added, and without a weight it is a fault.
        (None, 10, False, (0, False)),
        (None, -10, False, (0, False)),
        (None, 0, False, (0, True)),
        (None, 0, True, (0, True)),
        (True, 10, False, (10, False)),
        (False, 10, False, (0, False)),
        (True, -10, False, (0, False)),
        (False, -10, False, (-10, False)),
        (True, 0, False, (0, False)),
        (False, 0, False, (0, True)),
        # reverse changes the sign, and which signal is the fault.
        (True, 10, True, (-10, False)),
        (False, 10, True, (0, False)),
        (False, -10, True, (10, False)),
        (True, -10, True, (0, False)),
        (True, 0, True, (0, True)),
        (False, 0, True, (0, False)),
        # Numbers are multiplied.
        (3, 10, False, (30, False)),
        (3, 10, True, (-30, False)),
        (-3, 10, False, (-30, False)),
        (100, 100, False, (253, False)),
        (-253, 1, False, (-253, False)),
        (-254, 1, False, (-253, True)),
        (254, 1, True, (-253, True)),
        (0, 0, False, (0, False)),
        (1, 0, False, (0, True)),
        (-1, 0, False, (0, True)),
        (0, 0, True, (0, True)),
        (5, 0, True, (0, False)),
    ],
)
def test_share(signal: Signal, weight: int, reverse: bool, expected: tuple[int, bool]) -> None:
    assert share(signal, weight, reverse=reverse) == expected


def test_a_tally_adds_up_and_names_the_unfit() -> None:
    tally = Tally([Tracker(weight=10, name="a"), Tracker(weight=-30, name="b"), Tracker(name="c")])
    assert (tally.weight, tally.faults) == (0, {"c"})
    assert tally.set(0, True)
    assert not tally.set(0, True)
    assert tally.set(1, False)
    assert tally.set(2, True)
    assert (tally.weight, tally.faults) == (-20, frozenset())
    # 1 is not True: one is a number to multiply, the other says fit.
    assert tally.set(0, 1)
    assert tally.signals == {"a": 1, "b": False, "c": True}


@pytest.mark.parametrize(
    ("base", "weight", "effective"),
    [(100, 20, 120), (100, -99, 1), (100, -200, 1), (100, 200, 254), (255, -253, 255)],
)
def test_effective_priority_stays_in_range_and_an_owner_never_moves(
    base: int, weight: int, effective: int
) -> None:
    assert effective_priority(base, weight) == effective


def test_weights_beyond_253_can_never_matter() -> None:
    assert Tracker(weight=253).weight == 253
    assert Tracker(weight=-253).weight == -253
    for weight in (254, -254, 1.5, True):
        with pytest.raises(ConfigError, match="weight"):
            Tracker(weight=weight)  # type: ignore[arg-type]


def test_contradictions_are_refused() -> None:
    check([Tracker(), Tracker(name="other")], 100, "web")
    check([Tracker()], 255, "web")
    with pytest.raises(ConfigError, match="two trackers called 'x'"):
        check([Tracker(name="x"), Tracker(name="x")], 100, "web")
    with pytest.raises(ConfigError, match="can never matter"):
        check([Tracker(weight=-10)], 255, "web")


def test_a_weight_must_bridge_the_gap() -> None:
    small, enough, fault = Tracker(weight=-50), Tracker(weight=-51), Tracker()
    assert too_small([small, enough, fault], 150, 100) == [(small, 51)]
    assert too_small([small], 100, 150) == []
    assert too_small([small], 100, 100) == []


def test_labels() -> None:
    @attrs.frozen(kw_only=True)
    class TrackTemperature(Tracker):
        pass

    assert TrackTemperature().label == "temperature"
    assert TrackTemperature(name="cpu").label == "cpu"
    with pytest.raises(NotImplementedError, match="TrackTemperature"):
        TrackTemperature().signals()
