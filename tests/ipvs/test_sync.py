"""ConnectionSync on a table in memory: the daemons follow the router."""

from __future__ import annotations

import asyncio
import errno
import inspect
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

import attrs
import pytest

from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance, VRRPKitError
from vrrpkit.errors import HostError, KernelRefused
from vrrpkit.ipvs.base import SyncDaemon, SyncRole
from vrrpkit.ipvs.config import ConnectionSyncConfig
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.sync import ConnectionSync, SyncRefused
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.syncgroup import SyncGroup

MASTER, BACKUP = SyncRole.MASTER, SyncRole.BACKUP


class Slow(MemoryTable):
    """Takes a second for each start and stop, and can refuse a role."""

    def __init__(self, delay: float = 1.0) -> None:
        super().__init__()
        self.pause = delay
        self.refused: SyncRole | None = None
        self.done: list[str] = []

    async def start_sync_daemon(self, daemon: SyncDaemon) -> None:
        await asyncio.sleep(self.pause)
        if daemon.role is self.refused:
            raise KernelRefused(errno.ENODEV, "No such device")
        await super().start_sync_daemon(daemon)
        self.done.append(f"start {daemon.role.value}")

    async def stop_sync_daemon(self, role: SyncRole) -> None:
        await asyncio.sleep(self.pause)
        await super().stop_sync_daemon(role)
        self.done.append(f"stop {role.value}")


def router(bus: MemoryBus, **changes: Any) -> VRRPInstance:
    usual: dict[str, Any] = {"vrid": 51, "vips": ["192.0.2.10/24"]}
    return VRRPInstance("r", bus.interface("192.0.2.1"), **(usual | changes))


def sync(table: MemoryTable, **changes: Any) -> ConnectionSync:
    return ConnectionSync("eth1", table=table, **changes)


async def roles(table: MemoryTable) -> set[SyncRole]:
    return {daemon.role for daemon in await table.sync_daemons()}


def listen(source: ConnectionSync) -> list[object]:
    told: list[object] = []

    async def read(events: AsyncIterator[object]) -> None:
        async for event in events:
            told.append(event)  # noqa: PERF401 - it is read while the stream goes on

    task = asyncio.create_task(read(source.events()))
    READERS.add(task)
    task.add_done_callback(READERS.discard)
    return told


READERS: set[asyncio.Task[None]] = set()


@virtual_time()
async def test_the_master_sends_and_the_backup_takes_over() -> None:
    bus, table = MemoryBus(), MemoryTable()
    async with router(bus) as one:
        follower = sync(table, follows=one)
        told = listen(follower)
        await asyncio.sleep(0)
        async with follower:
            assert (await roles(table), follower.roles) == ({BACKUP}, {BACKUP})
            (daemon,) = await table.sync_daemons()
            assert (daemon.id, daemon.interface, daemon.port) == (51, "eth1", 8848)
            await one.wait_for(State.MASTER)
            await asyncio.sleep(0.1)
            assert await roles(table) == {MASTER}
            bus.unplug("192.0.2.1")
            await asyncio.sleep(0.1)
            assert await roles(table) == {BACKUP}
        assert (await roles(table), table.users) == (set(), 0)
        await asyncio.sleep(0)
    said = [f"connection sync on eth1: {what}" for what in ("backup", "master", "backup", "none")]
    assert [str(event) for event in told] == said


@virtual_time()
async def test_without_a_router_it_does_both() -> None:
    table = MemoryTable()
    options: dict[str, Any] = {"group": "224.0.0.99", "port": 9000, "ttl": 3, "maxlen": 1000}
    async with sync(table, id=9, **options):
        assert await roles(table) == {MASTER, BACKUP}
        for daemon in await table.sync_daemons():
            wanted = SyncDaemon(role=daemon.role, interface="eth1", id=9, **options)
            assert daemon == wanted
    async with sync(table):
        assert {daemon.id for daemon in await table.sync_daemons()} == {0}


