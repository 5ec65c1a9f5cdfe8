"""What a BACKUP knows of the master: the preemption delay of a member of a sync group."""

from __future__ import annotations

import pytest

from builders import advert, machine_config
from vrrpkit.vrrp.following import Following

OURS = 100
DELAY = 10.0


def ripe() -> Following:
    """A member whose delay was served, and whose group did not let it be MASTER."""
    following = Following(machine_config(preempt_delay=DELAY))
    following.wait(3.6)
    for now in (1.0, 2.0, 3.0):
        assert following.heard(advert(50, now), OURS, preempting=True)
    assert following.delaying
    following.ask_again(1.0 + DELAY + 3.6)
    return following


def test_a_delay_that_was_served_is_not_served_again() -> None:
    following = ripe()
    assert not following.heard(advert(50, 12.0), OURS, preempting=True)
    assert (following.replacing, following.delaying) == (True, False)


def test_a_better_master_in_between_starts_it_again() -> None:
    following = ripe()
    assert following.heard(advert(200, 12.0), OURS, preempting=True)
    assert following.heard(advert(50, 13.0), OURS, preempting=True), "followed, for a while"
    assert following.delaying
    assert following.due == pytest.approx(13.0 + 3.0 + 156 / 256)
    for second in range(1, 10):
        assert following.heard(advert(50, 13.0 + second), OURS, preempting=True)
    assert following.due == 13.0 + DELAY
    assert not following.heard(advert(50, 13.0 + DELAY), OURS, preempting=True)


def test_a_new_wait_starts_it_again() -> None:
    following = ripe()
    following.wait(20.0)
    assert following.heard(advert(50, 13.0), OURS, preempting=True)
    assert following.delaying
