"""From attempts to a verdict: retry, rise and fall. Pure.

The rules are keepalived's where it has them: a server starts as healthy and its first failed
attempt is final at once; later it takes ``retry`` + 1 failed attempts in a row. ``retry`` defends a
server that is up; one that is down is asked once in each check. ``rise`` and ``fall`` count whole
checks; keepalived knows neither, which is 1 for both.
"""

from __future__ import annotations

import enum

__all__ = ["Health", "HealthStep"]


class HealthStep(enum.Enum):
    """What an attempt led to."""

    RETRY = "retry"
    """The check goes on with another attempt."""
    SAME = "same"
    """The check has ended, and the verdict is the one before."""
    CHANGED = "changed"
    """The check has ended, and the verdict is another one."""


class Health:
    """The verdict on one server by one checker.

    :param rise: checks that must pass in a row before a server that is down is up, from 1.
    :param fall: checks that must fail in a row before a server that is up is down, from 1.
    :param retry: further attempts of a check after one that failed, while the server is up; from 0.
    :param alpha: start as down, not as up on trust (keepalived: ``alpha``).
    :param seen: start as up because it was seen so, by an earlier run: then not even the first
        failed attempt is final.
    """

    __slots__ = ("_failed", "_fall", "_retry", "_rise", "_row", "_trusted", "up")

    def __init__(
        self,
        *,
        rise: int = 1,
        fall: int = 1,
        retry: int = 0,
        alpha: bool = False,
        seen: bool = False,
    ):
        self._rise = rise
        self._fall = fall
        self._retry = retry
        self._failed = 0
        self._row = 0
        self._trusted = not (alpha or seen)
        self.up = not alpha
        """The verdict: whether the server counts as healthy."""

    def attempt(self, passed: bool, *, last: bool = False) -> HealthStep:
        """An attempt has ended.

        :param last: there is no time for another one, whatever ``retry`` says.
        """
        if self._trusted:
            # Nobody has seen this server healthy yet: there is no state to defend.
            self._trusted = False
            if not passed:
                self.up = False
                return HealthStep.CHANGED
        if not passed and not last and self.up and self._failed < self._retry:
            self._failed += 1
            return HealthStep.RETRY
        self._failed = 0
        if passed is self.up:
            self._row = 0
            return HealthStep.SAME
        self._row += 1
        if self._row < (self._rise if passed else self._fall):
            return HealthStep.SAME
        self._row = 0
        self.up = passed
        return HealthStep.CHANGED

    def restart(self) -> None:
        """The check was abandoned: its failed attempts do not count in the next one."""
        self._failed = 0
