"""An ordered queue that is worked off one item at a time, and never holds up who fills it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from vrrpkit.values import whole_number

__all__ = ["Lane"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class Lane(Generic[T]):
    """Does ``work`` for one item after the other, in order, and never for two at once.

    While work is slow, what waits is kept short: a newer item of the same ``kind`` takes the place
    of an older one and comes last, and beyond ``limit`` the oldest is dropped. A task exists only
    while there is something to do. What ``work`` raises is logged.

    :param kind: what may replace what; items of kind ``None`` all stay.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], Awaitable[None]],
        *,
        kind: Callable[[T], Hashable | None] = lambda _: None,
        limit: int = 100,
    ) -> None:
        whole_number("limit", limit, 1, 1_000_000, "items that may wait")
        self._name = name
        self._work = work
        self._kind = kind
        self._limit = limit
        self._waiting: list[T] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.replaced = 0
        """Items that a newer one of their kind took the place of."""
        self.dropped = 0
        """Items that were lost because too many waited, or when time was up at the end."""

    @property
    def busy(self) -> bool:
        """Whether something waits or is being done."""
        return self._task is not None

    def put(self, item: T) -> None:
        """Have something done; without effect after :meth:`close`."""
        if self._closed:
            return
        kind = self._kind(item)
        if kind is not None:
            kept = [other for other in self._waiting if self._kind(other) != kind]
            self.replaced += len(self._waiting) - len(kept)
            self._waiting = kept
        if len(self._waiting) >= self._limit:
            del self._waiting[0]
            self._lose(1)
        self._waiting.append(item)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"vrrpkit: {self._name}")

    def _lose(self, count: int) -> None:
        if count and not self.dropped:
            log.warning("%s is too slow: the oldest that waits is dropped", self._name)
        self.dropped += count

    async def _run(self) -> None:
        try:
            while self._waiting:
                item = self._waiting.pop(0)
                try:
                    await self._work(item)
                except Exception:
                    log.exception("%s failed on %s", self._name, item)
        finally:
            self._task = None

    def cancel(self) -> None:
        """Take nothing more, and drop what waits; what is being done is cancelled."""
        self._closed = True
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def close(self, timeout: float) -> None:
        """Take nothing more, and give what waits ``timeout`` seconds to be done."""
        self._closed = True
        task = self._task
        if task is None:
            return
        try:
            await asyncio.wait([task], timeout=timeout)
        finally:
            if not task.done():
                log.warning(
                    "%s is not done after %g s: %d left out",
                    self._name,
                    timeout,
                    len(self._waiting) + 1,
                )
                self.dropped += len(self._waiting) + 1
                self._waiting.clear()
                task.cancel()
                await asyncio.wait([task])
