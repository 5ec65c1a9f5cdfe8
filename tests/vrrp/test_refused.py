"""Routers in memory of which one cannot have what belongs to it."""

from __future__ import annotations

import asyncio
import errno
from ipaddress import ip_address

import pytest

from vrrp.routers import VIP, mastering, router
from vrrpkit import MemoryBus, State, SyncGroup
from vrrpkit.events import AddressesRefused
from vrrpkit.testing import virtual_time

OTHER = "192.0.2.11"
INVALID = OSError(errno.EINVAL, "Invalid argument")


@virtual_time()
async def test_a_healthy_master_is_left_in_place_until_something_changes() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    interface.manager.failures[ip_address(VIP)] = INVALID
    async with router(bus, "b", "192.0.2.2", priority=100) as b:
        await mastering(b)
        moves: list[State] = []
        b.on_transition(lambda change: moves.append(change.state))
        async with router(bus) as a:
            await asyncio.sleep(600)
            assert (a.state, b.state) == (State.BACKUP, State.MASTER)
            assert moves == [State.BACKUP, State.MASTER], "one try"
            why = a.why_not_master()
            assert why is not None and "192.0.2.10/24: Invalid argument" in why
            del interface.manager.failures[ip_address(VIP)]
            interface.add("198.51.100.1/24")
            await mastering(a)
            assert interface.holds(ip_address(VIP))
            assert moves == [State.BACKUP, State.MASTER, State.BACKUP]


@virtual_time()
async def test_a_part_is_served_and_announced_when_the_other_is_gone() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    interface.manager.failures[ip_address(OTHER)] = INVALID
    vips = [f"{VIP}/32", f"{OTHER}/32"]
    async with router(bus, vips=vips) as a:
        async with router(bus, "b", "192.0.2.2", priority=100, vips=vips) as b:
            await mastering(b)
            await asyncio.sleep(20)
            assert (a.state, b.state) == (State.BACKUP, State.MASTER)
            begin = asyncio.get_running_loop().time()
        await mastering(a)
        await asyncio.sleep(1)
        assert (a.state, a.priority) == (State.MASTER, 1)
        announced = {
            str(crossing.announced)
            for crossing in bus.record
            if crossing.announced and crossing.sender == "192.0.2.1" and crossing.time > begin
        }
        assert announced == {VIP}
        events = a.events()
        del interface.manager.failures[ip_address(OTHER)]
        interface.add("198.51.100.1/24")
        await asyncio.sleep(1.1)
        assert (a.priority, a.state) == (150, State.MASTER)
        assert interface.holds(ip_address(OTHER))
    assert not [event async for event in events if isinstance(event, AddressesRefused)]


@virtual_time()
async def test_routes_too() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    routes = ["10.0.0.0/8 via 192.0.2.7", "10.1.0.0/16 via 192.0.2.8"]
    a = router(bus, routes=routes)
    interface.routing.failures[a.config.routes[0]] = INVALID
    interface.manager.failures[ip_address(VIP)] = INVALID
    async with a:
        async with router(bus, "b", "192.0.2.2", priority=100) as b:
            await mastering(b)
            await asyncio.sleep(20)
            assert (a.state, b.state) == (State.BACKUP, State.MASTER)
        await a.wait_for(State.MASTER)
        await asyncio.sleep(1)
        assert a.state is State.MASTER
        assert interface.routes == [a.config.routes[1]], "what can be had"


@virtual_time()
async def test_a_sync_group_waits_together() -> None:
    bus, other = MemoryBus(), MemoryBus()
    bus.interface("192.0.2.1").manager.failures[ip_address(VIP)] = INVALID

    def members(address: str, priority: int) -> list[object]:
        return [
            router(bus, "one", address, priority=priority),
            router(other, "two", address, vrid=52, priority=priority),
        ]

    async with SyncGroup("b", members("192.0.2.2", 100)) as b:  # type: ignore[arg-type]
        await b.wait_for(State.MASTER)
        moves: list[State] = []
        b.on_transition(lambda change: moves.append(change.state))
        async with SyncGroup("a", members("192.0.2.1", 150)) as a:  # type: ignore[arg-type]
            await asyncio.sleep(300)
            assert (a.state, b.state) == (State.BACKUP, State.MASTER)
            assert moves == [State.BACKUP, State.MASTER]
            assert "a takeover failed" in (a.why_not_master() or "")


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM])
@virtual_time()
async def test_what_nobody_can_watch_is_tried_every_five_minutes(number: int) -> None:
    bus = MemoryBus()
    bus.interface("192.0.2.1").manager.failures[ip_address(VIP)] = OSError(number, "no")
    async with router(bus, "b", "192.0.2.2", priority=100) as b:
        await mastering(b)
        moves: list[State] = []
        b.on_transition(lambda change: moves.append(change.state))
        async with router(bus):
            await asyncio.sleep(1000)
            assert moves.count(State.BACKUP) == 4
