"""From one table to another: right, whole, minimal, and never an empty pool in between."""

from __future__ import annotations

import time
from ipaddress import IPv4Address
from typing import assert_never

import attrs
from hypothesis import given, strategies as st

from ipvs.entries_strategies import SERVERS, SERVICES, snapshot, snapshots, wishes
from strategies import quick
from vrrpkit.ipvs.model.diff import Wanted, diff
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    DeleteDestination,
    DeleteService,
    Destination,
    DestinationKey,
    EditDestination,
    EditService,
    Forward,
    Operation,
    Service,
    ServiceKey,
    Snapshot,
)

Model = dict[ServiceKey, tuple[Service, dict[DestinationKey, Destination]]]

WEB, DNS, SCTP, MARK = SERVICES
A, B, C, *_ = SERVERS


def model(table: Snapshot) -> Model:
    return {
        key: (entry.service, {k: e.destination for k, e in entry.destinations.items()})
        for key, entry in table.items()
    }


def carry_out(table: Model, operation: Operation) -> None:
    """What a kernel does: it has no mercy with an operation that does not fit."""
    match operation:
        case AddService(service):
            assert service.key not in table
            table[service.key] = service, {}
        case EditService(service):
            before, pool = table[service.key]
            assert before != service
            table[service.key] = service, pool
        case DeleteService(key):
            del table[key]
        case AddDestination(key, destination):
            assert destination.key not in table[key][1]
            table[key][1][destination.key] = destination
        case EditDestination(key, destination):
            assert table[key][1][destination.key] != destination
            table[key][1][destination.key] = destination
        case DeleteDestination(key, server):
            del table[key][1][server]
        case _:
            assert_never(operation)


def target(table: Snapshot, wanted: Wanted, ours: frozenset[ServiceKey]) -> Model:
    others = {
        key: both for key, both in model(table).items() if key not in wanted and key not in ours
    }
    return others | {
        key: (service, {one.key: one for one in pool}) for key, (service, pool) in wanted.items()
    }


def differences(before: Model, after: Model) -> int:
    """Entries that are not the same, counted one by one; what a service takes along is free."""
    count = len(before.keys() - after.keys())
    for key, (service, pool) in after.items():
        had, old = before.get(key, (None, {}))
        count += had != service
        count += len(old.keys() - pool.keys())
        count += sum(old.get(server) != one for server, one in pool.items())
    return count


def serving(table: Model, key: ServiceKey) -> bool:
    return key in table and any(one.weight for one in table[key][1].values())


owned = st.frozensets(st.sampled_from(SERVICES))


@quick
@given(snapshots, wishes(), owned)
def test_it_leads_to_the_wanted_table_by_the_fewest_operations(
    table: Snapshot, wanted: Wanted, ours: frozenset[ServiceKey]
) -> None:
    end = target(table, wanted, ours)
    now = model(table)
    operations = diff(table, wanted, ours)
    for operation in operations:
        carry_out(now, operation)
    assert now == end
    assert len(operations) == differences(model(table), end)


@quick
@given(snapshots, wishes(), owned)
def test_a_pool_that_serves_at_both_ends_serves_all_the_time(
    table: Snapshot, wanted: Wanted, ours: frozenset[ServiceKey]
) -> None:
    now = model(table)
    end = target(table, wanted, ours)
    steady = [key for key in SERVICES if serving(now, key) and serving(end, key)]
    for operation in diff(table, wanted, ours):
        carry_out(now, operation)
        assert all(serving(now, key) for key in steady)


@quick
@given(wishes(), owned)
def test_equal_tables_need_nothing(wanted: Wanted, ours: frozenset[ServiceKey]) -> None:
    assert diff(snapshot(wanted), wanted, ours) == []


@quick
@given(snapshots, wishes(), owned)
def test_foreign_services_are_not_touched(
    table: Snapshot, wanted: Wanted, ours: frozenset[ServiceKey]
) -> None:
    for operation in diff(table, wanted, ours):
        match operation:
            case AddService(service) | EditService(service):
                assert service.key in wanted
            case DeleteService(key):
                assert key in ours
            case AddDestination(key) | EditDestination(key) | DeleteDestination(key):
                assert key in wanted
            case _:
                assert_never(operation)


def server(key: DestinationKey, weight: int = 1) -> Destination:
    return Destination(key=key, weight=weight)


def test_the_order_within_a_service() -> None:
    service = Service(key=WEB)
    table = snapshot({WEB: (service, [server(A, 5), server(B, 1)])})
    wanted = {WEB: (Service(key=WEB, scheduler="rr"), [server(A, 2), server(C, 0)])}
    assert diff(table, wanted, frozenset()) == [
        EditService(Service(key=WEB, scheduler="rr")),
        AddDestination(WEB, server(C, 0)),
        EditDestination(WEB, server(A, 2)),
        DeleteDestination(WEB, B),
    ]


def test_a_swap_brings_the_new_server_before_the_old_one_goes() -> None:
    service = Service(key=WEB)
    table = snapshot({WEB: (service, [server(A)])})
    assert diff(table, {WEB: (service, [server(B)])}, frozenset()) == [
        AddDestination(WEB, server(B)),
        DeleteDestination(WEB, A),
    ]


def test_weights_are_raised_before_others_are_lowered() -> None:
    service = Service(key=WEB)
    table = snapshot({WEB: (service, [server(A, 1), server(B, 0)])})
    assert diff(table, {WEB: (service, [server(A, 0), server(B, 1)])}, frozenset()) == [
        EditDestination(WEB, server(B, 1)),
        EditDestination(WEB, server(A, 0)),
    ]


def test_a_new_service_serves_as_soon_as_it_can() -> None:
    service = Service(key=WEB)
    assert diff({}, {WEB: (service, [server(A, 0), server(B)])}, frozenset()) == [
        AddService(service),
        AddDestination(WEB, server(B)),
        AddDestination(WEB, server(A, 0)),
    ]


def test_a_stale_service_goes_after_what_replaces_it() -> None:
    table = snapshot({MARK: (Service(key=MARK), [server(A)])})
    service = Service(key=WEB)
    operations = diff(table, {WEB: (service, [server(A)])}, frozenset({MARK, DNS}))
    assert operations == [
        AddService(service),
        AddDestination(WEB, server(A)),
        DeleteService(MARK),
    ]


def test_every_attribute_of_a_server_counts() -> None:
    service = Service(key=WEB)
    before = server(A)
    table = snapshot({WEB: (service, [before])})
    for change in (
        {"weight": 2},
        {"forward": Forward.DR},
        {"upper": 10},
        {"upper": 10, "lower": 5},
        {"forward": Forward.TUN},
    ):
        after = attrs.evolve(before, **change)
        assert diff(table, {WEB: (service, [after])}, frozenset()) == [EditDestination(WEB, after)]


def test_ten_thousand_servers_are_compared_quickly() -> None:
    def farm() -> list[Destination]:
        return [server(DestinationKey(IPv4Address(0x0A000000 + n), 80)) for n in range(10_000)]

    service = Service(key=WEB)
    table = snapshot({WEB: (service, farm())})
    wanted = farm()
    wanted[::100] = [attrs.evolve(one, weight=0) for one in wanted[::100]]
    taken: list[float] = []
    for _ in range(5):
        started = time.process_time()
        operations = diff(table, {WEB: (service, wanted)}, frozenset())
        taken.append(time.process_time() - started)
        assert len(operations) == 100
    assert min(taken) < 0.1, "some 15 ms are usual"