@virtual_time()
async def test_it_follows_a_group_too() -> None:
    bus, table = MemoryBus(), MemoryTable()
    members = [
        router(bus),
        VRRPInstance("s", bus.interface("192.0.2.1"), vrid=2, vips=["192.0.2.20"]),
    ]
    async with SyncGroup("both", members) as group, sync(table, follows=group):
        assert {daemon.id for daemon in await table.sync_daemons()} == {0}
        await group.wait_for(State.MASTER)
        await asyncio.sleep(0.1)
        assert await roles(table) == {MASTER}


@virtual_time()
async def test_flaps_while_the_kernel_is_slow_end_in_the_last_state() -> None:
    bus, table = MemoryBus(), Slow()
    async with router(bus) as one, sync(table, follows=one):
        await one.wait_for(State.MASTER)
        for _ in range(5):
            bus.unplug("192.0.2.1")
            await asyncio.sleep(0.05)
            bus.plug("192.0.2.1")
            await asyncio.sleep(0.05)
        bus.unplug("192.0.2.1")
        await asyncio.sleep(10)
        assert await roles(table) == {BACKUP}
        assert len(table.done) <= 5
    assert await roles(table) == set()


@virtual_time()
async def test_leaving_in_the_middle_of_a_switch_stops_all() -> None:
    bus, table = MemoryBus(), Slow()
    async with router(bus) as one:
        async with sync(table, follows=one):
            await one.wait_for(State.MASTER)
            await asyncio.sleep(1.5)
        assert (await roles(table), table.users) == (set(), 0)
        assert table.done[-1].startswith("stop")


@virtual_time()
async def test_what_the_kernel_refuses_on_entering_is_raised() -> None:
    table = MemoryTable(interfaces=["eth0"])
    with pytest.raises(KernelRefused, match="eth1"):
        await sync(table).__aenter__()
    assert (await roles(table), table.users) == (set(), 0)
    # The table is free again.
    async with ConnectionSync("eth0", table=table):
        pass


@virtual_time()
async def test_what_it_refuses_later_is_told_once_and_tried_again() -> None:
    bus, table = MemoryBus(), Slow(0.0)
    async with router(bus) as one:
        follower = sync(table, follows=one)
        told = listen(follower)
        async with follower:
            table.refused = MASTER
            await one.wait_for(State.MASTER)
            await asyncio.sleep(25)
            assert await roles(table) == set()
            refusals = [event for event in told if isinstance(event, SyncRefused)]
            assert [str(event) for event in refusals] == [
                "connection sync on eth1: No such device; next try in 10 s"
            ]
            table.refused = None
            await asyncio.sleep(10)
            assert await roles(table) == {MASTER}


@virtual_time()
async def test_what_cannot_be_stopped_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = MemoryTable()

    async def stuck(role: SyncRole) -> None:
        raise KernelRefused(errno.EBUSY, "Device or resource busy")

    async with sync(table):
        monkeypatch.setattr(table, "stop_sync_daemon", stuck)
    assert "connection sync on eth1: [Errno 16] Device or resource busy" in caplog.text
    assert table.users == 0


@virtual_time()
async def test_daemons_of_an_earlier_run_stay_if_they_fit() -> None:
    table = Slow(0.0)
    for role in (MASTER, BACKUP):
        await table.start_sync_daemon(SyncDaemon(role=role, interface="eth1", id=7))
    table.done.clear()
    async with sync(table, id=7):
        assert table.done == []
    table.done.clear()
    fitting = SyncDaemon(role=MASTER, interface="eth1", id=7)
    for other in (
        {"id": 8},
        {"interface": "eth9"},
        {"port": 1},
        {"group": ip_address("224.0.0.9")},
    ):
        await table.start_sync_daemon(attrs.evolve(fitting, **other))
        table.done.clear()
        async with sync(table, id=7, port=8848, group="224.0.0.81"):
            assert table.done == ["stop master", "start master", "start backup"]


@virtual_time()
async def test_a_role_that_an_earlier_run_left_is_stopped() -> None:
    bus, table = MemoryBus(), MemoryTable()
    await table.start_sync_daemon(SyncDaemon(role=MASTER, interface="eth1", id=51))
    async with router(bus) as one, sync(table, follows=one):
        assert await roles(table) == {BACKUP}


