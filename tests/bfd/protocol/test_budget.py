"""A burst at once, a rate in the long run."""

from __future__ import annotations

from vrrpkit.bfd.protocol.budget import Budget


def test_a_burst_and_then_a_rate() -> None:
    budget = Budget(2.0, 3.0)
    assert [budget.take(1000.0) for _ in range(5)] == [True, True, True, False, False]
    assert [budget.take(1000.5) for _ in range(2)] == [True, False]
    assert sum(budget.take(1000.5 + number / 100) for number in range(1001)) == 20
    # What is not used does not grow beyond the burst.
    assert sum(budget.take(2000.0) for _ in range(9)) == 3
