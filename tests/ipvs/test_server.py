"""VirtualServer on a table in memory, under virtual time."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vrrpkit import Closed, ConfigError, MemoryBus, State, VRRPInstance, VRRPKitError
from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.events import CheckResult
from vrrpkit.checks.function import FunctionChecker
from vrrpkit.checks.target import Target
from vrrpkit.errors import (
    DuplicateService,
    HostError,
    KernelRefused,
    ModuleMissing,
    PermissionMissing,
)
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    DeleteDestination,
    DeleteService,
    Destination,
    EditDestination,
    Operation,
    Service,
    ServiceEntry,
    ServiceKey,
)
from vrrpkit.ipvs.model.pool import Pool, ServerState
from vrrpkit.ipvs.server import RealServer, VirtualServer
from vrrpkit.ipvs.statefile import StateFile
from vrrpkit.ipvs.status import VirtualServerState
from vrrpkit.ipvs.sync import ConnectionSync
from vrrpkit.testing import virtual_time
from vrrpkit.testing.checks import ScriptedChecker
from vrrpkit.vrrp.syncgroup import SyncGroup

A, B, C, SORRY = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.9:80"
READERS: set[asyncio.Task[None]] = set()

WEB, TLS, OTHER = service_keys(["192.0.2.10:80", "192.0.2.10:443", "192.0.2.99:80"])


def server(table: MemoryTable, **changes: Any) -> VirtualServer:
    usual: dict[str, Any] = {"services": "192.0.2.10:80", "servers": [A, B], "table": table}
    return VirtualServer(**(usual | {"name": "web"} | changes))


def checker(**changes: Any) -> ScriptedChecker:
    return ScriptedChecker(**({"interval": 1.0, "retry": 0} | changes))


async def weights(table: MemoryTable, key: ServiceKey = WEB) -> dict[str, int]:
    entry = await table.read_service(key)
    assert entry is not None
    return {str(k): d.destination.weight for k, d in entry.destinations.items()}


async def fill(table: MemoryTable, key: ServiceKey = WEB, **servers: int) -> None:
    """Leave a service as an earlier run did: a=1 is 10.0.0.1 with weight 1."""
    operations: list[Operation] = [AddService(Service(key=key))]
    for name, weight in servers.items():
        endpoint = {"a": A, "b": B, "c": C, "s": SORRY}[name]
        operations.append(
            AddDestination(key, Destination(key=destination_key(endpoint), weight=weight))
        )
    await table.apply(operations)
    table.operations.clear()


def listen(web: VirtualServer) -> list[str]:
    """Everything that the virtual server says from now on."""
    told: list[str] = []

    async def read(events: AsyncIterator[object]) -> None:
        async for event in events:
            told.append(str(event))  # noqa: PERF401 - it is read while the stream goes on

    task = asyncio.create_task(read(web.events()))
    READERS.add(task)
    task.add_done_callback(READERS.discard)
    return told


# --- life ---------------------------------------------------------------------------------------


@virtual_time()
async def test_entering_programs_the_table_and_leaving_clears_it() -> None:
    table = MemoryTable(delay=0.5)
    web = server(table, servers=[A, RealServer(B, name="two", weight=5)])
    assert (web.state, web.servers, web.refused) == (VirtualServerState.INIT, (), ())
    async with web as entered:
        assert entered is web
        assert (web.state, web.services) == (VirtualServerState.UP, (WEB,))
        assert await weights(table) == {A: 1, B: 5}
        assert [(s.name, s.endpoint, s.weight) for s in web.servers] == [(A, A, 1), ("two", B, 5)]
        assert str(web.servers[1]) == "two up, weight 5, 0 connections"
        assert repr(web) == "<VirtualServer 'web' up>"
    assert (await table.read(), table.users, web.state) == ({}, 0, VirtualServerState.INIT)


@virtual_time()
async def test_it_is_entered_once() -> None:
    table = MemoryTable()
    web = server(table)
    with pytest.raises(VRRPKitError, match="enter it with 'async with' first"):
        await web.add(C)
    async with web:
        pass
    with pytest.raises(VRRPKitError, match="make a new VirtualServer"):
        await web.__aenter__()
    for command in (
        web.add(C),
        web.remove(A),
        web.drain(A),
        web.set_weight(A, 1),
        web.statistics(),
    ):
        with pytest.raises(Closed, match="has ended"):
            await command
    with pytest.raises(Closed, match="will not reach its quorum"):
        await web.wait_for_quorum()


@virtual_time()
async def test_what_the_host_lacks_is_said_before_anything_changes() -> None:
    table = MemoryTable(missing=["mh", "sip"])
    with pytest.raises(ModuleMissing, match="ip_vs_mh"):
        await server(table, scheduler="mh").__aenter__()
    with pytest.raises(ModuleMissing, match="ip_vs_pe_sip"):
        await server(
            table, services="192.0.2.10:80/udp", persistence=9, persistence_engine="sip"
        ).__aenter__()
    assert (table.users, table.operations) == (0, [])


@virtual_time()
async def test_no_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    table = MemoryTable()

    async def refused() -> None:
        raise PermissionMissing("CAP_NET_ADMIN", "balancing")

    monkeypatch.setattr(table, "open", refused)
    with pytest.raises(PermissionMissing):
        await server(table).__aenter__()
    assert table.users == 0


@virtual_time()
async def test_one_service_has_one_virtual_server() -> None:
    table = MemoryTable()
    async with server(table, services=["192.0.2.10:80", "192.0.2.10:443"]):
        with pytest.raises(DuplicateService, match=r"192\.0\.2\.10:443/tcp"):
            await server(table, services="192.0.2.10:443").__aenter__()
        async with server(table, services="192.0.2.99:80", name="other"):
            assert set(await table.read()) == {WEB, TLS, OTHER}
        assert (set(await table.read()), table.users) == ({WEB, TLS}, 1)


@virtual_time()
async def test_events_end_with_it() -> None:
    table = MemoryTable()
    web = server(table, omega=True)
    told = listen(web)
    await asyncio.sleep(0)
    async with web:
        pass
    await asyncio.sleep(0)
    assert told == [
        "web: quorum reached with weight 2",
        f"web: {A} is down: shutdown",
        f"web: {B} is down: shutdown",
        "web: quorum lost with weight 0",
    ]


# --- health -------------------------------------------------------------------------------------


@virtual_time()
async def test_a_server_that_fails_leaves_the_table_and_comes_back() -> None:
    table, health = MemoryTable(), checker()
    web = server(table, check=health)
    told: list[str] = []
    web.on_server(lambda event: told.append(str(event)))
    async with web:
        await asyncio.sleep(0.5)
        health.fails(A, "connection refused")
        await asyncio.sleep(1)
        assert await weights(table) == {B: 1}
        (a, b) = web.servers
        assert (a.state, a.healthy, a.weight) == (ServerState.DOWN, False, 0)
        assert a.reason == "Scripted: connection refused"
        assert b.results[0] is not None and b.results[0].passed
        health.passes(A)
        await asyncio.sleep(1)
        assert await weights(table) == {B: 1, A: 1}
    assert told == [
        f"web: {A} is down: Scripted: connection refused",
        f"web: {A} is up",
    ]
    await asyncio.sleep(5)
    assert len(health.attempts(A)) == 3


@virtual_time()
async def test_a_pool_of_many_services_is_checked_once() -> None:
    table, health = MemoryTable(), checker()
    many = server(
        table, services="192.0.2.10-12:80,443", servers=["10.0.0.1", "10.0.0.2"], check=health
    )
    async with many:
        await asyncio.sleep(2.5)
        assert len(health.attempts("10.0.0.1")) == 3
        assert len(await table.read()) == 6
        assert await weights(table, TLS) == {"10.0.0.1:443": 1, "10.0.0.2:443": 1}
        health.fails("10.0.0.1")
        await asyncio.sleep(1)
        for key in many.services:
            assert await weights(table, key) == {f"10.0.0.2:{key.port}": 1}


@virtual_time()
async def test_firewall_marks_over_one_pool() -> None:
    table = MemoryTable()
    async with VirtualServer(fwmark=[1, 2], servers=["10.0.0.1"], table=table) as web:
        assert web.services == tuple(service_keys(fwmark=[1, 2]))
        assert await weights(table, web.services[1]) == {"10.0.0.1:0": 1}


@virtual_time()
async def test_the_sorry_server_stands_in_and_the_pool_is_never_empty() -> None:
    table, health = MemoryTable(), checker()
    web = server(table, check=health, quorum=2, sorry=SORRY)
    told: list[str] = []
    web.on_quorum(lambda event: told.append(str(event)))
    async with web:
        await web.wait_for_quorum()
        health.fails(A)
        await asyncio.sleep(1.5)
        assert (web.state, await weights(table)) == (VirtualServerState.DOWN, {SORRY: 1})
        waiting = asyncio.create_task(web.wait_for_quorum())
        await asyncio.sleep(1)
        assert not waiting.done()
        health.passes(A)
        await waiting
        await asyncio.sleep(0.5)
        assert await weights(table) == {A: 1, B: 1}
    assert told == [
        "web: quorum reached with weight 2",
        f"web: quorum lost with weight 1; {SORRY} stands in",
        "web: quorum reached with weight 2",
    ]
    # Whatever was carried out, somebody was there after each step.
    present: set[object] = set()
    loaded = False
    for operation in [op for operations in table.operations[:-1] for op in operations]:
        if isinstance(operation, AddDestination):
            present.add(operation.destination.key)
            loaded = True
        elif isinstance(operation, DeleteDestination):
            present.remove(operation.key)
        assert present or not loaded


@virtual_time()
async def test_a_wait_for_the_quorum_ends_with_it() -> None:
    web = server(MemoryTable(), servers=[])
    async with web:
        waiting = asyncio.create_task(web.wait_for_quorum())
        await asyncio.sleep(1)
    with pytest.raises(Closed):
        await waiting


@virtual_time()
async def test_checks_move_the_weight() -> None:
    table, one, two = MemoryTable(), checker(), checker()
    one.passes(A, 15)
    two.passes(A, Weight(-3, relative=True))
    web = server(table, check=[one, two], weight=10)
    told = listen(web)
    async with web:
        await asyncio.sleep(0.5)
        assert await weights(table) == {A: 12, B: 10}
        # One that does not pass takes the server out, and its weight stays for when it does.
        two.fails(A)
        await asyncio.sleep(1)
        assert await weights(table) == {B: 10}
        two.passes(A)
        await asyncio.sleep(1)
        assert await weights(table) == {A: 15, B: 10}
    assert f"web: the weight of {A} is 15, no longer 10" in told


@virtual_time()
async def test_flap_storms_collapse() -> None:
    table, health = MemoryTable(delay=3.0), checker(interval=0.05)
    async with server(table, check=health) as web:
        table.operations.clear()
        for _ in range(100):
            health.fails(A)
            await asyncio.sleep(0.05)
            health.passes(A)
            await asyncio.sleep(0.05)
        await asyncio.sleep(7)
        assert len(table.operations) <= 5
        assert await weights(table) == {A: 1, B: 1}
        assert web.servers[0].state is ServerState.UP


@virtual_time()
async def test_alpha_waits_for_the_checks() -> None:
    table, health = MemoryTable(), checker(after=0.5)
    async with server(table, check=health, alpha=True) as web:
        assert (web.state, await weights(table)) == (VirtualServerState.DOWN, {})
        assert web.servers[0].reason == "not checked yet"
        await web.wait_for_quorum()
        await asyncio.sleep(0.1)
        assert await weights(table) == {A: 1, B: 1}


@virtual_time()
async def test_results_can_be_heard_one_by_one() -> None:
    health = checker()
    web = server(MemoryTable(), check=health)
    heard: list[CheckResult] = []
    stop = web.on_result(heard.append)
    async with web:
        await asyncio.sleep(1.5)
        stop()
        await asyncio.sleep(1)
    assert [(str(result.target), result.count) for result in heard] == [
        (A, 1),
        (B, 1),
        (A, 2),
        (B, 2),
    ]


@virtual_time()
async def test_a_check_that_cannot_be_made_is_told_and_changes_nothing() -> None:
    answers: list[Exception | None] = [None, *[OSError(errno.EMFILE, "Too many open files")] * 99]

    async def ask(_target: Target) -> None:
        problem = answers.pop(0)
        if problem is not None:
            raise problem

    web = server(
        MemoryTable(),
        servers=[A],
        check=FunctionChecker(ask, interval=1, timeout=1, retry=0, warmup=0),
    )
    heard = listen(web)
    async with web:
        await asyncio.sleep(30)
        assert web.servers[0].state is ServerState.UP
        assert web.state is VirtualServerState.UP
    told = [text for text in map(str, heard) if "Too many open files" in text]
    postponed, overdue = told
    assert f"{A} could not be checked by ask, its verdict stays" in postponed
    assert f"no result from ask of {A} for 6.0 s: [Errno 24]" in overdue


@virtual_time()
async def test_a_check_that_is_stuck_is_told() -> None:
    class Stubborn(Checker):
        async def check(self, target: Target) -> None:
            while not over:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    continue

    over: list[int] = []
    web = server(
        MemoryTable(), servers=[A], check=Stubborn(interval=1, timeout=1, retry=0, warmup=0)
    )
    told = listen(web)
    async with web:
        await asyncio.sleep(20)
        over.append(1)
    assert any("no result from Stubborn" in text for text in told)


@virtual_time()
async def test_a_scheduler_of_its_own() -> None:
    async with CheckScheduler(max_concurrent=1) as scheduler:
        async with server(MemoryTable(), check=checker(), check_scheduler=scheduler):
            assert scheduler.checks == 2
        assert scheduler.checks == 0


# --- following a virtual router -----------------------------------------------------------------


@virtual_time()
async def test_checks_pause_while_the_router_is_not_master() -> None:
    bus, table, health = MemoryBus(), MemoryTable(), checker()
    router = VRRPInstance("r", bus.interface("192.0.2.1"), vrid=1, vips=["192.0.2.10/24"])
    async with router, server(table, check=health, follows=router):
        await asyncio.sleep(2)
        assert (router.state, health.attempts(A)) == (State.BACKUP, [])
        assert await weights(table) == {A: 1, B: 1}
        await router.wait_for(State.MASTER)
        await asyncio.sleep(2.5)
        assert len(health.attempts(A)) == 3
        health.fails(A)
        await asyncio.sleep(1)
        bus.unplug("192.0.2.1")
        health.passes(A)
        await asyncio.sleep(30)
        # The table stays as it was.
        assert (len(health.attempts(A)), await weights(table)) == (4, {B: 1})
        bus.plug("192.0.2.1")
        await router.wait_for(State.MASTER)
        await asyncio.sleep(0.1)
        assert await weights(table) == {B: 1, A: 1}


@virtual_time()
async def test_a_server_that_joins_meanwhile_waits_too() -> None:
    bus, health = MemoryBus(), checker()
    routers = [
        VRRPInstance(f"r{n}", bus.interface("192.0.2.1"), vrid=n, vips=[f"192.0.2.{n}0/24"])
        for n in (1, 2)
    ]
    async with (
        SyncGroup("both", routers) as group,
        server(MemoryTable(), check=health, follows=group) as web,
    ):
        await web.add(C)
        await asyncio.sleep(1)
        assert health.attempts(C) == []
        await group.wait_for(State.MASTER)
        await asyncio.sleep(0.1)
        assert len(health.attempts(C)) == 1


# --- what an earlier run left -------------------------------------------------------------------


@virtual_time()
async def test_a_restart_touches_nothing_that_fits() -> None:
    table, health = MemoryTable(), checker()
    async with server(table, check=health, at_exit="keep"):
        await asyncio.sleep(0.5)
    table.connect(WEB)
    table.operations.clear()
    web = server(table, check=health)
    told = listen(web)
    await asyncio.sleep(0)
    async with web:
        assert table.operations == []
        await asyncio.sleep(0.5)
        assert told[-1] == "web: adopted 192.0.2.10:80/tcp"
        assert sum(server.active for server in web.servers) == 1


@virtual_time()
async def test_who_had_failed_before_must_pass_first_and_who_served_goes_on() -> None:
    table, health = MemoryTable(), checker(after=0.5)
    await fill(table, a=1, b=0)
    async with server(table, servers=[A, B, C], check=health, inhibit_on_failure=True, alpha=True):
        assert await weights(table) == {A: 1, B: 0, C: 0}
        assert all(not isinstance(op, EditDestination) for ops in table.operations for op in ops)
        await asyncio.sleep(0.6)
        assert await weights(table) == {A: 1, B: 1, C: 1}


@virtual_time()
async def test_without_a_check_there_is_nothing_to_wait_for() -> None:
    table = MemoryTable()
    await fill(table, a=1)
    async with server(table):
        assert await weights(table) == {A: 1, B: 1}


@virtual_time()
async def test_a_restart_cuts_no_connection_of_one_that_gets_no_new_ones() -> None:
    table, health = MemoryTable(), checker(after=0.5)
    pool: dict[str, Any] = {"servers": [RealServer(A, weight=0), B, C], "check": health}
    async with server(table, at_exit="keep", **pool) as web:
        await web.disable(B)
        await asyncio.sleep(0.6)
    assert await weights(table) == {A: 0, B: 0, C: 1}
    health.fails(B)
    table.operations.clear()
    async with server(table, **pool) as web:
        assert (await weights(table), table.operations) == ({A: 0, B: 0, C: 1}, [])
        assert [str(s.state) for s in web.servers] == ["down", "down", "up"]
        await asyncio.sleep(0.6)
        assert [str(s.state) for s in web.servers] == ["up", "down", "up"]
        assert await weights(table) == {A: 0, C: 1}


@virtual_time()
async def test_where_nobody_served_all_begin_on_trust() -> None:
    table, health = MemoryTable(), checker()
    await fill(table, b=0)
    async with server(table, check=health):
        assert await weights(table) == {A: 1, B: 1}


@virtual_time()
async def test_a_sorry_server_that_stands_in_goes_on_until_others_pass() -> None:
    table, health = MemoryTable(), checker(after=0.5)
    await fill(table, s=1)
    async with server(table, check=health, sorry=SORRY) as web:
        assert (table.operations, web.state) == ([], VirtualServerState.DOWN)
        await asyncio.sleep(0.6)
        assert await weights(table) == {A: 1, B: 1}


@virtual_time()
async def test_the_state_file_brings_stale_services_to_an_end(tmp_path: Path) -> None:
    table, path = MemoryTable(), tmp_path / "ipvs.json"
    await fill(table, OTHER, a=1)
    both = ["192.0.2.10:80", "192.0.2.10:443"]
    with_file: dict[str, Any] = {"state_file": path, "servers": ["10.0.0.1"]}
    async with server(table, services=both, at_exit="keep", **with_file):
        assert StateFile(path).read("web") == {WEB, TLS}
    assert StateFile(path).read("web") == {WEB, TLS}
    # Somebody of the same program has its own part of the file.
    async with server(table, services="192.0.2.10:8080", **(with_file | {"name": "other"})):
        web = server(table, services=both[1], **with_file)
        told = listen(web)
        await asyncio.sleep(0)
        table.operations.clear()
        async with web:
            assert table.operations == [[DeleteService(WEB)]]
            assert StateFile(path).read("web") == {TLS}
            assert "web: removing 192.0.2.10:80/tcp of an earlier run" in told
    assert (set(await table.read()), StateFile(path).read("web")) == ({OTHER}, frozenset())


@virtual_time()
async def test_a_state_file_that_cannot_be_written_is_said_before_anything_changes(
    tmp_path: Path,
) -> None:
    table = MemoryTable()
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="state file"):
        await server(table, state_file=tmp_path / "file" / "x").__aenter__()
    assert (table.operations, table.users) == ([], 0)


@virtual_time()
async def test_two_of_a_name_do_not_share_a_state_file(tmp_path: Path) -> None:
    table, path = MemoryTable(), tmp_path / "ipvs.json"
    async with server(table, state_file=path):
        with pytest.raises(HostError, match=r"on record in .*ipvs\.json as 'web'"):
            await server(table, services="192.0.2.99:80", state_file=path).__aenter__()
        assert StateFile(path).read("web") == {WEB}
        assert set(await table.read()) == {WEB}
    async with server(table, state_file=path):
        pass


@virtual_time()
async def test_foreign_services_are_listed_and_left() -> None:
    table = MemoryTable()
    await fill(table, OTHER, a=1)
    web = server(table)
    told = listen(web)
    async with web:
        await asyncio.sleep(25)
    assert told.count("web: the table also holds 192.0.2.99:80/tcp") == 1
    assert set(await table.read()) == {OTHER}


# --- the table ----------------------------------------------------------------------------------


@virtual_time()
async def test_what_others_change_is_put_right_and_told() -> None:
    table = MemoryTable()
    web = server(table, poll_interval=2)
    told = listen(web)
    async with web:
        await table.apply([DeleteDestination(WEB, destination_key(A))])
        await asyncio.sleep(3)
        assert await weights(table) == {B: 1, A: 1}
    repaired = f"web: changed by somebody else, put right: {A} of 192.0.2.10:80/tcp was gone"
    assert told.count(repaired) == 1


@virtual_time()
async def test_what_the_kernel_refuses_is_told_and_tried_again() -> None:
    table = MemoryTable()
    stop = table.refuse(lambda op: isinstance(op, AddDestination), errno.ENOMEM)
    web = server(table, servers=[A])
    told = listen(web)
    await asyncio.sleep(0)
    async with web:
        problem = f"adding {A} of 192.0.2.10:80/tcp: Cannot allocate memory"
        assert web.refused == (problem,)
        stop()
        await asyncio.sleep(11)
        assert (web.refused, await weights(table)) == ((), {A: 1})
    assert told[-2:] == [
        f"web: the kernel refused {problem}; next try in 10 s",
        "web: the table is as it should be again",
    ]


@virtual_time()
async def test_who_is_up_serves_on_while_the_sorry_server_is_refused() -> None:
    table, health = MemoryTable(), checker()
    sorry = AddDestination(WEB, Destination(key=destination_key(SORRY)))
    stop = table.refuse(sorry, errno.ENOMEM)
    async with server(table, check=health, quorum=2, sorry=SORRY) as web:
        health.fails(A)
        await asyncio.sleep(1.5)
        assert (web.state, await weights(table)) == (VirtualServerState.DOWN, {B: 1})
        assert [text.partition(":80 ")[0] for text in web.refused] == [
            "adding 10.0.0.9",
            "removing 10.0.0.2",
        ]
        # One that somebody takes out goes all the same.
        await web.disable(B)
        assert await weights(table) == {B: 0}
        await web.enable(B)
        stop()
        await asyncio.sleep(11)
        assert (web.refused, await weights(table)) == ((), {SORRY: 1})


@virtual_time()
async def test_sync_daemons_and_mixed_families_exclude_each_other() -> None:
    mixed: dict[str, Any] = {"servers": ["10.0.0.1", "[2001:db8::1]"], "forward": "tun"}
    table = MemoryTable()
    async with ConnectionSync("eth1", table=table):
        for changes in (mixed, {"sorry": RealServer("[2001:db8::1]", forward="tun")}):
            with pytest.raises(HostError, match=r"web: connection sync daemons.*exclude"):
                await server(table, **changes).__aenter__()
        assert (table.operations, table.users) == ([], 1)
        async with server(table) as web:
            await web.add(RealServer("[2001:db8::1]", forward="tun"))
            (text,) = web.refused
            assert text.endswith("of another address family than their service exclude each other)")
    async with server(table, **mixed):
        with pytest.raises(KernelRefused, match=r"daemon on eth1: Invalid.*exclude each other"):
            await ConnectionSync("eth1", table=table).__aenter__()


@virtual_time()
async def test_a_service_that_the_kernel_keeps_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    table = MemoryTable()
    async with server(table):
        table.refuse(DeleteService(WEB))
    assert "web: the kernel kept 192.0.2.10:80/tcp" in caplog.text


@virtual_time()
async def test_statistics_are_read_anew() -> None:
    table = MemoryTable()
    async with server(table, sorry=SORRY, sorry_inhibit=True) as web:
        for _ in range(3):
            table.connect(WEB)
        assert [status.active for status in web.servers] == [0, 0]
        found = (await web.statistics())[WEB]
        assert found.counters.connections == 3
        assert {name: entry.active for name, entry in found.servers.items()} == {
            A: 2,
            B: 1,
            SORRY: 0,
        }
        assert [status.active for status in web.servers] == [2, 1]


# --- commands -----------------------------------------------------------------------------------


@virtual_time()
async def test_servers_come_go_and_change() -> None:
    table, health = MemoryTable(delay=0.1), checker()
    async with server(table, check=health) as web:
        await web.add(RealServer(C, name="three", weight=7))
        assert await weights(table) == {A: 1, B: 1, C: 7}
        await web.set_weight("three", 2)
        assert (await weights(table))[C] == 2
        await asyncio.sleep(1.5)
        await web.remove(A)
        seen = len(health.attempts(A))
        assert await weights(table) == {B: 1, C: 2}
        await asyncio.sleep(5)
        assert (len(health.attempts(A)), len(health.attempts(C))) == (seen, 8)
        await web.add(A)
        assert [status.name for status in web.servers] == [B, "three", A]


@virtual_time()
async def test_commands_that_cannot_be() -> None:
    async with server(MemoryTable(), sorry=SORRY) as web:
        with pytest.raises(ConfigError, match=f"{A} is in the pool already"):
            await web.add(A)
        with pytest.raises(ConfigError, match=r"10\.0\.0\.1:80 is in the pool already"):
            await web.add(RealServer(A, name="again"))
        with pytest.raises(ConfigError, match="in the pool already"):
            await web.add(SORRY)
        with pytest.raises(ConfigError, match=f"{A} is there already; give it another name"):
            await web.add(RealServer(C, name=A))
        with pytest.raises(ConfigError, match="different address families"):
            await web.add("[2001:db8::1]:80")
        with pytest.raises(ConfigError, match=f"no real server '{C}'; it has {A}, {B}"):
            await web.remove(C)
        with pytest.raises(ConfigError, match="weight -1"):
            await web.set_weight(A, -1)
        timeouts: list[Any] = [-1, float("nan"), "5", True]
        for timeout in timeouts:
            with pytest.raises(ConfigError, match=f"timeout {timeout!r} must be 0 seconds or more"):
                await web.drain(A, timeout)
        nobody: Any = 5
        with pytest.raises(ConfigError, match="web has no real server '5'"):
            await web.disable(nobody)
        await web.remove(A)
        await web.remove(RealServer(B))
        with pytest.raises(ConfigError, match="it has none"):
            await web.enable(A)


@virtual_time()
async def test_a_server_is_meant_by_its_name_its_endpoint_or_its_description() -> None:
    table = MemoryTable()
    six = "[2001:db8::1]:80"
    async with server(
        table, services="[2001:db8::10]:80", servers=[RealServer(six, name="one")]
    ) as web:
        for weight, meant in enumerate(
            ["one", six, "[2001:DB8:0::1]:80", RealServer(six), RealServer(six, name="two")], 2
        ):
            await web.set_weight(meant, weight)
            assert web.servers[0].configured == weight
        with pytest.raises(ConfigError, match=r"no real server '\[2001:db8::1\]:81'; it has one"):
            await web.remove("[2001:db8::1]:81")


@virtual_time()
async def test_where_a_server_is() -> None:
    web = server(MemoryTable(), servers=[RealServer(A, name="one"), "10.0.0.9"])
    assert web.endpoint_of("one") is None
    async with web:
        found = [web.endpoint_of(name) for name in ("one", "10.0.0.9", A)]
        assert found == [A, "10.0.0.9:0", None]
        assert found[:2] == [status.endpoint for status in web.servers]


@virtual_time()
async def test_a_check_that_passes_not_often_enough_yet_leaves_the_reason() -> None:
    table, health = MemoryTable(), checker(rise=3)
    health.fails(A, "refused")
    async with server(table, check=health) as web:
        await asyncio.sleep(0.5)
        health.passes(A)
        await asyncio.sleep(1)
        assert str(web.servers[0]) == f"{A} down (Scripted: refused), weight 0, 0 connections"
        await asyncio.sleep(2)
        assert web.servers[0].state is ServerState.UP


@virtual_time()
async def test_one_that_joins_with_alpha_waits_for_its_checks() -> None:
    table, health = MemoryTable(), checker(after=0.5)
    async with server(table, check=health) as web:
        await web.add(RealServer(C, alpha=True))
        assert C not in await weights(table)
        await asyncio.sleep(0.6)
        assert (await weights(table))[C] == 1


@virtual_time()
async def test_statistics_of_a_pool_without_a_sorry_server() -> None:
    table = MemoryTable()
    async with server(
        table, services=["192.0.2.10:80", "192.0.2.10:443"], servers=["10.0.0.1"]
    ) as web:
        table.connect(TLS)
        found = await web.statistics()
        assert [found[key].servers["10.0.0.1"].active for key in (WEB, TLS)] == [0, 1]
        assert web.servers[0].active == 1


@virtual_time()
async def test_disabled_it_keeps_its_connections() -> None:
    table = MemoryTable()
    async with server(table) as web:
        told = listen(web)
        await web.disable(A)
        assert (await weights(table), web.servers[0].state) == ({A: 0, B: 1}, ServerState.DISABLED)
        await web.enable(A)
        assert await weights(table) == {A: 1, B: 1}
        await web.add(C)
    await asyncio.sleep(0)
    assert told == [f"web: {A} is disabled", f"web: {A} is enabled", f"web: {C} was added"]


@virtual_time()
async def test_one_that_is_removed_while_the_table_is_programmed_is_not_checked() -> None:
    table, health = MemoryTable(delay=1.0), checker()
    web = server(table, check=health)
    removing: list[asyncio.Task[None]] = []
    web.on_quorum(lambda event: removing.append(asyncio.create_task(web.remove(A))))
    async with web:
        await asyncio.sleep(5)
        assert ([s.name for s in web.servers], health.attempts(A)) == ([B], [])
        assert await weights(table) == {B: 1}
        assert removing[0].done()


class TestDrain:
    @virtual_time()
    async def test_it_waits_for_the_connections(self) -> None:
        table = MemoryTable()
        async with server(table) as web:
            told = listen(web)
            table.set_connections(WEB, destination_key(A), active=2, inactive=50)
            draining = asyncio.create_task(web.drain(A))
            await asyncio.sleep(30)
            assert (await weights(table), web.servers[0].state) == (
                {A: 0, B: 1},
                ServerState.DRAINING,
            )
            table.set_connections(WEB, destination_key(A), active=0)
            # What is inactive in TCP is closing.
            assert await draining == 0
            assert (await weights(table), [s.name for s in web.servers]) == ({B: 1}, [B])
        assert told == [f"web: {A} {what}" for what in ("drains", "was drained", "was removed")]

    @virtual_time()
    async def test_a_table_that_takes_long_is_read_less_often(self) -> None:
        table = MemoryTable(delay=2.0)
        async with server(table, poll_interval=None) as web:
            table.set_connections(WEB, destination_key(A), active=1)
            draining = asyncio.create_task(web.drain(A))
            await asyncio.sleep(5)
            reads: list[float] = []
            read = table.read_service

            async def noted(key: ServiceKey) -> ServiceEntry | None:
                reads.append(asyncio.get_running_loop().time())
                return await read(key)

            table.read_service = noted  # type: ignore[method-assign]
            await asyncio.sleep(40)
            table.set_connections(WEB, destination_key(A), active=0)
            assert await draining == 0
        assert {b - a for a, b in pairwise(reads)} == {10.0}

    @virtual_time()
    async def test_only_so_long(self) -> None:
        table = MemoryTable()
        async with server(table) as web:
            told = listen(web)
            table.set_connections(WEB, destination_key(A), active=3)
            started = asyncio.get_running_loop().time()
            assert await web.drain(A, 7.5) == 3
            assert asyncio.get_running_loop().time() - started == 7.5
            assert await weights(table) == {B: 1}
            await asyncio.sleep(0)
            assert told[1] == f"web: {A} was drained, 3 connections are left"

    @pytest.mark.parametrize("text", ["192.0.2.10:80/udp", "fwmark 3"])
    def test_without_tcp_every_connection_counts(self, text: str) -> None:
        @virtual_time()
        async def run() -> None:
            table = MemoryTable()
            endpoint = "10.0.0.1:80" if "udp" in text else "10.0.0.1"
            async with server(table, services=text, servers=[endpoint]) as web:
                where = destination_key(endpoint)
                table.set_connections(web.services[0], where, inactive=4)
                assert await web.drain(endpoint, 3) == 4

        run()

    @virtual_time()
    async def test_at_once(self) -> None:
        table = MemoryTable()
        async with server(table) as web:
            table.set_connections(WEB, destination_key(A), active=1)
            assert (await web.drain(A, 0), await web.drain(B)) == (1, 0)

    @virtual_time()
    async def test_cancelled_everything_is_as_before(self) -> None:
        table = MemoryTable()
        async with server(table) as web:
            table.set_connections(WEB, destination_key(A), active=1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await web.drain(A)
            await asyncio.sleep(0.1)
            assert await weights(table) == {A: 1, B: 1}
            await web.disable(A)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await web.drain(A)
            assert web.servers[0].state is ServerState.DISABLED

    @virtual_time()
    async def test_enabled_removed_or_drained_meanwhile(self) -> None:
        table = MemoryTable()
        async with server(table) as web:
            table.set_connections(WEB, destination_key(A), active=1)
            for action in (web.enable, web.remove):
                draining = asyncio.create_task(web.drain(A))
                await asyncio.sleep(1.5)
                with pytest.raises(VRRPKitError, match="drains already"):
                    await web.drain(A)
                await action(A)
                with pytest.raises(VRRPKitError, match="enabled, disabled or removed"):
                    await draining
            assert await weights(table) == {B: 1}

    @virtual_time()
    async def test_enabled_and_drained_anew_meanwhile(self) -> None:
        table = MemoryTable()
        async with server(table) as web:
            table.set_connections(WEB, destination_key(A), active=1)
            first = asyncio.create_task(web.drain(A))
            await asyncio.sleep(1.5)
            await web.enable(A)
            second = asyncio.create_task(web.drain(A))
            await asyncio.sleep(1.5)
            with pytest.raises(VRRPKitError, match="enabled, disabled or removed"):
                await first
            # What the first one gave up is the second one's now.
            assert web.servers[0].state is ServerState.DRAINING
            table.set_connections(WEB, destination_key(A), active=0)
            assert await second == 0
            await web.add(A)
            assert await web.drain(A) == 0

    @virtual_time()
    async def test_the_end_ends_it(self) -> None:
        table = MemoryTable()
        async with server(table, at_exit="keep") as web:
            table.set_connections(WEB, destination_key(A), active=1)
            draining = asyncio.create_task(web.drain(A))
            await asyncio.sleep(1.5)
        with pytest.raises(Closed):
            await draining

    @virtual_time()
    async def test_a_table_that_cannot_be_read_proves_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = MemoryTable()

        async def refused(key: ServiceKey) -> None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

        async with server(table) as web:
            with monkeypatch.context() as patch:
                patch.setattr(table, "read_service", refused)
                draining = asyncio.create_task(web.drain(A, 30))
                await asyncio.sleep(5)
                assert not draining.done()
                with pytest.raises(OSError, match="No buffer space"):
                    await web.statistics()
            assert await draining == 0

    @virtual_time()
    async def test_the_last_one_leaves_its_connections_to_the_sorry_server_only_when_drained(
        self,
    ) -> None:
        table = MemoryTable()
        async with server(table, servers=[A], sorry=SORRY) as web:
            table.set_connections(WEB, destination_key(A), active=1)
            draining = asyncio.create_task(web.drain(A))
            await asyncio.sleep(5)
            assert await weights(table) == {A: 0, SORRY: 1}
            table.set_connections(WEB, destination_key(A), active=0)
            await draining
            assert await weights(table) == {SORRY: 1}


# --- masquerading in memory, bugs, cancellation -------------------------------------------------


@virtual_time()
async def test_masquerading_means_nothing_to_a_table_in_memory() -> None:
    for at_exit in ("keep", "remove"):
        table = MemoryTable()
        async with server(table, masquerade=True, poll_interval=1, at_exit=at_exit) as web:
            await web.add(C)
            await web.remove(C)
            await asyncio.sleep(3)
            assert await weights(table) == {A: 1, B: 1}
        assert len(await table.read()) == (at_exit == "keep")


class Broken(Exception):
    pass


@virtual_time()
async def test_a_bug_ends_the_body_and_the_table_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = MemoryTable()

    def report(*args: object, **kwargs: object) -> None:
        raise Broken

    async def body() -> None:
        async with server(table, check=checker()):
            monkeypatch.setattr(Pool, "report", report)
            await asyncio.sleep(3600)

    with pytest.raises(Broken):
        await body()
    assert (await table.read(), table.users) == ({}, 0)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await asyncio.sleep(1)


@virtual_time()
async def test_a_bug_of_the_table_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    table = MemoryTable()

    async def apply(operations: object) -> None:
        raise Broken

    async def body() -> None:
        async with server(table) as web:
            with monkeypatch.context() as patch:
                patch.setattr(table, "apply", apply)
                with pytest.raises(Broken):
                    await web.set_weight(A, 3)
                await asyncio.sleep(3600)

    with pytest.raises(Broken):
        await body()
    assert (await table.read(), table.users) == ({}, 0)


@virtual_time()
async def test_a_bug_is_raised_also_when_leaving_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = MemoryTable()

    def report(*args: object, **kwargs: object) -> None:
        raise Broken

    async def body() -> None:
        async with server(table, check=checker()):
            monkeypatch.setattr(Pool, "report", report)
            table.delay = 1.0
            await asyncio.sleep(3600)

    task = asyncio.create_task(body())
    await asyncio.sleep(1.5)
    task.cancel()
    with pytest.raises(Broken):
        await task
    table.delay = 0.0
    assert (await table.read(), table.users) == ({}, 0)


@virtual_time()
async def test_what_goes_wrong_in_leaving_is_raised_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = MemoryTable()

    async def close() -> None:
        raise Broken

    async def body() -> None:
        monkeypatch.setattr(table, "close", close)
        async with server(table):
            pass

    with pytest.raises(Broken):
        await body()
    assert await table.read() == {}


@virtual_time()
async def test_the_first_bug_is_the_one_that_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    table = MemoryTable()

    async def close() -> None:
        raise ZeroDivisionError

    def report(*args: object, **kwargs: object) -> None:
        raise Broken

    async def body() -> None:
        monkeypatch.setattr(table, "close", close)
        async with server(table, check=checker()):
            # Both checks meet it, and leaving fails as well.
            monkeypatch.setattr(Pool, "report", report)
            await asyncio.sleep(3600)

    with pytest.raises(Broken):
        await body()


@virtual_time()
async def test_a_callback_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: object) -> None:
        raise Broken

    web = server(MemoryTable(), check=checker())
    web.on_quorum(broken)
    web.on_result(broken)
    async with web:
        await asyncio.sleep(3)
        assert web.state is VirtualServerState.UP
    assert "the callback" in caplog.text


TURNS = 60


async def cancelled_after(turns: int, run: Callable[[], Any]) -> bool:
    """Cancel ``run()`` after some turns of the event loop; whether that came in time."""
    task = asyncio.create_task(run())
    for _ in range(turns):
        await asyncio.sleep(0)
    in_time = task.cancel()
    (problem,) = await asyncio.gather(task, return_exceptions=True)
    assert problem is None or isinstance(problem, asyncio.CancelledError)
    return in_time


@virtual_time()
async def test_entering_can_be_cancelled_at_every_await() -> None:
    in_time = 0
    for turns in range(TURNS):
        table = MemoryTable()

        if turns % 2:
            await fill(table, a=1)
        web = server(table, check=checker())

        async def body(web: VirtualServer = web) -> None:
            async with web:
                pass

        in_time += await cancelled_after(turns, body)
        left = await table.read()
        untouched = bool(turns % 2) and not table.operations
        assert left == {} or (untouched and set(await weights(table)) == {A})
        assert table.users == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert in_time > 10


@virtual_time()
async def test_leaving_can_be_cancelled_at_every_await() -> None:
    for at_exit in ("remove", "keep"):
        in_time = 0
        for turns in range(TURNS):
            table = MemoryTable()
            web = server(table, check=checker(), at_exit=at_exit)
            await web.__aenter__()
            await asyncio.sleep(0.1)

            async def leave(web: VirtualServer = web) -> None:
                await web.__aexit__(None, None, None)

            # A task that never began has cancelled nothing.
            in_time += await cancelled_after(turns + 1, leave)
            assert (await table.read() == {}) is (at_exit == "remove")
            assert table.users == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert in_time >= 3


@virtual_time()
async def test_a_hundred_of_ten_thousand_change_at_once() -> None:
    table, health = MemoryTable(), checker(interval=100)
    servers = [f"10.{n // 65000}.{n // 250}.{n % 250 + 1}:80" for n in range(10_000)]
    async with server(table, servers=servers, check=health) as web:
        assert [len(operations) for operations in table.operations] == [10_001]
        await asyncio.sleep(1)
        for name in servers[:100]:
            health.fails(name)
        await asyncio.sleep(100)
        changes = [op for operations in table.operations[1:] for op in operations]
        assert [type(op) for op in changes] == [DeleteDestination] * 100
        assert len(await weights(table)) == 9900
        assert sum(status.state is ServerState.UP for status in web.servers) == 9900
