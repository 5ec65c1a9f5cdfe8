"""What a MASTER does about others that are MASTER too, and how often at most. Pure.

Both have announced the addresses, so the neighbours may believe the loser. The winner says so at
once, by an advert and an announcement, and announces once more when the loser has been silent for
so long that it has surely given way. What arrives decides when, and never how often: a forged
advert costs next to nothing to send.
"""

from __future__ import annotations

__all__ = ["OtherMasters"]

_ROUNDING = 1e-6

ANNOUNCEMENTS = 1.0
"""Seconds from one set of announcements to the next, at least."""

ANSWERS = 10
"""Adverts out of turn in one advertisement interval, at most."""


class OtherMasters:
    """The other masters that one MASTER hears and wins against.

    :param interval: Advertisement_Interval in seconds.
    """

    def __init__(self, interval: float) -> None:
        self._gap = interval / ANSWERS
        self._announced = self._answered = float("-inf")
        self.due: float | None = None
        """When the addresses are announced once more."""

    def answer_at(self, now: float) -> float:
        """When the advert that is the answer leaves: ``now``, or as soon as another one may."""
        if now >= self._answered:
            self._answered = max(now, self._answered + self._gap)
        return self._answered

    def announce(self, now: float) -> bool:
        """Whether a set of announcements may leave now, which is counted if so. If not, one is due
        as soon as it may."""
        free = self._announced + ANNOUNCEMENTS
        if now < free - _ROUNDING:
            self.due = free if self.due is None else self.due
            return False
        self._announced = now
        return True

    def heard(self, now: float, silence: float) -> None:
        """Another master was heard: a set is due when it has been silent for ``silence``
        seconds."""
        self.due = max(now + silence, self._announced + ANNOUNCEMENTS)

    def end(self) -> None:
        """This router is not MASTER any more."""
        self.due = None
