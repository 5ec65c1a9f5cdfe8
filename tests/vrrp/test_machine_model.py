"""Any sequence of events: what always holds, and a twin that never takes the fast path."""

from __future__ import annotations

import math
from copy import deepcopy
from ipaddress import ip_address

import attrs
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from builders import PRIMARY, machine_config
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.effects import DropAddresses, Effect, Publish, SendAdvert, TakeAddresses
from vrrpkit.vrrp.protocol.events import Transition, TransitionReason
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    AdvertsLost,
    AnnounceAgain,
    Demote,
    EverythingInPlace,
    FaultsNow,
    HostChanged,
    Input,
    KernelRefusedAddresses,
    LostAddress,
    LostRoute,
    MasterUnreachable,
    PrimaryAddress,
    Promote,
    SetPriority,
    Shutdown,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy

PEERS = [ip_address(f"192.0.2.{n}") for n in (0, 2, 3)]
LONGEST = 5.0
INTERVALS = st.sampled_from([0.1, 1.0, LONGEST])
FAULTS = st.sampled_from(
    [frozenset[str]()] * 3 + [frozenset({"link"}), frozenset({"link", "source"})]
)
SILENT = {
    TransitionReason.HIGHER_PRIORITY,
    TransitionReason.TIE,
    TransitionReason.STALLED,
}
"""Why a MASTER leaves without priority 0: somebody else is master, or may be."""


def agree(one: Machine, other: Machine) -> None:
    names = ("state", "priority", "deadline", "master", "master_priority", "master_interval")
    for name in (*names, "faults", "slack", "skew", "down_interval", "demoted", "refreshable"):
        assert getattr(one, name) == getattr(other, name), name


