"""SyncGroup on the in-memory bus, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

import pytest

from vrrpkit import Closed, ConfigError, MemoryBus, State, Transition, VRRPInstance, VRRPKitError
from vrrpkit.errors import NotEligible
from vrrpkit.notify.function import FINISH, NotifyFunction
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.instance import run_of
from vrrpkit.vrrp.syncgroup import GroupTransition, SyncGroup


class Gateway:
    """One machine with an inside and an outside interface, on the buses of the others."""

    def __init__(self, number: int, inside: MemoryBus, outside: MemoryBus, **changes: Any) -> None:
        self.buses = (inside, outside)
        self.address = f"192.0.2.{number}"
        settings: dict[str, Any] = {"priority": 100} | changes
        self.members = [
            VRRPInstance(
                f"{name}{number}", bus.interface(self.address), vrid=vrid, vips=[vip], **settings
            )
            for name, bus, vrid, vip in (
                ("in", inside, 1, "192.0.2.100/24"),
                ("out", outside, 2, "192.0.2.200/24"),
            )
        ]
        self.group = SyncGroup(f"gateway{number}", self.members)

    @property
    def states(self) -> list[State]:
        return [member.state for member in self.members]


def two(**changes: Any) -> tuple[Gateway, Gateway]:
    buses = (MemoryBus(), MemoryBus())
    return Gateway(1, *buses, priority=150, **changes), Gateway(2, *buses, **changes)


@virtual_time()
async def test_both_links_move_when_one_is_pulled_and_come_back_together() -> None:
    one, two_ = two()
    loop = asyncio.get_running_loop()
    async with one.group, two_.group:
        assert one.group.state is State.BACKUP
        await one.group.wait_for(State.MASTER)
        await asyncio.sleep(5)
        assert (one.states, two_.states) == ([State.MASTER] * 2, [State.BACKUP] * 2)
        pulled = loop.time()
        one.buses[0].unplug(one.address)
        assert one.states == [State.FAULT] * 2
        await two_.group.wait_for(State.MASTER)
        # The skew of priority 100, on the link that says nothing too.
        assert loop.time() - pulled == pytest.approx(156 / 256, abs=0.01)
        assert two_.states == [State.MASTER] * 2
        assert one.group.why_not_master() == "in FAULT: in1 (interface-down)"
        one.buses[0].plug(one.address)
        assert one.states == [State.BACKUP] * 2
        await one.group.wait_for(State.MASTER)
        await asyncio.sleep(1)
        assert (one.states, two_.states) == ([State.MASTER] * 2, [State.BACKUP] * 2)
    assert one.states + two_.states == [State.INIT] * 4


@virtual_time()
async def test_a_start_with_a_cable_out_is_a_fault_and_nothing_else() -> None:
    one, _ = two()
    told: list[str] = []
    one.buses[1].unplug(one.address)
    for member in one.members:
        member.on_transition(lambda change: told.append(f"{change.router} {change.state}"))
    async with one.group:
        assert sorted(told) == ["in1 FAULT", "out1 FAULT"]
        assert one.group.state is State.FAULT


@virtual_time()
async def test_callbacks_may_command_the_group() -> None:
    one, other = two()

    def aside(change: Transition) -> None:
        if change.state is State.MASTER:
            one.group.demote(10)
            assert one.states == [State.MASTER] * 2

    one.members[0].on_transition(aside)
    async with one.group, other.group:
        await other.group.wait_for(State.MASTER)
        await asyncio.sleep(1)
        assert (one.states, other.states) == ([State.BACKUP] * 2, [State.MASTER] * 2)
        assert one.group.why_not_master() == (
            "in1 was demoted, and follows 192.0.2.2, whose priority is 100 (its own is 1); "
            "out1 was demoted, and follows 192.0.2.2, whose priority is 100 (its own is 1)"
        )


@virtual_time()
async def test_leaving_says_so_on_every_link() -> None:
    one, two_ = two()
    loop = asyncio.get_running_loop()
    async with two_.group:
        async with one.group:
            await one.group.wait_for(State.MASTER)
            await asyncio.sleep(3)
        left = loop.time()
        await two_.group.wait_for(State.MASTER)
        assert loop.time() - left == pytest.approx(156 / 256, abs=0.01)


@virtual_time()
async def test_events_of_the_group_come_after_those_of_its_members() -> None:
    one, _ = two()
    told: list[str] = []
    for member in one.members:
        member.on_transition(lambda change: told.append(f"{change.router} {change.state}"))
    one.group.on_transition(lambda change: told.append(f"{change.group} {change.state}"))
    stream = one.group.events()
    async with one.group:
        await one.group.wait_for(State.MASTER)
    assert told == [
        *("in1 BACKUP", "out1 BACKUP", "gateway1 BACKUP"),
        *("in1 MASTER", "out1 MASTER", "gateway1 MASTER"),
        *("in1 INIT", "out1 INIT", "gateway1 INIT"),
    ]
    seen = [event async for event in stream]
    assert [str(event) for event in seen if isinstance(event, GroupTransition)] == [
        "gateway1: INIT -> BACKUP",
        "gateway1: BACKUP -> MASTER",
        "gateway1: MASTER -> INIT",
    ]


@virtual_time()
async def test_demote_and_promote_move_everything() -> None:
    one, two_ = two()
    async with one.group, two_.group:
        await one.group.wait_for(State.MASTER)
        await asyncio.sleep(3)
        with pytest.raises(NotEligible, match="because of in2"):
            two_.group.promote()
        one.group.demote(30)
        await two_.group.wait_for(State.MASTER)
        await asyncio.sleep(5)
        assert (one.states, two_.states) == ([State.BACKUP] * 2, [State.MASTER] * 2)
        one.group.promote()
        assert one.states == [State.MASTER] * 2
        await asyncio.sleep(2)
        assert two_.states == [State.BACKUP] * 2
        with pytest.raises(ConfigError, match="more than 0"):
            one.group.demote(0)


@virtual_time()
async def test_a_member_is_entered_by_its_group_alone() -> None:
    one, _ = two()
    with pytest.raises(VRRPKitError, match="enter the group"):
        async with one.members[0]:
            pass
    with pytest.raises(ConfigError, match="in one group only"):
        SyncGroup("again", one.members)
    async with one.group:
        pass
    with pytest.raises(VRRPKitError, match="entered before"):
        async with one.group:
            pass
    with pytest.raises(VRRPKitError, match="has ended: make a new SyncGroup"):
        one.group.demote(1)
    with pytest.raises(VRRPKitError, match="is not running"):
        two()[0].group.demote(1)


@virtual_time()
async def test_entering_a_second_time_leaves_the_first_alone() -> None:
    one, _ = two()

    async def enter() -> None:
        async with one.group:
            await one.group.wait_for(State.MASTER)

    first = asyncio.create_task(enter())
    await asyncio.sleep(0)
    with pytest.raises(VRRPKitError, match="entered before"):
        await enter()
    await first
    assert first.exception() is None


class TestCancellation:
    """Cancelled at every turn of the loop, once or twice, a group leaves nothing behind."""

    @staticmethod
    def tied(buses: tuple[MemoryBus, MemoryBus]) -> Gateway:
        return Gateway(1, *buses, notify=[NotifyFunction(lambda _: asyncio.sleep(0.3))])

    async def cancelled(self, *, leaving: bool, turns: int, again: int | None) -> bool:
        buses = (MemoryBus(), MemoryBus())
        gateway, leave = self.tied(buses), asyncio.Event()

        async def router_run() -> None:
            async with gateway.group:
                await leave.wait()

        task = asyncio.create_task(router_run())
        if leaving:
            await gateway.group.wait_for(State.MASTER)
            leave.set()
        for wait in (turns, again):
            for _ in range(wait or 0):
                await asyncio.sleep(0)
            if wait is not None:
                task.cancel()
        await asyncio.wait([task])
        assert gateway.states == [State.INIT] * 2
        assert not any(bus.owners(vip) for bus in buses for vip in ("192.0.2.100", "192.0.2.200"))
        # Neither a place on the interfaces, nor somebody who waits, nor a task.
        if turns or leaving:
            for each in (gateway.group, *gateway.members):
                with pytest.raises(Closed):
                    await each.wait_for(State.MASTER)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        async with self.tied(buses).group:
            pass
        return task.cancelled()

    @pytest.mark.parametrize("again", [None, 0, 1, 2, 4])
    @pytest.mark.parametrize("leaving", [False, True], ids=["entering", "leaving"])
    @virtual_time()
    async def test_nothing_is_left(self, leaving: bool, again: int | None) -> None:
        for turns in range(25):
            if not await self.cancelled(leaving=leaving, turns=turns, again=again):
                break
        assert turns > 2


@virtual_time()
async def test_a_bug_while_entering_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = two()
    inside = one.buses[0].interface(one.address)
    claim = inside.claim

    def claimed(key: Hashable) -> None:
        claim(key)
        driver = run_of(one.members[0]).driver
        assert driver is not None
        asyncio.get_running_loop().call_soon(driver.fail, ZeroDivisionError())

    monkeypatch.setattr(inside, "claim", claimed)
    with pytest.raises(ZeroDivisionError):
        async with one.group:
            raise AssertionError("it was entered")
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    assert one.states == [State.INIT] * 2


@virtual_time()
async def test_a_member_tells_what_the_group_waits_for() -> None:
    one, other = two()
    inside, outside = other.members
    async with one.group, other.group:
        await one.group.wait_for(State.MASTER)
        await asyncio.sleep(2)
        one.buses[0].cut(one.address, other.address)
        await asyncio.sleep(5)
        waits = "out2 follows 192.0.2.1, whose priority is 150 (its own is 100)"
        assert other.group.why_not_master() == waits
        assert inside.why_not_master() == (
            f"waits for the other members of its sync group: {waits}"
        )
        other.buses[1].unplug(other.address)
        assert outside.why_not_master() == "in FAULT: interface-down"
        assert inside.why_not_master() == "with its sync group in FAULT: out2 (interface-down)"
    assert other.group.why_not_master() == inside.why_not_master() == "has ended"


def test_bad_groups_are_refused() -> None:
    bus = MemoryBus()

    def router(name: str, vrid: int) -> VRRPInstance:
        return VRRPInstance(name, bus.interface("192.0.2.1"), vrid=vrid, vips=["192.0.2.10/24"])

    with pytest.raises(ConfigError, match="two members 'a'"):
        SyncGroup("twice", [router("a", 1), router("a", 2)])


@virtual_time()
async def test_a_running_router_cannot_join() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    a = VRRPInstance("a", interface, vrid=1, vips=["192.0.2.10/24"])
    b = VRRPInstance("b", interface, vrid=2, vips=["192.0.2.11/24"])
    async with a:
        with pytest.raises(ConfigError, match="runs already"):
            SyncGroup("late", [a, b])
    with pytest.raises(ConfigError, match="a was entered before: make a new VRRPInstance"):
        SyncGroup("later", [a, b])


@virtual_time()
async def test_a_member_that_cannot_start_leaves_nothing_behind() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    good = VRRPInstance("a", interface, vrid=1, vips=["192.0.2.10/24"])
    bad = VRRPInstance("b", interface, vrid=2, vips=["192.0.2.11/24"], source="192.0.2.77")
    group = SyncGroup("half", [good, bad])
    with pytest.raises(VRRPKitError, match=r"192\.0\.2\.77"):
        async with group:
            pass
    for each in (group, good, bad):
        with pytest.raises(Closed):
            await each.wait_for(State.MASTER)
    async with VRRPInstance("c", interface, vrid=1, vips=["192.0.2.10/24"]) as again:
        assert again.state is State.BACKUP


@virtual_time()
async def test_a_bug_in_one_member_ends_all_with_priority_0_and_is_raised() -> None:
    one, two_ = two()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def router_run() -> None:
        async with one.group:
            await one.group.wait_for(State.MASTER)
            await asyncio.sleep(2)
            one.group._runner.group._agree = broken  # type: ignore[union-attr, assignment]
            await asyncio.sleep(1000)

    async with two_.group:
        with pytest.raises(ZeroDivisionError):
            await router_run()
        await two_.group.wait_for(State.MASTER)
        assert two_.states == [State.MASTER] * 2


@virtual_time()
async def test_members_end_at_the_same_time_however_slow_their_notifiers_are() -> None:
    buses = (MemoryBus(), MemoryBus())

    async def hang(_: object) -> None:
        await asyncio.sleep(3600)

    hooks = [NotifyFunction(hang, timeout=None)]
    gateway = Gateway(1, *buses, notify=hooks)
    loop = asyncio.get_running_loop()
    async with gateway.group:
        await gateway.group.wait_for(State.MASTER)
        left = loop.time()
    assert loop.time() - left == pytest.approx(FINISH)
    assert gateway.states == [State.INIT] * 2
