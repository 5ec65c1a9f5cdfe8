"""An ordered queue that is worked off one item at a time, and never holds up who fills it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Lane"]

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that work which is cancelled may take to end."""


class _Alone:
    """The key of an item that no other one replaces."""


class Lane(Generic[T]):
    """Does ``work`` for one item after the other, in order, and never for two at once.

    While work is slow, what waits is kept short: a newer item of the same ``kind`` takes the place
    of an older one and comes last, so that of each kind there is one. A task exists only while
    there is something to do. What ``work`` raises is logged.

    :param kind: what may replace what; items of kind ``None`` all stay.
    :param limit: items of kind ``None`` that wait; beyond, the oldest of them is dropped.
    :param kinds: kinds that wait; beyond, the oldest is dropped. Far more than there are, or news
        of one thing would push out another's.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], Awaitable[None]],
        *,
        kind: Callable[[T], Hashable | None] = lambda _: None,
        limit: int = 100,
        kinds: int = 10_000,
    ) -> None:
        self._name = name
        self._work = work
        self._kind = kind
        self._limit = limit
        self._kinds = kinds
        self._waiting: OrderedDict[Hashable, T] = OrderedDict()
        self._alone: OrderedDict[Hashable, None] = OrderedDict()
        """The keys of those of kind ``None``."""
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
        if kind is None:
            kind = _Alone()
            if len(self._alone) >= self._limit:
                self._drop(next(iter(self._alone)))
            self._alone[kind] = None
        elif kind in self._waiting:
            del self._waiting[kind]
            self.replaced += 1
        elif len(self._waiting) - len(self._alone) >= self._kinds:
            self._drop(next(key for key in self._waiting if key not in self._alone))
        self._waiting[kind] = item
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"vrrpkit: {self._name}")

    def _drop(self, key: Hashable) -> None:
        del self._waiting[key]
        self._alone.pop(key, None)
        if not self.dropped:
            log.warning("%s is too slow: the oldest that waits is dropped", self._name)
        self.dropped += 1

    async def _run(self) -> None:
        try:
            while self._waiting:
                key, item = self._waiting.popitem(last=False)
                self._alone.pop(key, None)
                try:
                    await self._work(item)
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    # Not this task was cancelled, but something that the work waited for.
                    log.exception("%s failed on %s", self._name, item)
                except Exception:
                    log.exception("%s failed on %s", self._name, item)
        finally:
            self._task = None

    def _forget(self) -> None:
        self._waiting.clear()
        self._alone.clear()

    def cancel(self) -> None:
        """Take nothing more, and drop what waits; what is being done is cancelled."""
        self._closed = True
        self._forget()
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
                self._forget()
                task.cancel()
                await asyncio.wait([task], timeout=PATIENCE)
