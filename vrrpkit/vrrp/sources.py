"""Runs trackers: one task for each thing that is looked at, shared by all who look at it."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import attrs

from vrrpkit.vrrp.tracker import Signal, Tally, Tracker

__all__ = ["Trackers"]

log = logging.getLogger(__name__)

AGAIN = 5.0
"""Seconds after which a tracker that raised, or ended, is started again."""

Listener: TypeAlias = Callable[[Signal], None]


class _Source:
    """What one tracker looks at, while anybody wants to know."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._listeners: dict[object, Listener] = {}
        self._task: asyncio.Task[None] | None = None
        self.signal: Signal = None

    def listen(self, key: object, listener: Listener) -> None:
        self._listeners[key] = listener
        if self._task is None:
            self._task = asyncio.create_task(
                self._look(), name=f"vrrpkit: tracks {self._tracker.label}"
            )
        else:
            listener(self.signal)

    def unused_after(self, key: object) -> bool:
        """Whether nobody listens besides ``key``."""
        return not self._listeners.keys() - {key}

    async def leave(self, key: object) -> None:
        """Stop telling; when nobody listens any more, nothing is looked at."""
        self._listeners.pop(key, None)
        if self._listeners or self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.wait([task])

    async def _look(self) -> None:
        while True:
            try:
                await self._follow()
                log.warning("tracker %s ended; it is started again", self._tracker.label)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Not this task was cancelled, but something that the tracker waited for.
                self._failed()
            except Exception:
                self._failed()
            await asyncio.sleep(AGAIN)

    def _failed(self) -> None:
        log.exception("tracker %s failed", self._tracker.label)
        self._tell(False)

    async def _follow(self) -> None:
        signals = self._tracker.signals()
        try:
            async for signal in signals:
                self._tell(_checked(signal))
        finally:
            if isinstance(signals, AsyncGenerator):
                await signals.aclose()

    def _tell(self, signal: Signal) -> None:
        self.signal = signal
        for key, listener in list(self._listeners.items()):
            if key in self._listeners:
                listener(signal)


_sources: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Source]] = (
    WeakKeyDictionary()
)


def _checked(signal: object) -> Signal:
    if signal is None or isinstance(signal, int):
        return signal
    raise TypeError(f"a signal must be True, False, a whole number or None, not {signal!r}")


def _subject(tracker: Tracker) -> Hashable:
    """Equal for trackers that look at the same thing."""
    if "__attrs_attrs__" not in vars(type(tracker)):
        # Nobody knows what else a class has that attrs did not make.
        return _Identity(tracker)
    bare = attrs.evolve(tracker, weight=0, reverse=False, name="")
    try:
        hash(bare)
    except TypeError:
        return _Identity(tracker)
    return bare


@attrs.frozen(eq=False)
class _Identity:
    """Equal for one and the same object only, which it keeps alive."""

    tracker: Tracker

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.tracker is other.tracker

    def __hash__(self) -> int:
        return id(self.tracker)


class Trackers:
    """The trackers of one router or sync group, from :meth:`start` to :meth:`stop`.

    :param changed: called on every change of a signal after the start.
    """

    def __init__(self, trackers: Sequence[Tracker], changed: Callable[[], None]) -> None:
        self.trackers = tuple(trackers)
        self.tally = Tally(self.trackers)
        self._changed = changed
        self._started = False
        self._joined: list[tuple[Hashable, _Source]] = []

    async def start(self) -> None:
        """Begin to look; what needs no waiting is known on return."""
        if not self.trackers:
            return
        known = _sources.setdefault(asyncio.get_running_loop(), {})
        for place, tracker in enumerate(self.trackers):
            subject = _subject(tracker)
            source = known.get(subject)
            if source is None:
                source = known[subject] = _Source(tracker)
            self._joined.append((subject, source))
            source.listen((self, place), functools.partial(self._heard, place))
        await asyncio.sleep(0)
        self._started = True

    def _heard(self, place: int, signal: Signal) -> None:
        if self.tally.set(place, signal) and self._started:
            self._changed()

    async def stop(self) -> None:
        """Look no more; calling it twice is harmless."""
        self._started = False
        known = _sources.get(asyncio.get_running_loop(), {})
        joined, self._joined = self._joined, []
        for place, (subject, source) in enumerate(joined):
            if source.unused_after((self, place)) and known.get(subject) is source:
                # Out of the list first: whoever comes while this one ends begins anew.
                del known[subject]
            await source.leave((self, place))