class Twins(RuleBasedStateMachine):
    """``fast`` takes the fast path wherever it may; ``slow`` hears every advert in full."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.holding = False
        self.accepted: AdvertReceived | None = None

    @initialize(
        config=st.builds(
            machine_config,
            profile=st.sampled_from(["default", "keepalived", "strict"]),
            version=st.sampled_from([2, 3]),
            priority=st.sampled_from([1, 100, 100, 150, 254, 255]),
            interval=st.sampled_from([0.1, 1.0]),
            preempt=st.sampled_from([True, True, False]),
            preempt_delay=st.sampled_from([0.0, 0.0, 4.0]),
            down_factor=st.sampled_from([1, 3]),
            startup_delay=st.sampled_from([0.0, 0.0, 0.0, 3.0]),
            address_lost=st.sampled_from(AddressLostPolicy),
        ),
        faults=FAULTS,
    )
    def begin(self, config: object, faults: frozenset[str]) -> None:
        self.fast, self.slow = Machine(config), Machine(config)  # type: ignore[arg-type]
        self.give(Startup(primary=PRIMARY, faults=faults))

    def give(self, event: Input) -> list[Effect]:
        before = self.fast.state
        effects = self.fast.handle(event, self.now)
        assert effects == self.slow.handle(event, self.now)
        self.check(before, effects)
        return effects

    def wake(self) -> None:
        if self.fast.repeated(self.now):
            assert self.slow.handle(TimerFired(), self.now) == [SendAdvert(self.fast.priority)]
        else:
            self.give(TimerFired())

    def check(self, state: State, effects: list[Effect]) -> None:
        """Effects make sense in the order in which they are carried out."""
        farewell = dropped = False
        for effect in effects:
            match effect:
                case SendAdvert(priority=0):
                    assert state is State.MASTER
                    farewell = True
                case SendAdvert():
                    assert effect.priority == self.fast.priority
                    assert self.fast.state is State.MASTER
                case TakeAddresses():
                    self.holding = True
                case DropAddresses():
                    assert self.holding
                    self.holding, dropped = False, True
                case Publish(notice=Transition() as change):
                    assert change.previous is state
                    if state is State.MASTER:
                        assert dropped
                        assert farewell is (change.reason not in SILENT)
                    if change.state is State.MASTER:
                        assert self.holding
                    state = change.state
                case _:
                    pass
        assert state is self.fast.state
        assert not farewell or dropped
        assert self.holding is (state is State.MASTER)

    # --- time

    @rule(late=st.sampled_from([0.0, 0.0, 0.0, 0.05, 2.0, 20.0]))
    def the_timer(self, late: float) -> None:
        if self.fast.deadline is not None:
            self.now = max(self.now, self.fast.deadline - self.fast.slack) + late
        self.wake()
        deadline = self.fast.deadline
        assert deadline is None or deadline - self.fast.slack > self.now - 1e-6

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0]))
    def nothing(self, seconds: float) -> None:
        self.now += seconds
        if self.fast.deadline is not None:
            self.now = min(self.now, self.fast.deadline - self.fast.slack)
        self.wake()

    # --- adverts

    @rule(
        source=st.sampled_from([PRIMARY, *PEERS]),
        better=st.sampled_from([-100, -1, -1, 0, 1, 1, 100, None]),
        interval=INTERVALS,
        age=st.sampled_from([0.0, 0.0, 0.02]),
    )
    def an_advert(self, source: object, better: int | None, interval: float, age: float) -> None:
        priority = 0 if better is None else min(max(1, self.fast.priority + better), 255)
        at = max(0.0, self.now - age)
        event = AdvertReceived(
            source=source,  # type: ignore[arg-type]
            priority=priority,
            interval=interval,
            at=at,
        )
        self.give(event)
        followed = self.slow.master == source and self.slow.master_priority == priority
        learnt = self.slow.config.version == 2 or self.slow.master_interval == interval
        if followed and learnt:
            self.accepted = event

    @rule(again=st.integers(1, 3))
    def the_same_advert(self, again: int) -> None:
        for _ in range(again if self.fast.refreshable else 0):
            assert self.accepted is not None
            self.now += 0.01
            self.fast.refreshed(self.now)
            assert self.slow.handle(attrs.evolve(self.accepted, at=self.now), self.now) == []

    # --- what users and hosts do

    @rule(better=st.sampled_from([-1, 0, 1]))
    def another_priority(self, better: int) -> None:
        """Around that of the master: there everything changes."""
        if self.fast.config.priority != 255:
            priority = self.fast.master_priority or self.fast.base_priority
            self.give(SetPriority(min(max(1, priority + better), 254)))

    @rule(event=st.one_of(st.builds(Demote, st.sampled_from([0.5, 30.0])), st.just(Promote())))
    def a_user(self, event: Demote | Promote) -> None:
        obstacle = self.fast.promotion_obstacle()
        self.give(event)
        if isinstance(event, Demote):
            assert self.fast.state is not State.MASTER
        else:
            assert (obstacle is None) is (self.fast.state is State.MASTER)

    @rule(
        event=st.one_of(
            st.just(AdvertsLost()),
            st.builds(FaultsNow, faults=FAULTS),
            st.sampled_from([PrimaryAddress(PRIMARY), PrimaryAddress(ip_address("192.0.2.9"))]),
            st.just(LostAddress(ip_address("192.0.2.10"))),
            st.just(LostRoute("route default via 192.0.2.254")),
            st.builds(MasterUnreachable, st.sampled_from(PEERS)),
            st.sampled_from(
                [
                    EverythingInPlace(),
                    KernelRefusedAddresses(("no",)),
                    KernelRefusedAddresses(("no",), watchable=False),
                ]
            ),
            st.sampled_from([AnnounceAgain(), HostChanged()]),
            st.builds(Startup, primary=st.just(PRIMARY), faults=FAULTS),
        )
    )
    def the_host(self, event: Input) -> None:
        if isinstance(event, Startup):
            self.give(Shutdown())
            assert (self.fast.state, self.fast.deadline) == (State.INIT, None)
            assert not self.fast.demoted
        self.give(event)

    # --- what always holds

    @invariant()
    def the_twins_agree(self) -> None:
        agree(self.fast, self.slow)

    @invariant()
    def a_repetition_now_could_take_the_fast_path(self) -> None:
        if not self.fast.refreshable:
            return
        assert self.accepted is not None
        fast, slow, at = deepcopy(self.fast), deepcopy(self.fast), self.now + 0.01
        fast.refreshed(at)
        assert slow.handle(attrs.evolve(self.accepted, at=at), at) == []
        agree(fast, slow)
        due = fast.deadline or at
        assert fast.handle(TimerFired(), due) == slow.handle(TimerFired(), due)

    @invariant()
    def somebody_will_wake_it(self) -> None:
        machine = self.fast
        if machine.state in (State.BACKUP, State.MASTER):
            assert machine.deadline is not None
        if machine.state is State.MASTER:
            assert machine.deadline is not None
            assert machine.deadline <= self.now + machine.config.interval
            assert machine.master is None
        if machine.deadline is not None and machine.state is State.BACKUP:
            longest = max(machine.config.interval, machine.master_interval)
            bound = machine.config.down_factor * longest + max(1.0, longest)
            assert machine.deadline <= self.now + bound + machine.config.startup_delay
        assert machine.state is State.FAULT or not machine.faults
        assert math.isfinite(machine.deadline or 0.0)


Twins.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestTwins = Twins.TestCase
