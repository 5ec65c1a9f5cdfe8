"""What goes into the state machine of a BFD session. Pure."""

from __future__ import annotations

import math
from typing import TypeAlias

import attrs

from vrrpkit.bfd.protocol.packet import ControlPacket

__all__ = [
    "AdminDown",
    "AdminUp",
    "Input",
    "PacketReceived",
    "PacketsLost",
    "Retimed",
    "Start",
    "Stop",
    "TimerFired",
    "Timers",
]


@attrs.frozen(kw_only=True)
class Timers:
    """What a session wants; what it gets depends on the neighbour too. Seconds."""

    min_tx: float
    min_rx: float
    multiplier: int


@attrs.frozen
class Start:
    """Begin."""


@attrs.frozen
class Stop:
    """End, and tell the neighbour that this is no failure."""


@attrs.frozen
class TimerFired:
    """The deadline may have passed; too early is harmless."""

    heard_to: float = math.inf
    """Up to when everything that arrived on this host was delivered: only such silence counts."""


@attrs.frozen(kw_only=True)
class PacketReceived:
    """A packet of this session passed every check."""

    packet: ControlPacket
    at: float
    """When it reached this host."""


@attrs.frozen
class PacketsLost:
    """The kernel dropped packets before they could be read: silence up to now proves nothing."""


@attrs.frozen
class AdminDown:
    """Hold the session down."""


@attrs.frozen
class AdminUp:
    """Hold it down no more."""


@attrs.frozen
class Retimed:
    """Want other timers from now on."""

    timers: Timers


Input: TypeAlias = (
    Start | Stop | TimerFired | PacketReceived | PacketsLost | AdminDown | AdminUp | Retimed
)
