"""Retry, rise and fall."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from strategies import quick
from vrrpkit.checks.model.health import Health, HealthStep

RETRY, SAME, CHANGED = HealthStep.RETRY, HealthStep.SAME, HealthStep.CHANGED


def run(health: Health, attempts: str) -> list[HealthStep]:
    return [health.attempt(attempt == "+") for attempt in attempts]


def test_starts_up_and_the_first_failed_attempt_is_final() -> None:
    health = Health(retry=3, fall=3)
    assert health.up
    assert run(health, "-") == [CHANGED]
    assert not health.up


def test_a_first_pass_ends_the_trust() -> None:
    health = Health(retry=1, fall=2)
    assert run(health, "+----") == [SAME, RETRY, SAME, RETRY, CHANGED]
    assert not health.up


def test_alpha_starts_down() -> None:
    health = Health(retry=1, alpha=True)
    assert not health.up
    assert run(health, "--+") == [SAME, SAME, CHANGED]
    assert health.up


@pytest.mark.parametrize("retry", [0, 1, 3])
def test_retry_counts_attempts_of_one_check(retry: int) -> None:
    health = Health(retry=retry)
    health.attempt(True)
    assert run(health, "-" * (retry + 1)) == [RETRY] * retry + [CHANGED]


def test_a_server_that_is_down_is_asked_once_in_each_check() -> None:
    health = Health(retry=3, rise=2)
    assert run(health, "--+-+") == [CHANGED, SAME, SAME, SAME, SAME]
    assert run(health, "+----") == [CHANGED, RETRY, RETRY, RETRY, CHANGED]


def test_an_attempt_that_passes_makes_the_check_pass() -> None:
    health = Health(retry=2)
    health.attempt(True)
    assert run(health, "--+--+") == [RETRY, RETRY, SAME, RETRY, RETRY, SAME]


@pytest.mark.parametrize("fall", [1, 2, 3])
def test_fall_counts_checks_in_a_row(fall: int) -> None:
    health = Health(fall=fall)
    health.attempt(True)
    run(health, "-" * (fall - 1) + "+")
    assert health.up
    assert run(health, "-" * fall) == [SAME] * (fall - 1) + [CHANGED]


@pytest.mark.parametrize("rise", [1, 2, 3])
def test_rise_counts_checks_in_a_row(rise: int) -> None:
    health = Health(rise=rise, alpha=True)
    run(health, "+" * (rise - 1) + "-")
    assert not health.up
    health = Health(rise=rise, alpha=True)
    assert run(health, "+" * rise) == [SAME] * (rise - 1) + [CHANGED]
    assert health.up


def test_without_time_for_another_attempt_a_failed_one_is_the_last() -> None:
    health = Health(retry=3)
    health.attempt(True)
    assert health.attempt(False) is RETRY
    assert health.attempt(False, last=True) is CHANGED
    # Once it is up again, the next check has all its attempts.
    assert run(health, "+----") == [CHANGED, RETRY, RETRY, RETRY, CHANGED]


def test_an_abandoned_check_leaves_no_failed_attempts_behind() -> None:
    health = Health(retry=1)
    health.attempt(True)
    assert health.attempt(False) is RETRY
    health.restart()
    assert health.attempt(False) is RETRY
    assert health.up


@quick
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
    st.text("+-", max_size=60),
)
def test_agrees_with_the_rules_read_from_the_whole_history(
    rise: int, fall: int, retry: int, alpha: bool, attempts: str
) -> None:
    health = Health(rise=rise, fall=fall, retry=retry, alpha=alpha)
    checks: list[bool] = []
    open_failures = 0
    up = not alpha
    for attempt in attempts:
        step = health.attempt(attempt == "+")
        first_of_all = not alpha and not checks
        if attempt == "+":
            checks.append(True)
            open_failures = 0
        elif first_of_all or not up or open_failures == retry:
            checks.append(False)
            open_failures = 0
        else:
            open_failures += 1
            assert step is RETRY
            continue
        before = up
        if first_of_all:
            up = checks[-1]
        elif len(checks) >= rise and all(checks[-rise:]):
            up = True
        elif len(checks) >= fall and not any(checks[-fall:]):
            up = False
        assert (step, health.up) == (CHANGED if up is not before else SAME, up)
