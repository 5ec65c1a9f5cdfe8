"""Late wake-ups, adverts that were lost, and the fast path."""

from __future__ import annotations

from typing import Any

import pytest

from builders import advert, due, losing, mastering, run, started, told
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.inputs import AdvertsLost, Demote, Refreshed, TimerFired

SKEW = 0.609375
DOWN = 3 + SKEW
HIGHER = "192.0.2.3"


# --- late wake-ups


def test_a_master_that_stood_still_listens_first() -> None:
    machine = mastering()
    last = due(machine) - 1.0
    answers = run(machine, (last + 0.5, TimerFired()))
    assert answers == []
    now = last + 3.1
    answer = ["Stalled", "drop", "MASTER -> BACKUP: stalled"]
    assert told(machine.handle(TimerFired(), now)) == answer
    assert due(machine) == now + 1 + SKEW
    answers = run(machine, (now + 3, TimerFired()))
    assert answers[0] == (
        now + 1 + SKEW,
        ["advert 100", "take", "BACKUP -> MASTER: no-response"],
    )


@pytest.mark.parametrize(("late", "stalled"), [(3.0, False), (3.01, True)])
def test_from_when_a_master_is_late(late: float, stalled: bool) -> None:
    machine = started()
    machine.handle(TimerFired(), DOWN)
    answer = told(machine.handle(TimerFired(), DOWN + late))
    assert (answer[0] == "Stalled") is stalled


@pytest.mark.parametrize("profile", ["default", "keepalived"])
def test_a_late_owner_speaks_at_once(profile: str) -> None:
    answer = ["advert 255", "announce 5"]
    machine = started(priority=255, profile=profile)
    assert told(machine.handle(TimerFired(), 10.0)) == ["Stalled", *answer]
    assert due(machine) == 11.0
    heard = told(machine.handle(advert(50, 20.0), 20.0))
    assert heard == ["AnotherMaster", "Stalled", *answer]


def test_the_adverts_that_waited_decide_for_a_late_master() -> None:
    machine = mastering()
    now = due(machine) + 10.0
    answer = ["drop", "MASTER -> BACKUP: higher-priority"]
    assert told(machine.handle(advert(150, now - 0.1), now)) == answer
    assert machine.handle(TimerFired(), now) == []


@pytest.mark.parametrize(("priority", "more"), [(50, ["AnotherMaster"]), (0, [])])
def test_a_losing_advert_does_not_keep_a_late_master(priority: int, more: list[str]) -> None:
    machine = mastering(profile="keepalived")
    now = due(machine) + 10.0
    answer = told(machine.handle(advert(priority, now - 0.1), now))
    assert answer == [*more, "Stalled", "drop", "MASTER -> BACKUP: stalled"]


def test_a_backup_that_stood_still_listens_once_more() -> None:
    machine = started()
    now = DOWN + 1.1
    assert told(machine.handle(TimerFired(), now)) == ["Stalled"]
    assert machine.state is State.BACKUP
    assert due(machine) == now + 1 + SKEW
    assert told(machine.handle(TimerFired(), due(machine)))[-1] == "BACKUP -> MASTER: no-response"


def test_a_backup_that_is_a_little_late_takes_over() -> None:
    machine = started()
    assert told(machine.handle(TimerFired(), DOWN + 0.99))[0] == "advert 100"


def test_an_owner_in_backup_takes_over_however_late() -> None:
    machine = started(priority=255)
    machine.handle(advert(255, 0.5, source=HIGHER), 0.5)
    assert told(machine.handle(TimerFired(), 100.0))[0] == "advert 255"


def test_on_a_host_that_is_always_late_somebody_serves() -> None:
    machine = started(interval=0.01)
    moments = []
    while machine.state is State.BACKUP:
        moments.append(due(machine) + 0.02)
        machine.handle(TimerFired(), moments[-1])
    assert len(moments) == 2


def test_an_accepted_advert_renews_the_patience() -> None:
    machine = started()
    machine.handle(TimerFired(), DOWN + 5)
    assert not machine.refreshable
    at = DOWN + 5.5
    machine.handle(advert(150, at), at)
    assert machine.refreshable
    assert told(machine.handle(TimerFired(), at + DOWN + 5)) == ["Stalled"]


