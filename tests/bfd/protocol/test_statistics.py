"""Reports at a bounded rate."""

from __future__ import annotations

from vrrpkit.bfd.protocol.statistics import Rate


def test_one_report_a_second_for_each_key_stands_for_all() -> None:
    rate = Rate()
    assert [rate.report("ttl", now) for now in (0, 0.5, 0.9, 1.0, 1.5, 2.1)] == [1, 0, 0, 3, 0, 2]
    assert rate.report("source", 0.5) == 1