@virtual_time()
async def test_one_on_each_table() -> None:
    table = MemoryTable()
    async with sync(table) as first:
        with pytest.raises(HostError, match="another ConnectionSync"):
            await sync(table).__aenter__()
        assert table.users == 1
        async with sync(MemoryTable()):
            pass
    with pytest.raises(
        VRRPKitError, match="connection sync on eth1 was entered before: make a new"
    ):
        await first.__aenter__()
    await first.__aexit__(None, None, None)


@virtual_time()
async def test_by_default_it_is_the_table_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    table = MemoryTable()
    monkeypatch.setattr("vrrpkit.ipvs.kernel.table.KernelTable.current", lambda: table)
    async with ConnectionSync("eth1"):
        assert await roles(table) == {MASTER, BACKUP}


@virtual_time()
async def test_a_refusal_in_the_middle_of_a_change_of_mind_is_not_the_end() -> None:
    bus, table = MemoryBus(), Slow()
    async with router(bus) as one, sync(table, follows=one):
        table.refused = MASTER
        await one.wait_for(State.MASTER)
        await asyncio.sleep(1.5)
        bus.unplug("192.0.2.1")
        await asyncio.sleep(3)
        assert await roles(table) == {BACKUP}


@virtual_time()
async def test_leaving_while_a_start_is_refused() -> None:
    bus, table = MemoryBus(), Slow()
    async with router(bus) as one:
        async with sync(table, follows=one):
            table.refused = MASTER
            await one.wait_for(State.MASTER)
            await asyncio.sleep(1.5)
        assert (await roles(table), table.users) == (set(), 0)
    await asyncio.sleep(60)
    assert await roles(table) == set()


@virtual_time()
async def test_entering_and_leaving_can_be_cancelled_at_every_await() -> None:
    for turns in range(25):
        table = Slow(0.0)

        async def body(table: Slow = table) -> None:
            async with sync(table):
                await asyncio.sleep(0)

        task = asyncio.create_task(body())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await roles(table), table.users) == (set(), 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": 256}, "id 256"),
        ({"port": 0}, "port 0"),
        ({"ttl": 256}, "ttl 256"),
        ({"maxlen": 65508}, "maxlen 65508"),
        ({"group": "192.0.2.1"}, "must be a multicast address"),
        ({"interface": ""}, "interface is empty"),
        ({"interface": 5}, "interface 5 must be text"),
        ({"table": 5}, "table 5 is no IPVS table"),
        ({"table": MemoryTable}, "MemoryTable'> is no IPVS table; write MemoryTable"),
        ({"interface": "a-name-of-16-oct"}, "is too long: names have at most 15 octets"),
        ({"follows": "VI_1"}, "follows 'VI_1' must be a VRRPInstance"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConnectionSync(**({"interface": "eth1"} | changes))


def test_a_description_makes_the_sync_it_describes() -> None:
    router = VRRPInstance("web", "eth0", vrid=51, vips=["192.0.2.10/24"])
    config = ConnectionSyncConfig("eth1", follows="web", id=7, group="224.0.0.82", ttl=3)
    table = MemoryTable()
    assert ConnectionSync.of(config, follows=router, table=table).config == config
    assert (
        ConnectionSync("eth1", follows=router, id=7, group="224.0.0.82", ttl=3, table=table).config
        == config
    )
    with pytest.raises(ConfigError, match="sync on eth1: its description follows 'web', and none"):
        ConnectionSync.of(config, table=table)
    with pytest.raises(ConfigError, match="ttl 300 must be a whole number from 1 to 255"):
        attrs.evolve(config, ttl=300)
    parameters = inspect.signature(ConnectionSync).parameters
    assert set(parameters) - set(inspect.signature(ConnectionSyncConfig).parameters) == {"table"}
    text = ConnectionSync.__init__.__doc__ or ""
    assert [name for name in parameters if f":param {name}:" not in text] == []
