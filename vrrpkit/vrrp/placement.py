"""From when a router is MASTER until its addresses are in place: who wants to use them waits that
long, and no longer than :data:`PATIENCE`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vrrpkit.timers import Deadlines

__all__ = ["PATIENCE", "Placement"]

PATIENCE = 1.0
"""Seconds."""


class Placement:
    """Whether the addresses of a router that has become MASTER are on their way."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.pending = False
        """Whether it is MASTER, and the addresses are neither in place nor refused."""
        self._begun: list[Callable[[], None]] = []
        self._ended: list[Callable[[], None]] = []
        self._limit = deadlines.new(self.end)
        self._now = deadlines.now
        self._waiters: list[asyncio.Future[None]] = []

    def on_begin(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever it begins."""
        self._begun.append(callback)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever it ends, before those who wait go on."""
        self._ended.append(callback)

    def begin(self) -> None:
        """The router is MASTER."""
        self.pending = True
        self._limit.set(self._now() + PATIENCE)
        for begun in self._begun:
            begun()

    def end(self) -> None:
        """The addresses are in place, or refused, or the router is not MASTER any more; without
        effect when it has ended."""
        if not self.pending:
            return
        self.pending = False
        self._limit.set(None)
        # Who is told of it begins before who waits goes on, and perhaps leaves at once.
        for ended in self._ended:
            ended()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def over(self) -> None:
        """Wait for the end; return at once if there is nothing to wait for."""
        while self.pending:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """The router has left."""
        self.end()
        self._limit.drop()
