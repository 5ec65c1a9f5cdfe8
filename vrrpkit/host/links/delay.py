"""When a link that came up, or went down, counts as being so. Pure.

A switch port may take 5 to 50 s after link up until it forwards: spanning tree, LACP, port
security. A router that takes part at once hears nobody there, and becomes a second MASTER.
"""

from __future__ import annotations

__all__ = ["LinkDelay"]

_EPSILON = 1e-6


class LinkDelay:
    """Follows one link (keepalived: ``interface_up_down_delays``). What is seen first counts at
    once.

    :param up: seconds that the link must have been up before it counts as up.
    :param down: seconds that it must have been down before it counts as down.
    """

    def __init__(self, up: float, down: float) -> None:
        self._up = up
        self._down = down
        self._counts: bool | None = None
        self.due: float | None = None
        """When the present state begins to count, if it does not yet."""

    def see(self, up: bool, now: float, *, gone: bool = False) -> bool:
        """Take in how the link is at ``now``; whether it counts as up.

        :param gone: there is no such interface: that counts at once.
        """
        if self._counts is None or gone:
            self._counts, self.due = up and not gone, None
        elif up is self._counts:
            self.due = None
        else:
            if self.due is None:
                self.due = now + (self._up if up else self._down)
            if now + _EPSILON >= self.due:
                self._counts, self.due = up, None
        return self._counts
