"""A queue for each thing that is told of, so that slow news of one holds up no other's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from vrrpkit.lifecycle.leaving import all_shielded
from vrrpkit.notify.queue import CoalescingQueue

__all__ = ["CoalescingQueues"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class CoalescingQueues(Generic[T]):
    """Does ``work`` for items of different subjects side by side, and for those of one subject in
    order and never for two at once.

    :param subject: what an item is about.
    :param kind: what may replace what among the items of one subject, as in
    :class:`CoalescingQueue`.
    :param urgent: which items are worked on at once, whatever else is being done.
    :param at_once: how many that are not urgent are worked on at the same time.
    :param limit: subjects about which something waits; beyond, what is new about another one is
        dropped.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], Awaitable[None]],
        *,
        subject: Callable[[T], Hashable],
        kind: Callable[[T], Hashable | None],
        urgent: Callable[[T], bool],
        at_once: int,
        limit: int,
    ) -> None:
        self._name = name
        self._work = work
        self._subject = subject
        self._kind = kind
        self._urgent = urgent
        self._limit = limit
        self._slots = asyncio.Semaphore(at_once)
        self._lanes: dict[Hashable, CoalescingQueue[T]] = {}
        self._prune_at = 64
        self._closed = False
        self._dropped = 0
        """Items that were dropped because too many subjects waited, and those of lanes that have
        gone."""

    @property
    def busy(self) -> bool:
        """Whether something waits or is being done."""
        return any(queue.busy for queue in self._lanes.values())

    @property
    def dropped(self) -> int:
        """Items that were lost because too much waited, or when time was up at the end."""
        return self._dropped + sum(queue.dropped for queue in self._lanes.values())

    def put(self, item: T) -> None:
        """Have something done; without effect after :meth:`close`."""
        if self._closed:
            return
        subject = self._subject(item)
        queue = self._lanes.get(subject)
        if queue is None:
            queue = self._queue()
            if queue is None:
                return
            self._lanes[subject] = queue
        queue.put(item)

    def _queue(self) -> CoalescingQueue[T] | None:
        """A lane for one more subject, if there is room."""
        if len(self._lanes) >= min(self._prune_at, self._limit):
            self._prune()
        if len(self._lanes) >= self._limit:
            if not self._dropped:
                log.warning("%s are too slow: what is new is dropped", self._name)
            self._dropped += 1
            return None
        return CoalescingQueue(self._name, self._one, kind=self._kind)

    def _prune(self) -> None:
        """Forget lanes with nothing in them. Twice as many as are left must come before the next
        time, so that it costs the same for each."""
        for subject, queue in list(self._lanes.items()):
            if not queue.busy:
                self._dropped += queue.dropped
                del self._lanes[subject]
        self._prune_at = max(64, 2 * len(self._lanes))

    async def _one(self, item: T) -> None:
        if self._urgent(item):
            await self._work(item)
            return
        async with self._slots:
            await self._work(item)

    def cancel(self) -> None:
        """Take nothing more, and drop what waits; what is being done is cancelled."""
        self._closed = True
        for queue in self._lanes.values():
            queue.cancel()

    async def close(self, timeout: float) -> None:
        """Take nothing more, and give what waits ``timeout`` seconds to be done."""
        self._closed = True
        busy = [queue for queue in self._lanes.values() if queue.busy]
        await all_shielded(
            {
                f"vrrpkit: {self._name} end ({number})": queue.close(timeout)
                for number, queue in enumerate(busy, 1)
            }
        )
