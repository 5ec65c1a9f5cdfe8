"""Drains that checks, others and hurry cannot cut short unnoticed; and a check that does not end
holds up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest

from vrrpkit import FunctionChecker, RealServer, VirtualServer
from vrrpkit.checks.target import Target
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import AddDestination, DeleteDestination, DeleteService
from vrrpkit.ipvs.model.events import ServerDrained
from vrrpkit.lifecycle.shutdown import hurry
from vrrpkit.testing import virtual_time
from vrrpkit.testing.checks import ScriptedChecker

A, B, SORRY = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"
WEB, TLS = service_keys(["192.0.2.10:80", "192.0.2.10:443"])
KEY = destination_key(A)


def server(table: MemoryTable, **changes: Any) -> VirtualServer:
    usual: dict[str, Any] = {"services": "192.0.2.10:80", "servers": [A, B], "table": table}
    return VirtualServer(**(usual | {"name": "web"} | changes))


async def weights(table: MemoryTable) -> dict[str, int]:
    entry = await table.read_service(WEB)
    assert entry is not None
    return {str(key): found.destination.weight for key, found in entry.destinations.items()}


def elapsed() -> float:
    """Seconds of virtual time, which begins at 1000."""
    return asyncio.get_running_loop().time() - 1000


class TestDrain:
    @virtual_time()
    async def test_a_check_that_fails_cuts_nothing_and_what_is_left_is_counted(self) -> None:
        table, health = MemoryTable(), ScriptedChecker(interval=0.5, retry=0)
        async with server(table, check=health) as web:
            drained: list[ServerDrained] = []
            events = web.events()

            async def note() -> None:
                async for event in events:
                    if isinstance(event, ServerDrained):
                        drained.append(event)  # noqa: PERF401 - read while it goes on

            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(note(), name="events")
                table.set_connections(WEB, KEY, active=7)
                draining = tasks.create_task(web.drain(A, timeout=10), name="drain")
                await asyncio.sleep(2)
                health.fails(A, "status 503")
                await asyncio.sleep(2)
                assert str(web.servers[0].reason) == "Scripted: status 503"
                assert await weights(table) == {A: 0, B: 1}
                table.set_connections(WEB, KEY, active=4)
                assert await draining == 4
                await asyncio.sleep(0)
                reading.cancel()
            assert [event.remaining for event in drained] == [4]
            assert await weights(table) == {B: 1}

    @virtual_time()
    async def test_it_ends_when_they_end_although_its_check_fails(self) -> None:
        table, health = MemoryTable(), ScriptedChecker(interval=0.5, retry=0)
        async with server(table, check=health, servers=[A], sorry=SORRY) as web:
            table.set_connections(WEB, KEY, active=1)
            draining = asyncio.create_task(web.drain(A), name="drain")
            await asyncio.sleep(2)
            health.fails(A)
            await asyncio.sleep(30)
            assert (draining.done(), await weights(table)) == (False, {A: 0, SORRY: 1})
            table.set_connections(WEB, KEY, active=0)
            assert await draining == 0

    @pytest.mark.parametrize("whole", [False, True])
    def test_one_that_somebody_took_out_comes_back_and_has_not_ended(
        self, whole: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        @virtual_time()
        async def run() -> None:
            table = MemoryTable()
            async with server(table, poll_interval=None) as web:
                table.set_connections(WEB, KEY, active=3)
                draining = asyncio.create_task(web.drain(A, timeout=20), name="drain")
                await asyncio.sleep(2.5)
                gone = DeleteService(WEB) if whole else DeleteDestination(WEB, KEY)
                await table.apply([gone])
                await asyncio.sleep(1)
                assert await weights(table) == {A: 0, B: 1}
                table.set_connections(WEB, KEY, active=3)
                await asyncio.sleep(5)
                assert await draining == 3
            assert "was taken out of the table" in caplog.text

        run()

    @virtual_time()
    async def test_what_the_kernel_does_not_take_back_has_not_ended_either(self) -> None:
        table = MemoryTable()
        async with server(table) as web:
            table.set_connections(WEB, KEY, active=3)
            draining = asyncio.create_task(web.drain(A, timeout=20), name="drain")
            await asyncio.sleep(2.5)
            table.refuse(lambda op: isinstance(op, AddDestination), errno.ENOMEM)
            await table.apply([DeleteDestination(WEB, KEY)])
            asked = len(table.operations)
            assert await draining == 3
            assert elapsed() == 20
            # The keeper tries again by itself, not at each look.
            assert len(table.operations) - asked < 8

    @virtual_time()
    async def test_one_that_the_kernel_never_took_has_no_connections(self) -> None:
        table = MemoryTable()
        table.refuse(lambda op: isinstance(op, AddDestination), errno.EINVAL)
        async with server(table) as web:
            assert await web.drain(A) == 0

    @virtual_time()
    async def test_in_a_hurry_its_time_is_up(self) -> None:
        table = MemoryTable()
        async with server(table) as web:
            for name in (A, B):
                table.set_connections(WEB, destination_key(name), active=3)
            draining = asyncio.create_task(web.drain(A), name="drain")
            await asyncio.sleep(2.5)
            hurry()
            assert (await draining, elapsed()) == (3, 2.5)
            # Nor does one that begins now wait.
            assert (await web.drain(B, timeout=60), elapsed()) == (3, 2.5)

    @virtual_time()
    async def test_a_table_that_cannot_be_read_is_said_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        table = MemoryTable()

        async def refused(key: object) -> None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

        async with server(table, poll_interval=None) as web:
            monkeypatch.setattr(table, "read_service", refused)
            assert await web.drain(A, 30) == 0
        assert caplog.text.count("WARNING") == 1


async def stuck(target: Target) -> None:
    """Swallows every cancellation, for longer than any test runs."""
    until = elapsed() + 3600
    while elapsed() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(until - elapsed())


async def slow_goodbye(target: Target) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(30)


@contextlib.asynccontextmanager
async def left_behind() -> AsyncIterator[None]:
    """Gives checks that were left behind the time to end."""
    yield
    for task in asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]
        with contextlib.suppress(asyncio.CancelledError):
            await task


STUCK = FunctionChecker(stuck, interval=1, timeout=0.5, warmup=0)
SLOW = FunctionChecker(slow_goodbye, interval=1, timeout=0.5, warmup=0)


class TestStuckChecks:
    @virtual_time()
    async def test_leaving_clears_the_table_first_and_waits_so_long(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with left_behind():
            table = MemoryTable()
            servers = [RealServer(A, check=STUCK), RealServer(B, check=(SLOW, STUCK))]
            web = await server(table, servers=servers).__aenter__()
            await asyncio.sleep(1)
            leaving = asyncio.create_task(web.__aexit__(None, None, None), name="leave")
            await asyncio.sleep(0.1)
            assert (await table.read(), leaving.done()) == ({}, False)
            await leaving
            assert 3 <= elapsed() - 1 < 4
            assert (
                f"still run and are left behind: stuck of {A}, stuck of {B}; "
                "their check() must let asyncio.CancelledError pass"
            ) in caplog.text

    @virtual_time()
    async def test_many_that_leave_in_a_row_do_not_wait_as_long_again(self) -> None:
        async with left_behind():
            table = MemoryTable()
            async with contextlib.AsyncExitStack() as stack:
                for number in range(1, 9):
                    one = server(table, services=f"192.0.2.{number}:80", name=None, check=STUCK)
                    await stack.enter_async_context(one)
                await asyncio.sleep(1)
            assert elapsed() - 1 < 8.5

    @virtual_time()
    async def test_in_a_hurry_it_waits_less(self) -> None:
        async with left_behind():
            web = await server(MemoryTable(), check=STUCK).__aenter__()
            await asyncio.sleep(1)
            leaving = asyncio.create_task(web.__aexit__(None, None, None), name="leave")
            await asyncio.sleep(1)
            hurry()
            await leaving
            assert elapsed() - 2 < 1

    @virtual_time()
    async def test_remove_and_drain_do_not_hang(self) -> None:
        async with left_behind():
            table = MemoryTable()
            async with server(table, servers=[A, B], check=STUCK) as web:
                await asyncio.sleep(0.1)
                removing = asyncio.create_task(web.remove(A), name="remove")
                await asyncio.sleep(0.1)
                # The table does not wait for it at all.
                assert await weights(table) == {B: 1}
                await removing
                assert elapsed() < 4
                assert await web.drain(B) == 0
                assert elapsed() < 5

    @virtual_time()
    async def test_one_that_ends_in_time_is_waited_for(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        ended: list[float] = []

        async def tidy(target: Target) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(2)
                ended.append(elapsed())

        async with server(MemoryTable(), servers=[A], check=FunctionChecker(tidy, warmup=0)):
            await asyncio.sleep(1)
        assert (ended, caplog.records) == ([3], [])
