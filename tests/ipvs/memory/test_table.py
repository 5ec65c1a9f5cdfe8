"""The table in memory does what the kernel does, and simulated connections find their servers."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

import attrs
import pytest

from ipvs.table_contract import (
    CONTRACT,
    HERE,
    REFUSALS,
    WEB,
    WEB6,
    destination,
    done,
    fill,
    key,
    numbers,
    server,
)
from vrrpkit.errors import KernelRefused, ModuleMissing
from vrrpkit.ipvs.base import SyncDaemon, SyncRole, Table
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.diff import diff
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    DeleteDestination,
    DeleteService,
    Destination,
    DestinationEntry,
    DestinationKey,
    EditDestination,
    EditService,
    Forward,
    Operation,
    Protocol,
    Service,
    ServiceKey,
)
from vrrpkit.testing import virtual_time

DNS = key(port=53, protocol=Protocol.UDP)
A, B, C = server("10.0.0.1"), server("10.0.0.2"), server("10.0.0.3")


def opened() -> Table:
    return MemoryTable()


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
@virtual_time()
async def test_it_does_what_every_table_does(rule: Callable[[Table], Awaitable[None]]) -> None:
    table = opened()
    await table.open()
    await rule(table)
    await table.close()


@pytest.mark.parametrize(
    ("operation", "number"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
@virtual_time()
async def test_it_refuses_what_the_kernel_refuses(operation: Operation, number: int) -> None:
    table = opened()
    await fill(table)
    before = await table.read()
    assert await numbers(table, operation) == [number]
    assert await table.read() == before


async def balancing(
    service: Service, *servers: Destination, table: MemoryTable | None = None
) -> MemoryTable:
    """A table with one service."""
    table = table or MemoryTable()
    await done(table, AddService(service), *(AddDestination(service.key, s) for s in servers))
    return table


async def entry(
    table: MemoryTable, server: DestinationKey, service: ServiceKey = WEB
) -> DestinationEntry:
    found = await table.read_service(service)
    assert found is not None
    return found.destinations[server]


async def connections(table: MemoryTable, server: DestinationKey) -> tuple[int, int]:
    found = await entry(table, server)
    return found.active, found.inactive


def spread(table: MemoryTable, count: int, service: ServiceKey = WEB) -> Counter[str]:
    return Counter(str(table.connect(service)) for _ in range(count))


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("wlc", {"10.0.0.1:80": 30, "10.0.0.2:80": 10}),
        ("lc", {"10.0.0.1:80": 20, "10.0.0.2:80": 20}),
        ("wrr", {"10.0.0.1:80": 30, "10.0.0.2:80": 10}),
        ("rr", {"10.0.0.1:80": 20, "10.0.0.2:80": 20}),
    ],
)
@virtual_time()
async def test_connections_spread_as_the_weights_say(
    scheduler: str, expected: dict[str, int]
) -> None:
    table = await balancing(
        Service(key=WEB, scheduler=scheduler),
        destination("10.0.0.1", weight=3),
        destination("10.0.0.2", weight=1),
        destination("10.0.0.3", weight=0),
    )
    assert spread(table, 40) == expected
    found = await table.read_service(WEB)
    assert found is not None
    assert found.counters.connections == 40
    assert found.destinations[A].counters.connections == expected["10.0.0.1:80"]
    assert found.destinations[C].counters.connections == 0


@virtual_time()
async def test_turns_are_taken_even_if_no_connection_stays() -> None:
    table = await balancing(
        Service(key=WEB, scheduler="wrr"),
        destination("10.0.0.1", weight=2),
        destination("10.0.0.2", weight=1),
    )
    order: list[DestinationKey | None] = []
    for _ in range(6):
        chosen = table.connect(WEB)
        assert chosen is not None
        table.disconnect(WEB, chosen)
        order.append(chosen)
    assert order == [A, B, A, A, B, A]


@virtual_time()
async def test_a_connection_without_a_server_fails() -> None:
    table = await balancing(Service(key=WEB), destination("10.0.0.1", weight=0))
    assert table.connect(WEB) is None
    assert table.connect(WEB6) is None, "there is no such service"
    await done(table, EditDestination(WEB, HERE))
    assert table.connect(WEB) == A


@virtual_time()
async def test_all_ports_of_an_address_need_persistence() -> None:
    every = key(port=0)
    table = await balancing(Service(key=every), HERE)
    assert table.connect(every) is None
    await done(table, EditService(Service(key=every, persistence=60)))
    assert table.connect(every) == A


@virtual_time()
async def test_what_a_service_holds_follows_its_protocol() -> None:
    table = await balancing(Service(key=WEB), HERE)
    await balancing(Service(key=DNS), HERE, table=table)
    assert (table.connect(WEB), table.connect(DNS)) == (A, A)
    assert await connections(table, A) == (1, 0)
    found = await entry(table, A, DNS)
    assert (found.active, found.inactive) == (0, 1), "no UDP connection is ever established"
    await done(table, EditService(Service(key=DNS, one_packet=True)))
    assert table.connect(DNS) == A
    found = await entry(table, A, DNS)
    assert (found.active, found.inactive, found.counters.connections) == (0, 1, 2)


@virtual_time()
async def test_a_client_stays_with_its_server_until_the_timeout() -> None:
    service = Service(key=WEB, scheduler="rr", persistence=60)
    table = await balancing(service, HERE, destination("10.0.0.2"))
    assert [table.connect(WEB, client="198.51.100.7") for _ in range(3)] == [A, A, A]
    assert table.connect(WEB, client="198.51.100.8") == B
    assert (await entry(table, A)).persistent == 1
    await asyncio.sleep(59)
    assert table.connect(WEB, client="198.51.100.7") == A
    await asyncio.sleep(59)
    assert (await entry(table, B)).persistent == 0
    await done(table, EditDestination(WEB, destination("10.0.0.1", weight=0)))
    assert table.connect(WEB, client="198.51.100.7") == A, "known clients stay with weight 0"
    await asyncio.sleep(60)
    assert (await entry(table, A)).persistent == 0
    assert table.connect(WEB, client="198.51.100.7") == B


@virtual_time()
async def test_clients_of_one_network_share_a_server() -> None:
    service = Service(key=WEB, scheduler="rr", persistence=60, granularity=24)
    table = await balancing(service, HERE, destination("10.0.0.2"))
    assert table.connect(WEB, client="198.51.100.7") == A
    assert table.connect(WEB, client="198.51.100.8") == A
    assert table.connect(WEB, client="198.51.101.8") == B


@virtual_time()
async def test_a_server_that_is_removed_frees_its_clients() -> None:
    service = Service(key=WEB, persistence=60)
    table = await balancing(service, HERE)
    assert table.connect(WEB) == A
    await done(table, DeleteDestination(WEB, A))
    assert table.connect(WEB) is None
    await done(table, AddDestination(WEB, destination("10.0.0.2")))
    assert table.connect(WEB) == B


@virtual_time()
async def test_thresholds_shut_a_server_and_open_it_again() -> None:
    table = await balancing(Service(key=WEB), destination("10.0.0.1", upper=4, lower=2))
    assert spread(table, 5) == {"10.0.0.1:80": 4, "None": 1}
    table.disconnect(WEB, A)
    table.disconnect(WEB, A)
    assert table.connect(WEB) is None, "2 are not below the lower threshold"
    table.disconnect(WEB, A)
    assert table.connect(WEB) == A


@virtual_time()
async def test_without_a_lower_threshold_it_is_three_quarters() -> None:
    table = await balancing(Service(key=WEB), destination("10.0.0.1", upper=4))
    assert spread(table, 5) == {"10.0.0.1:80": 4, "None": 1}
    table.disconnect(WEB, A)
    assert table.connect(WEB) is None
    table.disconnect(WEB, A)
    assert table.connect(WEB) == A


@pytest.mark.parametrize("upper", [0, 2])
@virtual_time()
async def test_a_raised_threshold_lets_connections_in(upper: int) -> None:
    table = await balancing(Service(key=WEB), destination("10.0.0.1", upper=1))
    assert [table.connect(WEB), table.connect(WEB)] == [A, None]
    await done(table, EditDestination(WEB, destination("10.0.0.1", upper=upper)))
    assert table.connect(WEB) == A


@virtual_time()
async def test_a_lowered_threshold_counts_from_the_next_connection() -> None:
    table = await balancing(Service(key=WEB), destination("10.0.0.1", upper=9))
    assert spread(table, 3) == {"10.0.0.1:80": 3}
    await done(table, EditDestination(WEB, destination("10.0.0.1", upper=2)))
    assert [table.connect(WEB), table.connect(WEB)] == [A, None]


@virtual_time()
async def test_connections_outlive_their_server() -> None:
    table = await balancing(Service(key=WEB), HERE)
    spread(table, 3)
    await done(table, DeleteDestination(WEB, A))
    table.disconnect(WEB, A)
    await done(table, AddDestination(WEB, HERE))
    assert await connections(table, A) == (2, 0)
    await done(table, DeleteService(WEB))
    table.set_connections(WEB, A, active=0, inactive=1)
    await balancing(Service(key=WEB), HERE, table=table)
    assert await connections(table, A) == (0, 1)
    table.disconnect(WEB, A)
    await table.flush()
    with pytest.raises(LookupError, match=r"10\.0\.0\.1:80 of .* has no connection"):
        table.disconnect(WEB, A)
    with pytest.raises(LookupError, match="there is no"):
        table.set_connections(WEB, A, active=1)


@virtual_time()
async def test_an_edit_keeps_connections() -> None:
    table = await balancing(Service(key=WEB), HERE)
    table.set_connections(WEB, A, active=5)
    table.set_connections(WEB, A, inactive=7)
    await done(
        table,
        EditService(Service(key=WEB, scheduler="rr")),
        EditDestination(WEB, destination("10.0.0.1", weight=0)),
    )
    assert await connections(table, A) == (5, 7)


@virtual_time()
async def test_what_it_was_asked_for_is_listed() -> None:
    table = MemoryTable()
    first, second = AddService(Service(key=WEB)), AddDestination(WEB, HERE)
    await table.apply([first, second])
    await table.apply([first])
    assert table.operations == [[first, second], [first]]


@virtual_time()
async def test_a_refusal_lasts_until_it_is_called_off() -> None:
    table = await balancing(Service(key=WEB))
    enough = table.refuse(lambda operation: isinstance(operation, AddDestination), errno.ENOMEM)
    other = table.refuse(DeleteService(WEB))
    wanted = [AddDestination(WEB, HERE), DeleteService(WEB), EditService(Service(key=WEB))]
    assert await numbers(table, *wanted) == [errno.ENOMEM, errno.EINVAL, None]
    enough()
    enough()
    assert await numbers(table, *wanted[:2]) == [None, errno.EINVAL]
    other()
    assert await numbers(table, DeleteService(WEB)) == [None]


@virtual_time()
async def test_modules_that_are_missing_are_missed() -> None:
    table = MemoryTable(missing=["mh", "sip"])
    table.require(["wlc"], [""])
    with pytest.raises(ModuleMissing, match="ip_vs_mh"):
        table.require(["wlc", "mh"])
    with pytest.raises(ModuleMissing, match="ip_vs_pe_sip"):
        table.require([], ["sip"])
    assert await numbers(
        table,
        AddService(Service(key=WEB, scheduler="mh")),
        AddService(Service(key=WEB, engine="sip", persistence=1)),
        AddService(Service(key=WEB)),
        EditService(Service(key=WEB, scheduler="mh")),
    ) == [errno.ENOENT, errno.ENOENT, None, errno.ENOENT]


@virtual_time()
async def test_a_sync_daemon_shows_what_it_uses() -> None:
    table = MemoryTable(interfaces=["eth0"])
    with pytest.raises(KernelRefused, match="eth1") as refused:
        await table.start_sync_daemon(SyncDaemon(role=SyncRole.MASTER, interface="eth1"))
    assert refused.value.errno == errno.ENODEV
    await table.start_sync_daemon(SyncDaemon(role=SyncRole.MASTER, interface="eth0"))
    assert await table.sync_daemons() == (
        SyncDaemon(
            role=SyncRole.MASTER,
            interface="eth0",
            maxlen=1472,
            group=IPv4Address("224.0.0.81"),
            port=8848,
            ttl=1,
        ),
    )


@virtual_time()
async def test_sync_daemons_and_mixed_families_exclude_each_other() -> None:
    table = await balancing(Service(key=WEB))
    master = SyncDaemon(role=SyncRole.MASTER, interface="eth0")
    mixed = AddDestination(WEB, destination("fd00::1", forward=Forward.TUN))
    await table.start_sync_daemon(master)
    assert await numbers(table, mixed) == [errno.EINVAL]
    await table.stop_sync_daemon(SyncRole.MASTER)
    assert await numbers(table, mixed) == [None]
    with pytest.raises(KernelRefused) as refused:
        await table.start_sync_daemon(master)
    assert refused.value.errno == errno.EINVAL


@virtual_time()
async def test_requests_take_time_and_effect_at_once() -> None:
    table = MemoryTable(delay=0.5)
    loop = asyncio.get_running_loop()
    started = loop.time()
    applying = asyncio.create_task(table.apply([AddService(Service(key=WEB))]), name="apply")
    await asyncio.sleep(0)
    assert set(await table.read()) == {WEB}
    assert await applying == [None]
    assert loop.time() == pytest.approx(started + 0.5)
    assert await table.read_service(WEB6) is None
    await table.flush()
    assert loop.time() == pytest.approx(started + 1.5)


@virtual_time()
async def test_users_are_counted() -> None:
    table = MemoryTable()
    await table.open()
    await table.open()
    assert table.users == 2
    await table.close()
    await table.close()
    assert table.users == 0


@virtual_time()
async def test_a_hundred_of_ten_thousand_change_within_100_ms() -> None:
    service = Service(key=WEB)
    farm = [Destination(key=DestinationKey(IPv4Address(0x0A000001 + n), 80)) for n in range(10_000)]
    table = MemoryTable()
    taken: list[float] = []
    for weight in range(2, 7):
        farm[::100] = [attrs.evolve(one, weight=weight) for one in farm[::100]]
        if weight == 2:
            await table.apply(diff({}, {WEB: (service, farm)}, frozenset()))
        started = time.process_time()
        operations = diff(await table.read(), {WEB: (service, farm)}, frozenset())
        assert await table.apply(operations) == [None] * len(operations)
        taken.append(time.process_time() - started)
        assert len(operations) == (0 if weight == 2 else 100)
    found = (await table.read())[WEB]
    assert [one.destination for one in found.destinations.values()] == farm
    assert min(taken[1:]) < 0.1, "some 15 ms are usual"
