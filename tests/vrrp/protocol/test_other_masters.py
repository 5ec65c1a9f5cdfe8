"""A MASTER that hears another: how often it says so, and when it announces its addresses again."""

from __future__ import annotations

import itertools

import pytest

from builders import PRIMARY, advert, due, machine_config, mastering, started, told
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.effects import SendAdvert
from vrrpkit.vrrp.protocol.group import Group
from vrrpkit.vrrp.protocol.inputs import AnnounceAgain, Shutdown, Startup, TimerFired
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.other_masters import OtherMasters

DOWN = 3.0 + 156 / 256
"""The down interval of priority 100 at an interval of one second."""


def until(machine: Machine, end: float) -> list[tuple[float, str]]:
    """What the machine says and announces until ``end``, by its own deadlines."""
    done = []
    while due(machine) <= end:
        now = due(machine)
        done += [(round(now, 6), word) for word in told(machine.handle(TimerFired(), now))]
    return done


def announced(events: list[tuple[float, str]]) -> list[float]:
    return [now for now, word in events if word.startswith("announce")]


@pytest.mark.parametrize("profile", ["default", "keepalived"])
def test_announces_again_when_the_other_has_been_silent_for_a_down_interval(profile: str) -> None:
    machine = mastering(profile=profile)
    at = due(machine) - 0.5
    assert told(machine.handle(advert(50, at), at))[1:] == ["advert 100", "announce 5"]
    later = until(machine, at + 20)
    assert announced(later) == [pytest.approx(at + DOWN)]
    assert sum(word == "advert 100" for _, word in later) == 20, "adverts keep their rhythm"


def test_the_silence_counts_from_the_last_advert_and_by_the_slower_interval() -> None:
    machine = mastering()
    at = due(machine) - 0.5
    machine.handle(advert(50, at), at)
    until(machine, at + 2)
    machine.handle(advert(50, at + 2, interval=4.0), at + 2)
    assert announced(until(machine, at + 40)) == [pytest.approx(at + 2 + 12 + 156 / 256)]


def test_the_letter_of_the_rfc_announces_nothing() -> None:
    machine = mastering(profile="strict")
    at = due(machine) - 0.5
    assert told(machine.handle(advert(50, at), at)) == ["AnotherMaster", "advert 100"]
    assert announced(until(machine, at + 20)) == []
    assert machine.handle(AnnounceAgain(), at + 20) == []


def test_one_that_leaves_has_given_way_at_once() -> None:
    """Who says priority 0 was MASTER until now, whether or not it was heard before."""
    machine = mastering()
    at = due(machine) - 0.5
    assert told(machine.handle(advert(0, at), at)) == ["advert 100", "announce 5"]
    machine.handle(advert(50, at + 0.3), at + 0.3)
    machine.handle(advert(0, at + 0.6), at + 0.6)
    assert announced(until(machine, at + 1.5)) == []
    assert announced(until(machine, at + 10)) == [pytest.approx(at + 0.3 + DOWN)]


def test_one_that_leaves_within_the_second_is_answered_by_a_set_when_it_may_leave() -> None:
    machine = mastering()
    at = due(machine) - 0.5
    machine.handle(advert(0, at), at)
    machine.handle(advert(0, at + 0.3), at + 0.3)
    assert announced(until(machine, at + 10)) == [pytest.approx(at + 1)]


def test_a_flood_is_answered_at_a_bounded_rate() -> None:
    """5 s of 1000 losing adverts a second, from many addresses."""
    machine = mastering()
    begin = due(machine) - 0.5
    done: list[tuple[float, str]] = []
    for number in range(5000):
        now = begin + number / 1000
        done += until(machine, now)
        rival = advert(number % 100, now, source=f"192.0.2.{2 + number % 200}")
        done += [(now, word) for word in told(machine.handle(rival, now))]
    sent = [now for now, word in done if word == "advert 100"]
    assert len(announced(done)) == 5
    assert len(sent) <= 51, "ten in an interval"
    gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert max(gaps) <= 0.101, "what may not leave at once leaves soon"
    assert min(gaps) >= 0.09
    assert machine.state is State.MASTER
    assert announced(until(machine, begin + 30)) == [pytest.approx(begin + 4.999 + DOWN, abs=0.01)]


