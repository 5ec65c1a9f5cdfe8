"""Sync groups of two or three gateways on two links, under virtual time: the rules of who serves
and when, and random scenarios against what must always hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import attrs
import pytest
from hypothesis import HealthCheck, given, note, settings, strategies as st

from vrrpkit import HMACAuth, MemoryBus, State, SyncGroup, VRRPInstance
from vrrpkit.errors import NotEligible
from vrrpkit.testing import run_virtual, virtual_time
from vrrpkit.tracking.tracker import Signal, Tracker

VIPS = ("192.0.2.100", "192.0.2.200")
SKEW_100 = 156 / 256
"""Skew_Time of priority 100 at intervals of 1 s."""


class Fitness:
    """What a test says of a machine."""

    def __init__(self) -> None:
        self.signal: Signal = True
        self.said = asyncio.Event()

    def say(self, signal: Signal) -> None:
        self.signal = signal
        self.said.set()


@attrs.frozen(kw_only=True)
class TrackFitness(Tracker):
    fitness: Fitness

    async def signals(self) -> AsyncIterator[Signal]:
        while True:
            yield self.fitness.signal
            await self.fitness.said.wait()
            self.fitness.said.clear()


class Gateway:
    """A machine on both links, whose group can be started again and again."""

    def __init__(self, number: int, priority: int, links: Links, **options: Any) -> None:
        self.address = f"192.0.2.{number}"
        self.priority = priority
        self.links = links
        self.options = options
        self.fault, self.weight = Fitness(), Fitness()
        self.group: SyncGroup | None = None
        self.told: list[tuple[float, State]] = []
        self.torn: list[str] = []
        """What was wrong whenever the group had moved."""
        self.members_told: list[str] = []

    async def start(self) -> None:
        if self.group is not None:
            return
        members = [
            VRRPInstance(
                f"{side}-{self.address}",
                bus.interface(self.address),
                vrid=vrid,
                vips=[f"{vip}/24"],
                priority=self.priority,
                **self.options,
            )
            for side, bus, vrid, vip in zip(("in", "out"), self.links, (1, 2), VIPS, strict=True)
        ]
        for member in members:
            member.on_transition(
                lambda change: self.members_told.append(f"{change.router[:2]} {change.state}")
            )
        group = SyncGroup(
            f"group-{self.address}",
            members,
            track=[
                TrackFitness(fitness=self.fault, name="fault"),
                TrackFitness(fitness=self.weight, weight=-60, name="weight"),
            ],
        )
        group.on_transition(lambda change: self._moved(change.state))
        await group.__aenter__()
        self.group = group

    def _moved(self, state: State) -> None:
        self.told.append((asyncio.get_running_loop().time(), state))
        if self.group is not None:
            states = {member.state for member in self.group.members}
            if states != {state} and self.group.state is state:
                self.torn.append(f"{state}: {states}")

    async def stop(self) -> None:
        group, self.group = self.group, None
        if group is not None:
            await group.__aexit__(None, None, None)

    @property
    def running(self) -> SyncGroup:
        assert self.group is not None
        return self.group

    @property
    def state(self) -> State:
        return State.INIT if self.group is None else self.group.state

    def check(self) -> None:
        """The members never differ, and a group that does not serve knows why."""
        assert not self.torn
        if self.group is None:
            return
        assert {member.state for member in self.group.members} == {self.group.state}
        assert (self.group.why_not_master() is None) is (self.group.state is State.MASTER)

    def when(self, state: State) -> float:
        """When it last entered a state."""
        return max(at for at, entered in self.told if entered is state)


Links: TypeAlias = tuple[MemoryBus, MemoryBus]


async def serving(*gateways: Gateway) -> None:
    """Start them, and wait until the first one has served for a while."""
    for each in gateways:
        await each.start()
    await gateways[0].running.wait_for(State.MASTER)
    await asyncio.sleep(5)
    assert gateways[0].state is State.MASTER
    assert {each.state for each in gateways[1:]} <= {State.BACKUP}


def two(**options: Any) -> tuple[Gateway, Gateway]:
    links = (MemoryBus(), MemoryBus())
    return Gateway(1, 150, links, **options), Gateway(2, 100, links, **options)


def near(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.01)


# --- the rules, one by one


@virtual_time()
async def test_a_start_takes_the_down_interval_and_the_group_speaks_last() -> None:
    one, _ = two()
    began = asyncio.get_running_loop().time()
    await one.start()
    await one.running.wait_for(State.MASTER)
    assert [state for _, state in one.told] == [State.BACKUP, State.MASTER]
    assert one.when(State.MASTER) - began == near(3 + 106 / 256)
    await one.stop()
    assert one.told[-1][1] is State.INIT


@virtual_time()
async def test_priority_0_on_one_link_moves_both_after_the_skew() -> None:
    one, other = two()
    await serving(one, other)
    left = asyncio.get_running_loop().time()
    await one.stop()
    await other.running.wait_for(State.MASTER)
    assert other.when(State.MASTER) - left == near(SKEW_100)
    await other.stop()


@virtual_time()
async def test_a_silent_death_moves_both_after_the_down_interval() -> None:
    one, other = two()
    await serving(one, other)
    for bus in one.links:
        bus.cut(one.address, other.address)
    cut = asyncio.get_running_loop().time()
    await other.running.wait_for(State.MASTER)
    # The last adverts were heard up to an interval before.
    assert 2 + SKEW_100 - 0.01 <= other.when(State.MASTER) - cut <= 3 + SKEW_100 + 0.01
    for bus in one.links:
        bus.heal()
    await asyncio.sleep(2)
    assert (one.state, other.state) == (State.MASTER, State.BACKUP)
    await one.stop()
    await other.stop()


@virtual_time()
async def test_one_silent_link_moves_nothing() -> None:
    one, other = two()
    await serving(one, other)
    before = (list(one.told), list(other.told))
    one.links[0].cut(one.address, other.address)
    await asyncio.sleep(20)
    assert "out-192.0.2.2 follows 192.0.2.1" in (other.running.why_not_master() or "")
    # Nor one and then the other: what was heard again is not wanted any more.
    one.links[0].heal()
    await asyncio.sleep(2)
    one.links[1].cut(one.address, other.address)
    await asyncio.sleep(20)
    assert "in-192.0.2.2 follows 192.0.2.1" in (other.running.why_not_master() or "")
    assert (one.told, other.told) == before
    await one.stop()
    await other.stop()


@virtual_time()
async def test_a_fault_of_one_is_a_fault_of_all_and_recovery_waits_for_all() -> None:
    one, other = two()
    await serving(one, other)
    pulled = asyncio.get_running_loop().time()
    one.links[0].unplug(one.address)
    await other.running.wait_for(State.MASTER)
    # Its goodbye came through on one link only.
    assert other.when(State.MASTER) - pulled == near(SKEW_100)
    one.links[1].unplug(one.address)
    one.members_told.clear()
    one.links[0].plug(one.address)
    one.fault.say(False)
    await asyncio.sleep(0.1)
    one.links[1].plug(one.address)
    await asyncio.sleep(10)
    assert one.state is State.FAULT
    # Not even for a moment was one of them anything else.
    assert one.members_told == []
    assert one.running.why_not_master() == ("in FAULT: in-192.0.2.1 (fault); out-192.0.2.1 (fault)")
    one.fault.say(True)
    await one.running.wait_for(State.BACKUP)
    back = one.when(State.BACKUP)
    await one.running.wait_for(State.MASTER)
    # Preempting takes a whole down interval.
    assert one.when(State.MASTER) - back == near(3 + 106 / 256)
    await asyncio.sleep(1)
    assert other.state is State.BACKUP
    await one.stop()
    await other.stop()


@virtual_time()
async def test_a_master_whose_priority_drops_serves_until_the_other_ones_timers_end() -> None:
    one, other = two()
    await serving(one, other)
    dropped = asyncio.get_running_loop().time()
    one.weight.say(False)
    await other.running.wait_for(State.MASTER)
    # 3.609 s after the last advert that it accepted.
    assert 2 + SKEW_100 - 0.01 <= other.when(State.MASTER) - dropped <= 3 + SKEW_100 + 0.01
    assert one.when(State.BACKUP) == near(other.when(State.MASTER))
    await asyncio.sleep(3)
    risen = asyncio.get_running_loop().time()
    one.weight.say(True)
    await one.running.wait_for(State.MASTER)
    assert 2 <= one.when(State.MASTER) - risen <= 3 + 106 / 256 + 0.01
    await one.stop()
    await other.stop()


@virtual_time()
async def test_a_fault_of_the_backup_disturbs_nobody() -> None:
    one, other = two()
    await serving(one, other)
    before = list(one.told)
    other.links[1].unplug(other.address)
    assert other.state is State.FAULT
    await asyncio.sleep(5)
    other.links[1].plug(other.address)
    await asyncio.sleep(10)
    assert (one.told, other.state) == (before, State.BACKUP)
    await one.stop()
    await other.stop()


@virtual_time()
async def test_without_preemption_whoever_serves_goes_on() -> None:
    one, other = two(preempt=False)
    await serving(one, other)
    one.fault.say(False)
    await other.running.wait_for(State.MASTER)
    one.fault.say(True)
    await asyncio.sleep(30)
    assert (one.state, other.state) == (State.BACKUP, State.MASTER)
    await one.stop()
    await other.stop()


@virtual_time()
@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.01])
async def test_equals_that_win_on_one_link_each_do_not_try_for_ever(delay: float) -> None:
    # Who has the higher address wins a tie: the second one inside, the first one outside.
    links = (MemoryBus(delay=delay), MemoryBus(delay=delay))
    told: list[tuple[str, State]] = []
    groups: list[SyncGroup] = []
    for name, addresses in (
        ("one", ("192.0.2.1", "192.0.2.12")),
        ("other", ("192.0.2.2", "192.0.2.11")),
    ):
        members = [
            VRRPInstance(
                f"{name} {address}", bus.interface(address), vrid=1, vips=["192.0.2.100/24"]
            )
            for bus, address in zip(links, addresses, strict=True)
        ]
        groups.append(SyncGroup(name, members))
        groups[-1].on_transition(lambda change: told.append((change.group, change.state)))
    async with groups[0], groups[1]:
        await asyncio.sleep(3.7)
        tries = len(told)
        await asyncio.sleep(30)
        assert sorted(group.state.value for group in groups) == ["BACKUP", "MASTER"]
        # The next try at latest was the last one.
        assert len(told) - tries <= 1


# --- whatever happens

Action: TypeAlias = tuple[float, str, int, int, int]
"""Seconds before it, what is done, on which link, to which gateway, and with which other one."""


def _demote(gateway: Gateway, *_: object) -> None:
    if gateway.group is not None:
        gateway.group.demote(7)


def _promote(gateway: Gateway, *_: object) -> None:
    if gateway.group is not None:
        try:
            gateway.group.promote()
        except NotEligible as reason:
            note(str(reason))


def _cut(gateway: Gateway, bus: MemoryBus, other: Gateway, *, one_way: bool = False) -> None:
    if other is not gateway:
        bus.cut(gateway.address, other.address, one_way=one_way)


ACTIONS: dict[str, Callable[[Gateway, MemoryBus, Gateway], None]] = {
    "cut": _cut,
    "cut one way": lambda gateway, bus, other: _cut(gateway, bus, other, one_way=True),
    "delete": lambda gateway, bus, other: _delete(gateway, bus),
    "demote": _demote,
    "fit": lambda gateway, bus, other: gateway.fault.say(True),
    "heal": lambda gateway, bus, other: bus.heal(),
    "heavy": lambda gateway, bus, other: gateway.weight.say(True),
    "light": lambda gateway, bus, other: gateway.weight.say(False),
    "pause": lambda gateway, bus, other: _each(gateway, MemoryBus.pause),
    "plug": lambda gateway, bus, other: bus.plug(gateway.address),
    "promote": _promote,
    "resume": lambda gateway, bus, other: _each(gateway, MemoryBus.resume),
    "unfit": lambda gateway, bus, other: gateway.fault.say(False),
    "unplug": lambda gateway, bus, other: bus.unplug(gateway.address),
}


def _each(gateway: Gateway, act: Callable[[MemoryBus, str], None]) -> None:
    for bus in gateway.links:
        act(bus, gateway.address)


def _delete(gateway: Gateway, bus: MemoryBus) -> None:
    for vip in VIPS:
        if gateway.address in bus.owners(vip):
            bus.interface(gateway.address).delete(vip)


@attrs.frozen
class Scenario:
    priorities: tuple[int, ...]
    delay: float
    preempt: bool
    intervals: tuple[float, ...]
    preempt_delay: float
    signed: bool
    actions: tuple[Action, ...]

    def options(self, number: int) -> dict[str, Any]:
        """Those of both members of one gateway."""
        return {
            "preempt": self.preempt,
            "preempt_delay": self.preempt_delay,
            "interval": self.intervals[number],
            "auth": HMACAuth({1: bytes(range(32))}, active=1) if self.signed else None,
        }


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    many = draw(st.sampled_from([2, 2, 3]))
    priorities = draw(
        st.lists(st.sampled_from([1, 80, 100, 120, 150, 254]), min_size=many, max_size=many)
    )
    action = st.tuples(
        st.floats(0, 6).map(lambda gap: round(gap, 3)),
        st.sampled_from([*sorted(ACTIONS), "start", "stop"]),
        st.integers(0, 1),
        st.integers(0, many - 1),
        st.integers(0, many - 1),
    )
    return Scenario(
        tuple(priorities),
        draw(st.sampled_from([0.0, 0.0, 0.001, 0.02])),
        draw(st.sampled_from([True, True, False])),
        draw(
            st.sampled_from(
                [(1.0,) * many, (1.0,) * many, (0.5, 1.0, 2.0)[:many], (2.0, 0.25, 1.0)]
            )
        ),
        draw(st.sampled_from([0.0, 0.0, 0.0, 4.0])),
        draw(st.sampled_from([False, False, True])),
        tuple(draw(st.lists(action, max_size=12))),
    )


async def _live(scenario: Scenario) -> None:
    links = (MemoryBus(delay=scenario.delay), MemoryBus(delay=scenario.delay))
    gateways = [
        Gateway(number + 1, priority, links, **scenario.options(number))
        for number, priority in enumerate(scenario.priorities)
    ]
    try:
        for each in gateways:
            await each.start()
        for gap, what, link, first, second in scenario.actions:
            await asyncio.sleep(gap)
            gateway = gateways[first]
            if what == "start":
                await gateway.start()
            elif what == "stop":
                _each(gateway, MemoryBus.resume)
                await gateway.stop()
            else:
                ACTIONS[what](gateway, links[link], gateways[second])
            for each in gateways:
                each.check()
        await _recover(gateways, scenario.preempt)
    finally:
        for each in gateways:
            _each(each, MemoryBus.resume)
            await each.stop()
    assert not any(bus.owners(vip) for bus in links for vip in VIPS)


async def _recover(gateways: list[Gateway], preempt: bool) -> None:
    """When everything is well again one group serves, on both links, whatever was before."""
    for each in gateways:
        for bus in each.links:
            bus.heal()
            bus.plug(each.address)
        _each(each, MemoryBus.resume)
        each.fault.say(True)
        each.weight.say(True)
        await each.start()
    await asyncio.sleep(40)
    for each in gateways:
        each.check()
        note(f"{each.address} {each.state} {each.running.why_not_master()} {each.told}")
    masters = [each for each in gateways if each.state is State.MASTER]
    assert len(masters) == 1
    if preempt:
        assert masters[0].priority == max(each.priority for each in gateways)
    for bus, vip in zip(gateways[0].links, VIPS, strict=True):
        assert bus.owners(vip) == [masters[0].address]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(scenario=scenarios(), seed=st.integers(0, 2**16))
def test_groups_stay_together_whatever_happens(scenario: Scenario, seed: int) -> None:
    run_virtual(_live(scenario), seed=seed)
