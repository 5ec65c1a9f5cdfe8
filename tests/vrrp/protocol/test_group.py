"""Sync groups: what the members do together."""

from __future__ import annotations

import math
from ipaddress import ip_address

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from builders import PRIMARY, machine_config
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.effects import DropAddresses, Publish, SendAdvert, TakeAddresses
from vrrpkit.vrrp.protocol.events import Transition, TransitionReason
from vrrpkit.vrrp.protocol.group import GROUP_FAULT, Group, GroupStep
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    AdvertsLost,
    Demote,
    FaultsNow,
    Input,
    KernelRefusedAddresses,
    LostAddress,
    MasterUnreachable,
    Promote,
    SetPriority,
    Shutdown,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine

PEER = ip_address("192.0.2.2")
FIT = frozenset[str]()


def advert(priority: int, at: float) -> AdvertReceived:
    return AdvertReceived(source=PEER, priority=priority, interval=1.0, at=at)


class Pair:
    """A group of ``a`` and ``b``, started at 0."""

    def __init__(self, **changes: object) -> None:
        names = ("a", "b")
        self.machines = {
            name: Machine(machine_config(router=name, grouped=True, **changes)) for name in names
        }
        self.group = Group(self.machines)
        for name in names:
            self.give(name, Startup(primary=PRIMARY), 0.0)

    def give(self, name: str, event: Input, now: float) -> list[GroupStep]:
        return self.group.handle(name, event, now)

    def fire(self, name: str) -> tuple[float, list[GroupStep]]:
        when = self.machines[name].deadline
        assert when is not None
        return when, self.give(name, TimerFired(), when)

    def mastering(self) -> float:
        self.fire("a")
        now, _ = self.fire("b")
        assert self.states == [State.MASTER, State.MASTER]
        return now

    @property
    def states(self) -> list[State]:
        return [machine.state for machine in self.machines.values()]


def sent(steps: list[GroupStep]) -> list[tuple[str, int]]:
    return [
        (step.member, effect.priority)
        for step in steps
        for effect in step.effects
        if isinstance(effect, SendAdvert)
    ]


def reasons(steps: list[GroupStep]) -> list[tuple[str, State, TransitionReason]]:
    return [
        (step.member, effect.notice.state, effect.notice.reason)
        for step in steps
        for effect in step.effects
        if isinstance(effect, Publish) and isinstance(effect.notice, Transition)
    ]


def test_master_only_when_every_member_may_be() -> None:
    pair = Pair()
    when, steps = pair.fire("a")
    assert pair.states == [State.BACKUP, State.BACKUP]
    assert sent(steps) == []
    assert pair.group.why_not_master() == "b listens whether there is a master"
    # b hears a master, so a goes on waiting; then that one falls silent.
    pair.give("b", advert(200, when), when)
    assert pair.group.why_not_master() == (
        "b follows 192.0.2.2, whose priority is 200 (its own is 100)"
    )
    silent, steps = pair.fire("b")
    assert [name for name, _ in sent(steps)] == ["a", "b"]
    assert pair.states == [State.MASTER, State.MASTER]
    assert silent > when + 3
    assert pair.group.why_not_master() is None
    assert pair.group.state is State.MASTER


def test_a_member_that_waits_and_hears_a_master_waits_no_more() -> None:
    pair = Pair()
    when, _ = pair.fire("a")
    pair.give("a", advert(200, when), when)
    pair.give("b", TimerFired(), when + 1)
    assert pair.states == [State.BACKUP, State.BACKUP]
    assert not pair.machines["a"].eligible


def test_asking_again_does_not_spin_and_keeps_the_preemption_delay_served() -> None:
    pair = Pair(preempt_delay=4.0, profile="default")
    for now in (1.0, 2.0, 3.0, 4.0):
        for name in ("a", "b"):
            pair.give(name, advert(50, now), now)
    now = pair.machines["a"].deadline
    assert now == 5.0
    pair.give("a", TimerFired(), now)
    assert pair.machines["a"].eligible
    assert pair.machines["a"].deadline > now + 3
    pair.give("a", advert(50, now + 0.1), now + 0.1)
    assert pair.machines["a"].eligible
    steps = pair.give("b", TimerFired(), now + 0.2)
    assert reasons(steps) == [
        ("a", State.MASTER, TransitionReason.PREEMPTED),
        ("b", State.MASTER, TransitionReason.PREEMPTED),
    ]


