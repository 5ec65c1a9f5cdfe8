"""Pools, routers, trackers and notifiers that come and go for years: nothing is kept of those that
went. Each test does the same over and over and counts what is in memory."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Sized
from pathlib import Path
from typing import Any, cast

import pytest

from vrrpkit import (
    BFDSession,
    MemoryBus,
    MemoryTable,
    NotifyFunction,
    SyncGroup,
    TrackFunction,
    VirtualServer,
    VRRPInstance,
)
from vrrpkit.checks.base import Checker
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.target import Target
from vrrpkit.testing import virtual_time
from vrrpkit.testing.checks import ScriptedChecker

ROUNDS = 1000
FIRST = 150
"""Rounds in which caches and tables reach the size that they keep."""

SLACK = 0.2
"""Things a round that do not count: one for each would be 1 at least."""

CONTAINERS = (dict, set, list, deque, OrderedDict)


def census() -> tuple[Counter[str], int]:
    """How many objects of each class there are, and how much is in all containers together."""
    gc.collect()
    things = gc.get_objects()
    kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in things)
    inside = sum(len(cast(Sized, thing)) for thing in things if type(thing) in CONTAINERS)
    return kinds, inside


async def nothing_is_kept(one: Callable[[int], Awaitable[None]], rounds: int = ROUNDS) -> None:
    """Do something many times; nothing of it may be left behind."""

    async def some(numbers: range) -> None:
        for number in numbers:
            await one(number)
        # The loop forgets timers that were cancelled when they would have been due.
        await asyncio.sleep(1000)

    await some(range(FIRST))
    before, inside = census()
    await some(range(FIRST, FIRST + rounds))
    after, inside_now = census()
    more = {kind: count for kind, count in (after - before).items() if count > rounds * SLACK}
    assert more == {}
    assert (inside_now - inside) / rounds < SLACK


def address(number: int) -> str:
    return f"10.{number // 60000}.{number // 250 % 240}.{number % 250 + 1}"


@pytest.mark.parametrize("also", ["", "state_file", "notify"])
def test_servers_of_a_pool(also: str, tmp_path: Path) -> None:
    @virtual_time()
    async def run() -> None:
        given: dict[str, Any] = {}
        if also == "state_file":
            given["state_file"] = tmp_path / "state"
        elif also == "notify":
            given["notify"] = [NotifyFunction(lambda event: None)]
        table = MemoryTable()
        # Its moments are hours away.
        check = ScriptedChecker(interval=86400, warmup=86400)
        servers = ["10.255.0.1:8080"]
        async with VirtualServer(
            "192.0.2.10:80/tcp", name="web", servers=servers, check=check, table=table, **given
        ) as web:

            async def one(number: int) -> None:
                server = f"{address(number)}:8080"
                await web.add(server)
                await web.set_weight(server, 3)
                await web.disable(server)
                await (web.drain(server, 1) if number % 2 else web.remove(server))
                table.operations.clear()

            await nothing_is_kept(one)
            assert [server.name for server in web.servers] == servers

    run()


@virtual_time()
async def test_checks_of_a_scheduler() -> None:
    scheduler = CheckScheduler()
    check: Checker = ScriptedChecker(interval=86400, warmup=86400)
    first = scheduler.add(check, Target("10.255.0.1", 80))

    async def one(number: int) -> None:
        await scheduler.add(check, Target(address(number), 80)).stop()

    await nothing_is_kept(one)
    await first.stop()


@virtual_time()
async def test_pools_of_a_table() -> None:
    table = MemoryTable()

    async def one(number: int) -> None:
        service = f"{address(number)}:80"
        async with VirtualServer(service, servers=["10.0.0.1:80"], table=table, name=service):
            pass
        table.operations.clear()

    async with VirtualServer("198.51.100.1:80", servers=["10.0.0.1:80"], table=table):
        await nothing_is_kept(one, 300)


@pytest.fixture
def bus() -> MemoryBus:
    """A link that remembers only the last messages; by itself it remembers 10,000."""
    return MemoryBus(record=100)


@virtual_time(limit=1e6)
async def test_routers_with_trackers_and_notifiers_and_a_group(bus: MemoryBus) -> None:
    interface = bus.interface("192.0.2.1")

    async def steady() -> bool:
        return True

    def router(number: int, vrid: int, **options: Any) -> VRRPInstance:
        track = TrackFunction(lambda: steady(), interval=60)
        notify = [NotifyFunction(lambda event: None)]
        vip = f"{address(number)}/32"
        return VRRPInstance(
            f"r{number}", interface, vrid=vrid, vips=[vip], track=[track], notify=notify, **options
        )

    async def one(number: int) -> None:
        first = router(number, number % 250 + 2, priority=255)
        second = router(number + 100_000, 1, preempt_delay=900)
        async with SyncGroup(
            f"g{number}", [first, second], notify=[NotifyFunction(lambda event: None)]
        ):
            await asyncio.sleep(10)
            remove = first.add_notifier(NotifyFunction(lambda event: None))
            remove()

    async with router(9999, 255):
        await nothing_is_kept(one, 300)


@virtual_time(limit=1e6)
async def test_bfd_sessions(bus: MemoryBus) -> None:
    interface = bus.interface("192.0.2.1")

    async def one(number: int) -> None:
        async with BFDSession(f"192.0.2.{number % 250 + 2}", interface=interface):
            await asyncio.sleep(1)

    await nothing_is_kept(one, 300)


@virtual_time()
async def test_who_listens() -> None:
    async with VirtualServer(
        "192.0.2.10:80/tcp", servers=["10.0.0.1:80"], table=MemoryTable()
    ) as web:

        async def one(number: int) -> None:
            web.on_server(lambda event: None)()
            web.on_result(lambda result: None)()
            web.add_notifier(NotifyFunction(lambda event: None))()
            web.events()
            await asyncio.sleep(0)

        await nothing_is_kept(one)
