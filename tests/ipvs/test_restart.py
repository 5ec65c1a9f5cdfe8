"""A restart changes nothing before a check has spoken: on a table in memory, under virtual time."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vrrpkit import HostError
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import AddDestination, AddService, Destination, Operation, Service
from vrrpkit.ipvs.model.pool import ServerState
from vrrpkit.ipvs.server import RealServer, VirtualServer
from vrrpkit.ipvs.status import VirtualServerState
from vrrpkit.testing import virtual_time
from vrrpkit.testing.checks import ScriptedChecker

A, B, C, D, SORRY = (f"10.0.0.{number}:80" for number in (1, 2, 3, 4, 9))
(WEB,) = service_keys("192.0.2.10:80")


def server(table: MemoryTable, *servers: str | RealServer, **changes: Any) -> VirtualServer:
    usual: dict[str, Any] = {"name": "web", "at_exit": "keep", "table": table}
    return VirtualServer("192.0.2.10:80", servers=servers, **(usual | changes))


def checker(**changes: Any) -> ScriptedChecker:
    return ScriptedChecker(**({"interval": 1.0, "retry": 0, "warmup": 0.9} | changes))


async def weights(table: MemoryTable) -> dict[str, int]:
    entry = await table.read_service(WEB)
    assert entry is not None
    return {str(key): found.destination.weight for key, found in entry.destinations.items()}


async def fill(table: MemoryTable, **servers: int) -> None:
    operations: list[Operation] = [AddService(Service(key=WEB))]
    for name, weight in servers.items():
        key = destination_key({"a": A, "b": B, "c": C, "s": SORRY}[name])
        operations.append(AddDestination(WEB, Destination(key=key, weight=weight)))
    await table.apply(operations)
    table.operations.clear()


@pytest.fixture(params=[False, True], ids=["table", "file"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """With a state file and without."""
    return {"state_file": tmp_path / "state"} if request.param else {}


def test_a_quorum_that_was_reached_is_reached(kept: dict[str, Any]) -> None:
    @virtual_time()
    async def run() -> None:
        table, health = MemoryTable(), checker()
        health.fails(D)
        pool: dict[str, Any] = {"check": health, "quorum": 3, "hysteresis": 1, "sorry": SORRY}
        async with server(table, A, B, C, D, **pool, **kept):
            await asyncio.sleep(2)
        before = await weights(table)
        assert before == {A: 1, B: 1, C: 1}
        table.operations.clear()
        async with server(table, A, B, C, D, **pool, **kept) as web:
            for _ in range(4):
                assert (web.state, await weights(table)) == (VirtualServerState.UP, before)
                await asyncio.sleep(1)
            assert table.operations == []
            health.fails(B)
            health.fails(C)
            await asyncio.sleep(2)
            assert (web.state, await weights(table)) == (VirtualServerState.DOWN, {SORRY: 1})
        # And one that was lost is lost.
        health.passes(B)
        table.operations.clear()
        async with server(table, A, B, C, D, **pool, **kept) as web:
            await asyncio.sleep(3)
            assert (web.state, table.operations) == (VirtualServerState.DOWN, [])
            health.passes(C)
            health.passes(D)
            await asyncio.sleep(2)
            assert await weights(table) == {A: 1, B: 1, C: 1, D: 1}

    run()


def test_a_weight_that_a_check_said_holds_until_it_says_another(kept: dict[str, Any]) -> None:
    @virtual_time()
    async def run() -> None:
        table, health = MemoryTable(), checker()
        health.passes(A, weight=3)
        pool: dict[str, Any] = {"check": health, "weight": 10}
        async with server(table, A, B, **pool, **kept):
            await asyncio.sleep(2)
        assert await weights(table) == {A: 3, B: 10}
        table.operations.clear()
        health.passes(A, weight=4)
        async with server(table, A, B, **pool, **kept) as web:
            assert (web.servers[0].weight, table.operations) == (3, [])
            await asyncio.sleep(2)
            assert await weights(table) == {A: 4, B: 10}

    run()


def test_a_check_that_fails_once_does_not_undo_what_was_seen(kept: dict[str, Any]) -> None:
    @virtual_time()
    async def run() -> None:
        table, health = MemoryTable(), checker(fall=3)
        health.passes(A, weight=3)
        async with server(table, A, B, check=health, **kept):
            await asyncio.sleep(2)
        health.fails(A)
        async with server(table, A, B, check=health, **kept):
            await asyncio.sleep(1.95)
            assert await weights(table) == {A: 3, B: 1}
            await asyncio.sleep(2)
            assert await weights(table) == {B: 1}

    run()


@virtual_time()
async def test_servers_that_are_gone_go_and_new_ones_come_at_once(tmp_path: Path) -> None:
    table, health = MemoryTable(), checker(warmup=60)
    kept: dict[str, Any] = {"state_file": tmp_path / "state", "check": health}
    async with server(table, A, B, **kept):
        pass
    async with server(table, A, C, RealServer(D, alpha=True), **kept):
        assert await weights(table) == {A: 1, C: 1}


@virtual_time()
async def test_an_edit_touches_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    table, health = MemoryTable(), checker(warmup=60)
    kept: dict[str, Any] = {"state_file": tmp_path / "state", "check": health, "weight": 5}
    async with server(table, A, B, C, **kept) as web:
        await web.set_weight(A, 7)
        await web.set_weight(B, 8)
        await web.disable(C)
    async with server(table, A, RealServer(B, weight=6), C, **kept) as web:
        assert await weights(table) == {A: 7, B: 6, C: 0}
        assert web.servers[2].state is ServerState.DISABLED
        await web.enable(C)
        assert await weights(table) == {A: 7, B: 6, C: 5}


@virtual_time()
async def test_why_a_server_is_down_is_known(tmp_path: Path) -> None:
    table, health = MemoryTable(), checker()
    kept: dict[str, Any] = {"state_file": tmp_path / "state", "check": health}
    health.fails(B, "refused")
    async with server(table, A, B, **kept):
        await asyncio.sleep(2)
    async with server(table, A, B, **kept) as web:
        assert [seat.reason for seat in web.servers] == ["", "Scripted: refused"]
        assert await weights(table) == {A: 1}


@virtual_time()
async def test_weight_0_in_the_table_stays_0_without_a_state_file() -> None:
    table, health = MemoryTable(), checker()
    await fill(table, a=1, b=0)
    async with server(table, A, B, check=health):
        assert await weights(table) == {A: 1, B: 0}
        await asyncio.sleep(1)
        assert await weights(table) == {A: 1, B: 1}
    await fill(table := MemoryTable(), a=1, b=0)
    async with server(table, A, B) as web:
        assert (await weights(table), str(web.servers[1].state)) == ({A: 1, B: 0}, "disabled")
        await web.enable(B)
        assert await weights(table) == {A: 1, B: 1}


@virtual_time()
async def test_what_was_written_is_ignored_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, path = MemoryTable(), tmp_path / "state"
    for age, disabled in ((3599, True), (3601, False)):
        async with server(table, A, B, state_file=path, at_exit="remove") as web:
            await web.disable(A)
        content = json.loads(path.read_text())
        content["pools"]["web"]["at"] -= age
        path.write_text(json.dumps(content))
        async with server(table, A, B, state_file=path, at_exit="remove") as web:
            assert (web.servers[0].state is ServerState.DISABLED) is disabled


@virtual_time()
async def test_it_is_written_soon_and_again_before_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "state"

    def written() -> dict[str, Any]:
        content: dict[str, Any] = json.loads(path.read_text())["pools"]["web"]
        return content

    async with server(MemoryTable(), A, B, state_file=path) as web:
        first = path.stat().st_ino, written()["at"]
        for _ in range(50):
            await web.disable(A)
            await web.enable(A)
        await web.disable(B)
        assert path.stat().st_ino == first[0]
        await asyncio.sleep(1.1)
        assert written()["servers"][B]["disabled"]
        number = path.stat().st_ino
        await asyncio.sleep(890)
        assert path.stat().st_ino == number
        await asyncio.sleep(20)
        assert path.stat().st_ino != number
        # The last word is written at the end.
        await web.enable(B)
    assert "disabled" not in written()["servers"][B]


@virtual_time()
async def test_a_file_that_cannot_be_written_any_more_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    async with server(MemoryTable(), A, B, state_file=tmp_path / "state") as web:
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", full)
            for command in (web.disable, web.enable, web.disable):
                await command(A)
                await asyncio.sleep(2)
        failures = [record for record in caplog.records if "No space left" in record.message]
        assert [record.levelname for record in failures if record.levelno > 10] == ["WARNING"]
        await web.enable(A)
        await asyncio.sleep(2)
    assert not any(name.startswith(".state") for name in os.listdir(tmp_path))


@virtual_time()
async def test_a_file_of_somebody_else_is_refused_before_anything_changes(tmp_path: Path) -> None:
    table = MemoryTable()
    (tmp_path / "there").write_text("{}")
    (tmp_path / "state").symlink_to("there")
    with pytest.raises(HostError, match="it is a link"):
        await server(table, A, state_file=tmp_path / "state").__aenter__()
    assert (table.operations, table.users) == ([], 0)
