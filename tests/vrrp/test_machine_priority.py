"""Priorities that change, preemption that waits, demotion and promotion."""

from __future__ import annotations

import pytest

from builders import (
    PRIMARY,
    advert,
    due,
    faults,
    losing,
    machine_config,
    mastering,
    run,
    started,
    told,
)
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.inputs import Demote, Promote, SetPriority, Shutdown, Startup, TimerFired
from vrrpkit.vrrp.protocol.machine import Machine

SKEW = 0.609375
DOWN = 3 + SKEW
HIGHER = "192.0.2.3"


# --- preemption delay


def test_preempt_delay_to_the_point() -> None:
    machine = started(priority=150, preempt_delay=4.0)
    answers = run(machine, *losing(0.25, 8.25))
    assert answers[:2] == [
        (0.25, ["MasterChanged"]),
        (4.25, ["advert 150", "take", "BACKUP -> MASTER: preempted"]),
    ]


def test_preempt_delay_as_keepalived() -> None:
    """It waits for Master_Down_Interval after the last advert that it accepted: measured with
    priority 150 and 4 s, 6.6 s after the start."""
    machine = started(priority=150, preempt_delay=4.0, profile="keepalived")
    answers = run(machine, *losing(0.2, 8.2))
    at, answer = answers[1]
    assert at == pytest.approx(3.2 + 3.4140625)
    assert answer == ["advert 150", "take", "BACKUP -> MASTER: preempted"]


@pytest.mark.parametrize("profile", ["default", "keepalived"])
def test_a_better_master_ends_the_delay(profile: str) -> None:
    machine = started(priority=150, preempt_delay=4.0, profile=profile)
    steps = [*losing(0.25, 2.25), (3.0, advert(200, 3.0, source=HIGHER)), *losing(3.25, 6.25)]
    answers = run(machine, *steps)
    assert [answer for _, answer in answers] == [["MasterChanged"]] * 3
    assert machine.state is State.BACKUP
    assert due(machine) == (7.25 if profile == "default" else 6.25 + 3.4140625)


def test_the_delay_does_not_keep_the_silence_from_ending() -> None:
    machine = started(priority=150, preempt_delay=100.0)
    answers = run(machine, *losing(0.25, 2.25), (8.0, TimerFired()))
    assert answers[1][0] == 2.25 + 3.4140625
    assert answers[1][1][-1] == "BACKUP -> MASTER: no-response"


def test_an_advert_that_is_read_at_the_end_of_the_delay() -> None:
    machine = started(priority=150, preempt_delay=1.0)
    machine.handle(advert(50, 0.5), 0.5)
    assert machine.handle(advert(50, 1.5), 1.6) == []
    assert due(machine) == 1.5
    assert told(machine.handle(TimerFired(), 1.6))[-1] == "BACKUP -> MASTER: preempted"


def test_an_owner_does_not_wait() -> None:
    machine = started(priority=255, preempt_delay=60.0, faults=["link"])
    machine.handle(Demote(1.0), 0.0)
    machine.handle(faults(), 0.0)
    machine.handle(advert(50, 0.5), 0.5)
    machine.handle(TimerFired(), 1.0)
    assert run(machine, (1.5, advert(50, 1.5)), (9.0, TimerFired()))[0][1][-1] == (
        "BACKUP -> MASTER: preempted"
    )


def test_a_priority_that_falls_ends_the_delay() -> None:
    machine = started(priority=150, preempt_delay=4.0)
    machine.handle(advert(100, 0.5), 0.5)
    assert due(machine) == 0.5 + 3.4140625
    machine.handle(SetPriority(120), 1.0)
    machine.handle(advert(100, 1.5), 1.5)
    assert due(machine) == 4.5
    machine.handle(SetPriority(90), 2.0)
    assert due(machine) == 1.5 + 3 + (256 - 90) / 256


def test_waiting_to_preempt_is_not_the_fast_path() -> None:
    machine = started(priority=150, preempt_delay=4.0)
    machine.handle(advert(100, 0.5), 0.5)
    assert not machine.refreshable


# --- priority


def test_the_running_deadline_moves_by_the_change_of_skew() -> None:
    machine = started()
    assert told(machine.handle(SetPriority(150), 1.0)) == ["PriorityChanged"]
    assert due(machine) == 3.4140625
    assert machine.handle(SetPriority(150), 1.0) == []
    machine.handle(SetPriority(1), 1.0)
    assert due(machine) == 3 + 255 / 256
    machine.handle(advert(0, 1.0), 1.0)
    assert due(machine) == 1 + 255 / 256
    machine.handle(SetPriority(254), 1.0)
    assert due(machine) == pytest.approx(1 + 2 / 256)


def test_it_moves_in_the_unit_of_the_learnt_interval() -> None:
    machine = started()
    machine.handle(advert(200, 1.0, interval=10.0), 1.0)
    before = due(machine)
    machine.handle(SetPriority(101), 1.0)
    assert due(machine) == pytest.approx(before - 10 / 256)


def test_a_master_says_its_new_priority_with_the_next_advert() -> None:
    machine = mastering()
    at = due(machine)
    assert run(machine, (at - 0.5, SetPriority(80)), (at, TimerFired())) == [
        (at - 0.5, ["PriorityChanged"]),
        (at, ["advert 80"]),
    ]


