"""Hooks on a router and on a group."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.notify.function import NotifyFunction
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.protocol.events import Transition
from vrrpkit.vrrp.syncgroup import GroupTransition, SyncGroup


class Notes:
    def __init__(self, takes: float = 0.0) -> None:
        self.takes = takes
        self.told: list[str] = []

    async def moved(self, event: object) -> None:
        if isinstance(event, Transition | GroupTransition):
            await asyncio.sleep(self.takes)
            self.told.append(event.state.value)


def router(
    bus: MemoryBus, *hooks: NotifyFunction, vrid: int = 1, priority: int = 100
) -> VRRPInstance:
    return VRRPInstance(
        f"r{vrid}-{priority}",
        bus.interface(f"192.0.2.{priority}"),
        vrid=vrid,
        vips=[f"192.0.2.{200 + vrid}/24"],
        priority=priority,
        notify=hooks,
    )


@virtual_time()
async def test_every_state_in_order_with_functions_of_both_kinds() -> None:
    notes, plain = Notes(), []
    bus = MemoryBus()

    def note(event: object) -> None:
        plain.append(event)

    async with router(bus, NotifyFunction(notes.moved), NotifyFunction(note)) as one:
        await one.wait_for(State.MASTER)
    assert notes.told == ["BACKUP", "MASTER", "INIT"]
    assert [e.state.value for e in plain if isinstance(e, Transition)] == notes.told


@virtual_time()
async def test_a_slow_hook_delays_no_advert_and_hears_the_newest_state() -> None:
    notes = Notes(takes=60.0)
    bus = MemoryBus()
    async with router(bus, NotifyFunction(notes.moved, timeout=None)) as one:
        await one.wait_for(State.MASTER)
        for _ in range(5):
            bus.unplug("192.0.2.100")
            await asyncio.sleep(1)
            bus.plug("192.0.2.100")
            await one.wait_for(State.MASTER)
        sent = one.statistics.advertisement_sent
        await asyncio.sleep(20)
        assert one.statistics.advertisement_sent - sent >= 20
        await asyncio.sleep(120)
        assert notes.told == ["BACKUP", "MASTER"]


@virtual_time()
async def test_a_hook_that_hangs_is_cut_off_and_one_that_raises_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[float] = []
    bus = MemoryBus()
    loop = asyncio.get_running_loop()

    async def hang(_: object) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(loop.time())

    def broken(_: object) -> None:
        raise RuntimeError("my own bug")

    start = loop.time()
    async with router(bus, NotifyFunction(hang, timeout=2), NotifyFunction(broken)) as one:
        await one.wait_for(State.MASTER)
        await asyncio.sleep(10)
        left = loop.time()
    assert ended[0] - start == pytest.approx(2)
    assert loop.time() - left <= 5
    assert "my own bug" in caplog.text


@virtual_time()
async def test_who_comes_later_is_told_the_present_state() -> None:
    notes = Notes()
    bus = MemoryBus()
    async with router(bus) as one:
        await one.wait_for(State.MASTER)
        remove = one.add_notifier(NotifyFunction(notes.moved))
        await asyncio.sleep(1)
        assert notes.told == ["MASTER"]
        remove()
        bus.unplug("192.0.2.100")
        await asyncio.sleep(1)
    assert notes.told == ["MASTER"]


@virtual_time()
async def test_who_comes_before_the_start_is_told_once() -> None:
    first, second = Notes(), Notes()
    one = router(MemoryBus(), NotifyFunction(first.moved))
    one.add_notifier(NotifyFunction(second.moved))
    async with one:
        await one.wait_for(State.MASTER)
    assert first.told == second.told == ["BACKUP", "MASTER", "INIT"]


@virtual_time()
async def test_a_group_tells_too() -> None:
    notes, late = Notes(), Notes()
    bus = MemoryBus()
    members = [router(bus, vrid=1), router(bus, vrid=2)]
    async with SyncGroup("g", members, notify=[NotifyFunction(notes.moved)]) as group:
        await group.wait_for(State.MASTER)
        group.add_notifier(NotifyFunction(late.moved))
    assert notes.told == ["BACKUP", "MASTER", "INIT"]
    assert late.told[-1] == "INIT"


def test_bad_hooks_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes a function"):
        NotifyFunction("run me")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="timeout"):
        NotifyFunction(print, timeout=0)