def test_a_router_that_is_not_master_any_more_owes_nothing() -> None:
    machine = mastering()
    at = due(machine) - 0.5
    machine.handle(advert(50, at), at)
    machine.handle(advert(200, at + 0.1), at + 0.1)
    assert (machine.state, due(machine)) == (State.BACKUP, pytest.approx(at + 0.1 + DOWN))
    assert machine.handle(AnnounceAgain(), at + 0.2) == []
    machine.handle(Shutdown(), at + 1)
    assert machine.deadline is None


def test_after_a_long_standstill_the_other_may_be_right() -> None:
    machine = mastering()
    at = due(machine) + 5
    assert told(machine.handle(advert(50, at), at))[-1] == "MASTER -> BACKUP: stalled"
    assert announced(until(machine, at + 3.9)) == []


def test_an_owner_that_stood_still_announces_and_goes_on_listening() -> None:
    machine = started(priority=255)
    at = due(machine) + 5
    answer = told(machine.handle(advert(50, at), at))
    assert answer == ["AnotherMaster", "Stalled", "advert 255", "announce 5"]
    assert announced(until(machine, at + 10)) == [pytest.approx(at + 3 + 1 / 256)]


def test_a_sync_group_announces_all_that_it_holds() -> None:
    names = ("a", "b", "c")
    machines = {name: Machine(machine_config(router=name, grouped=True)) for name in names}
    group = Group(machines)
    for name in names:
        group.handle(name, Startup(primary=PRIMARY), 0.0)
    for name in names:
        group.handle(name, TimerFired(), due(machines[name]))
    assert group.state is State.MASTER

    def sets(event: object, member: str, now: float) -> list[str]:
        steps = group.handle(member, event, now)  # type: ignore[arg-type]
        return [step.member for step in steps if "announce 5" in told(step.effects)]

    at = due(machines["a"]) - 0.5
    assert sets(advert(50, at), "b", at) == ["b", "a", "c"]
    assert sets(advert(50, at + 0.4), "c", at + 0.4) == [], "at most one a second for each"
    assert sets(TimerFired(), "c", due(machines["c"])) == []
    quiet = {name: [] for name in names}  # type: ignore[var-annotated]
    while (now := min(due(machine) for machine in machines.values())) < at + 10:
        name = min(names, key=lambda each: due(machines[each]))
        for step in group.handle(name, TimerFired(), now):
            assert SendAdvert(0) not in step.effects
            if "announce 5" in told(step.effects):
                quiet[step.member].append(round(now - at, 3))
    # One second after the first set for those that were asked meanwhile, then as each falls silent.
    assert quiet["a"] == quiet["b"]
    assert quiet["b"][-1] == pytest.approx(0.4 + DOWN, abs=1.0)
    assert all(
        later - earlier >= 0.999
        for times in quiet.values()
        for earlier, later in itertools.pairwise(times)
    )


def test_limits_of_a_rivalry() -> None:
    rivalry = OtherMasters(2.0)
    assert rivalry.answer_at(10.0) == 10.0
    assert [rivalry.answer_at(now) for now in (10.0, 10.01, 10.19)] == [10.2] * 3
    assert rivalry.answer_at(10.21) == pytest.approx(10.4)
    assert rivalry.answer_at(11.0) == 11.0
    assert rivalry.announce(10.0)
    assert rivalry.due is None
    assert not rivalry.announce(10.9)
    assert rivalry.due == 11.0
    rivalry.heard(10.9, 0.0)
    assert rivalry.due == 11.0
    rivalry.heard(10.9, 5.0)
    assert not rivalry.announce(10.95)
    assert rivalry.due == 15.9, "later is soon enough"
    assert rivalry.announce(11.0)
    rivalry.end()
    assert rivalry.due is None
