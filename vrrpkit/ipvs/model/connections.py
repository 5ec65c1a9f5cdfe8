"""Who serves, and how many connections there are, as the entries of a table tell. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from vrrpkit.ipvs.model.cache import placed
from vrrpkit.ipvs.model.entries import (
    DestinationEntry,
    DestinationKey,
    Protocol,
    ServiceEntry,
    ServiceKey,
)

__all__ = ["connections", "entries_of", "live"]


def entries_of(
    server: DestinationKey, entries: Mapping[ServiceKey, ServiceEntry]
) -> list[tuple[ServiceKey, DestinationEntry]]:
    """The entries of one real server in several services."""
    found: list[tuple[ServiceKey, DestinationEntry]] = []
    for key, entry in entries.items():
        there = entry.destinations.get(placed(server, key))
        if there is not None:
            found.append((key, there))
    return found


def live(entries: Mapping[ServiceKey, ServiceEntry]) -> set[DestinationKey]:
    """Who gets connections in these services."""
    return {
        key
        for entry in entries.values()
        for key, found in entry.destinations.items()
        if found.destination.weight
    }


def connections(server: DestinationKey, entries: Mapping[ServiceKey, ServiceEntry]) -> int:
    """How many connections would suffer if a real server went away."""
    return sum(
        entry.active
        # What is inactive in TCP and SCTP is closing, and needs its server no more.
        if key.protocol in (Protocol.TCP, Protocol.SCTP)
        else entry.active + entry.inactive
        for key, entry in entries_of(server, entries)
    )
