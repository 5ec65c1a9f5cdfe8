"""What all BFD sessions of one event loop and one host share: who is who, and who gets what."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from vrrpkit.bfd.base import BFDDatagram, BFDSender, BFDTransport
from vrrpkit.bfd.config import BFDSessionConfig
from vrrpkit.bfd.memory import MemoryBFDTransport
from vrrpkit.bfd.protocol.packet import BFDRejectReason, ControlPacket, decode
from vrrpkit.bfd.sockets import KernelBFDTransport
from vrrpkit.errors import DecodeError, HostError
from vrrpkit.host.memory.bus import MemoryInterface
from vrrpkit.linux.netns import identity
from vrrpkit.runtime import Runtime
from vrrpkit.timers import Deadlines
from vrrpkit.values import IPAddress

__all__ = ["BFDEndpoint", "SessionHandler", "SessionSlot"]

log = logging.getLogger(__name__)

STRANGERS = 32
"""Unknown senders that are logged; the further ones are only counted."""


class SessionHandler(Protocol):
    """A session, as the speaker sees it. Called on the event loop."""

    @property
    def config(self) -> BFDSessionConfig: ...

    def received(self, packet: ControlPacket, at: float) -> None:
        """Take a packet that passed every check."""

    def rejected(self, problem: DecodeError, source: IPAddress) -> None:
        """Learn that a packet from the neighbour was dropped."""

    def overflowed(self) -> None:
        """Learn that packets were lost on this host before they could be read."""


class SessionSlot:
    """One session's place, from :meth:`BFDEndpoint.enter` until :meth:`leave`."""

    def __init__(self, endpoint: BFDEndpoint, handler: SessionHandler, discriminator: int) -> None:
        self.handler = handler
        self.discriminator = discriminator
        self.sender: BFDSender | None = None
        self.stop_listening: Callable[[], None] | None = None
        self._endpoint = endpoint

    def send(self, payload: bytes) -> None:
        """Send one packet to the neighbour.

        :raises OSError: the system refused.
        """
        assert self.sender is not None
        self.sender.send(payload)

    def leave(self) -> None:
        """Give the place back; calling it twice is harmless."""
        self._endpoint.leave(self)

    def accepts(self, datagram: BFDDatagram) -> bool:
        """Whether a packet comes from the neighbour in the way that is expected."""
        config = self.handler.config
        if datagram.source != config.neighbor or datagram.port != config.port:
            return False
        bound = None if self.sender is None else self.sender.ifindex
        return bound is None or bound == datagram.ifindex

    def __lt__(self, other: SessionSlot) -> bool:
        """Whether the other knows more exactly where its packets come from and go to."""
        return self._exactness < other._exactness

    @property
    def _exactness(self) -> int:
        config = self.handler.config
        return (config.source is not None) + (config.interface is not None)


class BFDEndpoint:
    """Opens what its first session needs, and closes all of it with the last.

    :param connect: makes the wires.
    """

    def __init__(self, connect: Callable[[], BFDTransport]) -> None:
        self.strangers: Counter[BFDRejectReason] = Counter()
        """Packets that were dropped and belong to no session here, by reason."""
        self._connect = connect
        self._transport: BFDTransport | None = None
        self._slots: dict[int, SessionSlot] = {}
        self._neighbors: dict[IPAddress, list[SessionSlot]] = {}
        self._logged: set[IPAddress] = set()

    @classmethod
    def current(cls, where: MemoryInterface | str | None) -> BFDEndpoint:
        """The endpoint of the running loop for an interface in memory, or for a network namespace
        (``None`` is the one that the thread is in).

        :raises HostError: there is no such namespace.
        """
        runtime = Runtime.current()
        if isinstance(where, MemoryInterface):
            return runtime.use(cls, where, lambda: cls(lambda: MemoryBFDTransport(where)))
        key = identity(where)
        return runtime.use(cls, key, lambda: cls(lambda: KernelBFDTransport(where)))

    @property
    def deadlines(self) -> Deadlines:
        """The one heap of all sessions here, while there are any."""
        assert self._transport is not None
        return self._transport.deadlines

    def enter(self, handler: SessionHandler) -> SessionSlot:
        """Give a session a place.

        :raises HostError: another session has it, or the host lacks something.
        """
        config = handler.config
        neighbors = self._neighbors.get(config.neighbor, [])
        for slot in neighbors:
            theirs = slot.handler.config
            if (theirs.port, theirs.source, theirs.interface) == (
                config.port,
                config.source,
                config.interface,
            ):
                raise HostError(
                    f"BFD to {config.neighbor} runs here already, as {theirs.label!r}: there can "
                    "be one session between two addresses, so share that BFDSession object"
                )
        if self._transport is None:
            self._transport = self._connect()
        slot = SessionSlot(self, handler, self._new_discriminator())
        try:
            slot.sender = self._transport.sender(config)
            slot.stop_listening = self._transport.listen(config, self._take, handler.overflowed)
        except BaseException:
            self.leave(slot)
            raise
        self._slots[slot.discriminator] = slot
        self._neighbors.setdefault(config.neighbor, []).append(slot)
        return slot

    def leave(self, slot: SessionSlot) -> None:
        """End what :meth:`enter` began."""
        if slot.sender is not None:
            slot.sender.close()
        if slot.stop_listening is not None:
            slot.stop_listening()
        self._slots.pop(slot.discriminator, None)
        neighbor = slot.handler.config.neighbor
        rest = [other for other in self._neighbors.pop(neighbor, []) if other is not slot]
        if rest:
            self._neighbors[neighbor] = rest
        if not self._slots:
            self.shutdown()

    def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close()

    def _new_discriminator(self) -> int:
        while True:
            # Hard to guess, for a sender that knows it can say that the session is down.
            drawn = random.SystemRandom().randint(1, 0xFFFFFFFF)
            if drawn not in self._slots:
                return drawn

    # --- what comes in

    def _take(self, datagram: BFDDatagram) -> None:
        likely = max(self._candidates(datagram), default=None)
        try:
            slot, packet = self._find(datagram, likely)
        except DecodeError as problem:
            if likely is not None:
                likely.handler.rejected(problem, datagram.source)
            else:
                self._stranger(problem, datagram.source)
            return
        slot.handler.received(packet, datagram.received)

    def _candidates(self, datagram: BFDDatagram) -> list[SessionSlot]:
        """The sessions that a first packet may be for (RFC 5881 section 3)."""
        return [
            slot
            for slot in self._neighbors.get(datagram.source, ())
            if slot.accepts(datagram) and slot.handler.config.source in (None, datagram.destination)
        ]

    def _find(
        self, datagram: BFDDatagram, likely: SessionSlot | None
    ) -> tuple[SessionSlot, ControlPacket]:
        packet = decode(datagram.payload)
        slot = likely
        if packet.your_discriminator:
            slot = self._slots.get(packet.your_discriminator)
        if slot is None:
            raise DecodeError(BFDRejectReason.SESSION, packet.your_discriminator, "one of ours")
        config = slot.handler.config
        if not slot.accepts(datagram):
            raise DecodeError(BFDRejectReason.SOURCE, datagram.source, config.neighbor)
        if datagram.ttl < config.least_ttl:
            raise DecodeError(BFDRejectReason.TTL, datagram.ttl, f"at least {config.least_ttl}")
        return slot, packet

    def _stranger(self, problem: DecodeError, source: IPAddress) -> None:
        self.strangers[BFDRejectReason(problem.reason)] += 1
        if source not in self._logged and len(self._logged) < STRANGERS:
            self._logged.add(source)
            log.info("BFD packets from %s are dropped: %s", source, problem)
