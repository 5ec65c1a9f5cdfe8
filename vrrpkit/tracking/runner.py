"""Runs trackers: one task for each thing that is looked at, shared by all who look at it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from typing import TypeAlias, cast

import attrs

from vrrpkit.errors import VRRPKitError
from vrrpkit.eventlog import EventLog
from vrrpkit.lifecycle.callbacks import is_own_end, pass_on
from vrrpkit.lifecycle.shutdown import patience
from vrrpkit.lifecycle.worker import Worker
from vrrpkit.local_errors import Complaints, advised, own_trouble
from vrrpkit.runtime import Runtime
from vrrpkit.tracking.tracker import Signal, Tracker, TrackerState, is_fault

__all__ = ["Reasons", "TrackerRunner", "complain"]

log = logging.getLogger(__name__)

AGAIN = 5.0
"""Seconds after which a tracker that raised, or ended, is started again."""

FIRST = 0.5
"""Seconds for the first signal of a tracker; without it, whoever then starts begins in FAULT."""

GRACE = 15.0
"""Seconds that trackers may take to end, after which they are left alone."""

HURRIED = 0.5
"""The same in seconds, once somebody is in a hurry."""

Listener: TypeAlias = Callable[[Signal], None]


@attrs.frozen(kw_only=True)
class TrackerSignal:
    """A tracker gives another signal than before. For the log: routers tell what comes of it."""

    tracker: str
    at: float
    signal: str
    """``good``, ``bad``, ``not known``, or a number."""

    def __str__(self) -> str:
        return f"tracker {self.tracker} is {self.signal}"


@attrs.frozen(kw_only=True)
class TrackerReason:
    """What a tracker found that makes its signal bad. For the log."""

    tracker: str
    why: str

    def __str__(self) -> str:
        return f"{self.tracker}: {self.why}"


class Reasons:
    """Logs why a tracker's signal turns bad, at a bounded rate.

    :param label: the tracker's.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._log = EventLog(log)
        self._bad = False

    def look(self, why: str) -> bool:
        """Whether the signal is good, which it is without a reason why it is not; one that is bad
        is logged when it was good before."""
        if why and not self._bad:
            self._log.tell(TrackerReason(tracker=self._label, why=why))
        self._bad = bool(why)
        return not why


def complain(complaints: Complaints, label: str, problem: BaseException, now: float) -> None:
    """Log that a tracker could not look, for a reason that is ours, unless it has been said."""
    number: object = getattr(problem, "errno", None)
    left_out = complaints.worth(number or type(problem), now)
    log.log(
        logging.DEBUG if left_out is None else logging.WARNING,
        "tracker %s cannot look, and what it said last holds on: %s",
        label,
        advised(
            str(problem) or type(problem).__name__, number if isinstance(number, int) else None
        ),
    )