def test_a_better_master_of_one_takes_both_quietly() -> None:
    pair = Pair()
    now = pair.mastering() + 0.5
    steps = pair.give("a", advert(200, now), now)
    assert sent(steps) == []
    assert reasons(steps) == [
        ("a", State.BACKUP, TransitionReason.HIGHER_PRIORITY),
        ("b", State.BACKUP, TransitionReason.SYNC_GROUP),
    ]
    assert [effect for step in steps for effect in step.effects if effect == DropAddresses()] == [
        DropAddresses(),
        DropAddresses(),
    ]


def test_giving_up_is_said_on_every_link() -> None:
    pair = Pair()
    now = pair.mastering() + 0.5
    steps = pair.give("a", Demote(10.0), now)
    assert sent(steps) == [("a", 0), ("b", 0)]
    assert pair.states == [State.BACKUP, State.BACKUP]


def test_fault_of_one_is_fault_of_all_and_recovery_when_all_are_clean() -> None:
    pair = Pair()
    now = pair.mastering() + 0.5
    steps = pair.give("a", FaultsNow(faults=frozenset({"interface-down"})), now)
    assert sent(steps) == [("a", 0), ("b", 0)]
    assert pair.states == [State.FAULT, State.FAULT]
    assert pair.machines["b"].faults == {GROUP_FAULT}
    pair.give("b", FaultsNow(faults=frozenset({"no-source"})), now + 1)
    assert pair.group.why_not_master() == "in FAULT: a (interface-down); b (no-source)"
    steps = pair.give("a", FaultsNow(faults=FIT), now + 2)
    assert reasons(steps) == []
    assert pair.states == [State.FAULT, State.FAULT]
    steps = pair.give("b", FaultsNow(faults=FIT), now + 3)
    assert pair.states == [State.BACKUP, State.BACKUP]
    assert {reason for _, _, reason in reasons(steps)} == {TransitionReason.FAULT_CLEARED}


def test_a_refused_address_is_a_fault_of_all_until_it_is_tried_again() -> None:
    pair = Pair()
    now = pair.mastering()
    pair.give("b", KernelRefusedAddresses(("192.0.2.10: no",)), now)
    assert pair.states == [State.FAULT, State.FAULT]
    _, steps = pair.fire("b")
    assert pair.states == [State.BACKUP, State.BACKUP]
    assert len(reasons(steps)) == 2


def test_a_start_with_a_fault_leaves_nobody_behind() -> None:
    machines = {name: Machine(machine_config(router=name, grouped=True)) for name in ("a", "b")}
    group = Group(machines)
    assert group.state is State.INIT
    assert group.why_not_master() == "not running: a, b"
    group.handle("a", Startup(primary=PRIMARY), 0.0)
    group.handle("b", Startup(primary=PRIMARY, faults=frozenset({"interface-down"})), 0.0)
    assert [m.state for m in machines.values()] == [State.FAULT, State.FAULT]


def test_a_late_start_beside_a_fault_is_no_backup_for_a_moment() -> None:
    machines = {name: Machine(machine_config(router=name, grouped=True)) for name in ("a", "b")}
    group = Group(machines)
    group.handle("a", Startup(primary=PRIMARY, faults=frozenset({"interface-down"})), 0.0)
    steps = group.handle("b", Startup(primary=PRIMARY), 0.0)
    assert reasons(steps) == [("b", State.FAULT, TransitionReason.FAULT)]


def test_a_master_that_leaves_one_link_leaves_all() -> None:
    pair = Pair()
    for name in ("a", "b"):
        pair.give(name, advert(200, 1.0), 1.0)
    pair.give("a", advert(0, 1.5), 1.5)
    skew = pair.machines["a"].skew
    assert [machine.deadline for machine in pair.machines.values()] == [1.5 + skew] * 2
    pair.fire("a")
    _, steps = pair.fire("b")
    assert {reason for _, _, reason in reasons(steps)} == {TransitionReason.RELEASED}
    assert pair.states == [State.MASTER, State.MASTER]


def test_a_master_that_stays_on_a_link_is_followed_again() -> None:
    pair = Pair()
    for name in ("a", "b"):
        pair.give(name, advert(200, 1.0), 1.0)
    pair.give("a", advert(0, 1.5), 1.5)
    pair.give("b", advert(200, 1.6), 1.6)
    assert pair.machines["b"].deadline > 1.6 + 3
    pair.give("a", advert(0, 1.7), 1.7)
    pair.give("b", AdvertsLost(), 1.8)
    assert pair.machines["b"].deadline > 1.8 + 3