def test_a_raised_priority_preempts() -> None:
    machine = started()
    machine.handle(advert(150, 1.0), 1.0)
    assert machine.refreshable
    machine.handle(SetPriority(200), 1.5)
    assert not machine.refreshable
    steps = [(at, advert(150, at)) for at in (2.0, 3.0, 4.0)]
    (at, answer), *_ = run(machine, *steps, (5.0, TimerFired()))
    assert at == pytest.approx(1.0 + 3 + 56 / 256)
    assert answer == ["advert 200", "take", "BACKUP -> MASTER: preempted"]


# --- demote and promote


def test_a_master_is_demoted_for_a_while() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    answer = ["advert 0", "drop", "PriorityChanged", "MASTER -> BACKUP: demoted"]
    assert told(machine.handle(Demote(60.0), now)) == answer
    assert machine.demoted
    assert machine.priority == 1
    assert due(machine) == now + 3 + 255 / 256
    machine.handle(advert(50, now + 0.5), now + 0.5)
    assert machine.master_priority == 50
    assert machine.refreshable
    answers = run(machine, *[(now + n, advert(50, now + n)) for n in range(1, 66)])
    assert answers[0] == (now + 60, ["PriorityChanged"])
    assert answers[1][1][-1] == "BACKUP -> MASTER: preempted"
    assert answers[1][0] == now + 60 + DOWN
    assert not machine.demoted


def test_a_demoted_router_serves_when_nobody_else_does() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    answers = run(machine, (now, Demote(60.0)), (now + 5, TimerFired()))
    assert answers[1] == (
        now + 3 + 255 / 256,
        ["advert 1", "take", "BACKUP -> MASTER: no-response"],
    )


def test_the_end_of_a_demotion_may_not_come_early() -> None:
    """Only an advert has slack: a deadline that is always met too early would never pass."""
    machine = mastering()
    now = due(machine) - 0.5
    run(machine, (now, Demote(4.5)), (now + 4.2, TimerFired()))
    assert machine.state is State.MASTER
    assert (due(machine), machine.slack) == (now + 4.5, 0.0)
    assert machine.handle(TimerFired(), now + 4.498) == []
    assert told(machine.handle(TimerFired(), now + 4.5)) == ["PriorityChanged"]
    assert machine.slack > 0


def test_a_backup_is_demoted() -> None:
    machine = started(preempt_delay=10.0)
    machine.handle(advert(50, 1.0), 1.0)
    assert told(machine.handle(Demote(60.0), 2.0)) == ["PriorityChanged"]
    assert due(machine) == 1.0 + 3 + 255 / 256
    assert told(machine.handle(Demote(90.0), 3.0)) == []
    machine.handle(advert(50, 62.5), 62.5)
    assert machine.demoted


def test_an_owner_is_demoted() -> None:
    machine = started(priority=255)
    answer = ["advert 0", "drop", "PriorityChanged", "MASTER -> BACKUP: demoted"]
    assert told(machine.handle(Demote(30.0), 0.5)) == answer
    assert run(machine, (1.0, advert(10, 1.0)))[0][1] == ["MasterChanged"]


def test_a_demotion_ends_with_the_router() -> None:
    machine = mastering()
    now = due(machine)
    machine.handle(Demote(60.0), now)
    machine.handle(Shutdown(), now)
    assert (machine.priority, machine.demoted, machine.deadline) == (100, False, None)
    assert told(machine.handle(Startup(primary=PRIMARY), now)) == ["INIT -> BACKUP: startup"]


def test_promotion() -> None:
    machine = started(preempt=False)
    machine.handle(advert(50, 1.0), 1.0)
    assert machine.promotion_obstacle() is None
    answer = ["advert 100", "take", "BACKUP -> MASTER: promoted"]
    assert told(machine.handle(Promote(), 1.5)) == answer
    assert due(machine) == 2.5
    assert machine.handle(Promote(), 1.5) == []


def test_promotion_ends_a_demotion() -> None:
    machine = mastering()
    now = due(machine)
    machine.handle(Demote(60.0), now)
    machine.handle(advert(50, now), now)
    answer = ["PriorityChanged", "advert 100", "take", "BACKUP -> MASTER: promoted"]
    assert told(machine.handle(Promote(), now)) == answer


def test_promotion_ends_the_startup_delay() -> None:
    machine = started(startup_delay=60.0)
    assert told(machine.handle(Promote(), 1.0))[-1] == "BACKUP -> MASTER: promoted"


@pytest.mark.parametrize(
    ("priority", "source", "text"),
    [
        (150, "192.0.2.2", "the master 192.0.2.2 has priority 150 and would take the addresses"),
        (100, "192.0.2.2", "the master 192.0.2.2 has priority 100"),
        (100, "192.0.2.0", None),
        (99, "192.0.2.2", None),
    ],
)
def test_what_stands_in_the_way_of_a_promotion(
    priority: int, source: str, text: str | None
) -> None:
    machine = started(preempt=False)
    machine.handle(advert(priority, 1.0, source=source), 1.0)
    obstacle = machine.promotion_obstacle()
    if text is None:
        assert obstacle is None
    else:
        assert obstacle is not None
        assert text in obstacle
        assert "demote it, or raise the priority here" in obstacle
        assert machine.handle(Promote(), 1.0) == []


def test_what_else_stands_in_the_way() -> None:
    assert Machine(machine_config()).promotion_obstacle() == "the router is not running"
    machine = started(faults=["link", "carrier"])
    assert machine.promotion_obstacle() == "the router is in FAULT: carrier, link"
    assert machine.handle(Promote(), 1.0) == []
    assert mastering().promotion_obstacle() is None
