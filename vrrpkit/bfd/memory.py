"""BFD over an interface in memory: its packets travel on the same link as the adverts, and as well
or as badly as those."""

from __future__ import annotations

from collections.abc import Callable

from vrrpkit.bfd.base import BFDDatagram, BFDSender, BFDTransport, ReceiveCallback
from vrrpkit.bfd.config import BFDSessionConfig
from vrrpkit.errors import SourceMissing
from vrrpkit.host.memory.bus import MemoryInterface
from vrrpkit.timers import Deadlines
from vrrpkit.transport.base import Datagram, Membership, TransportLink
from vrrpkit.values import IPAddress, Peer

__all__ = ["MemoryBFDTransport"]

VRID = 0
"""No virtual router has it: what travels under it here is BFD."""


class _MemoryListener:
    """Hears what is sent to one own address, on behalf of all sessions that use it."""

    def __init__(self, ifindex: int) -> None:
        self.listeners: dict[object, tuple[int, ReceiveCallback]] = {}
        self.port: TransportLink | None = None
        self._ifindex = ifindex

    def received(self, datagram: Datagram) -> None:
        payload, source, destination, ttl, received = datagram
        port = int.from_bytes(payload[2:4])
        for listening, take in self.listeners.values():
            if listening == port:
                take(
                    BFDDatagram(
                        payload[4:], port, source, destination, self._ifindex, ttl, received
                    )
                )
                return

    def overflowed(self) -> None:
        """A segment in memory loses nothing on this host."""


class _Unreachable:
    """A port that is there to send."""

    def received(self, datagram: Datagram) -> None:
        """Ears hear it."""

    def overflowed(self) -> None:
        """Nothing is lost that anybody wanted."""


class _MemorySender(BFDSender):
    def __init__(self, port: TransportLink, ifindex: int, config: BFDSessionConfig) -> None:
        self.ifindex = ifindex
        self._port = port
        self._config = config
        self._head = bytes([0, VRID]) + config.port.to_bytes(2)

    def send(self, payload: bytes) -> None:
        self._port.send(self._head + payload, self._config.neighbor)

    def close(self) -> None:
        self._port.close()


class MemoryBFDTransport(BFDTransport):
    """The network of the machine behind one interface in memory. Needs a running event loop.

    :param interface: the interface; while it is paused, so are the sessions.
    """

    def __init__(self, interface: MemoryInterface) -> None:
        self._interface = interface
        self.deadlines = Deadlines(interface.alarm())
        self.deadlines.drains[self] = interface.station.drain
        self._ears: dict[IPAddress, _MemoryListener] = {}

    def listen(
        self, config: BFDSessionConfig, take: ReceiveCallback, overflowed: Callable[[], None]
    ) -> Callable[[], None]:
        source = self._source(config)
        ear = self._ears.get(source)
        if ear is None:
            ear = self._ears[source] = _MemoryListener(self._interface.link.ifindex)
            ear.port = self._interface.station.join(self._membership(config), ear)
        listener = object()
        ear.listeners[listener] = (config.port, take)

        def stop() -> None:
            ear.listeners.pop(listener, None)
            if not ear.listeners and ear.port is not None:
                ear.port.close()
                self._ears.pop(source, None)

        return stop

    def sender(self, config: BFDSessionConfig) -> BFDSender:
        port = self._interface.station.join(self._membership(config), _Unreachable())
        return _MemorySender(port, self._interface.link.ifindex, config)

    def close(self) -> None:
        self.deadlines.close()

    def _source(self, config: BFDSessionConfig) -> IPAddress:
        version = config.neighbor.version
        own = [address for address, _prefix in self._interface.link.addresses]
        wanted = config.source
        if wanted is None:
            wanted = self._interface.link.source(
                version, link_local=version == 6 and config.neighbor.is_link_local
            )
        if wanted is None or wanted not in own:
            raise SourceMissing(
                f"{self._interface.name} has no address that BFD to {config.neighbor} could be "
                f"sent from: {config.source or 'none of its family'}"
            )
        return wanted

    def _membership(self, config: BFDSessionConfig) -> Membership:
        return Membership(
            interface=self._interface.name,
            ifindex=self._interface.link.ifindex,
            vrid=VRID,
            source=self._source(config),
            group=None,
            peers=(Peer(config.neighbor),),
            hop_limit=config.ttl,
            interval=config.min_rx,
        )
