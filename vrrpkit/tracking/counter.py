"""Counts passed and failed runs of something that is tried again and again. Pure.

The rules are those of keepalived's ``vrrp_script``: ``rise`` successes in a row bring it up,
``fall`` failures in a row bring it down, one success forgives all failures before, and the very
first result counts at once.
"""

from __future__ import annotations

__all__ = ["Counter"]


class Counter:
    """One number from 0 to rise + fall - 1; from ``rise`` on the thing is up.

    :param rise: successes in a row that bring it up, from 1.
    :param fall: failures in a row that bring it down, from 1.
    :param initially: ``None``: not known, and the first result decides; ``False``: down, and it
        takes ``rise`` successes (``init_fail``); ``True``: up, and it takes ``fall`` failures.
    """

    def __init__(self, rise: int, fall: int, initially: bool | None = None) -> None:
        self._rise = rise
        self._top = rise + fall - 1
        self._known = initially is not None
        self._value = rise - 1 if initially is None else self._top if initially else 0

    @property
    def up(self) -> bool | None:
        """Whether the thing is up; ``None`` until that is known."""
        return self._value >= self._rise if self._known else None

    def count(self, passed: bool) -> None:
        """Take one result in."""
        up = self._value >= self._rise
        self._known = True
        if passed:
            self._value += 1
            if up or self._value >= self._rise:
                self._value = self._top
        elif up and self._value > self._rise:
            self._value -= 1
        else:
            self._value = 0
