"""One link in memory: what is sent there crosses it as well, or as badly, as you tell it to.

Everything random comes from one seed, time is the event loop's, and every message is on record with
what became of it.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import random
from collections import Counter, deque
from collections.abc import Iterable

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.transport.base import Datagram, Membership, Receiver, Transport, TransportLink
from vrrpkit.values import IPAddress

__all__ = ["Conditions", "Crossing", "Fate", "Segment", "Station"]

RECORD = 10_000
"""Messages that a segment remembers."""


def _probability(_owner: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{attribute.name} {value} is a probability: choose 0 to 1")


def _duration(_owner: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not value >= 0:
        raise ConfigError(f"{attribute.name} {value} must be 0 seconds or more")


@attrs.frozen(kw_only=True)
class Conditions:
    """How messages fare from one station to another.

    :param loss: probability that one does not arrive, 0 to 1.
    :param delay: seconds that each takes.
    :param jitter: up to so many seconds more, evenly spread. Order is kept all the same.
    :param duplication: probability that one arrives twice, 0 to 1.
    :param reordering: probability that one is held back, 0 to 1, so that later ones overtake it.
    :param held_back: seconds that such a one takes longer.
    :param hops: routers in between, each of which takes one off the TTL.
    :raises ConfigError: a value is out of range.
    """

    loss: float = attrs.field(default=0.0, validator=_probability)
    delay: float = attrs.field(default=0.0, validator=_duration)
    jitter: float = attrs.field(default=0.0, validator=_duration)
    duplication: float = attrs.field(default=0.0, validator=_probability)
    reordering: float = attrs.field(default=0.0, validator=_probability)
    held_back: float = attrs.field(default=0.01, validator=_duration)
    hops: int = 0


class Fate(enum.StrEnum):
    """What became of one message on its way to one station."""

    UNDER_WAY = "under way"
    DELIVERED = "delivered"
    DUPLICATED = "duplicated"
    """Delivered twice."""
    LOST = "lost"
    """By chance: see :attr:`Conditions.loss`."""
    CUT = "cut"
    """By a partition."""
    UNPLUGGED = "unplugged"
    """Because one of the two had no cable in."""
    IGNORED = "ignored"
    """It arrived where there is no listener for its group or VRID."""

    def __str__(self) -> str:
        return self.value


@attrs.define(eq=False)
class Crossing:
    """One message on record."""

    time: float
    """When it was sent, in seconds of the event loop."""
    sender: str
    """The station that sent it."""
    destination: IPAddress | None
    """The group or the peer; ``None`` for an announcement, which is a broadcast."""
    payload: bytes
    """The VRRP message; empty for an announcement."""
    announced: IPAddress | None = None
    """The address that a gratuitous ARP or an unsolicited neighbour advertisement tells of."""
    fates: dict[str, Fate] = attrs.Factory(dict[str, Fate])
    """What became of it, by station."""
    arrivals: list[tuple[str, float]] = attrs.Factory(list[tuple[str, float]])
    """The stations where a router heard it, and when; one that heard it twice is there twice."""


class _Parcel:
    """One copy of one message on its way to one station."""

    __slots__ = ("crossing", "source", "station", "ttl")

    def __init__(
        self, crossing: Crossing, source: IPAddress | None, station: Station, ttl: int
    ) -> None:
        self.crossing = crossing
        self.source = source
        self.station = station
        self.ttl = ttl


class _MemoryLink(TransportLink):
    def __init__(self, station: Station, membership: Membership, receiver: Receiver) -> None:
        self._station = station
        self.membership = membership
        self.receiver = receiver

    def send(self, payload: bytes, destination: IPAddress) -> None:
        membership = self.membership
        self._station.send(payload, membership.source, destination, membership.hop_limit)

    def close(self) -> None:
        self._station.leave(self)

    def drain(self) -> None:
        self._station.drain()

    def hears(self, crossing: Crossing) -> bool:
        """Whether a message with its VRID is for this virtual router."""
        membership = self.membership
        if any(crossing.destination == address for _index, address in membership.strays):
            return True
        if membership.group is not None:
            return crossing.destination == membership.group
        return bool(membership.peers) and crossing.destination == membership.source


class Station(Transport):
    """One network interface on a segment; made by :meth:`Segment.station`."""

    def __init__(self, segment: Segment, name: str) -> None:
        self.name = name
        self.plugged = True
        self.frozen = False
        """What arrives stays in the queue until :meth:`drain`, as for a process that is stopped."""
        self._segment = segment
        # By VRID: with hundreds of virtual routers here, each message is for one of them.
        self._ports: dict[int, dict[_MemoryLink, None]] = {}
        self._sources: Counter[IPAddress] = Counter()
        self._queue: list[_Parcel] = []

    def join(self, membership: Membership, receiver: Receiver) -> TransportLink:
        port = _MemoryLink(self, membership, receiver)
        self._ports.setdefault(membership.vrid, {})[port] = None
        self._sources[membership.source] += 1
        return port

    def leave(self, port: _MemoryLink) -> None:
        """Forget a port."""
        if port in self._ports.get(port.membership.vrid, ()):
            vrid, source = port.membership.vrid, port.membership.source
            del self._ports[vrid][port]
            if not self._ports[vrid]:
                del self._ports[vrid]
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]

    def has(self, address: IPAddress) -> bool:
        """Whether a virtual router here sends from ``address``."""
        return self._sources[address] > 0

    def send(
        self,
        payload: bytes,
        source: IPAddress | None,
        destination: IPAddress | None,
        ttl: int = 255,
    ) -> None:
        """Put any octets on the segment, a forged advert for example."""
        self._segment.send(self, Crossing(_now(), self.name, destination, payload), source, ttl)

    def announce(self, addresses: Iterable[IPAddress]) -> None:
        """Tell every station that ``addresses`` are here."""
        for address in addresses:
            crossing = Crossing(_now(), self.name, None, b"", announced=address)
            self._segment.send(self, crossing, None, 255)

    def arrived(self, parcel: _Parcel) -> None:
        """Take what the segment brings."""
        if self.frozen:
            self._queue.append(parcel)
        else:
            self._deliver(parcel)

    def drain(self) -> None:
        """Deliver what has arrived already."""
        queue, self._queue = self._queue, []
        for parcel in (*queue, *self._segment.arriving(self)):
            self._deliver(parcel)

    def _deliver(self, parcel: _Parcel) -> None:
        crossing = parcel.crossing
        if not self._segment.passes(crossing, parcel.station):
            return
        alike = self._ports.get(crossing.payload[1], {}) if len(crossing.payload) > 1 else {}
        ports = [port for port in alike if port.hears(crossing)]
        again = crossing.fates[self.name] in (Fate.DELIVERED, Fate.DUPLICATED)
        if ports or crossing.announced is not None:
            crossing.fates[self.name] = Fate.DUPLICATED if again else Fate.DELIVERED
        else:
            crossing.fates[self.name] = Fate.IGNORED
        if ports:
            crossing.arrivals.append((self.name, _now()))
        if parcel.source is None or crossing.destination is None:
            return
        datagram = Datagram(
            crossing.payload, parcel.source, crossing.destination, parcel.ttl, _now()
        )
        for port in ports:
            # An earlier receiver may have closed a later one.
            if port in alike:
                port.receiver.received(datagram)


class Segment:
    """One link in memory.

    :param seed: seeds everything random.
    :param conditions: how messages fare, unless :meth:`between` says otherwise.
    :param record: messages to remember, the latest ones; 0 for none.
    """

    def __init__(
        self, *, seed: int = 0, conditions: Conditions | None = None, record: int = RECORD
    ) -> None:
        self.conditions = conditions or Conditions()
        """May be replaced at any time; what is under way already is not affected."""
        self.record: deque[Crossing] = deque(maxlen=record)
        """What was sent, oldest first."""
        self._random = random.Random(seed)
        self._stations: dict[str, Station] = {}
        self._pairs: dict[tuple[str, str], Conditions] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._last: dict[tuple[str, str], float] = {}
        self._soon: list[_Parcel] = []
        self._late: list[tuple[float, int, _Parcel]] = []
        self._serial = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def station(self, name: str) -> Station:
        """The station of this name, made when there is none."""
        station = self._stations.get(name)
        if station is None:
            station = self._stations[name] = Station(self, name)
        return station

    def between(
        self, a: str, b: str, conditions: Conditions | None, *, one_way: bool = False
    ) -> None:
        """Let messages from ``a`` to ``b``, and back unless ``one_way``, fare differently; ``None``
        means as everywhere."""
        for pair in self._directions(a, b, one_way):
            if conditions is None:
                self._pairs.pop(pair, None)
            else:
                self._pairs[pair] = conditions

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Let nothing through from ``a`` to ``b``, and back unless ``one_way``."""
        self._cuts.update(self._directions(a, b, one_way))

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """End the cuts between ``a`` and ``b``; all that ``a`` is part of without ``b``; without
        either, all."""
        self._cuts = {
            pair
            for pair in self._cuts
            if (a is not None and a not in pair) or (b is not None and b not in pair)
        }

    def unplug(self, name: str) -> None:
        """Pull the cable of one station."""
        self.station(name).plugged = False

    def plug(self, name: str) -> None:
        """Put it back."""
        self.station(name).plugged = True

    def send(self, sender: Station, crossing: Crossing, source: IPAddress | None, ttl: int) -> None:
        """Take a message; called by :class:`Station`."""
        self.record.append(crossing)
        destination = crossing.destination
        unicast = destination is not None and not destination.is_multicast
        for station in self._stations.values():
            if station is sender or (
                unicast and destination is not None and not station.has(destination)
            ):
                continue
            crossing.fates[station.name] = Fate.UNDER_WAY
            if not self.passes(crossing, station):
                continue
            conditions = self._pairs.get((sender.name, station.name), self.conditions)
            if self._chance(conditions.loss):
                crossing.fates[station.name] = Fate.LOST
                continue
            parcel = _Parcel(crossing, source, station, max(ttl - conditions.hops, 0))
            self._dispatch(parcel, conditions)
            if self._chance(conditions.duplication):
                self._dispatch(parcel, conditions)

    def passes(self, crossing: Crossing, station: Station) -> bool:
        """Whether the way is free now; if not, that is the message's fate."""
        if not (station.plugged and self.station(crossing.sender).plugged):
            crossing.fates[station.name] = Fate.UNPLUGGED
        elif (crossing.sender, station.name) in self._cuts:
            crossing.fates[station.name] = Fate.CUT
        else:
            return True
        return False

    def arriving(self, station: Station) -> list[_Parcel]:
        """Hand over what would reach ``station`` in this turn of the loop."""
        if not self._soon:
            return []
        mine = [parcel for parcel in self._soon if parcel.station is station]
        self._soon = [parcel for parcel in self._soon if parcel.station is not station]
        return mine

    def _directions(self, a: str, b: str, one_way: bool) -> list[tuple[str, str]]:
        return [(a, b)] if one_way else [(a, b), (b, a)]

    def _chance(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    def _dispatch(self, parcel: _Parcel, conditions: Conditions) -> None:
        loop = self._current()
        now = loop.time()
        when = now + conditions.delay
        if conditions.jitter > 0:
            when += self._random.uniform(0, conditions.jitter)
        pair = (parcel.crossing.sender, parcel.station.name)
        if self._chance(conditions.reordering):
            when += conditions.held_back
        else:
            when = self._last[pair] = max(when, self._last.get(pair, when))
        if when <= now:
            if not self._soon:
                loop.call_soon(self._arrive_soon)
            self._soon.append(parcel)
        else:
            # Timers of asyncio that are due at the same moment run in no particular order.
            self._serial += 1
            heapq.heappush(self._late, (when, self._serial, parcel))
            loop.call_at(when, self._arrive_late)

    def _current(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # What was under way on a loop that has ended never arrives.
            self._loop = loop
            self._soon.clear()
            self._late.clear()
            self._last.clear()
        return loop

    def _arrive_soon(self) -> None:
        parcels, self._soon = self._soon, []
        for parcel in parcels:
            parcel.station.arrived(parcel)

    def _arrive_late(self) -> None:
        now = _now()
        while self._late and self._late[0][0] <= now:
            _when, _serial, parcel = heapq.heappop(self._late)
            parcel.station.arrived(parcel)


def _now() -> float:
    return asyncio.get_running_loop().time()
