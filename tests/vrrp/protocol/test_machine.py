"""The state table of RFC 9568 section 6.4, with exact times."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from builders import PRIMARY, advert, due, machine_config, mastering, run, started, told
from vrrpkit.testing.record.jsonform import machine_state
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.effects import Publish
from vrrpkit.vrrp.protocol.events import Transition, TransitionReason
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    AdvertsLost,
    Demote,
    Input,
    LostAddress,
    PrimaryAddress,
    Shutdown,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine

SKEW = 0.609375  # of priority 100 at 1 s
DOWN = 3 + SKEW
TAKEOVER = ["advert 100", "take"]
HIGHER, LOWER = "192.0.2.3", "192.0.2.0"


# --- INIT


@pytest.mark.parametrize(
    ("config", "answer", "state", "deadline"),
    [
        ({}, ["INIT -> BACKUP: startup"], State.BACKUP, DOWN),
        ({"priority": 150}, ["INIT -> BACKUP: startup"], State.BACKUP, 3.4140625),
        ({"priority": 254}, ["INIT -> BACKUP: startup"], State.BACKUP, 3.0078125),
        ({"interval": 0.5}, ["INIT -> BACKUP: startup"], State.BACKUP, DOWN / 2),
        ({"interval": 10, "version": 2}, ["INIT -> BACKUP: startup"], State.BACKUP, 30 + SKEW),
        ({"down_factor": 1}, ["INIT -> BACKUP: startup"], State.BACKUP, 1 + SKEW),
        ({"down_factor": 100}, ["INIT -> BACKUP: startup"], State.BACKUP, 100 + SKEW),
        ({"priority": 255}, ["advert 255", "take", "INIT -> MASTER: owner"], State.MASTER, 1.0),
    ],
)
def test_startup(config: dict[str, Any], answer: list[str], state: State, deadline: float) -> None:
    machine = Machine(machine_config(**config))
    assert (machine.state, machine.deadline) == (State.INIT, None)
    assert told(machine.handle(Startup(primary=PRIMARY), 0.0)) == answer
    assert (machine.state, machine.deadline) == (state, deadline)
    assert machine.down_interval == pytest.approx(
        config.get("down_factor", 3) * config.get("interval", 1.0) + machine.skew
    )


@pytest.mark.parametrize(
    "event",
    [advert(200, 0.0), advert(0, 0.0), TimerFired(), LostAddress(PRIMARY), AdvertsLost()],
)
def test_init_ignores(event: Input) -> None:
    machine = Machine(machine_config())
    assert machine.handle(event, 0.0) == []
    assert (machine.state, machine.deadline) == (State.INIT, None)


# --- BACKUP


def test_backup_shuts_down_in_silence() -> None:
    machine = started()
    assert run(machine, (1.0, Shutdown())) == [(1.0, ["BACKUP -> INIT: shutdown"])]
    assert (machine.state, machine.deadline) == (State.INIT, None)


def test_silence_makes_master() -> None:
    machine = started()
    assert machine.handle(TimerFired(), DOWN - 0.001) == []
    assert machine.slack == 0.0
    answer = [*TAKEOVER, "BACKUP -> MASTER: no-response"]
    assert told(machine.handle(TimerFired(), DOWN)) == answer
    assert machine.deadline == DOWN + 1.0


def test_the_silence_counts_from_the_last_advert() -> None:
    machine = started()
    steps = [(at, advert(150, at)) for at in (1.0, 2.0, 3.0)]
    assert run(machine, *steps) == [(1.0, ["MasterChanged"])]
    assert machine.deadline == 3.0 + DOWN
    assert (machine.master, machine.master_priority) == (ip_address("192.0.2.2"), 150)


def test_it_counts_from_when_the_advert_reached_the_host() -> None:
    machine = started()
    machine.handle(advert(150, 1.0), 1.02)
    assert machine.deadline == 1.0 + DOWN


def test_an_equal_priority_is_accepted_whatever_its_address() -> None:
    for source in (HIGHER, LOWER):
        machine = started()
        assert run(machine, (1.0, advert(100, 1.0, source=source))) == [(1.0, ["MasterChanged"])]
        assert machine.deadline == 1.0 + DOWN


def test_a_lower_priority_is_discarded() -> None:
    machine = started()
    steps = [(at, advert(99, at)) for at in (1.0, 2.0, 3.0)]
    assert run(machine, *steps) == []
    assert machine.deadline == DOWN
    answer = [(DOWN, [*TAKEOVER, "BACKUP -> MASTER: preempted"])]
    assert run(machine, (4.0, TimerFired())) == answer


def test_a_lower_priority_is_accepted_without_preemption() -> None:
    machine = started(preempt=False)
    steps = [(at, advert(1, at)) for at in (1.0, 2.0)]
    assert run(machine, *steps) == [(1.0, ["MasterChanged"])]
    assert machine.deadline == 2.0 + DOWN


def test_priority_zero_leaves_only_the_skew() -> None:
    machine = started()
    assert run(machine, (1.0, advert(150, 1.0)), (1.5, advert(0, 1.5)), (4.0, TimerFired())) == [
        (1.0, ["MasterChanged"]),
        (1.5 + SKEW, [*TAKEOVER, "BACKUP -> MASTER: released"]),
        (1.5 + SKEW + 1, ["advert 100"]),
    ]


def test_priority_zero_again_puts_nothing_off() -> None:
    machine = started()
    for at in (1.0, 1.2, 1.4):
        machine.handle(advert(0, at), at)
        assert machine.deadline == 1.0 + SKEW
    assert machine.master is None


def test_priority_zero_never_puts_a_nearer_takeover_off() -> None:
    machine = started()
    machine.handle(advert(0, 3.5), 3.5)
    assert machine.deadline == DOWN


def test_somebody_else_takes_over_after_a_release() -> None:
    machine = started()
    steps = [
        (1.0, advert(150, 1.0)),
        (1.5, advert(0, 1.5)),
        (2.0, advert(120, 2.0, source=HIGHER)),
    ]
    assert run(machine, *steps) == [(1.0, ["MasterChanged"]), (2.0, ["MasterChanged"])]
    assert machine.deadline == 2.0 + DOWN
    assert run(machine, (6.0, TimerFired()))[0][1][-1] == "BACKUP -> MASTER: no-response"


def test_the_interval_is_learnt_in_version_3() -> None:
    machine = started()
    machine.handle(advert(150, 1.0, interval=0.1), 1.0)
    assert machine.master_interval == 0.1
    assert machine.skew == pytest.approx(SKEW / 10)
    assert machine.deadline == pytest.approx(1.0 + DOWN / 10)
    machine.handle(advert(0, 1.1, interval=0.1), 1.1)
    assert machine.deadline == pytest.approx(1.1 + SKEW / 10)
    machine.handle(TimerFired(), machine.deadline)
    assert machine.state is State.MASTER
    assert machine.master_interval == 1.0
    assert machine.deadline == pytest.approx(1.1 + SKEW / 10 + 1.0)


def test_the_interval_is_not_learnt_in_version_2() -> None:
    machine = started(version=2)
    machine.handle(advert(150, 1.0, interval=7.0), 1.0)
    assert machine.deadline == 1.0 + DOWN


def test_a_discarded_advert_teaches_nothing() -> None:
    machine = started()
    machine.handle(advert(50, 1.0, interval=40.0), 1.0)
    assert (machine.master_interval, machine.deadline) == (1.0, DOWN)


# --- MASTER


def test_master_repeats_its_advert() -> None:
    machine = mastering()
    last = machine.deadline or 0.0
    answers = run(machine, (last + 3.5, TimerFired()))
    assert answers == [(last + n, ["advert 100"]) for n in range(4)]


def test_an_advert_may_leave_early_and_nothing_else_may() -> None:
    machine = mastering()
    due = machine.deadline or 0.0
    assert machine.slack == 0.005
    assert machine.handle(TimerFired(), due - 0.006) == []
    assert machine.deadline == due
    assert told(machine.handle(TimerFired(), due - 0.005)) == ["advert 100"]
    assert machine.deadline == pytest.approx(due + 0.995)
    assert mastering(interval=0.02).slack == pytest.approx(0.001)


def test_no_burst_after_a_delay() -> None:
    machine = mastering()
    due = machine.deadline or 0.0
    assert told(machine.handle(TimerFired(), due + 1.9)) == ["advert 100"]
    assert machine.deadline == due + 2.9


def test_master_shuts_down_with_priority_zero() -> None:
    machine = mastering()
    now = machine.deadline or 0.0
    answer = ["advert 0", "drop", "MASTER -> INIT: shutdown"]
    assert told(machine.handle(Shutdown(), now)) == answer
    assert machine.deadline is None


def test_master_answers_priority_zero() -> None:
    machine = mastering()
    at = (machine.deadline or 0.0) - 0.5
    assert told(machine.handle(advert(0, at), at)) == ["advert 100", "announce 5"]
    assert machine.deadline == at + 1.0


@pytest.mark.parametrize(
    ("priority", "source", "reason"),
    [(101, LOWER, "higher-priority"), (255, LOWER, "higher-priority"), (100, HIGHER, "tie")],
)
def test_master_yields(priority: int, source: str, reason: str) -> None:
    machine = mastering()
    at = (machine.deadline or 0.0) - 0.5
    effects = machine.handle(advert(priority, at, source=source, interval=0.5), at)
    assert told(effects) == ["drop", f"MASTER -> BACKUP: {reason}"]
    assert machine.deadline == at + DOWN / 2
    notice = effects[-1]
    assert isinstance(notice, Publish)
    assert notice.notice == Transition(
        router="r",
        at=at,
        previous=State.MASTER,
        state=State.BACKUP,
        reason=TransitionReason(reason),
        priority=100,
        master=ip_address(source),
    )
    assert (machine.master, machine.master_priority) == (ip_address(source), priority)


def test_master_yields_without_preemption_too() -> None:
    machine = mastering(preempt=False, version=2)
    at = (machine.deadline or 0.0) - 0.5
    machine.handle(advert(101, at, interval=9.0), at)
    assert (machine.state, machine.deadline) == (State.BACKUP, at + DOWN)


@pytest.mark.parametrize(("priority", "source"), [(99, HIGHER), (1, HIGHER), (100, LOWER)])
@pytest.mark.parametrize("profile", ["default", "keepalived", "strict"])
def test_master_answers_a_losing_advert_at_once(priority: int, source: str, profile: str) -> None:
    machine = mastering(profile=profile)
    at = (machine.deadline or 0.0) - 0.5
    answer = told(machine.handle(advert(priority, at, source=source), at))
    burst = [] if profile == "strict" else ["announce 5"]
    assert answer == ["AnotherMaster", "advert 100", *burst]
    assert (machine.state, machine.deadline) == (State.MASTER, at + 1.0)


def test_our_own_priority_and_address() -> None:
    """Reflected, or an address used twice: no timer moves."""
    machine = mastering()
    due = machine.deadline or 0.0
    echo = AdvertReceived(source=PRIMARY, priority=100, interval=1.0, at=due - 0.5)
    assert told(machine.handle(echo, due - 0.5)) == ["AdvertAnomaly"]
    assert (machine.state, machine.deadline) == (State.MASTER, due)


def test_the_tie_break_uses_the_address_that_adverts_leave_from() -> None:
    machine = mastering()
    at = (machine.deadline or 0.0) - 0.5
    assert machine.handle(PrimaryAddress(ip_address("192.0.2.200")), at) == []
    assert told(machine.handle(advert(100, at, source=HIGHER), at))[0] == "AnotherMaster"


# --- owners


def test_an_owner_takes_its_addresses_back() -> None:
    machine = started(priority=255)
    at = 0.5
    machine.handle(advert(255, at, source=HIGHER), at)
    assert machine.state is State.BACKUP
    skew = 1 / 256
    assert machine.deadline == at + 3 + skew
    steps = [(1.0, advert(254, 1.0)), (2.0, advert(254, 2.0))]
    assert run(machine, *steps) == []
    answer = (at + 3 + skew, ["advert 255", "take", "BACKUP -> MASTER: preempted"])
    assert run(machine, (4.0, TimerFired())) == [answer]


@pytest.mark.parametrize(("source", "state"), [(HIGHER, State.BACKUP), (LOWER, State.MASTER)])
def test_of_two_owners_the_greater_address_stays(source: str, state: State) -> None:
    machine = started(priority=255)
    machine.handle(advert(255, 0.5, source=source), 0.5)
    assert machine.state is state


# --- the short way of a periodic advert


def test_a_periodic_advert_without_an_event() -> None:
    one, other = mastering(), mastering()
    for _ in range(3):
        now = due(one)
        assert one.repeated(now)
        assert told(other.handle(TimerFired(), now)) == ["advert 100"]
        assert machine_state(one) == machine_state(other)
        assert one.slack == other.slack


def test_only_a_periodic_advert_takes_the_short_way() -> None:
    backup, machine = started(), mastering()
    now = due(machine)
    assert not backup.repeated(due(backup))
    assert not machine.repeated(now - 2 * machine.slack), "early"
    assert machine.repeated(now - machine.slack), "within the slack"
    assert not machine.repeated(now + 4), "stalled"
    machine.handle(Demote(2.0), now)
    assert not machine.repeated(due(machine)), "something else may be due"
