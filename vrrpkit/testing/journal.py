"""Writes down what happens on a :class:`vrrpkit.testing.Lan`, as it happens."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator

from vrrpkit.host.memory import MemoryBus
from vrrpkit.testing.places import RouterHost
from vrrpkit.testing.timeline import Addresses, Entry, Happening, Lost, Step, Timeline
from vrrpkit.testing.world import World
from vrrpkit.transport.memory import Fate
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.notices import FaultsChanged, MasterChanged, PriorityChanged, Transition
from vrrpkit.vrrp.vocabulary import Publish

__all__ = ["Journal"]

_MOVES = (FaultsChanged, MasterChanged, PriorityChanged, Transition)


class Journal:
    """The entries so far, and the addresses on the hosts as they were last seen."""

    def __init__(self, bus: MemoryBus) -> None:
        self.start = _now()
        self.moved = self.start
        """When something last happened besides the usual adverts."""
        self.changed = asyncio.Event()
        """Set whenever something happens besides the usual adverts."""
        self.hosts: dict[str, RouterHost] = {}
        self.world = World()
        """How things stand."""
        self._bus = bus
        self._entries: list[Entry] = []

    def log(self, who: str | None, what: Happening) -> None:
        """Write down what happened just now."""
        self._write(who, what)
        if not isinstance(what, Step) or _moves(what):
            self.moved = _now()
            self.changed.set()
        self.look()

    def look(self) -> None:
        """Write down which addresses came and went since the last time."""
        for host in self.hosts.values():
            held = host.look(self.look)
            if held != host.held:
                added, removed = _ordered(held - host.held), _ordered(host.held - held)
                host.held = held
                self._write(host.name, Addresses(added, removed, held))
                self.changed.set()

    def _write(self, who: str | None, what: Happening) -> None:
        entry = Entry(_now(), who, what)
        self._entries.append(entry)
        self.world.apply(entry)

    def timeline(self) -> Timeline:
        """Everything so far, with the adverts that the link lost."""
        entries = heapq.merge(self._entries, self._losses(), key=lambda entry: entry.at)
        return Timeline(entries, self.start)

    def _losses(self) -> Iterator[Entry]:
        names = {host.station: host.name for host in self.hosts.values()}
        for crossing in self._bus.record:
            # VRID 0 is BFD's.
            if any(crossing.payload[1:2]) and crossing.sender in names:
                for station, fate in crossing.fates.items():
                    if fate is Fate.LOST and station in names:
                        yield Entry(crossing.time, names[crossing.sender], Lost(names[station]))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _moves(step: Step) -> bool:
    return any(
        isinstance(effect, Publish) and isinstance(effect.notice, _MOVES) for effect in step.effects
    )


def _ordered(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    return tuple(sorted(addresses, key=lambda address: (address.version, address.packed)))
