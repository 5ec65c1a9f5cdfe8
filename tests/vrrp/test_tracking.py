"""Routers and groups with trackers, on the in-memory bus under virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import attrs
import pytest

from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.testing import virtual_time
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.vrrp.protocol.events import WeightTooSmall
from vrrpkit.vrrp.syncgroup import SyncGroup


class Switch:
    """What a test says."""

    def __init__(self, signal: Signal = None) -> None:
        self.signal = signal
        self.changed = asyncio.Event()
        self.running = self.starts = 0

    def say(self, signal: Signal) -> None:
        self.signal = signal
        self.changed.set()


@attrs.frozen(kw_only=True)
class TrackSwitch(Tracker):
    switch: Switch

    async def signals(self) -> AsyncIterator[Signal]:
        self.switch.running += 1
        self.switch.starts += 1
        try:
            while True:
                if self.switch.signal is not None:
                    yield self.switch.signal
                await self.switch.changed.wait()
                self.switch.changed.clear()
                if self.switch.signal == 666:
                    raise ZeroDivisionError("broken")
                if self.switch.signal == 999:
                    return
        finally:
            self.switch.running -= 1


def router(bus: MemoryBus, number: int, priority: int, *track: Tracker) -> VRRPInstance:
    return VRRPInstance(
        f"r{number}",
        bus.interface(f"192.0.2.{number}"),
        vrid=51,
        vips=["192.0.2.100/24"],
        priority=priority,
        track=track,
    )


@virtual_time()
async def test_weight_moves_the_master() -> None:
    bus, switch = MemoryBus(), Switch(True)
    one = router(bus, 1, 150, TrackSwitch(switch=switch, weight=-60))
    two = router(bus, 2, 100)
    async with one, two:
        assert one.priority == 150
        await one.wait_for(State.MASTER)
        await asyncio.sleep(5)
        switch.say(False)
        await two.wait_for(State.MASTER)
        assert one.priority == 90
        assert one.signals == {"switch": False}
        await asyncio.sleep(1)
        assert one.state is State.BACKUP
        switch.say(True)
        await one.wait_for(State.MASTER)
        assert one.priority == 150
    assert switch.running == 0


@virtual_time()
async def test_weight_0_is_fault_until_it_is_known_and_good() -> None:
    bus, switch = MemoryBus(), Switch()
    async with router(bus, 1, 150, TrackSwitch(switch=switch)) as one:
        assert (one.state, one.faults) == (State.FAULT, {"switch"})
        await asyncio.sleep(10)
        switch.say(True)
        await one.wait_for(State.BACKUP)
        await one.wait_for(State.MASTER)
        switch.say(False)
        await one.wait_for(State.FAULT)


@virtual_time()
async def test_what_is_known_without_waiting_counts_from_the_start() -> None:
    bus, switch = MemoryBus(), Switch(True)
    async with router(bus, 1, 100, TrackSwitch(switch=switch, weight=20)) as one:
        assert (one.state, one.priority) == (State.BACKUP, 120)
        one.set_priority(200)
        assert one.priority == 220
        switch.say(False)
        await asyncio.sleep(0.1)
        assert one.priority == 200


@virtual_time()
async def test_one_look_for_many_routers_and_none_when_all_have_left() -> None:
    bus, switch = MemoryBus(), Switch(True)
    one = router(bus, 1, 150, TrackSwitch(switch=switch, weight=10))
    two = router(bus, 2, 100, TrackSwitch(switch=switch, weight=-10, name="other"))
    async with one:
        async with two:
            assert (one.priority, two.priority) == (160, 100)
            assert switch.starts == 1
            switch.say(False)
            await asyncio.sleep(0.1)
            assert (one.priority, two.priority) == (150, 90)
        assert switch.running == 1
    assert (switch.running, switch.starts) == (0, 1)


@virtual_time()
async def test_a_tracker_that_raises_or_ends_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, switch = MemoryBus(), Switch(True)
    async with router(bus, 1, 150, TrackSwitch(switch=switch)) as one:
        switch.say(666)
        await one.wait_for(State.FAULT)
        switch.signal = True
        await one.wait_for(State.BACKUP)
        assert switch.starts == 2
        switch.say(999)
        await asyncio.sleep(1)
        switch.signal = True
        await asyncio.sleep(5)
        assert switch.starts == 3
        assert one.state is not State.FAULT
    assert "tracker switch failed" in caplog.text
    assert "tracker switch ended" in caplog.text


@virtual_time()
async def test_a_weight_that_cannot_bridge_the_gap_is_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, switch = MemoryBus(), Switch(True)
    one = router(bus, 1, 150, TrackSwitch(switch=switch, weight=-20))
    two = router(bus, 2, 100)
    caplog.set_level(logging.WARNING)
    stream = one.events()
    async with two:
        await two.wait_for(State.MASTER)
        async with one:
            await one.wait_for(State.MASTER)
            await asyncio.sleep(10)
    warned = [event async for event in stream if isinstance(event, WeightTooSmall)]
    assert [str(event) for event in warned] == [
        "r1: the weight -20 of switch cannot hand the addresses from priority 150 to the router of "
        "priority 100; it takes 51 or more"
    ]
    assert caplog.text.count("it takes 51 or more") == 1


def members(bus: MemoryBus, *track: Tracker) -> list[VRRPInstance]:
    interface = bus.interface("192.0.2.1")
    return [
        VRRPInstance(
            f"m{vrid}",
            interface,
            vrid=vrid,
            vips=[f"192.0.2.{100 + vrid}/24"],
            track=track if vrid == 1 else (),
        )
        for vrid in (1, 2)
    ]


@virtual_time()
async def test_a_group_is_tracked_as_one() -> None:
    bus, weight, fault = MemoryBus(), Switch(True), Switch(True)
    pair = members(bus)
    group = SyncGroup(
        "g",
        pair,
        track=[TrackSwitch(switch=weight, weight=-20, name="w"), TrackSwitch(switch=fault)],
    )
    async with group:
        await group.wait_for(State.MASTER)
        weight.say(False)
        await asyncio.sleep(0.1)
        assert [member.priority for member in pair] == [80, 80]
        fault.say(False)
        await group.wait_for(State.FAULT)
        assert group.why_not_master() == "in FAULT: m1 (switch); m2 (switch)"
        assert group.signals == {"w": False, "switch": False}
        fault.say(True)
        await group.wait_for(State.MASTER)
    assert weight.running == fault.running == 0


@virtual_time()
async def test_weights_of_members_count_for_the_group_where_asked() -> None:
    bus, switch = MemoryBus(), Switch(True)
    tracker = TrackSwitch(switch=switch, weight=30)
    with pytest.raises(ConfigError, match="member_weights=True"):
        SyncGroup("g", members(bus, tracker))
    pair = members(bus, tracker)
    async with SyncGroup("g", pair, member_weights=True):
        assert [member.priority for member in pair] == [130, 130]
        switch.say(False)
        await asyncio.sleep(0.1)
        assert [member.priority for member in pair] == [100, 100]


@virtual_time()
async def test_a_members_fault_tracker_is_a_fault_of_all() -> None:
    bus, switch = MemoryBus(), Switch(True)
    pair = members(bus, TrackSwitch(switch=switch))
    async with SyncGroup("g", pair) as group:
        await group.wait_for(State.MASTER)
        switch.say(False)
        await group.wait_for(State.FAULT)
        assert [sorted(member.faults) for member in pair] == [["switch"], ["sync-group"]]


class TrackPlain(Tracker):
    """A class that attrs did not make, with a state of its own."""

    def __init__(self, signal: object, weight: int = 0) -> None:
        super().__init__(weight=weight)
        object.__setattr__(self, "signal", signal)

    async def signals(self) -> AsyncIterator[Signal]:
        yield self.signal  # type: ignore[attr-defined]
        await asyncio.sleep(3600)


@virtual_time()
async def test_trackers_of_a_plain_class_are_not_mixed_up() -> None:
    bus = MemoryBus()
    good, bad = TrackPlain(True, weight=20), TrackPlain(False, weight=20)
    async with router(bus, 1, 150, good) as one, router(bus, 2, 100, bad) as two:
        assert (one.priority, two.priority) == (170, 100)


@virtual_time()
async def test_what_is_no_signal_counts_as_a_bad_one(caplog: pytest.LogCaptureFixture) -> None:
    bus = MemoryBus()
    async with router(bus, 1, 150, TrackPlain("PONG")) as one:
        assert one.faults == {"plain"}
    assert "a signal must be True, False, a whole number or None, not 'PONG'" in caplog.text


@virtual_time()
async def test_a_tracker_that_waits_for_something_cancelled_is_started_again() -> None:
    bus, tries = MemoryBus(), []

    @attrs.frozen(kw_only=True)
    class TrackCancelled(Tracker):
        async def signals(self) -> AsyncIterator[Signal]:
            tries.append(1)
            yield True
            helper = asyncio.ensure_future(asyncio.sleep(10))
            asyncio.get_running_loop().call_later(1, helper.cancel)
            await helper

    async with router(bus, 1, 150, TrackCancelled()) as one:
        assert not one.faults
        await asyncio.sleep(2)
        assert one.faults == {"cancelled"}
        await asyncio.sleep(4.5)
        assert not one.faults
    assert len(tries) == 2


@virtual_time()
async def test_the_weight_of_a_groups_tracker_is_compared_with_the_other_ones_priority() -> None:
    inside, outside = MemoryBus(), MemoryBus()
    switch = Switch(True)

    def members(number: int, priority: int) -> list[VRRPInstance]:
        return [
            VRRPInstance(
                f"{name}{number}",
                bus.interface(f"192.0.2.{number}"),
                vrid=1,
                vips=["192.0.2.100/24"],
                priority=priority,
            )
            for name, bus in (("in", inside), ("out", outside))
        ]

    higher = members(1, 150)
    streams = [member.events() for member in higher]
    track = [TrackSwitch(switch=switch, weight=-30)]
    async with SyncGroup("low", members(2, 100)) as low:
        await low.wait_for(State.MASTER)
        async with SyncGroup("high", higher, track=track) as high:
            await high.wait_for(State.MASTER)
    for stream in streams:
        (warned,) = [event async for event in stream if isinstance(event, WeightTooSmall)]
        assert (warned.weight, warned.enough, warned.priority, warned.other) == (-30, 51, 150, 100)
