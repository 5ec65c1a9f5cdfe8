"""What all BFD sessions of one event loop and one host share: who is who, and who gets what."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

from vrrpkit.bfd.memory import MemoryWires
from vrrpkit.bfd.options import BFDOptions
from vrrpkit.bfd.packet import BFDRejectReason, ControlPacket, decode
from vrrpkit.bfd.sockets import KernelWires
from vrrpkit.bfd.wires import Arrival, Outlet, Wires
from vrrpkit.errors import DecodeError, HostError
from vrrpkit.host.deadlines import Deadlines
from vrrpkit.host.memory import MemoryInterface
from vrrpkit.host.netns import identity
from vrrpkit.values import IPAddress

__all__ = ["Seat", "Speaker", "Tenant"]

log = logging.getLogger(__name__)

STRANGERS = 32
"""Unknown senders that are logged; the further ones are only counted."""


class Tenant(Protocol):
    """A session, as the speaker sees it. Called on the event loop."""

    @property
    def options(self) -> BFDOptions: ...

    def received(self, packet: ControlPacket, at: float) -> None:
        """Take a packet that passed every check."""

    def rejected(self, problem: DecodeError, source: IPAddress) -> None:
        """Learn that a packet from the neighbour was dropped."""

    def deaf(self) -> None:
        """Learn that packets were lost on this host before they could be read."""


class Seat:
    """One session's place, from :meth:`Speaker.enter` until :meth:`leave`."""

    def __init__(self, speaker: Speaker, tenant: Tenant, discriminator: int) -> None:
        self.tenant = tenant
        self.discriminator = discriminator
        self.outlet: Outlet | None = None
        self.unlisten: Callable[[], None] | None = None
        self._speaker = speaker

    def send(self, payload: bytes) -> None:
        """Send one packet to the neighbour.

        :raises OSError: the system refused.
        """
        assert self.outlet is not None
        self.outlet.send(payload)

    def leave(self) -> None:
        """Give the place back; calling it twice is harmless."""
        self._speaker.leave(self)

    def accepts(self, arrival: Arrival) -> bool:
        """Whether a packet comes from the neighbour in the way that is expected."""
        options = self.tenant.options
        if arrival.source != options.neighbor or arrival.port != options.port:
            return False
        bound = None if self.outlet is None else self.outlet.ifindex
        return bound is None or bound == arrival.ifindex

    def __lt__(self, other: Seat) -> bool:
        """Whether the other knows more exactly where its packets come from and go to."""
        return self._exactness < other._exactness

    @property
    def _exactness(self) -> int:
        options = self.tenant.options
        return (options.source is not None) + (options.interface is not None)


# Speakers are held by their sessions, never from here: one in use knows its loop, and would keep it
# alive for ever.
_speakers: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[Hashable, Speaker]] = (
    WeakKeyDictionary()
)


class Speaker:
    """Opens what its first session needs, and closes all of it with the last.

    :param connect: makes the wires.
    """

    def __init__(self, connect: Callable[[], Wires]) -> None:
        self.strangers: Counter[BFDRejectReason] = Counter()
        """Packets that were dropped and belong to no session here, by reason."""
        self._connect = connect
        self._wires: Wires | None = None
        self._seats: dict[int, Seat] = {}
        self._neighbors: dict[IPAddress, list[Seat]] = {}
        self._logged: set[IPAddress] = set()

    @classmethod
    def current(cls, where: MemoryInterface | str | None) -> Speaker:
        """The speaker of the running loop for an interface in memory, or for a network namespace
        (``None`` is the one that the thread is in).

        :raises HostError: there is no such namespace.
        """
        speakers = _speakers.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        key: Hashable = where if isinstance(where, MemoryInterface) else identity(where)
        speaker = speakers.get(key)
        if speaker is None:
            speaker = speakers[key] = cls(
                (lambda: MemoryWires(where))
                if isinstance(where, MemoryInterface)
                else lambda: KernelWires(where)
            )
        return speaker

    @property
    def deadlines(self) -> Deadlines:
        """The one heap of all sessions here, while there are any."""
        assert self._wires is not None
        return self._wires.deadlines

    def enter(self, tenant: Tenant) -> Seat:
        """Give a session a place.

        :raises HostError: another session has it, or the host lacks something.
        """
        options = tenant.options
        neighbors = self._neighbors.get(options.neighbor, [])
        for seat in neighbors:
            theirs = seat.tenant.options
            if (theirs.port, theirs.source, theirs.interface) == (
                options.port,
                options.source,
                options.interface,
            ):
                raise HostError(
                    f"BFD to {options.neighbor} runs here already, as {theirs.label!r}: there can "
                    "be one session between two addresses, so share that BFDSession object"
                )
        if self._wires is None:
            self._wires = self._connect()
        seat = Seat(self, tenant, self._new_discriminator())
        try:
            seat.outlet = self._wires.outlet(options)
            seat.unlisten = self._wires.listen(options, self._take, tenant.deaf)
        except BaseException:
            self.leave(seat)
            raise
        self._seats[seat.discriminator] = seat
        self._neighbors.setdefault(options.neighbor, []).append(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """End what :meth:`enter` began."""
        if seat.outlet is not None:
            seat.outlet.close()
        if seat.unlisten is not None:
            seat.unlisten()
        self._seats.pop(seat.discriminator, None)
        neighbor = seat.tenant.options.neighbor
        rest = [other for other in self._neighbors.pop(neighbor, []) if other is not seat]
        if rest:
            self._neighbors[neighbor] = rest
        if not self._seats and self._wires is not None:
            wires, self._wires = self._wires, None
            wires.close()

    def _new_discriminator(self) -> int:
        while True:
            # Hard to guess, for whoever knows it can say that the session is down.
            drawn = random.SystemRandom().randint(1, 0xFFFFFFFF)
            if drawn not in self._seats:
                return drawn

    # --- what comes in

    def _take(self, arrival: Arrival) -> None:
        likely = max(self._candidates(arrival), default=None)
        try:
            seat, packet = self._find(arrival, likely)
        except DecodeError as problem:
            if likely is not None:
                likely.tenant.rejected(problem, arrival.source)
            else:
                self._stranger(problem, arrival.source)
            return
        seat.tenant.received(packet, arrival.received)

    def _candidates(self, arrival: Arrival) -> list[Seat]:
        """The sessions that a first packet may be for (RFC 5881 section 3)."""
        return [
            seat
            for seat in self._neighbors.get(arrival.source, ())
            if seat.accepts(arrival) and seat.tenant.options.source in (None, arrival.destination)
        ]

    def _find(self, arrival: Arrival, likely: Seat | None) -> tuple[Seat, ControlPacket]:
        packet = decode(arrival.payload)
        seat = likely
        if packet.your_discriminator:
            seat = self._seats.get(packet.your_discriminator)
        if seat is None:
            raise DecodeError(BFDRejectReason.SESSION, packet.your_discriminator, "one of ours")
        options = seat.tenant.options
        if not seat.accepts(arrival):
            raise DecodeError(BFDRejectReason.SOURCE, arrival.source, options.neighbor)
        if arrival.ttl < options.least_ttl:
            raise DecodeError(BFDRejectReason.TTL, arrival.ttl, f"at least {options.least_ttl}")
        return seat, packet

    def _stranger(self, problem: DecodeError, source: IPAddress) -> None:
        self.strangers[BFDRejectReason(problem.reason)] += 1
        if source not in self._logged and len(self._logged) < STRANGERS:
            self._logged.add(source)
            log.info("BFD packets from %s are dropped: %s", source, problem)
