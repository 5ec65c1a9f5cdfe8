"""So many beginnings in one turn of the event loop, and the others in the next ones.

To start a program takes a millisecond, and nobody knows what the first step of somebody's coroutine
does. A thousand of them that are due at once would hold up adverts and timers for as long as all of
them take; in turns, the loop has its own work done in between.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakKeyDictionary

__all__ = ["Turns", "spawning"]

SPAWNS = 2
"""Programs started in one turn, each a millisecond or two."""


class Turns:
    """Begins things in the order in which they came, so many in a turn.

    :param limit: how many, from 1.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._waiting: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self._expected = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self, key: object, begin: Callable[[], None]) -> None:
        """Call ``begin`` now if fewer than the limit have begun in this turn, else in a later."""
        if self._left and not self._waiting:
            self._left -= 1
            self._expect()
            begin()
        else:
            self._waiting[key] = begin
            self._expect()

    def withdraw(self, key: object) -> bool:
        """Wait no longer; whether it did."""
        return self._waiting.pop(key, None) is not None

    def _expect(self) -> None:
        if not self._expected:
            self._expected = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._expected = False
        self._left = self._limit
        while self._left and self._waiting:
            _key, begin = self._waiting.popitem(last=False)
            self._left -= 1
            self._expect()
            begin()


_spawning: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


async def spawning() -> None:
    """Wait until this turn of the event loop has room for the start of another program."""
    loop = asyncio.get_running_loop()
    turns = _spawning.get(loop)
    if turns is None:
        turns = _spawning[loop] = Turns(SPAWNS)
    free: asyncio.Future[None] = loop.create_future()

    def begin() -> None:
        if not free.done():
            free.set_result(None)

    turns.enter(free, begin)
    try:
        await free
    finally:
        turns.withdraw(free)
