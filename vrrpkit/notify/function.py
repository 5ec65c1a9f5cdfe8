"""Functions of the program as notifiers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from vrrpkit.errors import ConfigError
from vrrpkit.notify.model.states import kind_of
from vrrpkit.notify.queue import CoalescingQueue
from vrrpkit.publishing import Attachment, Notifier

__all__ = ["NotifyFunction"]

FINISH = 5.0
"""Seconds that an object which ends gives its hooks."""


class NotifyFunction(Notifier):
    """Calls a function on every event, one after the other and in order::

        async def moved(event):
            if isinstance(event, Transition) and event.state is State.MASTER:
                await cloud.claim_address()

        VRRPInstance(..., notify=[NotifyFunction(moved)])

    It never delays what it is told of, however long it takes. If it is slower than what happens, of
    the changes of state that wait only the newest is kept. The first event is the state in which
    the object is when the hook is attached.

    :param function: called with each event; if it returns an awaitable, that is awaited. What it
        raises is logged.
    :param timeout: seconds that one call may take before it is cancelled; ``None`` is no limit.
    :raises ConfigError: ``function`` cannot be called, or the timeout is not positive.
    """

    def __init__(
        self,
        function: Callable[[object], Awaitable[object] | object],
        *,
        timeout: float | None = 30.0,
    ) -> None:
        given: object = function
        if not callable(given):
            raise ConfigError(f"NotifyFunction takes a function of one argument, not {given!r}")
        if timeout is not None and not timeout > 0:
            raise ConfigError(
                f"NotifyFunction: timeout {timeout} must be more than 0 seconds, or None"
            )
        self._function = function
        self._timeout = timeout

    def attach(self, subject: object) -> Attachment:
        name = getattr(self._function, "__name__", "a hook")
        return _FunctionAttachment(CoalescingQueue(f"hook {name}", self._call, kind=kind_of))

    async def _call(self, event: object) -> None:
        async with asyncio.timeout(self._timeout):
            found = self._function(event)
            if inspect.isawaitable(found):
                await found


class _FunctionAttachment:
    limit: float | None = None
    """It ends within :data:`FINISH`."""

    def __init__(self, queue: CoalescingQueue[object]) -> None:
        self._queue = queue

    def tell(self, event: object) -> None:
        self._queue.put(event)

    async def close(self) -> None:
        await self._queue.close(FINISH)

    def cancel(self) -> None:
        self._queue.cancel()
