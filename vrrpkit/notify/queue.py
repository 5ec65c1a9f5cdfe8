"""An ordered queue that is worked off one item at a time, and never holds up who fills it."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from vrrpkit.lifecycle.callbacks import contain, is_own_end
from vrrpkit.lifecycle.shutdown import patience
from vrrpkit.lifecycle.worker import Worker

__all__ = ["CoalescingQueue"]

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that work which is cancelled may take to end."""

HURRIED = 0.5
"""Seconds for either, once somebody is in a hurry."""


class _Alone:
    """The key of an item that no other one replaces."""


class CoalescingQueue(Generic[T]):
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
        self._worker = Worker(f"vrrpkit: {name}", self._run, lambda: bool(self._waiting))
        self._closed = False
        self.replaced = 0
        """Items that a newer one of their kind took the place of."""
        self.dropped = 0
        """Items that were lost because too many waited, or when time was up at the end."""

    @property
    def busy(self) -> bool:
        """Whether something waits or is being done."""
        return self._worker.busy

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
        self._worker.start()

    def _drop(self, key: Hashable) -> None:
        del self._waiting[key]
        self._alone.pop(key, None)
        if not self.dropped:
            log.warning("%s is too slow: the oldest that waits is dropped", self._name)
        self.dropped += 1

    async def _run(self) -> None:
        while self._waiting:
            key, item = self._waiting.popitem(last=False)
            alone = key in self._alone
            self._alone.pop(key, None)
            try:
                await self._work(item)
            except BaseException as problem:
                if is_own_end(problem):
                    # By somebody who cancels all tasks, perhaps: then it is done again.
                    self._put_back(key, item, alone=alone)
                    raise
                contain(problem, log, "%s failed on %s", self._name, item)

    def _put_back(self, key: Hashable, item: T, *, alone: bool) -> None:
        if self._worker.stopped or key in self._waiting:
            return
        self._waiting[key] = item
        self._waiting.move_to_end(key, last=False)
        if alone:
            self._alone[key] = None
            self._alone.move_to_end(key, last=False)

    def _forget(self) -> None:
        self._waiting.clear()
        self._alone.clear()

    def cancel(self) -> None:
        """Take nothing more, and drop what waits; what is being done is cancelled."""
        self._closed = True
        self._forget()
        self._worker.cancel()

    async def close(self, timeout: float) -> None:
        """Take nothing more, and give what waits ``timeout`` seconds to be done."""
        self._closed = True
        try:
            with contextlib.suppress(TimeoutError):
                async with patience(timeout, HURRIED):
                    await self._worker.idle()
        finally:
            if self._worker.busy:
                log.warning(
                    "%s is not done after %g s: %d left out",
                    self._name,
                    timeout,
                    len(self._waiting) + 1,
                )
                self.dropped += len(self._waiting) + 1
                self._forget()
                self._worker.cancel()
                with contextlib.suppress(TimeoutError):
                    async with patience(PATIENCE, HURRIED):
                        await self._worker.idle()
