"""How many attempts run at the same time. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

__all__ = ["ConcurrencyLimit"]


class ConcurrencyLimit:
    """How many attempts may run at the same time; the others wait in the order they came."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._waiting: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self._calling = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self, key: object, begin: Callable[[], None]) -> None:
        """Call ``begin`` as soon as there is room; it counts as in from then on."""
        if self.taken < self.limit and not self._waiting:
            self.taken += 1
            begin()
        else:
            self._waiting[key] = begin

    def withdraw(self, key: object) -> None:
        """Wait no longer."""
        self._waiting.pop(key, None)

    def leave(self) -> None:
        """Make room."""
        self.taken -= 1
        # One that ends while it begins comes back here: a queue of those must not become a stack.
        if self._calling or not self._waiting:
            return
        self._calling = True
        try:
            while self._waiting and self.taken < self.limit:
                _key, begin = self._waiting.popitem(last=False)
                self.taken += 1
                begin()
        finally:
            self._calling = False