def test_the_group_that_lost_a_tie_on_its_first_link_lets_the_other_one_begin() -> None:
    pair = Pair()
    lost = pair.mastering() + 0.5
    steps = pair.give("a", advert(100, lost), lost)
    assert ("a", State.BACKUP, TransitionReason.TIE) in reasons(steps)
    assert pair.states == [State.BACKUP, State.BACKUP]
    pair.fire("a")
    now, _ = pair.fire("b")
    assert pair.states == [State.BACKUP, State.BACKUP]
    assert pair.group.why_not_master() == "it lost a tie, and lets the other group begin"
    again, _ = pair.fire("a")
    assert now < again
    assert pair.states == [State.MASTER, State.MASTER]
    assert pair.group.why_not_master() is None


def test_owners_are_master_at_once_but_together() -> None:
    assert Pair(priority=255).states == [State.MASTER, State.MASTER]


def test_shutdown_of_one_is_shutdown_of_all() -> None:
    pair = Pair()
    now = pair.mastering()
    steps = pair.give("b", Shutdown(), now)
    assert sent(steps) == [("b", 0), ("a", 0)]
    assert pair.states == [State.INIT, State.INIT]


FAULTS = st.sampled_from([FIT, FIT, FIT, frozenset({"link"}), frozenset({"link", "source"})])


class AnyEvents(RuleBasedStateMachine):
    """Whatever happens, outside of a step the members agree, and so do their addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.holding: dict[str, bool] = {}
        self.ended = False

    @initialize(
        count=st.sampled_from([2, 3]),
        priority=st.sampled_from([1, 100, 254, 255]),
        preempt=st.booleans(),
        preempt_delay=st.sampled_from([0.0, 4.0]),
        startup_delay=st.sampled_from([0.0, 3.0]),
        profile=st.sampled_from(["default", "keepalived", "strict"]),
        faults=FAULTS,
    )
    def begin(self, count: int, faults: frozenset[str], **changes: object) -> None:
        names = ["a", "b", "c"][:count]
        self.machines = {
            n: Machine(machine_config(router=n, grouped=True, **changes)) for n in names
        }
        self.group = Group(self.machines)
        self.holding = dict.fromkeys(names, False)
        for name in names:
            self.give(name, Startup(primary=PRIMARY, faults=faults if name == "a" else FIT))

    def give(self, name: str, event: Input) -> None:
        for step in self.group.handle(name, event, self.now):
            for effect in step.effects:
                if isinstance(effect, TakeAddresses):
                    self.holding[step.member] = True
                elif isinstance(effect, DropAddresses):
                    self.holding[step.member] = False

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(list(self.machines)))

    @rule(data=st.data(), priority=st.sampled_from([0, 1, 50, 100, 150, 255]))
    def hear(self, data: st.DataObject, priority: int) -> None:
        self.give(self.pick(data), advert(priority, self.now))

    @rule(data=st.data(), faults=FAULTS)
    def fault(self, data: st.DataObject, faults: frozenset[str]) -> None:
        self.give(self.pick(data), FaultsNow(faults=faults))

    @rule(
        data=st.data(),
        event=st.sampled_from(
            [
                AdvertsLost(),
                Demote(3.0),
                Promote(),
                SetPriority(120),
                LostAddress(ip_address("192.0.2.10")),
                MasterUnreachable(PEER),
                KernelRefusedAddresses(("no",)),
                TimerFired(),
            ]
        ),
    )
    def other(self, data: st.DataObject, event: Input) -> None:
        name = self.pick(data)
        if isinstance(event, SetPriority) and self.machines[name].priority == 255:
            return
        self.give(name, event)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(1000):
            due = {n: m.deadline for n, m in self.machines.items() if m.deadline is not None}
            name = min(due, key=lambda n: due[n], default=None)
            if name is None or due[name] > end:
                break
            self.now = max(self.now, due[name])
            self.give(name, TimerFired())
        else:
            raise AssertionError("it spins")
        self.now = end

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        self.give(self.pick(data), Shutdown())
        assert {machine.state for machine in self.machines.values()} == {State.INIT}
        for name in self.machines:
            self.give(name, Startup(primary=PRIMARY))

    @invariant()
    def members_agree(self) -> None:
        if not self.holding:
            return
        states = {machine.state for machine in self.machines.values()}
        assert len(states) == 1, states
        (state,) = states
        assert all(held is (state is State.MASTER) for held in self.holding.values())
        own = any(machine.faults - {GROUP_FAULT} for machine in self.machines.values())
        assert own is (state is State.FAULT)
        assert (self.group.why_not_master() is None) is (state is State.MASTER)
        for machine in self.machines.values():
            assert machine.deadline is None or math.isfinite(machine.deadline)
            assert not (machine.eligible and state is State.MASTER)


TestAnyEvents = AnyEvents.TestCase
TestAnyEvents.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
