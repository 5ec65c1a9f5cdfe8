"""What waits for the answer to what."""

from __future__ import annotations

from collections.abc import Callable

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
    ServiceKey,
)
from vrrpkit.ipvs.model.stages import stages

WEB, DNS = service_keys(["192.0.2.10:80", "192.0.2.10:53/udp"])


def server(number: int, weight: int = 1) -> Destination:
    return Destination(key=destination_key(f"10.0.0.{number}:80"), weight=weight)


def nobody(service: ServiceKey) -> bool:
    return False


def split(
    *operations: Operation, served: Callable[[ServiceKey], bool] = nobody
) -> tuple[list[Operation], list[Operation]]:
    first, then = stages(operations, served)
    return list(first), list(then)


def test_what_goes_waits_for_what_comes_in_the_same_service() -> None:
    new = AddDestination(WEB, server(1))
    lowered = EditDestination(WEB, server(2, 3))
    emptied = EditDestination(WEB, server(3, 0))
    gone = DeleteDestination(WEB, server(4).key)
    elsewhere = DeleteDestination(DNS, server(4).key)
    stale = DeleteService(DNS)
    assert split(new, lowered, emptied, gone, elsewhere, stale) == (
        [new, lowered, elsewhere, stale],
        [emptied, gone],
    )


def test_nothing_waits_where_somebody_serves() -> None:
    operations = [AddDestination(WEB, server(1)), DeleteDestination(WEB, server(2).key)]
    assert split(*operations, served=lambda service: service == WEB) == (operations, [])


def test_nothing_waits_for_what_gets_no_connections() -> None:
    operations = [
        AddService(Service(key=DNS)),
        AddDestination(WEB, server(1, 0)),
        DeleteDestination(WEB, server(2).key),
    ]
    assert split(*operations) == (operations, [])
    assert split(operations[0]) == ([operations[0]], [])
