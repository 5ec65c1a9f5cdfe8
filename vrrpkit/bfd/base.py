"""What BFD sessions ask of the machine they run on; ``sockets.py`` and ``memory.py`` provide it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from vrrpkit.bfd.config import BFDSessionConfig
from vrrpkit.timers import Deadlines
from vrrpkit.values import IPAddress

__all__ = ["BFDDatagram", "BFDSender", "BFDTransport", "ReceiveCallback"]


class BFDDatagram(NamedTuple):
    """One datagram as it arrived."""

    payload: bytes
    port: int
    """The UDP port that it was sent to."""
    source: IPAddress
    destination: IPAddress
    ifindex: int
    """The interface that it came through."""
    ttl: int
    received: float
    """When it reached this host, in seconds of the clock of :attr:`BFDTransport.deadlines`."""


ReceiveCallback: TypeAlias = Callable[[BFDDatagram], None]


class BFDSender(ABC):
    """Where the packets of one session leave."""

    ifindex: int | None = None
    """The interface that the session is bound to, if it is bound to one."""

    @abstractmethod
    def send(self, payload: bytes) -> None:
        """Send one datagram to the neighbour, without blocking.

        :raises OSError: the system refused; a later call may succeed.
        """

    @abstractmethod
    def close(self) -> None:
        """Send no more; calling it twice is harmless."""


class BFDTransport(ABC):
    """The network of one host. All sessions on it share the timer and what they listen with."""

    deadlines: Deadlines

    @abstractmethod
    def listen(
        self, config: BFDSessionConfig, take: ReceiveCallback, overflowed: Callable[[], None]
    ) -> Callable[[], None]:
        """Hear what is sent to a session; returns what ends it. ``take`` gets everything that comes
        the same way, whichever session it is for, and ``overflowed`` is called when some of it was
        lost on this host.

        :raises HostError: it cannot be heard.
        """

    @abstractmethod
    def sender(self, config: BFDSessionConfig) -> BFDSender:
        """A way out for one session.

        :raises HostError: this host lacks the interface or the source address.
        """

    @abstractmethod
    def close(self) -> None:
        """Give everything back; calling it twice is harmless."""
