"""What is known of an IPVS table: as it was read, and changed since. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import TypeAlias, assert_never

import attrs

from vrrpkit.ipvs.model.entries import (
    MIXED,
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
    ServiceEntry,
    ServiceKey,
    Snapshot,
)

__all__ = ["Subject", "TableCache", "found", "placed", "refusal", "subject"]

Subject: TypeAlias = "tuple[ServiceKey | None, DestinationKey | None]"
"""What an operation is about: a service, or a real server of it."""


def placed(key: DestinationKey, service: ServiceKey) -> DestinationKey:
    """The key of a real server within a service: port 0 is the port of the service."""
    return key if key.port or not service.port else DestinationKey(key.address, service.port)


def subject(operation: Operation) -> tuple[ServiceKey, DestinationKey | None]:
    """What an operation is about."""
    match operation:
        case AddService(service) | EditService(service):
            return service.key, None
        case DeleteService(key):
            return key, None
        case AddDestination(service_key, destination) | EditDestination(service_key, destination):
            return service_key, destination.key
        case DeleteDestination(service_key, key):
            return service_key, key
        case _:
            assert_never(operation)


def _named(operation: Operation) -> str:
    service, server = subject(operation)
    return str(service) if server is None else f"{server} of {service}"


def refusal(operation: Operation, problem: OSError) -> str:
    """What an operation asked for, and why it was refused, for people."""
    hint = ""
    if problem.errno == errno.EINVAL and isinstance(operation, AddDestination | EditDestination):
        address = operation.destination.key.address
        hint = f" ({address} must be the address of one machine; is it a broadcast address?)"
        if address.version != operation.service.family:
            hint = f" ({MIXED})"
    return f"{_request(operation)}: {problem.strerror or problem}{hint}"


def _request(operation: Operation) -> str:
    match operation:
        case AddService() | AddDestination():
            return f"adding {_named(operation)}"
        case EditService() | EditDestination():
            return f"changing {_named(operation)}"
        case DeleteService() | DeleteDestination():
            return f"removing {_named(operation)}"
        case _:
            assert_never(operation)


def found(operation: Operation) -> str:
    """What another program must have done for an operation to be needed, in words."""
    match operation:
        case AddService() | AddDestination():
            return f"{_named(operation)} was gone"
        case EditService() | EditDestination():
            return f"{_named(operation)} was changed"
        case DeleteService() | DeleteDestination():
            return f"{_named(operation)} was added"
        case _:
            assert_never(operation)


def _own(entry: ServiceEntry) -> dict[DestinationKey, DestinationEntry]:
    destinations = entry.destinations
    assert isinstance(destinations, dict)
    return destinations


class TableCache:
    """The entries of a table."""

    def __init__(self) -> None:
        self._entries: dict[ServiceKey, ServiceEntry] = {}

    def __contains__(self, key: ServiceKey) -> bool:
        return key in self._entries

    def get(self, key: ServiceKey) -> ServiceEntry | None:
        """A service, if it is there."""
        return self._entries.get(key)

    def __iter__(self) -> Iterator[ServiceKey]:
        return iter(self._entries)

    def excerpt(self, keys: Iterable[ServiceKey]) -> dict[ServiceKey, ServiceEntry]:
        """Those of these services that are there."""
        return {key: self._entries[key] for key in keys if key in self._entries}

    def learn(self, snapshot: Snapshot) -> None:
        """The whole table was read."""
        self._entries.clear()
        for key, entry in snapshot.items():
            self.learn_service(key, entry)

    def learn_service(self, key: ServiceKey, entry: ServiceEntry | None) -> None:
        """One service was read, or found missing."""
        if entry is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = attrs.evolve(entry, destinations=dict(entry.destinations))

    def carried_out(self, operation: Operation) -> None:
        """The table accepted an operation."""
        entries = self._entries
        match operation:
            case AddService(service):
                entries[service.key] = ServiceEntry(service=service)
            case EditService(service):
                entries[service.key] = attrs.evolve(entries[service.key], service=service)
            case DeleteService(key):
                del entries[key]
            case AddDestination(service_key, destination):
                _own(entries[service_key])[destination.key] = DestinationEntry(
                    destination=destination
                )
            case EditDestination(service_key, destination):
                self._edit(_own(entries[service_key]), destination)
            case DeleteDestination(service_key, key):
                del _own(entries[service_key])[key]
            case _:
                assert_never(operation)

    def _edit(
        self, entries: dict[DestinationKey, DestinationEntry], destination: Destination
    ) -> None:
        key = destination.key
        entries[key] = attrs.evolve(entries[key], destination=destination)
