"""What trackers do to priorities and faults."""

from __future__ import annotations

import attrs
import pytest

from vrrpkit import ConfigError
from vrrpkit.tracking.tracker import (
    Signal,
    Tracker,
    TrackerState,
    check,
    effective_priority,
    shortfalls,
)


def share(signal: Signal, weight: int, *, reverse: bool = False) -> tuple[int, bool]:
    tally = TrackerState([Tracker(weight=weight, reverse=reverse, name="t")])
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
    tally = TrackerState(
        [Tracker(weight=10, name="a"), Tracker(weight=-30, name="b"), Tracker(name="c")]
    )
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


def test_values_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="Tracker: reverse 1 must be True or False"):
        Tracker(reverse=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Tracker: name 1 must be text"):
        Tracker(name=1)  # type: ignore[arg-type]


def test_contradictions_are_refused() -> None:
    check([Tracker(), Tracker(name="other")], 100, "web")
    check([Tracker()], 255, "web")
    with pytest.raises(ConfigError, match="two trackers called 'x'"):
        check([Tracker(name="x"), Tracker(name="x")], 100, "web")
    with pytest.raises(ConfigError, match="can never matter"):
        check([Tracker(weight=-10)], 255, "web")


def short(base: int, other: int, *pairs: tuple[int, Signal]) -> list[tuple[int, int, bool]]:
    """Weight, what would be enough, and whether it only adds."""
    known = [(Tracker(weight=weight, name=str(weight)), signal) for weight, signal in pairs]
    found = shortfalls(known, base, other)
    return [(each.tracker.weight, each.enough, each.adds) for each in found]


def test_a_weight_must_bridge_the_gap() -> None:
    assert short(150, 100, (-50, True), (-51, True), (0, True)) == [(-50, 51, False)]
    # It need not be good now.
    assert short(150, 100, (-50, False)) == [(-50, 51, False)]
    # The others have the addresses anyway.
    assert short(100, 150, (-50, True)) == []
    assert short(100, 100, (-50, True)) == []


def test_a_weight_that_is_added_takes_nothing_off_the_configured_priority() -> None:
    assert short(100, 110, (60, True)) == []
    assert short(100, 90, (60, True)) == [(60, 11, True)]
    # Signs change with reverse.
    reverse = Tracker(weight=-60, reverse=True)
    assert [each.adds for each in shortfalls([(reverse, True)], 100, 90)] == [True]
    assert shortfalls([(Tracker(weight=60, reverse=True), False)], 100, 90) == []


def test_what_the_other_trackers_add_counts_as_well() -> None:
    assert short(100, 150, (80, True), (-20, True)) == [(-20, 31, False)]
    assert short(100, 150, (80, False), (-31, True)) == []
    # Both are below what the other one has when either fails.
    assert short(100, 150, (40, True), (40, True)) == []
    # What is above 254 is 254.
    assert short(250, 240, (250, True), (-253, True)) == [(250, 11, True), (-253, 261, False)]


def test_numbers_are_not_judged_and_neither_is_what_is_not_known() -> None:
    assert short(150, 100, (1, 0), (1, -60), (-20, None)) == []
    # But what they add now counts.
    assert short(150, 100, (1, -30), (-30, True)) == []
    assert short(150, 100, (1, 30), (-60, True)) == [(-60, 81, False)]


def test_labels() -> None:
    @attrs.frozen(kw_only=True)
    class TrackTemperature(Tracker):
        pass

    assert TrackTemperature().label == "temperature"
    assert TrackTemperature(name="cpu").label == "cpu"
    with pytest.raises(NotImplementedError, match="TrackTemperature"):
        TrackTemperature().signals()
