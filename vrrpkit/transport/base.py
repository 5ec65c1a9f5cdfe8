"""What a virtual router asks of a transport: two classes, also for a transport of one's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import attrs

from vrrpkit.values import IPAddress, Peer

__all__ = ["Datagram", "Membership", "Receiver", "Repeats", "Transport", "TransportLink"]


class Datagram(NamedTuple):
    """One VRRP message as it arrived (a plain tuple: one is made for every advert heard)."""

    payload: bytes
    """The message from its version octet on, without the IP header."""
    source: IPAddress
    destination: IPAddress
    ttl: int
    """TTL or hop limit as it arrived, 0 to 255."""
    received: float
    """When it reached this host, in seconds of the interface's clock."""


class Repeats:
    """Where a transport may note that a datagram came again, instead of delivering it again.

    A BACKUP hears the same octets for months; what is new about each is only when it came.
    """

    __slots__ = ("at", "count", "live", "ttl")

    def __init__(self, ttl: int) -> None:
        self.ttl = ttl
        """TTL or hop limit of the datagram."""
        self.live = True
        """Whether the receiver still agrees; once it does not, every datagram is delivered."""
        self.at = 0.0
        """When the latest one reached this host, as :attr:`Datagram.received`."""
        self.count = 0
        """How many were noted since the receiver last looked."""


@attrs.frozen(kw_only=True)
class Membership:
    """What a virtual router tells its transport when it joins: everything is looked up already."""

    interface: str
    ifindex: int
    vrid: int
    source: IPAddress
    """The address that adverts are sent from."""
    group: IPAddress | None
    """The multicast group, or ``None`` when there are peers."""
    peers: tuple[Peer, ...] = ()
    hop_limit: int = 255
    interval: float = 1.0
    """Seconds between two adverts, for sizing buffers."""
    also: tuple[int, ...] = ()
    """Interface indexes to listen to besides ``ifindex`` (the other half of a macvlan pair)."""
    strays: tuple[tuple[int, IPAddress], ...] = ()
    """Where else adverts are heard that do not belong here, to count them and to tell of them:
    interface indexes, with own addresses or groups. A transport may ignore it."""

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.source.version


class Receiver(Protocol):
    """Who gets what a transport hears. Called on the event loop; must never block."""

    def received(self, datagram: Datagram) -> Repeats | None:
        """Take one message that carries this router's VRID, whatever else may be wrong with it.

        :return: where further datagrams that differ in :attr:`Datagram.received` only may be noted
            instead of being delivered. A transport may ignore it.
        """

    def overflowed(self) -> None:
        """Learn that messages were lost on this host before they could be read."""


class TransportLink(ABC):
    """One router's place on a transport, from :meth:`Transport.join` until :meth:`close`."""

    @abstractmethod
    def send(self, payload: bytes, destination: IPAddress) -> None:
        """Send one message to the group or to one peer of the membership, without blocking. (The
        checksum may cover the destination, so each peer gets octets of its own.)

        :raises OSError: the system refused; the caller counts it, for link trouble arrives as a
            link event.
        """

    @abstractmethod
    def close(self) -> None:
        """Leave; calling it twice is harmless."""

    def drain(self) -> float | None:
        """Deliver what has arrived already. Called before a deadline may fire, so that an advert
        still in a queue counts before the silence does. A transport without a queue needs none of
        it.

        :return: up to when everything that arrived was delivered, in seconds of the interface's
            clock, if this stopped before the queue was empty; ``None``: nothing waits any more.
        """

    def set_batching(self, period: float | None) -> None:
        """Learn that up to ``period`` seconds may pass before an advert is delivered, unless its
        priority is 0; ``None`` means at once. A transport may ignore it."""


class Transport(ABC):
    """A way for adverts to travel between the routers of a group."""

    @abstractmethod
    def join(self, membership: Membership, receiver: Receiver) -> TransportLink:
        """Take a virtual router in.

        :raises OSError: the system refused a socket or a group membership.
        """
