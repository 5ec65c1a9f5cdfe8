"""What operators rely on beyond the RFC: faults, delays, priorities that change, late wake-ups,
addresses that others remove."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from builders import PRIMARY, advert, machine_config, mastering, run, started, told
from vrrpkit.values import State
from vrrpkit.vrrp.machine import Machine
from vrrpkit.vrrp.profile import LostPolicy
from vrrpkit.vrrp.vocabulary import (
    AddressesInPlace,
    AdvertsLost,
    Demote,
    FaultsNow,
    KernelRefusedAddresses,
    LostAddress,
    Promote,
    Refreshed,
    SetPriority,
    Shutdown,
    Startup,
    TimerFired,
)

SKEW = 0.609375
DOWN = 3 + SKEW
HIGHER = "192.0.2.3"
VIP = ip_address("192.0.2.10")


def faults(*names: str) -> FaultsNow:
    return FaultsNow(faults=frozenset(names))


def due(machine: Machine) -> float:
    assert machine.deadline is not None
    return machine.deadline


# --- FAULT


def test_starting_unfit() -> None:
    machine = started(faults=["link"])
    assert (machine.state, machine.deadline) == (State.FAULT, None)
    assert run(machine, (1.0, advert(0, 1.0)), (2.0, TimerFired())) == []
    assert run(machine, (5.0, faults())) == [
        (5.0, ["FaultsChanged", "FAULT -> BACKUP: fault-cleared"])
    ]
    assert due(machine) == 5.0 + DOWN


def test_an_owner_recovers_at_once() -> None:
    machine = started(faults=["link"], priority=255)
    assert run(machine, (5.0, faults())) == [
        (5.0, ["FaultsChanged", "advert 255", "take", "FAULT -> MASTER: owner"])
    ]


def test_a_backup_falls_ill() -> None:
    machine = started()
    machine.handle(advert(150, 1.0, interval=9.0), 1.0)
    assert run(machine, (2.0, faults("link"))) == [
        (2.0, ["FaultsChanged", "BACKUP -> FAULT: fault"])
    ]
    assert (machine.deadline, machine.master, machine.master_interval) == (None, None, 1.0)


def test_a_master_falls_ill() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    answer = ["FaultsChanged", "advert 0", "drop", "MASTER -> FAULT: fault"]
    assert told(machine.handle(faults("link"), now)) == answer
    assert machine.handle(faults("link"), now) == []
    assert told(machine.handle(faults("link", "source"), now)) == ["FaultsChanged"]
    assert told(machine.handle(faults("source"), now)) == ["FaultsChanged"]
    assert machine.state is State.FAULT
    back = ["FaultsChanged", "FAULT -> BACKUP: fault-cleared"]
    assert told(machine.handle(faults(), now)) == back


def test_nothing_happens_before_the_start() -> None:
    machine = Machine(machine_config())
    assert machine.handle(faults("link"), 0.0) == []
    assert machine.state is State.INIT


# --- startup delay


@pytest.mark.parametrize(("priority", "after"), [(100, 20 + DOWN), (255, 20.0)])
def test_startup_delay(priority: int, after: float) -> None:
    machine = started(startup_delay=20.0, priority=priority)
    assert (machine.state, due(machine)) == (State.BACKUP, 20.0)
    steps = [(1.0, advert(0, 1.0)), (2.0, advert(200, 2.0)), (3.0, AdvertsLost())]
    assert run(machine, *steps) == []
    assert machine.master is None
    assert not machine.refreshable
    machine.handle(SetPriority(priority), 4.0)
    answers = run(machine, (30.0, TimerFired()))
    assert answers[0][0] == after
    assert answers[0][1][:2] == [f"advert {priority}", "take"]


def test_a_priority_that_changes_during_the_startup_delay() -> None:
    machine = started(startup_delay=20.0)
    machine.handle(SetPriority(150), 1.0)
    assert due(machine) == 20.0
    machine.handle(TimerFired(), 20.0)
    assert due(machine) == 20.0 + 3.4140625


def test_a_fault_does_not_end_the_startup_delay() -> None:
    machine = started(startup_delay=20.0, faults=["link"])
    machine.handle(faults(), 5.0)
    assert (machine.state, due(machine)) == (State.BACKUP, 20.0)
    machine.handle(faults("link"), 6.0)
    machine.handle(faults(), 25.0)
    assert due(machine) == 25.0 + DOWN


# --- preemption delay


def losing(start: float, end: float) -> list[tuple[float, Any]]:
    """A master of lower priority: one advert a second."""
    count = int(end - start) + 1
    return [(start + n, advert(50, start + n)) for n in range(count)]


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
    assert told(machine.handle(AdvertsLost(), 1.2)) == ["Deaf"]
    assert due(machine) == 1.2 + DOWN
    (_, answer), *_ = run(machine, (6.0, TimerFired()))
    assert answer[-1] == "BACKUP -> MASTER: no-response"


def test_a_deaf_master_stays() -> None:
    machine = mastering()
    before = due(machine)
    assert machine.handle(AdvertsLost(), before - 0.5) == []
    assert due(machine) == before


# --- addresses that others remove, and that the kernel refuses


def test_a_lost_address_is_put_back() -> None:
    machine = mastering()
    now = due(machine) - 0.9
    for n in range(3):
        at = now + n / 5
        assert told(machine.handle(LostAddress(VIP), at)) == ["take", "AddressLost"]
    answer = ["AddressLost", "advert 0", "drop", "MASTER -> BACKUP: address-lost"]
    assert told(machine.handle(LostAddress(VIP), now + 0.8)) == answer
    assert due(machine) == now + 0.8 + DOWN
    assert machine.handle(LostAddress(VIP), now + 0.8) == []


def test_stepping_down_as_keepalived() -> None:
    machine = mastering(profile="keepalived")
    now = due(machine) - 0.5
    answer = ["AddressLost", "advert 0", "drop", "MASTER -> BACKUP: address-lost"]
    assert told(machine.handle(LostAddress(VIP), now)) == answer
    assert due(machine) == now + SKEW


def test_a_lost_address_may_be_ignored() -> None:
    machine = mastering(address_lost=LostPolicy.IGNORE)
    now = due(machine) - 0.5
    assert told(machine.handle(LostAddress(VIP), now)) == ["AddressLost"]
    assert machine.state is State.MASTER


def test_a_kernel_that_refuses() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    refusal = KernelRefusedAddresses(("192.0.2.10/24: no",))
    fault = ["FaultsChanged", "advert 0", "drop", "MASTER -> FAULT: fault"]
    assert told(machine.handle(refusal, now)) == ["AddressesRefused", *fault]
    assert machine.faults == {"addresses"}
    assert due(machine) == now + 5.0
    # Another fault comes and goes: that of the addresses stays until its time.
    assert told(machine.handle(faults("link"), now + 1)) == ["FaultsChanged"]
    assert machine.faults == {"addresses", "link"}
    machine.handle(faults(), now + 2)
    assert machine.faults == {"addresses"}
    assert machine.handle(refusal, now + 3) == []
    retry = ["FaultsChanged", "FAULT -> BACKUP: fault-cleared"]
    assert told(machine.handle(TimerFired(), now + 5)) == retry
    assert due(machine) == now + 5 + DOWN


def test_each_refusal_waits_longer_until_it_works() -> None:
    machine = mastering()
    waits = []
    for success in (False, False, True, False):
        if success:
            assert machine.handle(AddressesInPlace(), due(machine) - 0.5) == []
        start = due(machine) - 0.5
        machine.handle(KernelRefusedAddresses(("no",)), start)
        waits.append(due(machine) - start)
        while machine.state is not State.MASTER:
            machine.handle(TimerFired(), due(machine))
    assert waits == [5.0, 10.0, 5.0, 10.0]


def test_a_retry_while_something_else_is_wrong() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    machine.handle(KernelRefusedAddresses(("no",)), now)
    machine.handle(faults("link"), now + 1)
    assert told(machine.handle(TimerFired(), now + 5)) == ["FaultsChanged"]
    assert (machine.state, machine.faults, machine.deadline) == (State.FAULT, {"link"}, None)


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
