"""What a BACKUP knows of the master: the preemption delay of a member of a sync group."""

from __future__ import annotations

import pytest

from builders import advert, machine_config
from vrrpkit.vrrp.protocol.backup import BackupState

OURS = 100
DELAY = 10.0


def ripe() -> BackupState:
    """A member whose delay was served, and whose group did not let it be MASTER."""
    backup = BackupState(machine_config(preempt_delay=DELAY))
    backup.wait(3.6)
    for now in (1.0, 2.0, 3.0):
        assert backup.heard(advert(50, now), OURS, preempting=True)
    assert backup.delaying
    backup.ask_again(1.0 + DELAY + 3.6)
    return backup


def test_a_delay_that_was_served_is_not_served_again() -> None:
    backup = ripe()
    assert not backup.heard(advert(50, 12.0), OURS, preempting=True)
    assert (backup.replacing, backup.delaying) == (True, False)


def test_a_better_master_in_between_starts_it_again() -> None:
    backup = ripe()
    assert backup.heard(advert(200, 12.0), OURS, preempting=True)
    assert backup.heard(advert(50, 13.0), OURS, preempting=True), "followed, for a while"
    assert backup.delaying
    assert backup.due == pytest.approx(13.0 + 3.0 + 156 / 256)
    for second in range(1, 10):
        assert backup.heard(advert(50, 13.0 + second), OURS, preempting=True)
    assert backup.due == 13.0 + DELAY
    assert not backup.heard(advert(50, 13.0 + DELAY), OURS, preempting=True)


def test_a_new_wait_starts_it_again() -> None:
    backup = ripe()
    backup.wait(20.0)
    assert backup.heard(advert(50, 13.0), OURS, preempting=True)
    assert backup.delaying
