"""The way from one IPVS table to another: the fewest operations, make before break. Pure.

Within a service, real servers are added and weights raised before weights are lowered and real
servers removed. So a pool that has a real server with a weight above 0 before and after has one at
every moment between. The kernel can change every attribute of a service and of a real server in
place; only their keys are for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set as AbstractSet
from typing import TypeAlias

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
    Operation,
    Service,
    ServiceKey,
    Snapshot,
)

__all__ = ["Wanted", "diff"]

Wanted: TypeAlias = Mapping[ServiceKey, tuple[Service, Sequence[Destination]]]
"""Each service as it shall be, with its real servers, no two of one key."""


def diff(table: Snapshot, wanted: Wanted, ours: AbstractSet[ServiceKey]) -> list[Operation]:
    """The fewest operations that turn ``table`` into ``wanted``, in the order to carry them out.

    :param ours: services that may be deleted when they are not wanted any more. They go last, so
        that what replaces them is there before. Services that are neither wanted nor ours belong to
        others and are not touched.
    """
    operations: list[Operation] = []
    for key, (service, destinations) in wanted.items():
        entry = table.get(key)
        if entry is None:
            operations.append(AddService(service))
            _change(operations, key, {}, destinations)
            continue
        if entry.service != service:
            operations.append(EditService(service))
        _change(operations, key, entry.destinations, destinations)
    operations += [DeleteService(key) for key in table if key in ours and key not in wanted]
    return operations


def _change(
    operations: list[Operation],
    service: ServiceKey,
    present: Mapping[DestinationKey, DestinationEntry],
    wanted: Sequence[Destination],
) -> None:
    breaking: list[Operation] = []
    idle: list[Operation] = []
    # Identities, for hashing an address takes longer than all the rest.
    kept: set[int] = set()
    for destination in wanted:
        entry = present.get(destination.key)
        if entry is None:
            # One that gets no connections can wait for those that do.
            (operations if destination.weight else idle).append(
                AddDestination(service, destination)
            )
            continue
        kept.add(id(entry))
        now = entry.destination
        if now is destination or _same(now, destination):
            continue
        lowers = destination.weight < now.weight
        (breaking if lowers else operations).append(EditDestination(service, destination))
    if len(kept) < len(present):
        breaking += [
            DeleteDestination(service, key)
            for key, entry in present.items()
            if id(entry) not in kept
        ]
    operations += idle
    operations += breaking


def _same(a: Destination, b: Destination) -> bool:
    # The keys are known to be equal, and comparing addresses is what takes the time.
    return (
        a.weight == b.weight
        and a.forward is b.forward
        and a.upper == b.upper
        and a.lower == b.lower
        and a.tunnel == b.tunnel
    )
