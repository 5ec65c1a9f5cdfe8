"""A kernel that refuses what belongs to a router, while another one serves well."""

from __future__ import annotations

import pytest

from builders import PRIMARY, advert, due, faults, mastering, started, told
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.effects import Effect, Publish
from vrrpkit.vrrp.protocol.events import AddressesRefused
from vrrpkit.vrrp.protocol.explain import waiting_for
from vrrpkit.vrrp.protocol.inputs import (
    EverythingInPlace,
    HostChanged,
    KernelRefusedAddresses,
    Promote,
    Shutdown,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine

ROUTE = "route 10.0.0.0/8: Network is unreachable"
REFUSED = KernelRefusedAddresses((ROUTE,))
UNSEEN = KernelRefusedAddresses(("192.0.2.10/24: No buffer space available",), watchable=False)


def follow(machine: Machine, start: float, seconds: float, priority: int = 50) -> float:
    """A healthy master advertises for a while; when its last advert came."""
    now = start
    while now < start + seconds:
        now += 1.0
        while machine.deadline is not None and machine.deadline < now:
            machine.handle(TimerFired(), machine.deadline)
        machine.handle(advert(priority, now), now)
    return now


def stolen(**changes: object) -> tuple[Machine, float]:
    """A router that preempted a healthy master, was refused, and hears that one again."""
    machine = mastering(**changes)
    now = due(machine) - 0.5
    machine.handle(REFUSED, now)
    assert machine.state is State.FAULT
    return machine, follow(machine, now, 10)


def refusal(effects: list[Effect]) -> AddressesRefused:
    (notice,) = (
        effect.notice
        for effect in effects
        if isinstance(effect, Publish) and isinstance(effect.notice, AddressesRefused)
    )
    return notice


@pytest.mark.parametrize("priority", [100, 255])
@pytest.mark.parametrize("delay", [0.0, 4.0])
def test_a_takeover_that_failed_is_not_tried_again(priority: int, delay: float) -> None:
    machine, now = stolen(priority=priority, preempt_delay=delay if priority == 100 else 0.0)
    now = follow(machine, now, 3600)
    assert (machine.state, machine.suspended) == (State.BACKUP, True)
    assert machine.causes == {ROUTE}
    why = waiting_for(machine)
    assert why is not None
    assert why.startswith(f"follows 192.0.2.2, whose priority is 50 (its own is {priority}); a ")
    assert f"takeover failed ({ROUTE})" in why
    assert "until a link, an address or a route of this host changes" in why


def test_something_relevant_changes() -> None:
    machine, now = stolen()
    assert machine.handle(HostChanged(), now) == []
    assert not machine.suspended
    follow(machine, now, 5)
    assert machine.state is State.MASTER
    # It fails again: FAULT once more, for longer.
    effects = machine.handle(REFUSED, due(machine) - 0.5)
    assert told(effects)[-1] == "MASTER -> FAULT: fault"
    assert refusal(effects).retry_in == 10.0


def test_a_change_during_the_fault_counts() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    machine.handle(REFUSED, now)
    machine.handle(HostChanged(), now + 1)
    assert machine.state is State.FAULT, "not sooner"
    follow(machine, now, 12)
    assert machine.state is State.MASTER


@pytest.mark.parametrize("released", [True, False])
def test_when_the_other_is_gone_a_part_is_better_than_nothing(released: bool) -> None:
    machine, now = stolen()
    if released:
        machine.handle(advert(0, now), now)
    taken = due(machine)
    answer = told(machine.handle(TimerFired(), taken))
    reason = "released" if released else "no-response"
    assert answer == ["advert 100", "take", f"BACKUP -> MASTER: {reason}"]
    effects = machine.handle(REFUSED, taken + 0.1)
    assert told(effects) == ["AddressesRefused", "PriorityChanged"]
    assert (refusal(effects).serves, refusal(effects).retry_in) == (True, 10.0)
    assert str(refusal(effects)).endswith(f"{ROUTE}; serves without, and tries again in 10 s")
    assert (machine.state, machine.short, machine.priority) == (State.MASTER, True, 1)
    # It asks for the rest again and again, and advertises meanwhile.
    asked = []
    while len(asked) < 2:
        now = due(machine)
        words = told(machine.handle(TimerFired(), now))
        assert set(words) <= {"advert 1", "take"}
        if "take" in words:
            asked.append(round(now - taken, 1))
            machine.handle(REFUSED, now)
    assert asked == [10.1, 30.1]
    assert told(machine.handle(EverythingInPlace(), now + 1)) == ["PriorityChanged"]
    assert (machine.priority, machine.short, machine.suspended) == (100, False, False)
    assert machine.deadline is not None and machine.deadline <= now + 2


def test_a_better_one_takes_it_from_a_part() -> None:
    machine, now = stolen()
    now = due(machine)
    machine.handle(TimerFired(), now)
    machine.handle(REFUSED, now)
    words = told(machine.handle(advert(50, now + 5), now + 5))
    assert words == ["drop", "PriorityChanged", "MASTER -> BACKUP: higher-priority"]
    assert (machine.priority, machine.short, machine.suspended) == (100, False, True)
    assert due(machine) == pytest.approx(now + 5 + 3 + 156 / 256)
    follow(machine, now + 5, 100)
    assert machine.state is State.BACKUP


def test_a_part_asks_again_soon_after_a_change() -> None:
    machine, now = stolen()
    now = due(machine)
    machine.handle(TimerFired(), now)
    machine.handle(REFUSED, now)
    machine.handle(HostChanged(), now + 0.2)
    machine.handle(HostChanged(), now + 0.3)
    words = []
    while "take" not in words:
        then = due(machine)
        words = told(machine.handle(TimerFired(), then))
    assert then == pytest.approx(now + 1.2)


def test_what_cannot_be_watched_is_tried_once_in_five_minutes() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    machine.handle(UNSEEN, now)
    follow(machine, now, 299)
    assert machine.state is State.BACKUP
    follow(machine, now + 299, 6)
    assert machine.state is State.MASTER


def test_nobody_else_serves() -> None:
    """Then each try is as good as none at all, and the addresses are asked for again and again."""
    machine = mastering()
    waits = []
    for _ in range(3):
        effects = machine.handle(REFUSED, due(machine) - 0.5)
        waits.append(refusal(effects).retry_in)
        assert machine.state is State.FAULT
        while machine.state is not State.MASTER:
            machine.handle(TimerFired(), due(machine))
    assert waits == [5.0, 10.0, 20.0]


def test_promotion_is_a_change() -> None:
    machine, now = stolen()
    assert told(machine.handle(Promote(), now))[-1] == "BACKUP -> MASTER: promoted"
    assert not machine.suspended
    assert told(machine.handle(REFUSED, now))[-1] == "MASTER -> FAULT: fault"


def test_a_fault_or_the_end_while_serving_with_a_part() -> None:
    for event, state in ((faults("link"), State.FAULT), (Shutdown(), State.INIT)):
        machine, now = stolen()
        now = due(machine)
        machine.handle(TimerFired(), now)
        machine.handle(REFUSED, now)
        assert told(machine.handle(event, now + 1))[-1].startswith(f"MASTER -> {state}")
        assert (machine.priority, machine.deadline) == (100, None)
        assert machine.faults == (frozenset({"link"}) if state is State.FAULT else frozenset())


def test_a_new_run_knows_nothing_of_the_last() -> None:
    machine, now = stolen()
    machine.handle(Shutdown(), now)
    machine.handle(Startup(primary=PRIMARY), now)
    assert not machine.suspended


def test_a_change_means_nothing_to_others() -> None:
    machine = started()
    before = due(machine)
    assert machine.handle(HostChanged(), 1.0) == []
    assert due(machine) == before
