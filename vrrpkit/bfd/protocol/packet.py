"""A BFD control packet to octets and back (RFC 5880 section 4.1). Pure.

The wire counts microseconds; everywhere else these are seconds.
"""

from __future__ import annotations

import enum
import struct

import attrs

from vrrpkit.errors import DecodeError

__all__ = [
    "MICROSECOND",
    "BFDDiagnostic",
    "BFDRejectReason",
    "BFDState",
    "ControlPacket",
    "decode",
    "encode",
]

MICROSECOND = 1e-6

_PER_SECOND = 1_000_000
_VERSION = 1
_PACKET = struct.Struct("!BBBBIIIII")
_POLL, _FINAL, _INDEPENDENT, _AUTHENTICATED, _DEMAND, _MULTIPOINT = 32, 16, 8, 4, 2, 1


class BFDState(enum.StrEnum):
    """The state of a session (RFC 5880 section 6.2)."""

    ADMIN_DOWN = "AdminDown"
    """Held down on purpose, or not running."""
    DOWN = "Down"
    """The neighbour is not heard, or has just come to be."""
    INIT = "Init"
    """The neighbour is heard; whether it hears us is not known yet."""
    UP = "Up"
    """Each hears the other."""


_STATES: tuple[BFDState, ...] = tuple(BFDState)
"""By their number on the wire."""


class BFDDiagnostic(enum.StrEnum):
    """Why a session last left Up, in the words of RFC 5880 section 4.1."""

    NONE = "no diagnostic"
    DETECTION_EXPIRED = "control detection time expired"
    """Nothing was heard for a Detection Time."""
    ECHO_FAILED = "echo function failed"
    NEIGHBOR_DOWN = "neighbor signaled session down"
    """The neighbour said that its session went down."""
    FORWARDING_RESET = "forwarding plane reset"
    PATH_DOWN = "path down"
    CONCATENATED_PATH_DOWN = "concatenated path down"
    ADMIN_DOWN = "administratively down"
    """It is held down on purpose."""
    REVERSE_CONCATENATED_PATH_DOWN = "reverse concatenated path down"
    RESERVED = "reserved"
    """Any code without a meaning."""

    @property
    def code(self) -> int:
        """The number on the wire, 0 to 31."""
        return _CODE_OF[self]


_RESERVED = 31
_CODE_OF: dict[BFDDiagnostic, int] = dict(zip(BFDDiagnostic, [*range(9), _RESERVED], strict=True))
_CODES = {code: diagnostic for diagnostic, code in _CODE_OF.items()}


class BFDRejectReason(enum.StrEnum):
    """Why a control packet was dropped. A dropped packet is counted and moves no timer."""

    LENGTH = "length"
    """Shorter than a control packet, or than it says."""
    VERSION = "version"
    """Another version than 1."""
    MULTIPLIER = "multiplier"
    """A detection multiplier of 0."""
    MULTIPOINT = "multipoint"
    """The Multipoint bit, which is reserved."""
    AUTHENTICATION = "authentication"
    """The packet is authenticated, which is not supported."""
    MY_DISCRIMINATOR = "my-discriminator"
    """The sender names itself 0."""
    YOUR_DISCRIMINATOR = "your-discriminator"
    """The sender names no session of ours, though it says that it knows one."""
    SESSION = "session"
    """The sender names a session that is not here."""
    SOURCE = "source"
    """It comes from another address, or through another interface, than the session's."""
    TTL = "ttl"
    """It crossed more routers than allowed: none in a single-hop session (RFC 5881 section 5)."""


@attrs.frozen(kw_only=True)
class ControlPacket:
    """One control packet, field by field; times in seconds.

    :param state: the sender's state of the session.
    :param diagnostic: why it last left Up.
    :param multiplier: packets that may be missed, 1 to 255.
    :param my_discriminator: what the sender calls the session, never 0.
    :param your_discriminator: what it heard the receiver call it, or 0.
    :param desired_min_tx: the least interval that the sender would like to send at.
    :param required_min_rx: the least interval that it can receive at; 0 wants no packets at all.
    :param required_min_echo_rx: the same for echo packets; 0 supports none.
    :param poll: the receiver shall answer with ``final``.
    """

    state: BFDState
    diagnostic: BFDDiagnostic = BFDDiagnostic.NONE
    multiplier: int
    my_discriminator: int
    your_discriminator: int = 0
    desired_min_tx: float
    required_min_rx: float
    required_min_echo_rx: float = 0.0
    poll: bool = False
    final: bool = False
    control_plane_independent: bool = False
    demand: bool = False


def _microseconds(seconds: float) -> int:
    return min(round(seconds * _PER_SECOND), 0xFFFFFFFF)


def encode(packet: ControlPacket) -> bytes:
    """The octets of a packet, without authentication."""
    flags = _STATES.index(packet.state) << 6
    flags |= _POLL * packet.poll | _FINAL * packet.final | _DEMAND * packet.demand
    flags |= _INDEPENDENT * packet.control_plane_independent
    return _PACKET.pack(
        _VERSION << 5 | packet.diagnostic.code,
        flags,
        packet.multiplier,
        _PACKET.size,
        packet.my_discriminator,
        packet.your_discriminator,
        _microseconds(packet.desired_min_tx),
        _microseconds(packet.required_min_rx),
        _microseconds(packet.required_min_echo_rx),
    )


def decode(octets: bytes) -> ControlPacket:
    """The packet in a UDP datagram, with the checks of RFC 5880 section 6.8.6 that need no session,
    in their order.

    :raises DecodeError: the packet must be dropped; the reason is a :class:`BFDRejectReason`.
    """
    if len(octets) < _PACKET.size:
        raise DecodeError(BFDRejectReason.LENGTH, len(octets), f"at least {_PACKET.size}")
    first, flags, multiplier, length, mine, yours, tx, rx, echo = _PACKET.unpack_from(octets)
    if first >> 5 != _VERSION:
        raise DecodeError(BFDRejectReason.VERSION, first >> 5, _VERSION)
    if not _PACKET.size <= length <= len(octets):
        raise DecodeError(BFDRejectReason.LENGTH, length, f"{_PACKET.size} to {len(octets)}")
    if multiplier == 0:
        raise DecodeError(BFDRejectReason.MULTIPLIER, 0, "at least 1")
    if flags & _MULTIPOINT:
        raise DecodeError(BFDRejectReason.MULTIPOINT)
    if mine == 0:
        raise DecodeError(BFDRejectReason.MY_DISCRIMINATOR, 0, "anything else")
    state = _STATES[int(flags) >> 6]
    if yours == 0 and state in (BFDState.INIT, BFDState.UP):
        raise DecodeError(BFDRejectReason.YOUR_DISCRIMINATOR, f"0 in {state}", "ours")
    if flags & _AUTHENTICATED:
        raise DecodeError(BFDRejectReason.AUTHENTICATION, "authenticated", "not authenticated")
    return ControlPacket(
        state=state,
        diagnostic=_CODES.get(first & 31, BFDDiagnostic.RESERVED),
        multiplier=multiplier,
        my_discriminator=mine,
        your_discriminator=yours,
        desired_min_tx=tx / _PER_SECOND,
        required_min_rx=rx / _PER_SECOND,
        required_min_echo_rx=echo / _PER_SECOND,
        poll=bool(flags & _POLL),
        final=bool(flags & _FINAL),
        control_plane_independent=bool(flags & _INDEPENDENT),
        demand=bool(flags & _DEMAND),
    )
