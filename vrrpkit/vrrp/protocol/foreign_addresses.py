"""Virtual addresses that are on the host of a router which is not MASTER, because somebody else put
them there. Pure.

Such a host answers for the address next to the master, and uses it itself. A killed keepalived
leaves addresses so, and people and boot scripts put them there.
"""

from __future__ import annotations

import attrs

from vrrpkit.values import IPAddress, State
from vrrpkit.vrrp.protocol.recovery import LossWindow

__all__ = ["LEFT", "REMOVED", "ForeignState", "MisplacedAddress"]

LEFT = "left there"
REMOVED = "removed"

AGAIN = 10.0
"""Seconds after which an address is removed again that somebody puts back each time."""


@attrs.frozen
class MisplacedAddress:
    """A virtual address where it should not be now."""

    device: str
    address: IPAddress
    prefix: int
    """The prefix length that it has there."""

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix} dev {self.device}"


NOBODY: frozenset[MisplacedAddress] = frozenset()


class ForeignState:
    """Decides what is told, and what is removed.

    :param remove: remove it, three times in ten seconds at most.
    """

    def __init__(self, *, remove: bool) -> None:
        self._remove = remove
        self._removals = LossWindow()
        self.present = NOBODY
        """What is there, and was told."""
        self.retry_at: float | None = None
        """When what was left, for it comes back each time, is looked at again."""

    def look(
        self, found: frozenset[MisplacedAddress], state: State, now: float
    ) -> list[MisplacedAddress]:
        """Take in what is on the host; what is to be told, and removed if :meth:`may_remove`."""
        if state not in (State.BACKUP, State.FAULT):
            # A MASTER uses it in place. When it stops being one, that is news.
            self.present, self.retry_at = NOBODY, None
            return []
        again = self.retry_at is not None and now >= self.retry_at
        if again:
            self.retry_at = None
        new = found if again else found - self.present
        self.present = found
        return sorted(new, key=str)

    def may_remove(self, now: float) -> bool:
        """Whether an address that is new may be removed now."""
        if not self._remove:
            return False
        if self._removals.exhausted(now):
            self.retry_at = now + AGAIN
            return False
        return True
