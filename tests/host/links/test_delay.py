from __future__ import annotations

import pytest

from vrrpkit.host.links.delay import LinkDelay


@pytest.mark.parametrize("up", [True, False])
def test_what_is_seen_first_counts_at_once(up: bool) -> None:
    delay = LinkDelay(5, 5)
    assert (delay.see(up, 100.0), delay.due) == (up, None)


@pytest.mark.parametrize("up", [True, False])
def test_without_delays_every_change_counts_at_once(up: bool) -> None:
    delay = LinkDelay(0, 0)
    delay.see(not up, 1.0)
    assert (delay.see(up, 2.0), delay.due) == (up, None)


@pytest.mark.parametrize(("up", "seconds"), [(True, 6.0), (False, 2.0)])
def test_a_change_counts_once_it_has_lasted(up: bool, seconds: float) -> None:
    delay = LinkDelay(6.0, 2.0)
    delay.see(not up, 0.0)
    assert (delay.see(up, 10.0), delay.due) == (not up, 10.0 + seconds)
    assert delay.see(up, 10.0 + seconds / 2) is not up
    assert (delay.see(up, 10.0 + seconds), delay.due) == (up, None)


def test_flapping_begins_anew() -> None:
    delay = LinkDelay(6.0, 0.0)
    delay.see(False, 0.0)
    delay.see(True, 1.0)
    assert (delay.see(False, 6.0), delay.due) == (False, None)
    assert (delay.see(True, 6.5), delay.due) == (False, 12.5)


def test_what_is_gone_is_down_at_once_and_returns_late() -> None:
    delay = LinkDelay(6.0, 100.0)
    delay.see(True, 0.0)
    assert (delay.see(False, 1.0, gone=True), delay.due) == (False, None)
    assert (delay.see(True, 2.0), delay.due) == (False, 8.0)
