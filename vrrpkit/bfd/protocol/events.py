"""What a BFD session tells its users: one frozen class per kind of event. Pure.

Every event carries ``session``, its name, and ``at``, seconds of the clock of its host.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDRejectReason, BFDState
from vrrpkit.values import IPAddress, Stamped

__all__ = ["BFDEvent", "BFDRejected", "BFDSendFailed", "BFDTimersAgreed", "BFDTransition"]


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


@attrs.frozen(kw_only=True)
class BFDTransition(Stamped):
    """The session changed its state."""

    session: str
    at: float
    previous: BFDState
    state: BFDState
    diagnostic: BFDDiagnostic
    """Why the session last left Up."""
    remote_diagnostic: BFDDiagnostic = BFDDiagnostic.NONE
    """What the neighbour last said about that."""

    def __str__(self) -> str:
        fell = self.state in (BFDState.DOWN, BFDState.ADMIN_DOWN)
        why = f": {self.diagnostic}" if fell and self.diagnostic.code else ""
        return f"{self.session}: {self.previous} -> {self.state}{why}"


@attrs.frozen(kw_only=True)
class BFDTimersAgreed(Stamped):
    """While Up, the two ends have come to other intervals than before."""

    session: str
    at: float
    transmit_interval: float
    """Seconds between two packets of ours, before jitter makes them up to a quarter shorter."""
    detection_time: float
    """Seconds of silence after which the neighbour counts as lost."""

    def __str__(self) -> str:
        return (
            f"{self.session}: sends every {self.transmit_interval * 1000:g} ms, detects within "
            f"{self.detection_time * 1000:g} ms"
        )


@attrs.frozen(kw_only=True)
class BFDRejected(Stamped):
    """A packet from the neighbour was dropped. At most one such event a second for each reason."""

    session: str
    at: float
    reason: BFDRejectReason
    source: IPAddress
    got: str | None = None
    want: str | None = None
    count: int = 1
    """How many since the last such event of this reason."""

    def __str__(self) -> str:
        got = "" if self.got is None else f", got {self.got}"
        want = "" if self.want is None else f", want {self.want}"
        return (
            f"{self.session}: rejected a packet from {self.source}: {self.reason}{got}{want}"
            f"{_times(self.count)}"
        )


@attrs.frozen(kw_only=True)
class BFDSendFailed(Stamped):
    """The system refused to send a packet. At most one such event a second."""

    session: str
    at: float
    error: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.session}: a packet could not be sent: {self.error}{_times(self.count)}"


BFDEvent: TypeAlias = BFDTransition | BFDTimersAgreed | BFDRejected | BFDSendFailed
"""Everything that ``events()`` of a session may yield, besides ``EventsLost``."""
