"""How often a neighbour may make a session do something: whoever can forge its packets decides how
many come, and not how much comes of them. Pure."""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """Allows ``burst`` at once, and ``rate`` a second in the long run."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether one more is allowed at ``now``; it counts, if it is."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
