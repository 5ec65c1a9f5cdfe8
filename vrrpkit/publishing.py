"""How anything here publishes what happens: to callbacks at once, to streams when they are read.

Publishing never waits and never fails, and costs next to nothing when nobody listens.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, Protocol, TypeVar, overload

import attrs

from vrrpkit.errors import Closed
from vrrpkit.eventlog import EventLog
from vrrpkit.lifecycle.callbacks import as_bug, contain, is_own_end, pass_on, require_callback
from vrrpkit.lifecycle.leaving import all_shielded, for_so_long
from vrrpkit.validate import whole_number
from vrrpkit.values import Stamped

__all__ = ["LIMIT", "Attachment", "Attachments", "EventsLost", "Hub", "Notifier", "stamp"]

log = logging.getLogger(__name__)

E = TypeVar("E")
K = TypeVar("K")
L = TypeVar("L")
E_contra = TypeVar("E_contra", contravariant=True)

FINISH = 8.0
"""Seconds that a notifier has for its end; those here have limits of their own."""

HURRIED = 1.5
"""The same once somebody is in a hurry: theirs are shorter."""

LIMIT = 1000
"""Events that a stream keeps for a reader that is behind."""


@attrs.frozen
class EventsLost:
    """Stands in a stream where the oldest events were dropped: the reader was too far behind."""

    count: int
    """How many, at least 1."""

    def __str__(self) -> str:
        return f"{self.count} events were dropped: their reader is too slow"


class Attachment(Protocol):
    """One object's connection to one notifier."""

    def tell(self, event: object) -> None:
        """Take an event in, and return at once: nothing here may hold up a router."""
        ...

    async def close(self) -> None:
        """The object has ended. Finish what was told, within a limit of the notifier's own. After
        8 seconds, or ``limit`` if it has such an attribute (``None`` is no limit from here), it is
        cancelled, and left behind if it does not heed that; 1.5 seconds after a second signal under
        :func:`vrrpkit.run` in any case."""
        ...

    def cancel(self) -> None:
        """Nobody wants to be told any more: drop what waits."""
        ...


class Notifier(Protocol):
    """Tells somebody of what happens to the objects that it is given to (``notify=[...]``)."""

    def attach(self, subject: object) -> Attachment:
        """``subject`` has been entered: a virtual router, a sync group, a virtual server.

        :raises ConfigError: it cannot tell of such a thing.
        """
        ...


class Attachments:
    """The notifiers of one object, from when it is entered until it has ended.

    :param subject: the object.
    """

    def __init__(self, subject: object, notifiers: Iterable[Notifier]) -> None:
        self._subject = subject
        self._waiting: dict[object, Notifier] = {object(): notifier for notifier in notifiers}
        self._attached: dict[object, Attachment] = {}
        self._started = self._ended = False
        self._stop: Callable[[], None] | None = None
        self._held: deque[object] | None = None

    def pause(self) -> None:
        """Tell nobody anything until :meth:`resume`."""
        if self._held is None:
            self._held = deque()

    def resume(self) -> None:
        """Tell what was kept back, in order."""
        held, self._held = self._held, None
        for event in held or ():
            self._tell(event)

    def start(self, hub: Hub[E]) -> None:
        """Tell the notifiers of everything that ``hub`` publishes. If this raises,
        :meth:`close` must follow.

        :raises ConfigError: a notifier cannot tell of such a thing.
        """
        self._started = True
        for key, notifier in self._waiting.items():
            self._attach(hub, key, notifier)
        self._waiting.clear()

    def add(self, hub: Hub[E], notifier: Notifier, *current: object) -> Callable[[], None]:
        """Tell one more, beginning with ``current`` but for what is ``None`` there; returns what
        ends it. Before the start it waits for that; after the end there is nothing to tell.

        :raises ConfigError: the notifier cannot tell of such a thing.
        """
        key = object()
        if not self._started:
            self._waiting[key] = notifier
        elif not self._ended:
            attachment = self._attach(hub, key, notifier)
            for event in current:
                # What is kept back is told then.
                if event is not None and not (self._held and event in self._held):
                    _tell(attachment, event)

        def remove() -> None:
            self._waiting.pop(key, None)
            attachment = self._attached.pop(key, None)
            if attachment is not None:
                attachment.cancel()

        return remove

    def _attach(self, hub: Hub[E], key: object, notifier: Notifier) -> Attachment:
        attachment = self._attached[key] = notifier.attach(self._subject)
        if self._stop is None:
            self._stop = hub.subscribe(self._tell)
        return attachment

    def _tell(self, event: object) -> None:
        if self._held is not None:
            self._held.append(event)
            return
        for key, attachment in list(self._attached.items()):
            # One that was told before may have removed this one.
            if key in self._attached:
                _tell(attachment, event)

    async def close(self) -> None:
        """Have every notifier finish, all at the same time; calling it twice is harmless."""
        self._started = self._ended = True
        self.resume()
        if self._stop is not None:
            self._stop()
        attached, self._attached = self._attached, {}
        await all_shielded(
            {
                f"vrrpkit: notifier {number} finishes": _finish(attachment)
                for number, attachment in enumerate(attached.values(), 1)
            }
        )