class _Source:
    """What one tracker looks at, while anybody wants to know."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._listeners: dict[object, Listener] = {}
        self._worker = Worker(
            f"vrrpkit: tracks {tracker.label}", self._look, lambda: bool(self._listeners)
        )
        self._reason = ""
        self._log = EventLog(log)
        self._complaints = Complaints()
        self._told = False
        self.signal: Signal = None
        now = asyncio.get_running_loop().time()
        self.expected_by = now + max(FIRST, tracker.settling)
        """Until when its first signal, or the first that is no fault, is worth waiting for."""

    def listen(self, key: object, listener: Listener) -> None:
        self._listeners[key] = listener
        self._worker.start()
        if self._told:
            listener(self.signal)

    def leave(self, key: object) -> Worker | None:
        """Stop telling. When nobody listens any more, nothing is looked at: what ends then."""
        self._listeners.pop(key, None)
        if self._listeners or self._worker.stopped:
            return None
        self._worker.cancel()
        return self._worker

    async def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        self._listeners.clear()
        self._worker.cancel()
        with contextlib.suppress(TimeoutError):
            async with patience(GRACE, HURRIED):
                await self._worker.idle()

    async def _look(self) -> None:
        # A tracker may have taken the cancellation for something else.
        while self._listeners:
            try:
                await self._follow()
                if self._listeners:
                    self._complain("ended", None)
            except BaseException as problem:
                if is_own_end(problem):
                    raise
                self._failed(problem)
                if isinstance(problem, KeyboardInterrupt | SystemExit):
                    pass_on(problem)
            if self._listeners:
                await asyncio.sleep(AGAIN)

    def _failed(self, problem: BaseException) -> None:
        if own_trouble(problem):
            # That says nothing about what is looked at.
            now = asyncio.get_running_loop().time()
            complain(self._complaints, self._tracker.label, problem, now)
            return
        self._complain("failed", problem)
        self._tell(False)

    def _complain(self, what: str, problem: BaseException | None) -> None:
        """Log why a tracker is started again; the same again and again is worth one line."""
        reason = f"{what}: {type(problem).__name__}: {problem}" if problem else what
        repeated, self._reason = reason == self._reason, reason
        # What the host lacks is told in words; the rest is a bug, and shows where.
        expected = problem is None or isinstance(problem, VRRPKitError | OSError)
        log.log(
            logging.DEBUG if repeated else logging.WARNING if expected else logging.ERROR,
            "tracker %s %s; it is started again every %g s",
            self._tracker.label,
            reason,
            AGAIN,
            exc_info=None if expected or repeated else problem,
        )

    def _note(self, signal: Signal) -> None:
        """Log a change of what is looked at, which moves priorities and addresses."""
        words = {True: "good", False: "bad", None: "not known"}
        word = words[signal] if signal is None or isinstance(signal, bool) else str(signal)
        # At the start a good one is as it should be.
        if self._told or signal is not True:
            at = asyncio.get_running_loop().time()
            self._log.tell(TrackerSignal(tracker=self._tracker.label, at=at, signal=word))

    async def _follow(self) -> None:
        signals = self._tracker.signals()
        try:
            async for signal in signals:
                if not self._listeners:
                    return
                if signal is not None and not isinstance(cast(object, signal), int):
                    # Now, for the generator may take its time to end.
                    self._tell(False)
                    raise TypeError(
                        f"a signal must be True, False, a whole number or None, not {signal!r}"
                    )
                self._tell(signal)
        finally:
            if isinstance(signals, AsyncGenerator):
                await signals.aclose()

    def _tell(self, signal: Signal) -> None:
        # The value may be as before and of another type: 1 is no True.
        if not self._told or signal is not self.signal:
            self._note(signal)
        self.signal, self._told = signal, True
        for key, listener in list(self._listeners.items()):
            if key in self._listeners:
                listener(signal)


def _subject(tracker: Tracker) -> Hashable:
    """Equal for trackers that look at the same thing."""
    kind = type(tracker)
    if "__attrs_attrs__" not in vars(kind) or kind.__hash__ is object.__hash__:
        # Nobody knows what else a class has that attrs did not make, or does not compare.
        return _TrackerIdentity(tracker)
    # A copy, not made anew: what was checked then need not be so any more.
    bare = copy.copy(tracker)
    for name, value in (("weight", 0), ("reverse", False), ("name", "")):
        object.__setattr__(bare, name, value)
    try:
        hash(bare)
    except TypeError:
        return _TrackerIdentity(tracker)
    return bare


@attrs.frozen(eq=False)
class _TrackerIdentity:
    """Equal for one and the same object only, which it keeps alive."""

    tracker: Tracker

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TrackerIdentity) and self.tracker is other.tracker

    def __hash__(self) -> int:
        return id(self.tracker)


class TrackerRunner:
    """The trackers of one router or sync group, from :meth:`start` to :meth:`stop`.

    :param changed: called on every change of a signal after the start.
    """

    def __init__(self, trackers: Sequence[Tracker], changed: Callable[[], None]) -> None:
        self.trackers = tuple(trackers)
        self.tally = TrackerState(self.trackers)
        self._changed = changed
        self._started = False
        self._joined: list[tuple[Hashable, _Source]] = []
        self._awaited: dict[int, _Source] = {}
        self._news: asyncio.Event | None = None

    async def start(self) -> None:
        """Begin to look. What needs no waiting is known on return, and with weight 0 what comes
        within :data:`FIRST` seconds, or what is no fault within the tracker's ``settling``: an
        ordinary start is no FAULT. Routers that share a tracker share that time, lest a hundred of
        them wait in turn."""
        if not self.trackers:
            return
        runtime = Runtime.current()
        for place, tracker in enumerate(self.trackers):
            subject = _subject(tracker)
            source = runtime.use(_Source, subject, functools.partial(_Source, tracker))
            self._joined.append((subject, source))
            if not tracker.weight:
                self._awaited[place] = source
            source.listen((self, place), functools.partial(self._heard, place))
        await asyncio.sleep(0)
        # Made here: most routers have no tracker, and wait for none.
        news = self._news = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            while self._awaited:
                news.clear()
                latest = max(source.expected_by for source in self._awaited.values())
                async with asyncio.timeout_at(latest):
                    await news.wait()
        self._started = True

    def _heard(self, place: int, signal: Signal) -> None:
        tracker = self.trackers[place]
        if not tracker.settling or not is_fault(tracker, signal):
            self._awaited.pop(place, None)
        if self._news is not None:
            self._news.set()
        if self.tally.set(place, signal) and self._started:
            self._changed()

    async def stop(self) -> None:
        """Look no more; calling it twice is harmless."""
        self._started = False
        runtime = Runtime.current()
        joined, self._joined = self._joined, []
        ending: dict[Worker, str] = {}
        for place, (subject, source) in enumerate(joined):
            worker = source.leave((self, place))
            if worker is not None:
                ending[worker] = self.trackers[place].label
                # Whoever comes while this one ends begins anew.
                runtime.forget(_Source, subject)
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with patience(GRACE, HURRIED):
                for worker in ending:
                    await worker.idle()
        for worker, label in ending.items():
            if worker.busy:
                log.error(
                    "tracker %s does not end: its signals() goes on %.3g s after it was cancelled",
                    label,
                    asyncio.get_running_loop().time() - began,
                )
