"""What comes out of the state machine of a BFD session, in the order in which it must be carried
out. Pure."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from vrrpkit.bfd.protocol.events import BFDEvent
from vrrpkit.bfd.protocol.packet import ControlPacket

__all__ = [
    "Effect",
    "Publish",
    "SendPacket",
]


@attrs.frozen
class SendPacket:
    """Send this packet, now."""

    packet: ControlPacket


@attrs.frozen
class Publish:
    """Tell the users."""

    notice: BFDEvent


Effect: TypeAlias = SendPacket | Publish
