"""One heap of deadlines for everything on a host, and the alarm that wakes it.

Deadlines move far more often than they fire: every advert heard pushes one back. So moving one
later costs an attribute; the heap learns of it when the old time surfaces.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Protocol

__all__ = ["AGAIN", "Alarm", "Deadline", "Deadlines", "LoopAlarm"]

TURN = 0.003
"""Seconds for which deadlines fire in one turn of the event loop. Of hundreds of routers that take
over at once, the first have their addresses before the last have sent an advert."""

AGAIN = 0.001
"""Seconds after which a deadline is looked at again that waits for a socket to be read."""

SWEEP = 32
"""Entries of deadlines that were dropped, at which they may be swept out of the heap."""

_ROUNDING = 1e-6
"""A multiple of a step that was computed in another way may come out a little less."""


class Alarm(Protocol):
    """Wakes a heap of deadlines, and owns the clock that they are told in."""

    def now(self) -> float:
        """Seconds of the clock."""
        ...

    def arm(self, when: float, wake: Callable[[], None]) -> None:
        """Call ``wake`` at ``when``, and forget any earlier order."""
        ...

    def close(self) -> None:
        """Forget the order and free what the alarm holds."""
        ...


class LoopAlarm:
    """An alarm on the running loop's own clock: right for memory and for virtual time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self.now = self._loop.time

    def arm(self, when: float, wake: Callable[[], None]) -> None:
        self.close()
        self._handle = self._loop.call_at(when, wake)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Deadline:
    """One moment at which a callback is due; made by :meth:`Deadlines.new`."""

    __slots__ = ("_heap", "_queued", "callback", "slack", "step", "when")

    def __init__(self, heap: Deadlines, callback: Callable[[], None]) -> None:
        self._heap = heap
        self._queued: float | None = None
        self.callback = callback
        self.when: float | None = None
        self.slack = 0.0
        self.step = 0.0

    def set(
        self,
        when: float | None,
        slack: float = 0.0,
        step: float = 0.0,
        *,
        look: float | None = None,
    ) -> None:
        """Be due at ``when``, or never. Up to ``slack`` seconds earlier will do, so that one
        wake-up serves many: at a multiple of ``step``, if there is one and the heap herds.

        :param look: when it will probably have been set to by then, if that is earlier. The heap
            looks at it there, without calling anybody, and until then keeps one entry of it and not
            two.
        """
        self.when = when
        self.slack = slack
        self.step = step
        if when is None:
            return
        if step and self._heap.herds:
            when = max(when - slack, math.floor(when / step + _ROUNDING) * step)
            if look is not None:
                look = math.floor(look / step + _ROUNDING) * step
        if look is not None and look < when:
            when = look
        if self._queued is None or when < self._queued:
            self._heap.push(self, when)
            self._queued = when

    def queued_at(self, when: float) -> bool:
        """Whether the heap entry at ``when`` is the live one of this deadline."""
        return self._queued == when

    def drop(self) -> None:
        """Be due never again. Nothing is kept of whom it would have called, even where its moment
        is hours away."""
        self.when = None
        self.callback = _nothing
        if self._queued is not None:
            self._queued = None
            self._heap.dropped()

    def surfaced(self, when: float) -> bool:
        """Whether the heap entry at ``when`` is the live one of this deadline."""
        if self._queued != when:
            return False
        self._queued = None
        return True


def _nothing() -> None:
    """What a deadline calls that was dropped."""


class Deadlines:
    """All deadlines of one host. ``drains`` are called before any may fire: an advert that waits in
    a socket counts before the silence that its lateness would mean.

    A drain may stop before its socket is empty, for a flood must not keep what is due from being
    done. It then returns up to when it has read, and :attr:`heard_to` is the earliest of these: who
    waits for silence goes on waiting until it has passed the end of that silence.

    :param herds: move deadlines with slack towards common moments.
    """

    def __init__(self, alarm: Alarm, *, herds: bool = False) -> None:
        self.herds = herds
        self._alarm = alarm
        self.now: Callable[[], float] = alarm.now
        """Seconds of the host's clock: it runs while the machine sleeps, and never jumps back."""
        self._heap: list[tuple[float, int, Deadline]] = []
        self._serial = 0
        self._dropped = 0
        self._armed: float | None = None
        self._waking = False
        self.woken_at = 0.0
        """When the deadlines that fire now began to: a little earlier than :meth:`now`."""
        self.heard_to = math.inf
        """What arrived on this host before this moment was delivered before the deadlines that fire
        now."""
        self.drains: dict[object, Callable[[], float | None]] = {}

    def new(self, callback: Callable[[], None]) -> Deadline:
        """A deadline that is not set yet."""
        return Deadline(self, callback)

    def push(self, deadline: Deadline, when: float) -> None:
        """Queue one entry; called by :class:`Deadline`."""
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, deadline))
        if not self._waking and (self._armed is None or when < self._armed):
            self._arm(when)

    def dropped(self) -> None:
        """An entry will call nobody; called by :class:`Deadline`."""
        self._dropped += 1
        # The half at most are such, and each costs a small share of a sweep.
        if self._dropped > SWEEP and self._dropped * 2 > len(self._heap):
            self._dropped = 0
            heap = self._heap
            heap[:] = [entry for entry in heap if entry[2].queued_at(entry[0])]
            heapq.heapify(heap)

    def _arm(self, when: float) -> None:
        self._armed = when
        self._alarm.arm(when, self._wake)

    def _wake(self) -> None:
        self._armed = None
        self._waking = True
        problem: BaseException | None = None
        try:
            read: list[float | None] = []
            for drain in list(self.drains.values()):
                try:
                    read.append(drain())
                except BaseException as bug:
                    # One that fails each time must not keep all deadlines from ever firing.
                    problem = problem or bug
            self.heard_to = min((to for to in read if to is not None), default=math.inf)
            self._fire(self.now())
            if problem is not None:
                raise problem
        finally:
            self._waking = False
            if self._heap:
                self._arm(self._heap[0][0])

    def _fire(self, now: float) -> None:
        self.woken_at = now
        heap = self._heap
        end = now + TURN
        fired = 0
        while heap:
            queued, _serial, deadline = heap[0]
            when = deadline.when
            if queued > now and when is not None and when > now + deadline.slack:
                return
            heapq.heappop(heap)
            if not deadline.surfaced(queued) or deadline.when is None:
                continue
            if deadline.when > now + deadline.slack:
                deadline.set(deadline.when, deadline.slack, deadline.step)
                continue
            deadline.when = None
            deadline.callback()
            fired += 1
            # Not each time: the clock takes as long as many a callback.
            if not fired % 8 and self.now() > end:
                return

    def close(self) -> None:
        """Forget every deadline."""
        self._heap.clear()
        self._alarm.close()
        self._armed = None
