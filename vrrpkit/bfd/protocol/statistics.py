"""The counters of one BFD session. Pure."""

from __future__ import annotations

from collections import Counter

import attrs

from vrrpkit.bfd.protocol.packet import BFDRejectReason

__all__ = ["BFDStatistics", "Rate"]


@attrs.define
class BFDStatistics:
    """Counts since the session object was made."""

    packets_sent: int = 0
    packets_received: int = 0
    """Accepted ones."""
    ups: int = 0
    """How often the session came Up."""
    downs: int = 0
    """How often it left Up."""
    send_errors: int = 0
    losses: int = 0
    """How often the kernel had to drop packets because they were not read in time."""
    rejected: Counter[BFDRejectReason] = attrs.field(factory=Counter[BFDRejectReason])
    """Packets from the neighbour that were dropped, by reason."""


class Rate:
    """Lets one report a second through for each key, with the number that it stands for. The keys
    are few."""

    def __init__(self) -> None:
        self._seen: dict[object, tuple[float, int]] = {}

    def report(self, key: object, now: float) -> int:
        """Count one more of ``key``; the number to report now, or 0 while it is too early."""
        last, count = self._seen.get(key, (float("-inf"), 0))
        if now - last < 1.0:
            self._seen[key] = (last, count + 1)
            return 0
        self._seen[key] = (now, 0)
        return count + 1
