"""A queue for each thing that is told of, so that slow news of one holds up no other's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from vrrpkit.leaving import all_to_the_end
from vrrpkit.notify.lane import Lane

__all__ = ["Lanes"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class Lanes(Generic[T]):
    """Does ``work`` for items of different subjects side by side, and for those of one subject in
    order and never for two at once.

    :param subject: what an item is about.
    :param kind: what may replace what among the items of one subject, as in :class:`Lane`.
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
        self._lanes: dict[Hashable, Lane[T]] = {}
        self._prune_at = 64
        self._closed = False
        self._dropped = 0
        """Items that were dropped because too many subjects waited, and those of lanes that have
        gone."""

    @property
    def busy(self) -> bool:
        """Whether something waits or is being done."""
        return any(lane.busy for lane in self._lanes.values())

    @property
    def dropped(self) -> int:
        """Items that were lost because too much waited, or when time was up at the end."""
        return self._dropped + sum(lane.dropped for lane in self._lanes.values())

    def put(self, item: T) -> None:
        """Have something done; without effect after :meth:`close`."""
        if self._closed:
            return
        subject = self._subject(item)
        lane = self._lanes.get(subject)
        if lane is None:
            lane = self._lane()
            if lane is None:
                return
            self._lanes[subject] = lane
        lane.put(item)

    def _lane(self) -> Lane[T] | None:
        """A lane for one more subject, if there is room."""
        if len(self._lanes) >= min(self._prune_at, self._limit):
            self._prune()
        if len(self._lanes) >= self._limit:
            if not self._dropped:
                log.warning("%s are too slow: what is new is dropped", self._name)
            self._dropped += 1
            return None
        return Lane(self._name, self._one, kind=self._kind)

    def _prune(self) -> None:
        """Forget lanes with nothing in them. Twice as many as are left must come before the next
        time, so that it costs the same for each."""
        for subject, lane in list(self._lanes.items()):
            if not lane.busy:
                self._dropped += lane.dropped
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
        for lane in self._lanes.values():
            lane.cancel()

    async def close(self, timeout: float) -> None:
        """Take nothing more, and give what waits ``timeout`` seconds to be done."""
        self._closed = True
        busy = [lane for lane in self._lanes.values() if lane.busy]
        await all_to_the_end(
            {
                f"vrrpkit: {self._name} end ({number})": lane.close(timeout)
                for number, lane in enumerate(busy, 1)
            }
        )
