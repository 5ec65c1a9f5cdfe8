"""One receive socket, shared by all virtual routers on it: reading, demultiplexing, when to wake.

A socket is read at once, as a rule. While every member is *relaxed* and enough adverts are
expected, it is read by the clock instead, and a second socket that hears only priority 0 wakes the
reader early.
"""

from __future__ import annotations

import asyncio
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

import attrs

from vrrpkit.transport import sockets
from vrrpkit.transport.base import Datagram, Repeats
from vrrpkit.transport.recvmmsg import MOST, Batch
from vrrpkit.values import IPAddress

__all__ = ["Counters", "ReceiveSocket", "ReceiveSocket4", "ReceiveSocket6", "Subscriber"]

TURN = 0.005
"""Seconds for which packets are read in one go, so that a flood cannot hold the event loop."""
URGENT = 256
"""Packets of priority 0 that are thrown away in one go; the main socket has them too."""
ROUTES = 4096
"""Pairs of addresses and VRID remembered; forged ones must not fill the memory."""
ADVERT = 1280
"""Octets that one waiting advert is charged with; 768 to 1280 with common network cards."""
BACKLOG = 8
"""Adverts per router that must fit: two Master_Down_Intervals, each three intervals and a skew."""
FULL = 3
"""Fewer packets read prove that none was dropped: the smallest buffer holds four of the largest."""
WORTHWHILE = 3.0
"""Adverts per reading from which reading by the clock costs less than waking for each."""

NO_OPTIONS = 0x45
"""First octet of an IPv4 header of 20 octets."""

_wall = time.clock_gettime
_REALTIME = time.CLOCK_REALTIME


@attrs.define
class Counters:
    """What a transport could not deliver to a member, since it was made."""

    short: int = 0
    """Messages of less than two octets, which name no virtual router."""
    unknown_vrid: int = 0
    """Messages for a VRID that has no member here."""
    dropped: int = 0
    """Messages that the kernel dropped because a socket was full."""
    errors: int = 0
    """Errors reported by the kernel instead of a message."""


class Subscriber:
    """One virtual router on one inlet; once it has left, it gets nothing more of a reading."""

    __slots__ = ("interval", "overflowed", "period", "take", "vrid")

    def __init__(
        self,
        vrid: int,
        interval: float,
        take: Callable[[Datagram], Repeats | None],
        overflowed: Callable[[], None],
    ) -> None:
        self.vrid = vrid
        self.interval = interval
        self.take = take
        self.overflowed = overflowed
        self.period: float | None = None

    def leave(self) -> None:
        self.take = _ignore
        self.overflowed = _nothing


def _ignore(_datagram: Datagram) -> None:
    pass


def _nothing() -> None:
    pass


Route: TypeAlias = tuple[IPAddress, IPAddress, tuple[Subscriber, ...]]
"""Source, destination, and who gets it."""


