"""The counter rules of keepalived's scripts."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from vrrpkit.tracking.counter import Counter


def after(results: str, rise: int, fall: int, initially: bool | None = None) -> str:
    """What is shown after each result: + up, - down, ? not known."""
    counter = Counter(rise, fall, initially)
    shown = {True: "+", False: "-", None: "?"}
    told = [shown[counter.up]]
    for result in results:
        counter.count(result == "+")
        told.append(shown[counter.up])
    return "".join(told)


@pytest.mark.parametrize(
    ("results", "rise", "fall", "initially", "expected"),
    [
        # The first result decides, whatever rise and fall are.
        ("+", 3, 3, None, "?+"),
        ("-", 3, 3, None, "?-"),
        # init_fail: rise successes.
        ("+++", 3, 1, False, "---+"),
        ("++-+++", 3, 1, False, "------+"),
        # One success forgives all failures; fall in a row bring it down.
        ("+--+--", 1, 3, None, "?++++++"),
        ("+---", 1, 3, None, "?+++-"),
        # Down it takes rise successes in a row.
        ("-+-++", 2, 1, None, "?----+"),
        ("--", 1, 2, True, "++-"),
        ("-", 1, 1, True, "+-"),
    ],
)
def test_rules(results: str, rise: int, fall: int, initially: bool | None, expected: str) -> None:
    assert after(results, rise, fall, initially) == expected


@given(
    results=st.lists(st.booleans()),
    rise=st.integers(1, 4),
    fall=st.integers(1, 4),
    initially=st.sampled_from([None, True, False]),
)
def test_it_turns_only_after_a_row(
    results: list[bool], rise: int, fall: int, initially: bool | None
) -> None:
    counter = Counter(rise, fall, initially)
    up, row, last = initially, 0, None
    for number, result in enumerate(results):
        row = row + 1 if result is last else 1
        last = result
        counter.count(result)
        first = number == 0 and initially is None
        if first or row >= (rise if result else fall):
            up = result
        assert counter.up is up
