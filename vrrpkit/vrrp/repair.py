"""How often a router mends what others break before it gives way. Pure."""

from __future__ import annotations

from collections import deque

__all__ = ["Backoff", "LossWindow"]


class LossWindow:
    """Counts the occasions on which virtual addresses were removed by somebody else.

    :param limit: occasions within ``window`` seconds that are repaired.
    :param together: losses within so many seconds are one occasion: one command may remove twenty
        addresses.
    """

    def __init__(self, limit: int = 3, window: float = 10.0, together: float = 0.1) -> None:
        self._occasions: deque[float] = deque(maxlen=limit)
        self._limit = limit
        self._window = window
        self._together = together

    def exhausted(self, now: float) -> bool:
        """Note a loss; whether it is one too many."""
        if self._occasions and now - self._occasions[-1] < self._together:
            return False
        full = len(self._occasions) == self._limit and now - self._occasions[0] < self._window
        self._occasions.append(now)
        return full

    def clear(self) -> None:
        """Forget every loss."""
        self._occasions.clear()


class Backoff:
    """Seconds to wait before the next try: doubled each time, up to ``most``."""

    def __init__(self, first: float = 5.0, most: float = 300.0) -> None:
        self._first = first
        self._most = most
        self._next = first

    @property
    def idle(self) -> bool:
        """Whether there is nothing to reset."""
        return self._next == self._first

    def next(self) -> float:
        """The wait before the coming try."""
        wait, self._next = self._next, min(2 * self._next, self._most)
        return wait

    def reset(self) -> None:
        """It worked: start small again."""
        self._next = self._first
