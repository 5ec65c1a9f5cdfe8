"""The keeper: one table, the last wish of everybody, and what others do to it."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import Iterable, Sequence

import pytest

from vrrpkit.errors import DuplicateService
from vrrpkit.ipvs.claim import ServiceClaim
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    DeleteDestination,
    DeleteService,
    Destination,
    DestinationKey,
    EditDestination,
    EditService,
    Operation,
    Service,
    ServiceEntry,
    ServiceKey,
    Snapshot,
)
from vrrpkit.ipvs.reconciler import TableReconciler
from vrrpkit.testing import virtual_time

WEB, DNS, OLD = service_keys(["192.0.2.10:80", "192.0.2.10:53/udp", "192.0.2.99:80"])


def server(number: int, weight: int = 1, port: int = 80) -> Destination:
    return Destination(
        key=destination_key(f"10.0.{number // 250}.{number % 250 + 1}:{port}"), weight=weight
    )


def changed(*destinations: Destination) -> dict[object, Destination]:
    return {destination.key: destination for destination in destinations}


class Listener:
    def __init__(self) -> None:
        self.heard: list[object] = []
        self.bugs: list[Exception] = []
        self.fit: list[DestinationKey] = []

    def healthy(self) -> Iterable[DestinationKey]:
        return self.fit

    def repaired(self, entries: Sequence[str]) -> None:
        self.heard.append(("repaired", *entries))

    def refused(self, failures: Sequence[str], retry_in: float) -> None:
        self.heard.append(("refused", *failures, retry_in))

    def follows(self) -> None:
        self.heard.append("follows")

    def foreign(self, services: Sequence[ServiceKey]) -> None:
        self.heard.append(("foreign", *services))

    def polled(self) -> None:
        """Not looked at."""

    def failed(self, bug: Exception) -> None:
        self.bugs.append(bug)


class Reading(MemoryTable):
    """Counts how it is read, and refuses to be."""

    def __init__(self, *, delay: float = 0.0) -> None:
        super().__init__(delay=delay)
        self.reads: list[object] = []
        self.problem: Exception | None = None

    async def read(self) -> Snapshot:
        self.reads.append("all")
        if self.problem is not None:
            raise self.problem
        return await super().read()

    async def read_service(self, key: ServiceKey) -> ServiceEntry | None:
        self.reads.append(key)
        return await super().read_service(key)


async def claim(
    table: MemoryTable,
    *keys: ServiceKey,
    wanted: Iterable[Destination] = (),
    stale: Iterable[ServiceKey] = (),
    poll: float | None = 10.0,
) -> tuple[ServiceClaim, Listener]:
    """A claim that is begun and settled, and its listener."""
    listener = Listener()
    services = [Service(key=key) for key in keys or (WEB,)]
    made = await TableReconciler.of(table).claim(services, listener, poll)
    made.begin(wanted, stale)
    await made.settled()
    return made, listener


async def leave(*claims: ServiceClaim, remove: bool = True) -> None:
    for each in claims:
        await each.withdraw(remove=remove)
        await each.drop()


async def weights(table: MemoryTable, key: ServiceKey = WEB) -> dict[str, int]:
    entry = await table.read_service(key)
    assert entry is not None
    return {str(k.address): d.destination.weight for k, d in entry.destinations.items()}


def kinds(operations: Iterable[Operation]) -> list[str]:
    return [type(operation).__name__ for operation in operations]


# --- wishes -------------------------------------------------------------------------------------


@virtual_time()
async def test_a_pool_is_loaded_in_one_request_and_removed_in_one() -> None:
    table = MemoryTable()
    web, listener = await claim(table, WEB, DNS, wanted=[server(n, port=0) for n in range(3)])
    ((*operations,),) = table.operations
    assert kinds(operations) == ["AddService", *["AddDestination"] * 3] * 2
    ports = [op.destination.key.port for op in operations if isinstance(op, AddDestination)]
    assert ports == [80, 80, 80, 53, 53, 53]
    await leave(web)
    assert kinds(table.operations[1]) == ["DeleteService"] * 2
    assert (await table.read(), listener.heard) == ({}, [])


@virtual_time()
async def test_wishes_of_one_turn_go_in_one_request_and_touch_only_what_changed() -> None:
    table = MemoryTable()
    web, _ = await claim(table, WEB, DNS, wanted=[server(n, port=0) for n in range(100)])
    web.update(changed(server(1, 5, 0)))
    web.update(changed(server(2, 5, 0)))
    web.update({server(3, port=0).key: None, server(0, port=0).key: None})
    web.update(changed(server(0, port=0)))
    await web.settled()
    assert (
        kinds(table.operations[1])
        == ["EditDestination", "EditDestination", "DeleteDestination"] * 2
    )
    assert len(table.operations) == 2
    await leave(web)


@virtual_time()
async def test_flaps_while_the_table_is_slow_collapse() -> None:
    table = MemoryTable(delay=1.0)
    web, _ = await claim(table, wanted=[server(0), server(1)])
    for step in range(101):
        if step % 2:
            web.update(changed(server(0)))
        else:
            web.update({server(0).key: None})
        await asyncio.sleep(0.01)
    await web.settled()
    # One is under way when the flaps begin, and one more does what is left of them.
    flaps = [kinds(operations) for operations in table.operations[1:]]
    assert flaps == [["DeleteDestination"], ["AddDestination"], ["DeleteDestination"]][: len(flaps)]
    assert len(flaps) <= 3
    assert await weights(table) == {"10.0.0.2": 1}
    await leave(web)


@virtual_time()
async def test_a_wait_ends_with_its_own_wish_though_others_go_on() -> None:
    table = MemoryTable(delay=1.0)
    web, _ = await claim(table, wanted=[server(0), server(1)])
    table.operations.clear()
    web.update(changed(server(0, 7)))
    waiting = asyncio.create_task(web.settled())
    for step in range(300):
        await asyncio.sleep(0.01)
        web.update(changed(server(1, step)))
        if waiting.done():
            break
    assert (step, (await weights(table))["10.0.0.1"]) == (100, 7)
    await leave(web)


@virtual_time()
async def test_those_who_look_together_share_one_reading() -> None:
    table = Reading(delay=1.0)
    web, _ = await claim(table, wanted=[server(0)])
    table.reads.clear()
    found = await asyncio.gather(*(web.look() for _ in range(10)))
    # One that begins after somebody asked is good enough.
    assert (len(found), table.reads) == (10, [WEB, WEB])
    await leave(web)


@virtual_time()
async def test_what_is_wished_and_unwished_at_once_costs_nothing() -> None:
    table = MemoryTable()
    web, _ = await claim(table, wanted=[server(0)])
    web.update({server(0).key: None})
    web.update(changed(server(0)))
    await web.settled()
    assert len(table.operations) == 1
    await web.settled()
    await leave(web)


@virtual_time()
async def test_no_step_leaves_the_pool_empty() -> None:
    table = MemoryTable()
    web, _ = await claim(table, wanted=[server(0), server(1)])
    web.update({server(0).key: None, server(1).key: None, **changed(server(2))})
    await web.settled()
    # What goes waits for the answer to what comes.
    assert [kinds(operations) for operations in table.operations[1:]] == [
        ["AddDestination"],
        ["DeleteDestination", "DeleteDestination"],
    ]
    await leave(web)


# --- what was there before ----------------------------------------------------------------------


@virtual_time()
async def test_what_fits_is_not_touched() -> None:
    table = MemoryTable()
    await table.apply([AddService(Service(key=WEB)), AddDestination(WEB, server(0))])
    await table.apply([AddDestination(WEB, server(1, 9)), AddDestination(WEB, server(7))])
    web, listener = await claim(table, wanted=[server(0), server(1), server(2)])
    assert table.operations[2:] == [
        [
            AddDestination(WEB, server(2)),
            EditDestination(WEB, server(1)),
            DeleteDestination(WEB, server(7).key),
        ]
    ]
    assert listener.heard == []
    await leave(web, remove=False)
    assert await weights(table) == {f"10.0.0.{n}": 1 for n in (1, 2, 3)}
    again, _ = await claim(table, wanted=[server(0), server(1), server(2)])
    assert len(table.operations) == 3
    await leave(again)


@virtual_time()
async def test_another_scheduler_is_an_edit() -> None:
    table = MemoryTable()
    await table.apply([AddService(Service(key=WEB, scheduler="rr"))])
    web, _ = await claim(table)
    assert table.operations[1:] == [[EditService(Service(key=WEB))]]
    await leave(web)


@virtual_time()
async def test_stale_services_go_unless_somebody_has_them() -> None:
    table = MemoryTable()
    await table.apply([AddService(Service(key=key)) for key in (OLD, DNS)])
    dns, _ = await claim(table, DNS)
    web, _ = await claim(table, WEB, stale=[OLD, DNS])
    assert table.operations[1:] == [[AddService(Service(key=WEB)), DeleteService(OLD)]]
    assert web.remaining == (WEB,)
    # Somebody else makes it again: that is not ours any more.
    await table.apply([AddService(Service(key=OLD))])
    await asyncio.sleep(11)
    assert set(await table.read()) == {WEB, DNS, OLD}
    await leave(web, dns)


@virtual_time()
async def test_what_is_foreign_is_left_alone_and_listed_once() -> None:
    table = MemoryTable()
    await table.apply([AddService(Service(key=OLD))])
    web, listener = await claim(table)
    dns, second = await claim(table, DNS)
    await asyncio.sleep(35)
    assert (listener.heard, second.heard) == ([("foreign", OLD)], [])
    await leave(web, dns)
    assert set(await table.read()) == {OLD}


@virtual_time()
async def test_what_is_foreign_is_listed_also_where_nobody_polls() -> None:
    table = MemoryTable()
    await table.apply([AddService(Service(key=OLD)), AddService(Service(key=DNS))])
    web, listener = await claim(table, poll=None)
    await leave(web)
    await asyncio.sleep(20)
    assert listener.heard == []
    web, listener = await claim(table, poll=None)
    dns, _ = await claim(table, DNS, poll=None)
    await asyncio.sleep(9)
    assert listener.heard == []
    await asyncio.sleep(20)
    assert listener.heard == [("foreign", OLD)]
    await leave(web, dns)


@virtual_time()
async def test_only_the_first_reads_the_whole_table() -> None:
    table = Reading()
    web, _ = await claim(table)
    dns, _ = await claim(table, DNS)
    many, _ = await claim(table, *service_keys("192.0.2.10:1000-1008"))
    assert table.reads == ["all", DNS, "all"]
    await leave(web, dns, many)


# --- what others do to it -----------------------------------------------------------------------


@virtual_time()
async def test_foreign_changes_are_put_right_at_the_next_poll() -> None:
    table = MemoryTable()
    web, listener = await claim(table, wanted=[server(0), server(1)])
    await table.apply(
        [
            DeleteDestination(WEB, server(0).key),
            EditDestination(WEB, server(1, 7)),
            AddDestination(WEB, server(9)),
        ]
    )
    await asyncio.sleep(9.9)
    assert listener.heard == []
    await asyncio.sleep(0.2)
    where = "of 192.0.2.10:80/tcp was"
    assert listener.heard == [
        (
            "repaired",
            f"10.0.0.1:80 {where} gone",
            f"10.0.0.2:80 {where} changed",
            f"10.0.0.10:80 {where} added",
        )
    ]
    assert await weights(table) == {"10.0.0.1": 1, "10.0.0.2": 1}
    await table.flush()
    await asyncio.sleep(10)
    assert listener.heard[1:] == [
        (
            "repaired",
            "192.0.2.10:80/tcp was gone",
            f"10.0.0.1:80 {where} gone",
            f"10.0.0.2:80 {where} gone",
        )
    ]
    await table.apply([EditService(Service(key=WEB, scheduler="rr"))])
    await asyncio.sleep(10)
    assert listener.heard[2:] == [("repaired", "192.0.2.10:80/tcp was changed")]
    await leave(web)


@virtual_time()
async def test_a_wish_that_meets_a_poll_is_no_repair() -> None:
    table = MemoryTable()
    web, listener = await claim(table, wanted=[server(0), server(1)])
    await asyncio.sleep(10 - 1e-9)
    web.update({server(1).key: None})
    await table.apply([EditDestination(WEB, server(0, 3))])
    await asyncio.sleep(1)
    assert listener.heard == [("repaired", "10.0.0.1:80 of 192.0.2.10:80/tcp was changed")]
    assert await weights(table) == {"10.0.0.1": 1}
    await leave(web)


@virtual_time()
async def test_the_shortest_interval_counts_and_none_never_looks() -> None:
    table = Reading()
    web, _ = await claim(table, poll=None)
    await asyncio.sleep(100)
    assert table.reads == ["all"]
    dns, _ = await claim(table, DNS, poll=2.0)
    old, _ = await claim(table, OLD, poll=5.0)
    await asyncio.sleep(11)
    assert table.reads.count("all") == 1 + 5
    await leave(dns)
    await asyncio.sleep(11)
    assert table.reads.count("all") == 1 + 5 + 2
    await leave(web, old)
    await asyncio.sleep(100)
    assert table.reads.count("all") == 1 + 5 + 2


@virtual_time()
async def test_a_change_that_does_not_fit_what_is_there_reads_it_first() -> None:
    table = MemoryTable()
    web, listener = await claim(table, wanted=[server(0), server(1)])
    await table.apply([DeleteDestination(WEB, server(0).key)])
    web.update(changed(server(0, 5)))
    await web.settled()
    assert await weights(table) == {"10.0.0.2": 1, "10.0.0.1": 5}
    assert listener.heard == [("repaired", "10.0.0.1:80 of 192.0.2.10:80/tcp was gone")]
    await leave(web)


# --- refusals -----------------------------------------------------------------------------------


@virtual_time()
async def test_what_is_refused_is_told_once_and_tried_at_each_poll() -> None:
    table = MemoryTable()
    stop = table.refuse(lambda op: isinstance(op, AddDestination) and op.destination == server(1))
    web, listener = await claim(table, wanted=[server(0), server(1)])
    refused = "adding 10.0.0.2:80 of 192.0.2.10:80/tcp"
    why = "10.0.0.2 must be the address of one machine; is it a broadcast address?"
    assert listener.heard == [("refused", f"{refused}: Invalid argument ({why})", 10.0)]
    tries = len(table.operations)
    await asyncio.sleep(25)
    assert (len(table.operations) - tries, len(listener.heard)) == (2, 1)
    # Others go on meanwhile, and nothing is told twice.
    web.update(changed(server(0, 4)))
    await web.settled()
    assert (await weights(table), len(listener.heard)) == ({"10.0.0.1": 4}, 1)
    stop()
    await asyncio.sleep(10)
    assert listener.heard[1:] == ["follows"]
    assert await weights(table) == {"10.0.0.1": 4, "10.0.0.2": 1}
    await leave(web)


@virtual_time()
async def test_who_is_healthy_serves_on_while_what_replaces_it_is_refused() -> None:
    table = MemoryTable()
    stop = table.refuse(AddDestination(WEB, server(9)), errno.ENOMEM)
    web, listener = await claim(table, wanted=[server(0), server(1), server(2)])
    listener.fit = [server(1).key]
    web.update(changed(server(9)) | {server(0).key: None, server(1).key: None})  # type: ignore[arg-type]
    web.update({server(2).key: None})
    await web.settled()
    assert await weights(table) == {"10.0.0.2": 1}
    assert listener.heard == [
        (
            "refused",
            "adding 10.0.0.10:80 of 192.0.2.10:80/tcp: Cannot allocate memory",
            "removing 10.0.0.2:80 of 192.0.2.10:80/tcp: it serves on until what replaces it is "
            "accepted",
            10.0,
        )
    ]
    await asyncio.sleep(15)
    stop()
    await asyncio.sleep(10)
    assert await weights(table) == {"10.0.0.10": 1}
    assert listener.heard[1:] == ["follows"]
    await leave(web)


@virtual_time()
async def test_nobody_serves_on_where_others_do() -> None:
    table = MemoryTable()
    table.refuse(AddDestination(WEB, server(9)), errno.ENOMEM)
    web, listener = await claim(table, wanted=[server(0), server(1)])
    listener.fit = [server(0).key, server(1).key]
    web.update(changed(server(8), server(9)) | {server(0).key: None, server(1).key: None})  # type: ignore[arg-type]
    await web.settled()
    assert await weights(table) == {"10.0.0.9": 1}
    assert [kinds(operations) for operations in table.operations[1:3]] == [
        ["AddDestination", "AddDestination"],
        ["DeleteDestination", "DeleteDestination"],
    ]
    await leave(web)


@virtual_time()
async def test_a_refusal_that_nobody_wants_any_more_is_over() -> None:
    table = MemoryTable()
    table.refuse(lambda op: isinstance(op, AddDestination) and op.destination == server(1))
    web, listener = await claim(table, wanted=[server(0), server(1)])
    web.update({server(1).key: None})
    await web.settled()
    assert listener.heard[1:] == ["follows"]
    await leave(web)


@virtual_time()
async def test_without_a_poll_it_is_tried_again_all_the_same() -> None:
    table = MemoryTable()
    stop = table.refuse(AddService(Service(key=WEB)), errno.ENOMEM)
    web, listener = await claim(table, wanted=[server(0)], poll=None)
    service, destination, retry = listener.heard[0][1:]  # type: ignore[index]
    assert service == "adding 192.0.2.10:80/tcp: Cannot allocate memory"
    assert destination.startswith("adding 10.0.0.1:80 of 192.0.2.10:80/tcp")
    assert retry == 10.0
    stop()
    await asyncio.sleep(11)
    assert await weights(table) == {"10.0.0.1": 1}
    tries = len(table.operations)
    await asyncio.sleep(100)
    assert len(table.operations) == tries
    await leave(web)


@virtual_time()
async def test_a_service_that_cannot_be_removed_is_told_and_left() -> None:
    table = MemoryTable()
    web, listener = await claim(table)
    table.refuse(DeleteService(WEB), errno.EBUSY)
    await leave(web)
    assert listener.heard == [
        ("refused", "removing 192.0.2.10:80/tcp: Device or resource busy", 10.0)
    ]
    assert web.remaining == (WEB,)


@virtual_time()
async def test_a_table_that_cannot_be_read_is_told_and_read_again() -> None:
    table = Reading()
    web, listener = await claim(table, wanted=[server(0)])
    table.problem = OSError(errno.ENOBUFS, "No buffer space available")
    await asyncio.sleep(10)
    web.update(changed(server(1)))
    await web.settled()
    assert await weights(table) == {"10.0.0.1": 1, "10.0.0.2": 1}
    await asyncio.sleep(20)
    told = ("refused", "reading the table: No buffer space available", 10.0)
    assert listener.heard == [told]
    table.problem = None
    await asyncio.sleep(10)
    assert listener.heard == [told, "follows"]
    await leave(web)


@virtual_time()
async def test_a_first_reading_that_fails_leaves_nothing() -> None:
    table = Reading()
    table.problem = OSError(errno.EPERM, "Operation not permitted")
    with pytest.raises(OSError, match="not permitted"):
        await claim(table)
    table.problem = None
    web, _ = await claim(table)
    await leave(web)


# --- several claims, bugs, ends -----------------------------------------------------------------


@virtual_time()
async def test_a_service_is_claimed_once() -> None:
    table = MemoryTable()
    web, _ = await claim(table, WEB, DNS)
    with pytest.raises(DuplicateService, match=r"has the service 192\.0\.2\.10:53/udp"):
        await claim(table, OLD, DNS)
    old, _ = await claim(table, OLD)
    await leave(web)
    dns, _ = await claim(table, DNS)
    await leave(dns, old)


@virtual_time()
async def test_two_tables_have_two_keepers_and_neither_is_kept() -> None:
    one, two = MemoryTable(), MemoryTable()
    first, _ = await claim(one)
    second, _ = await claim(two)
    assert TableReconciler.of(one) is not TableReconciler.of(two)
    assert TableReconciler.of(one) is TableReconciler.of(one)
    await leave(first, second)
    reconciler = TableReconciler.of(one)
    del first, second
    gc.collect()
    assert TableReconciler.of(one) is reconciler
    del reconciler
    gc.collect()
    assert await claim(one) != ()
    await leave(*TableReconciler.of(one)._claims)  # pyright: ignore[reportPrivateUsage]


@virtual_time()
async def test_a_bug_reaches_everybody_who_waits() -> None:
    table = Reading()
    web, listener = await claim(table)
    dns, second = await claim(table, DNS)
    table.problem = ZeroDivisionError("a bug")
    await asyncio.sleep(10)
    assert [str(bug) for bug in (*listener.bugs, *second.bugs)] == ["a bug"] * 2
    table.problem = None
    await leave(web, dns)
    assert await table.read() == {}


@virtual_time()
async def test_a_bug_in_carrying_out_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    table = MemoryTable()
    web, listener = await claim(table)

    async def broken(operations: object) -> list[OSError | None]:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(table, "apply", broken)
        web.update(changed(server(0)))
        with pytest.raises(ZeroDivisionError):
            await web.settled()
    assert len(listener.bugs) == 1
    web.update(changed(server(1)))
    await web.settled()
    assert await weights(table) == {"10.0.0.1": 1, "10.0.0.2": 1}
    await leave(web)


@virtual_time()
@pytest.mark.parametrize("after", [0, 0.5])
async def test_a_wish_outlives_who_cancels_all_tasks(after: float) -> None:
    """In the very turn in which the task was made, and while the table is at work."""
    table = MemoryTable(delay=1.0)
    web, _ = await claim(table)
    web.update(changed(server(0)))
    if after:
        await asyncio.sleep(after)
    (worker,) = [task for task in asyncio.all_tasks() if task.get_name() == "vrrpkit IPVS table"]
    worker.cancel()
    await web.settled()
    assert await weights(table) == {"10.0.0.1": 1}
    web.update(changed(server(1)))
    await web.settled()
    assert await weights(table) == {"10.0.0.1": 1, "10.0.0.2": 1}
    await leave(web)


@virtual_time()
async def test_a_wait_may_be_cancelled() -> None:
    table = MemoryTable(delay=1.0)
    web, _ = await claim(table)
    web.update(changed(server(0)))
    waiting = asyncio.create_task(web.settled())
    await asyncio.sleep(0.5)
    waiting.cancel()
    await web.settled()
    assert await weights(table) == {"10.0.0.1": 1}
    await leave(web)


@virtual_time()
async def test_leaving_waits_for_a_reading_under_way() -> None:
    table = Reading(delay=1.0)
    web, _ = await claim(table)
    await asyncio.sleep(10.5)
    table.reads.clear()
    await leave(web, remove=False)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await asyncio.sleep(100)
    assert table.reads == []


@virtual_time()
async def test_leaving_waits_for_a_pass_that_waits_itself() -> None:
    table = Reading(delay=1.0)
    web, _ = await claim(table)
    now = asyncio.get_running_loop().time
    polled = now() + 9
    await asyncio.sleep(polled - now() - 0.5)
    looking = asyncio.create_task(web.look())
    await asyncio.sleep(0.2)
    await leave(web, remove=False)
    assert now() == pytest.approx(polled + 0.5)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await looking
    assert table.reads == ["all", WEB]


@virtual_time()
async def test_a_claim_that_never_began_has_nothing_to_withdraw() -> None:
    table = MemoryTable()
    web = await TableReconciler.of(table).claim([Service(key=WEB)], Listener(), 1.0)
    await asyncio.sleep(3)
    await leave(web)
    assert table.operations == []


@virtual_time()
async def test_ten_thousand_load_in_one_request_and_a_hundred_change_in_one() -> None:
    table = MemoryTable()
    web, listener = await claim(table, wanted=[server(n) for n in range(10_000)])
    assert [len(operations) for operations in table.operations] == [10_001]
    web.update(
        {server(n).key: None for n in range(50)}
        | {server(n).key: server(n, 0) for n in range(50, 100)}
    )
    await web.settled()
    assert len(table.operations[1]) == 100
    entry = await table.read_service(WEB)
    assert entry is not None
    assert {k: e.destination for k, e in entry.destinations.items()} == {
        server(n).key: server(n, 0 if n < 100 else 1) for n in range(50, 10_000)
    }
    await asyncio.sleep(10)
    assert (len(table.operations), listener.heard) == (2, [])
    await leave(web)
