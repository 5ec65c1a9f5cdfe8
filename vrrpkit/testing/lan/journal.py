"""Writes down what happens on a :class:`vrrpkit.testing.Lan`, as it happens."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator

from vrrpkit.host.memory.bus import MemoryBus
from vrrpkit.testing.lan.hosts import RouterHost
from vrrpkit.testing.lan.model import LanModel
from vrrpkit.testing.lan.timeline import (
    AddressesChanged,
    Announced,
    Arrived,
    Entry,
    LanEvent,
    Lost,
    MachineStep,
    Sent,
    Timeline,
)
from vrrpkit.transport.memory import Crossing, Fate
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.effects import Publish
from vrrpkit.vrrp.protocol.events import FaultsChanged, MasterChanged, PriorityChanged, Transition

__all__ = ["LanLog"]

_MOVES = (FaultsChanged, MasterChanged, PriorityChanged, Transition)


class LanLog:
    """The entries so far, and the addresses on the hosts as they were last seen."""

    def __init__(self, bus: MemoryBus) -> None:
        self.start = _now()
        self.moved = self.start
        """When something last happened besides the usual adverts."""
        self.changed = asyncio.Event()
        """Set whenever something happens besides the usual adverts."""
        self.hosts: dict[str, RouterHost] = {}
        self.world = LanModel()
        """How things stand."""
        self._bus = bus
        self._entries: list[Entry] = []

    def log(self, who: str | None, what: LanEvent) -> None:
        """Write down what happened just now."""
        self._write(who, what)
        if not isinstance(what, MachineStep) or _moves(what):
            self.moved = _now()
            self.changed.set()
        self.look()

    def look(self) -> None:
        """Write down which addresses came and went since the last time."""
        for host in self.hosts.values():
            held, foreign = host.look(self.look)
            if (held, foreign) != (host.held, host.foreign):
                added, removed = _ordered(held - host.held), _ordered(host.held - held)
                host.held, host.foreign = held, foreign
                self._write(host.name, AddressesChanged(added, removed, held, foreign))
                self.changed.set()

    def _write(self, who: str | None, what: LanEvent) -> None:
        entry = Entry(_now(), who, what)
        self._entries.append(entry)
        self.world.apply(entry)

    def timeline(self) -> Timeline:
        """Everything so far, with what crossed the link."""
        record = self._bus.record
        crossed = sorted(self._crossed(), key=lambda entry: entry.at)
        entries = heapq.merge(self._entries, crossed, key=lambda entry: entry.at)
        # What a full record has forgotten cannot be judged any more.
        known = record[0].time if len(record) == record.maxlen else self.start
        return Timeline(entries, self.start, known)

    def _crossed(self) -> Iterator[Entry]:
        hosts = {host.station: host for host in self.hosts.values()}
        for crossing in self._bus.record:
            host = hosts.get(crossing.sender)
            if host is None:
                continue
            if crossing.announced is not None:
                yield Entry(crossing.time, host.name, Announced(crossing.announced))
                continue
            # VRID 0 is BFD's.
            if any(crossing.payload[1:2]):
                yield from _losses(crossing, host, hosts)
                yield from _advert(crossing, host, hosts)


def _losses(crossing: Crossing, host: RouterHost, hosts: dict[str, RouterHost]) -> Iterator[Entry]:
    for station, fate in crossing.fates.items():
        if fate is Fate.LOST and station in hosts:
            yield Entry(crossing.time, host.name, Lost(hosts[station].name))


def _advert(crossing: Crossing, host: RouterHost, hosts: dict[str, RouterHost]) -> Iterator[Entry]:
    router, payload = _sender(crossing, host), crossing.payload
    if router is None or len(payload) < 8:
        return
    priority = payload[2]
    if payload[0] >> 4 == 2:
        interval = float(payload[5])
    else:
        interval = int.from_bytes(payload[4:6]) % 4096 / 100
    yield Entry(crossing.time, router, Sent(priority))
    for station, at in crossing.arrivals:
        if station in hosts:
            advert = Arrived(router, priority, interval, crossing.time)
            yield Entry(at, hosts[station].name, advert)


def _sender(crossing: Crossing, host: RouterHost) -> str | None:
    """The router that an advert is from: the octets name a VRID only."""
    to = crossing.destination
    for place in host.places:
        config = place.config
        towards = {config.destination} | {peer.address for peer in config.peers}
        if config.vrid == crossing.payload[1] and to in towards:
            return place.name
    return None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _moves(step: MachineStep) -> bool:
    return any(
        isinstance(effect, Publish) and isinstance(effect.notice, _MOVES) for effect in step.effects
    )


def _ordered(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    return tuple(sorted(addresses, key=lambda address: (address.version, address.packed)))