@pytest.mark.parametrize("profile", ["default", "keepalived"])
def test_a_preemption_that_was_overslept(profile: str) -> None:
    machine = started(priority=150, preempt_delay=4.0, profile=profile)
    run(machine, *losing(0.25, 3.25))
    now = due(machine) + 5.0
    assert told(machine.handle(TimerFired(), now)) == ["Stalled"]
    assert due(machine) == now + 1 + 106 / 256
    machine.handle(TimerFired(), due(machine))
    assert machine.state is State.MASTER


def test_a_stall_over_the_silence_and_the_delay_together() -> None:
    machine = started(priority=150, preempt_delay=4.0)
    machine.handle(advert(50, 0.25), 0.25)
    assert told(machine.handle(TimerFired(), 20.0)) == ["Stalled"]
    assert due(machine) == 20.0 + 1 + 106 / 256


# --- deaf


def test_deafness_starts_the_silence_again() -> None:
    machine = started()
    machine.handle(advert(0, 1.0), 1.0)
    assert told(machine.handle(AdvertsLost(), 1.2)) == ["ReceiveOverflow"]
    assert due(machine) == 1.2 + DOWN
    (_, answer), *_ = run(machine, (6.0, TimerFired()))
    assert answer[-1] == "BACKUP -> MASTER: no-response"


def test_deafness_that_lasts_puts_a_takeover_off_to_an_end() -> None:
    """A flood fills the sockets all the time, and the master is dead."""
    machine = started()
    machine.handle(advert(150, 1.0), 1.0)
    notices = []
    now = 1.0
    while machine.state is State.BACKUP:
        now = min(now + 0.1, due(machine))
        if now >= due(machine):
            machine.handle(TimerFired(), now)
        else:
            notices += told(machine.handle(AdvertsLost(), now))
    assert now == pytest.approx(1.1 + 3 * DOWN)
    assert set(notices) == {"ReceiveOverflow"}


def test_an_advert_that_came_through_ends_deafness() -> None:
    machine = started()
    machine.handle(advert(150, 1.0), 1.0)
    assert machine.refreshable
    for step in range(100):
        now = 2.0 + step
        machine.handle(AdvertsLost(), now)
        assert not machine.refreshable
        machine.handle(advert(150, now + 0.5), now + 0.5)
        assert machine.refreshable
        assert due(machine) == now + 0.5 + DOWN
    assert machine.state is State.BACKUP


def test_a_deaf_master_stays() -> None:
    machine = mastering()
    before = due(machine)
    assert machine.handle(AdvertsLost(), before - 0.5) == []
    assert due(machine) == before


# --- the fast path


def test_a_repetition_moves_only_the_deadline() -> None:
    machine = started()
    machine.handle(advert(150, 1.0, interval=0.5), 1.0)
    machine.refreshed(2.0)
    assert due(machine) == 2.0 + DOWN / 2
    assert machine.handle(Refreshed(3.0), 3.0) == []
    assert due(machine) == 3.0 + DOWN / 2


def test_a_repetition_during_a_demotion_keeps_its_end() -> None:
    machine = started()
    machine.handle(Demote(2.0), 0.0)
    machine.handle(advert(150, 1.0), 1.0)
    machine.refreshed(1.5)
    assert due(machine) == 2.0


@pytest.mark.parametrize(
    ("config", "events"),
    [
        ({}, []),
        ({}, [advert(50, 0.5)]),
        ({}, [advert(150, 0.5), advert(50, 0.6, source=HIGHER)]),
        ({}, [advert(150, 0.5), advert(0, 0.6)]),
        ({"preempt_delay": 5.0}, [advert(50, 0.5)]),
        ({"faults": ["link"]}, [advert(150, 0.5)]),
        ({"priority": 255}, [advert(150, 0.5)]),
    ],
)
def test_when_there_is_no_fast_path(config: dict[str, Any], events: list[Any]) -> None:
    machine = started(**config)
    for event in events:
        machine.handle(event, event.at)
    assert not machine.refreshable
