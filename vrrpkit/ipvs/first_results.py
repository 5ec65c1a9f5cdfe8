"""Waits until every check of a pool has given a result."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from vrrpkit.errors import Closed

__all__ = ["Asking"]


class Asking:
    """Who waits for results, each for those that were missing when the wait began."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], set[tuple[str, int]]] = {}

    async def wait(self, missing: Iterable[tuple[str, int]]) -> None:
        """Wait for a result of each of these checks: the name of a server, and a number.

        :raises Closed: the virtual server ended before.
        """
        pending = set(missing)
        if not pending:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = pending
        try:
            await waiter
        finally:
            del self._waiters[waiter]

    def heard(self, name: str, number: int) -> None:
        """A check has given a result."""
        for waiter, pending in self._waiters.items():
            pending.discard((name, number))
            self._wake(waiter, pending)

    def gone(self, name: str) -> None:
        """A server is checked no more."""
        for waiter, pending in self._waiters.items():
            pending -= {check for check in pending if check[0] == name}
            self._wake(waiter, pending)

    def end(self, name: str) -> None:
        """The virtual server ``name`` ends."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(Closed(f"{name} has ended before every server was asked"))

    def _wake(self, waiter: asyncio.Future[None], pending: set[tuple[str, int]]) -> None:
        if not pending and not waiter.done():
            waiter.set_result(None)
