"""What an operator sees of a pool: plain values, pauses, and the wait until all were asked."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from typing import Any

import pytest

from vrrpkit import Closed, ConfigError, MemoryBus, VRRPInstance
from vrrpkit.checks.events import CheckResult
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.server import RealServer, VirtualServer
from vrrpkit.testing import virtual_time
from vrrpkit.testing.checks import ScriptedChecker

A, B, SORRY = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"


def server(table: MemoryTable | None = None, **changes: Any) -> VirtualServer:
    usual: dict[str, Any] = {"services": "192.0.2.10:80", "servers": [A, B], "name": "web"}
    return VirtualServer(**(usual | {"table": table or MemoryTable()} | changes))


@virtual_time()
async def test_plain_values_are_json() -> None:
    check = ScriptedChecker(interval=1, retry=0)
    check.passes(A, weight=7)
    check.fails(B, "refused")
    web = server(check=check, sorry=SORRY, quorum=8, hysteresis=2)
    before = json.loads(json.dumps(web.status()))
    assert (before["state"], before["servers"], before["paused_since"]) == ("init", [], None)
    async with web:
        fresh = web.status()
        assert [one["checks"] for one in fresh["servers"]] == [[None], [None]]
        await asyncio.sleep(0.5)
        found = web.status()
        assert json.loads(json.dumps(found)) == found
        assert abs(found["time"] - time.time()) < 60
        assert {name: found[name] for name in ("name", "state", "weight", "sorry")} == {  # type: ignore[literal-required]
            "name": "web",
            "state": "down",
            "weight": 7,
            "sorry": SORRY,
        }
        assert (found["quorum"], found["hysteresis"], found["stands_in"]) == (8, 2, True)
        assert (found["services"], found["refused"]) == (["192.0.2.10:80/tcp"], [])
        first, second = found["servers"]
        assert (first["state"], first["healthy"], first["weight"]) == ("up", True, 0)
        (said,), (failed,) = first["checks"], second["checks"]
        assert said is not None and (said["weight"], said["relative"]) == (7, False)
        assert failed is not None and (failed["passed"], failed["text"]) == (False, "refused")
        assert (second["reason"], second["state"]) == ("Scripted: refused", "down")


@virtual_time()
async def test_a_result_has_both_clocks() -> None:
    results: list[CheckResult] = []
    async with server(check=ScriptedChecker(interval=1), servers=[A]) as web:
        web.on_result(results.append)
        await asyncio.sleep(1.5)
        now = asyncio.get_running_loop().time()
    assert [now - result.at for result in results] == [1.5, 0.5]
    assert all(abs(result.time - time.time()) < 60 for result in results)


@virtual_time()
async def test_a_pool_that_pauses_says_so_and_since_when() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    router = VRRPInstance("r", interface, vrid=1, vips=["192.0.2.10/32"], startup_delay=5)
    web = server(follows=router, check=ScriptedChecker(interval=1))
    assert web.paused_since is None
    async with router, web:
        since = web.paused_since
        assert since is not None and abs(since - time.time()) < 60
        assert [one.paused_since for one in web.servers] == [since, since]
        shown = datetime.fromtimestamp(since).astimezone().isoformat(sep=" ", timespec="seconds")
        assert str(web.servers[0]).endswith(f", not checked since {shown}")
        status = web.status()
        assert status["paused_since"] == status["servers"][0]["paused_since"] == since
        await asyncio.sleep(20)
        assert (web.paused_since, web.servers[0].paused_since) == (None, None)
        assert str(web.servers[0]).endswith("connections")
        interface.set_carrier(False)
        await asyncio.sleep(1)
        again = web.paused_since
        assert again is not None and again >= since


class TestWaitUntilAsked:
    @virtual_time()
    async def test_it_returns_when_all_were_asked_and_the_quorum_is_there(self) -> None:
        check = ScriptedChecker(interval=10, retry=0)
        check.passes(A, after=2)
        check.fails(B, after=1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with server(check=check) as web:
            await web.wait_for_quorum()
            assert loop.time() == began
            await web.wait_for_quorum(checked=True)
            assert (loop.time() - began, [s.healthy for s in web.servers]) == (2, [True, False])
            await web.wait_for_quorum(checked=True)
            assert loop.time() - began == 2

    @virtual_time()
    async def test_where_the_checks_lose_the_quorum_it_waits_on(self) -> None:
        check = ScriptedChecker(interval=10, retry=0)
        check.fails(A)
        check.fails(B)
        loop = asyncio.get_running_loop()
        async with server(check=check) as web:
            waiting = asyncio.create_task(web.wait_for_quorum(checked=True), name="wait")
            await asyncio.sleep(1)
            assert not waiting.done()
            check.passes(A)
            began = loop.time()
            await waiting
            assert loop.time() - began == 9

    @virtual_time()
    async def test_servers_that_go_or_have_no_check_are_not_waited_for(self) -> None:
        check = ScriptedChecker(interval=10, retry=0)
        check.hangs(A)
        servers = [RealServer(A, check=check), RealServer(B, check=())]
        async with server(servers=servers) as web:
            waiting = asyncio.create_task(web.wait_for_quorum(checked=True), name="wait")
            await asyncio.sleep(1)
            assert not waiting.done()
            await web.remove(A)
            await asyncio.sleep(0)
            assert waiting.done()

    @virtual_time()
    async def test_before_it_is_entered_and_while_it_is(self) -> None:
        check = ScriptedChecker(interval=10, retry=0)
        check.passes(A, after=2)
        web = server(MemoryTable(delay=0.5), servers=[A], check=check)
        early = asyncio.create_task(web.wait_for_quorum(checked=True), name="early")
        await asyncio.sleep(0)
        entering = asyncio.create_task(web.__aenter__(), name="enter")
        await asyncio.sleep(0.6)
        meanwhile = asyncio.create_task(web.wait_for_quorum(checked=True), name="meanwhile")
        await entering
        await asyncio.sleep(1.9)
        assert (early.done(), meanwhile.done()) == (False, False)
        await asyncio.sleep(0.2)
        assert (early.done(), meanwhile.done()) == (True, True)
        await web.__aexit__(None, None, None)

    @virtual_time()
    async def test_its_end_ends_the_wait(self) -> None:
        check = ScriptedChecker(interval=10, retry=0, timeout=9)
        check.hangs(A)
        async with server(check=check) as web:
            waits = [
                asyncio.create_task(web.wait_for_quorum(checked=True), name=name) for name in "ab"
            ]
            await asyncio.sleep(1)
            waits[0].cancel()
            await asyncio.sleep(0)
        with pytest.raises(Closed, match="has ended before every server was asked"):
            await waits[1]
        with pytest.raises(Closed, match="will not reach its quorum"):
            await web.wait_for_quorum(checked=True)
        with pytest.raises(ConfigError, match="must be True or False"):
            await web.wait_for_quorum(checked="yes")  # type: ignore[arg-type]