def _tell(attachment: Attachment, event: object) -> None:
    try:
        attachment.tell(event)
    except BaseException as problem:
        contain(problem, log, "the notifier %r failed on %s", attachment, event)


async def _finish(attachment: Attachment) -> None:
    limit: float | None = getattr(attachment, "limit", FINISH)
    name = f"vrrpkit: {attachment!r} ends"
    if not await for_so_long(_close(attachment), name, limit, HURRIED):
        log.warning("the notifier %r does not end and is left behind", attachment)


async def _close(attachment: Attachment) -> None:
    try:
        await attachment.close()
    except BaseException as problem:
        if is_own_end(problem):
            raise
        contain(problem, log, "the notifier %r failed at the end", attachment)


def stamp(event: Stamped) -> None:
    """Give an event the wall time, before anything gets it: it is frozen for all that do."""
    object.__setattr__(event, "time", time.time())


class _Listener(Protocol[E_contra]):
    def deliver(self, event: E_contra) -> None: ...

    def close(self) -> None: ...


class Hub(Generic[E]):
    """Passes the events of one object on to whoever listens, and into the log.

    Each event is stamped with the wall time and logged once, at the level of
    :data:`vrrpkit.eventlog.TABLE`, whether or not anybody listens.

    Everything is to be called on the event loop, and nothing blocks. A callback may publish,
    subscribe, unsubscribe and close: what it publishes is delivered after the present event has
    reached everybody.

    :param logger: of the module that publishes; without one nothing is logged.
    :param prefix: what stands before each line in the log.
    """

    def __init__(self, logger: logging.Logger | None = None, prefix: str = "") -> None:
        self._log = None if logger is None else EventLog(logger, prefix)
        self._listeners: dict[object, _Listener[E]] = {}
        # A deque would take half a kilobyte, for the rare event that is published by a callback.
        self._pending: list[E] = []
        self._delivering = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether no event can come any more."""
        return self._closed

    def publish(self, event: E) -> None:
        """Log and deliver ``event``; after :meth:`close` nobody gets it."""
        if isinstance(event, Stamped) and not event.time:
            stamp(event)
        if self._log is not None:
            self._log.tell(event)
        if not self._listeners or self._closed:
            return
        self._pending.append(event)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._pending:
                self._deliver(self._pending.pop(0))
        finally:
            self._delivering = False
            if self.closed:
                self._end()

    def subscribe(self, callback: Callable[[E], None]) -> Callable[[], None]:
        """Call ``callback`` with every event from now on; returns what ends it.

        What ``callback`` raises is logged and goes no further; KeyboardInterrupt and SystemExit
        are raised in the next turn of the loop.

        :raises ConfigError: it is not callable, or a coroutine function.
        """
        require_callback("a callback", callback)
        return self._listen(_Callback(callback))

    @overload
    def on(self, kinds: type[K], callback: Callable[[K], None]) -> Callable[[], None]: ...

    @overload
    def on(
        self, kinds: tuple[type[K], type[L]], callback: Callable[[K | L], None]
    ) -> Callable[[], None]: ...

    def on(
        self, kinds: type[object] | tuple[type[object], ...], callback: Callable[..., object]
    ) -> Callable[[], None]:
        """Call ``callback`` as :meth:`subscribe` does, with events of these classes only."""
        require_callback("a callback", callback)

        def filtered(event: E) -> object:
            return callback(event) if isinstance(event, kinds) else None

        return self._listen(_Callback(filtered))

    def stream(self, limit: int = LIMIT) -> AsyncIterator[E | EventsLost]:
        """Iterate over every event from this call on, until the hub closes. For one reader.

        :param limit: events kept for a reader that is behind, at least 1; past that the oldest are
            dropped, and :class:`EventsLost` stands in their place.
        :raises ConfigError: ``limit`` is no whole number from 1 to 1000000.
        """
        whole_number("limit", limit, 1, 1_000_000, "events kept for a reader that is behind")
        stream: _Stream[E] = _Stream(limit)
        feed = _Feed(stream)
        stop = self._listen(feed)
        # A loop that was left with "break" just drops its stream.
        weakref.finalize(stream, stop).atexit = False
        return stream

    async def wait_for(self, predicate: Callable[[E], bool]) -> E:
        """Wait for the next event for which ``predicate`` is true; what that raises is raised here.

        :raises Closed: the hub closed before one came.
        """
        found: asyncio.Future[E] = asyncio.get_running_loop().create_future()
        stop = self._listen(_Waiter(predicate, found))
        try:
            return await found
        finally:
            stop()

    def close(self) -> None:
        """End every stream once it is read, and every wait with ``Closed``."""
        self._closed = True
        if not self._delivering:
            self._end()

    def _listen(self, listener: _Listener[E]) -> Callable[[], None]:
        key = object()
        if self._closed:
            listener.close()
        else:
            self._listeners[key] = listener

        def stop() -> None:
            self._listeners.pop(key, None)

        return stop

    def _deliver(self, event: E) -> None:
        for key, listener in list(self._listeners.items()):
            # An earlier listener may have ended this one.
            if key in self._listeners:
                listener.deliver(event)

    def _end(self) -> None:
        listeners = list(self._listeners.values())
        self._listeners.clear()
        for listener in listeners:
            listener.close()


class _Callback(Generic[E]):
    def __init__(self, callback: Callable[[E], object]) -> None:
        self._callback = callback

    def deliver(self, event: E) -> None:
        try:
            result: object = self._callback(event)
        except BaseException as problem:
            contain(problem, log, "the callback %r failed on %s", self._callback, event)
        else:
            if result is not None and asyncio.iscoroutine(result):
                result.close()
                log.error(
                    "the callback %r returned a coroutine, which nobody awaits: let it start a "
                    "task of yours instead",
                    self._callback,
                )

    def close(self) -> None:
        """A callback is not told."""


class _Waiter(Generic[E]):
    def __init__(self, predicate: Callable[[E], bool], found: asyncio.Future[E]) -> None:
        self._predicate = predicate
        self._found = found

    def deliver(self, event: E) -> None:
        if self._found.done():
            return
        try:
            if self._predicate(event):
                self._found.set_result(event)
        except (KeyboardInterrupt, SystemExit) as ending:
            pass_on(ending)
        except BaseException as problem:
            # Of whoever waits, not a cancellation of the wait.
            self._found.set_exception(as_bug(problem))

    def close(self) -> None:
        if not self._found.done():
            self._found.set_exception(
                Closed("no such event can come any more: what publishes them has ended")
            )


class _Stream(AsyncIterator[E | EventsLost]):
    def __init__(self, limit: int) -> None:
        self._events: deque[E] = deque(maxlen=limit)
        self._limit = limit
        self._lost = 0
        self._ended = False
        self._reader: asyncio.Future[None] | None = None

    def deliver(self, event: E) -> None:
        if len(self._events) == self._limit:
            self._lost += 1
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def __anext__(self) -> E | EventsLost:
        if self._reader is not None:
            raise RuntimeError("this stream is being read already; ask for one stream per reader")
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._lost:
            lost, self._lost = self._lost, 0
            return EventsLost(lost)
        return self._events.popleft()


class _Feed(Generic[E]):
    """Brings events to a stream without keeping it alive."""

    def __init__(self, stream: _Stream[E]) -> None:
        self._stream = weakref.ref(stream)

    def deliver(self, event: E) -> None:
        stream = self._stream()
        if stream is not None:
            stream.deliver(event)

    def close(self) -> None:
        stream = self._stream()
        if stream is not None:
            stream.close()