class ReceiveSocket(ABC):
    """The common half of both address families.

    ``build(urgent)`` makes a socket bound to ``address``: see :mod:`vrrpkit.transport.sockets`.
    Needs a running loop.
    """

    def __init__(
        self,
        address: IPAddress,
        build: Callable[[bool], socket.socket],
        now: Callable[[], float],
        counters: Counters,
    ) -> None:
        self._address = address
        self._build = build
        self._now = now
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._members: dict[Subscriber, None] = {}
        self._by_vrid: dict[int, tuple[Subscriber, ...]] = {}
        self._routes: dict[bytes, Route] = {}
        self._repeats: dict[bytes, Repeats] = {}
        self._unbatched = 0
        self._urgent: socket.socket | None = None
        self._tick: asyncio.Handle | None = None
        self._reading = False
        self._batch = Batch()
        self._sock = build(False)
        self._room = 0
        self._grow()
        self._lost = sockets.drops(self._sock)
        self._drained_at = now()
        self._latest = self._drained_at
        self._offset = 0.0
        self._loop.add_reader(self._sock.fileno(), self.drain)

    @property
    def empty(self) -> bool:
        """Whether no member is left."""
        return not self._members

    def enter(self, member: Subscriber) -> None:
        """Deliver to ``member`` what carries its VRID; it is not relaxed at first."""
        self._members[member] = None
        self._by_vrid[member.vrid] = (*self._by_vrid.get(member.vrid, ()), member)
        self._unbatched += 1
        self._forget()
        self._grow()
        self._read_at_once()

    def leave(self, member: Subscriber) -> None:
        """Deliver nothing more to ``member``."""
        if member not in self._members:
            return
        member.leave()
        del self._members[member]
        rest = tuple(other for other in self._by_vrid[member.vrid] if other is not member)
        if rest:
            self._by_vrid[member.vrid] = rest
        else:
            del self._by_vrid[member.vrid]
        self._unbatched -= member.period is None
        self._forget()
        self._choose()

    def set_batching(self, member: Subscriber, period: float | None) -> None:
        """Let up to ``period`` seconds pass before ``member`` gets an advert, if all agree."""
        if period == member.period or member not in self._members:
            return
        self._unbatched += (period is None) - (member.period is None)
        member.period = period
        self._choose()

    def drain(self) -> float:
        """Read what had arrived when this began, for :data:`TURN` at most, and tell the members if
        the kernel had to drop something; up to when everything was read."""
        if not self._reading:
            self._reading = True
            try:
                count = self._read()
            finally:
                self._reading = False
            if count >= FULL:
                self._check_drops()
        return self._latest

    def close(self) -> None:
        """Close the sockets; calling it twice is harmless."""
        for member in self._members:
            member.leave()
        self._members.clear()
        self._by_vrid.clear()
        self._forget()
        if self._sock.fileno() < 0:
            return
        self._read_at_once()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _read(self) -> int:
        """Deliver what waits, and return how many packets were read."""
        now = self._now()
        # The kernel stamps with the wall clock, which may be set at any time: the difference counts
        # for this reading only.
        self._offset = now - _wall(_REALTIME)
        total = 0
        while True:
            try:
                count = self._batch.read(self._sock.fileno())
            except OSError:
                if self._failed():
                    self._latest = now
                    return 0
                # An error says nothing of what waits: it must not put off for ever what is due.
                count, self._latest = 1, max(self._latest, self._now() - TURN)
            else:
                if count:
                    self._take(count, now)
                if count < MOST:
                    self._drained_at = self._latest = now
                    return total + count
            total += count
            # Packets wait in the order in which they came: one that came after this began proves
            # that all before it were read. A flood never gets there, so the time ends it too.
            if self._latest >= now or self._now() - now > TURN:
                return total

    @abstractmethod
    def _take(self, count: int, now: float) -> None:
        """Deliver the ``count`` packets of the batch, which was read at ``now``, and note when the
        last one came."""

    def _route(self, key: bytes, source: IPAddress, destination: IPAddress, vrid: int) -> Route:
        if len(self._routes) >= ROUTES:
            self._routes.clear()
        route = (source, destination, self._by_vrid.get(vrid, ()))
        self._routes[key] = route
        return route

    def _deliver(
        self, datagram: Datagram, members: tuple[Subscriber, ...], repeated: bytes | None
    ) -> None:
        """``repeated`` finds the datagram when it comes again; ``None`` if that cannot be told."""
        for member in members:
            repeats = member.take(datagram)
            # Remembered for a single member only: two may judge the same octets differently.
            if repeats is not None and repeated is not None and len(members) == 1:
                if len(self._repeats) >= ROUTES:
                    self._repeats.clear()
                self._repeats[repeated] = repeats

    def _forget(self) -> None:
        self._routes.clear()
        self._repeats.clear()

    def _grow(self) -> None:
        room = len(self._members) * BACKLOG * ADVERT
        # Every setting is a system call: grow by halves, and not for each of 255 members.
        if room > self._room or not self._room:
            self._room = max(room + room // 2, sockets.RECEIVE_FLOOR)
            sockets.enlarge(self._sock, self._room)

    def _check_drops(self) -> None:
        if self._sock.fileno() < 0:
            return
        lost = sockets.drops(self._sock)
        if lost == self._lost:
            return
        self._counters.dropped += (lost - self._lost) & 0xFFFFFFFF
        self._lost = lost
        for member in list(self._members):
            member.overflowed()

    def _failed(self) -> bool:
        """Count an error of reading, and tell whether the socket is closed."""
        if self._sock.fileno() < 0:
            return True
        self._counters.errors += 1
        return False

    def _choose(self) -> None:
        # A MASTER answers what it hears, so its adverts are read as they come. A BACKUP only keeps
        # its deadline, and may read many at once, if there are enough of them to pay for a timer.
        if self._unbatched or not self._members:
            self._read_at_once()
            return
        period = min(member.period or 0.0 for member in self._members)
        expected = sum(period / member.interval for member in self._members)
        if expected < WORTHWHILE:
            self._read_at_once()
        else:
            self._read_every(period)

    def _read_at_once(self) -> None:
        if self._urgent is None:
            return
        assert self._tick is not None
        self._tick.cancel()
        self._tick = None
        self._loop.remove_reader(self._urgent.fileno())
        self._urgent.close()
        self._urgent = None
        self._loop.add_reader(self._sock.fileno(), self.drain)

    def _read_every(self, period: float) -> None:
        if self._urgent is None:
            try:
                self._urgent = self._build(True)
            except OSError:  # nothing is lost but some speed
                return
            self._loop.add_reader(self._urgent.fileno(), self._wake)
            # Not now, for this may be called while a member handles an advert. The next reading
            # also finds an advert of priority 0 that came before the second socket was there.
            self._tick = self._loop.call_soon(self._timed, period)
        else:
            assert self._tick is not None
            self._tick.cancel()
            self._tick = self._loop.call_later(period, self._timed, period)

    def _timed(self, period: float) -> None:
        self._tick = self._loop.call_later(period, self._timed, period)
        self._loop.remove_reader(self._sock.fileno())
        self.drain()

    def _wake(self) -> None:
        assert self._urgent is not None
        try:
            for _ in range(URGENT):
                self._urgent.recv(1)
        except BlockingIOError:
            pass
        except OSError:
            self._counters.errors += 1
        # One of priority 0 has come, which must not wait for the next reading: a takeover begins.
        # Its twin may reach the main socket later than this: watch that until the next reading.
        self._loop.add_reader(self._sock.fileno(), self.drain)
        self.drain()


class ReceiveSocket4(ReceiveSocket):
    """A receive socket of IPv4: packets come with their IP header, less any padding of the link."""

    def _take(self, count: int, now: float) -> None:
        routes, repeated, octets = self._routes, self._repeats.get, self._batch.octets
        dry, offset = self._drained_at, self._offset
        received = dry
        for at, end, stamp, _hops in self._batch.packets(count):
            received = stamp + offset
            if not dry < received < now:
                received = now if received >= now else dry
            # From the source address on: identification and checksum differ from one to the next.
            same = bytes(octets[at + 12 : end])
            repeats = repeated(same)
            if (
                repeats is not None
                and repeats.live
                and octets[at + 8] == repeats.ttl
                and octets[at] == NO_OPTIONS
            ):
                repeats.at = received
                repeats.count += 1
                continue
            start = at + ((octets[at] & 15) << 2)
            if end < start + 2:
                self._counters.short += 1
                continue
            payload = bytes(octets[start:end])
            # Source, destination, and what names the virtual router.
            key = same[:8] + payload[:2]
            route = routes.get(key)
            if route is None:
                addresses = IPv4Address(key[:4]), IPv4Address(key[4:8])
                route = self._route(key, *addresses, key[9])
            source, destination, members = route
            if not members:
                self._counters.unknown_vrid += 1
                continue
            datagram = Datagram(payload, source, destination, octets[at + 8], received)
            self._deliver(datagram, members, same if octets[at] == NO_OPTIONS else None)
        self._latest = received


class ReceiveSocket6(ReceiveSocket):
    """A receive socket of IPv6: sender and hop limit come beside the payload.

    The destination does not, for it can only be the address that the socket is bound to.
    """

    def _take(self, count: int, now: float) -> None:
        routes, repeated, batch = self._routes, self._repeats.get, self._batch
        dry, offset = self._drained_at, self._offset
        received = dry
        for at, end, stamp, hop_limit in batch.packets(count):
            received = stamp + offset
            if not dry < received < now:
                received = now if received >= now else dry
            payload = bytes(batch.octets[at:end])
            if len(payload) < 2:
                self._counters.short += 1
                continue
            sender = batch.sender(at)
            same = sender + payload
            repeats = repeated(same)
            if repeats is not None and repeats.live and hop_limit == repeats.ttl:
                repeats.at = received
                repeats.count += 1
                continue
            key = sender + payload[1:2]
            route = routes.get(key)
            if route is None:
                route = self._route(key, IPv6Address(sender), self._address, payload[1])
            source, destination, members = route
            if not members:
                self._counters.unknown_vrid += 1
                continue
            datagram = Datagram(payload, source, destination, hop_limit, received)
            self._deliver(datagram, members, same)
        self._latest = received
