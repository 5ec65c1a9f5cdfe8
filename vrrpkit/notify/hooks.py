"""Functions of the program as notifiers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from vrrpkit.errors import ConfigError
from vrrpkit.events import Attachment, Notifier
from vrrpkit.notify.lane import Lane
from vrrpkit.notify.states import kind_of

__all__ = ["Hook"]

FINISH = 5.0
"""Seconds that an object which ends gives its hooks."""


class Hook(Notifier):
    """Calls a function on every event, one after the other and in order::

        async def moved(event):
            if isinstance(event, Transition) and event.state is State.MASTER:
                await cloud.claim_address()

        VRRPInstance(..., notify=[Hook(moved)])

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
            raise ConfigError(f"Hook takes a function of one argument, not {given!r}")
        if timeout is not None and not timeout > 0:
            raise ConfigError(f"Hook: timeout {timeout} must be more than 0 seconds, or None")
        self._function = function
        self._timeout = timeout

    def attach(self, subject: object) -> Attachment:
        name = getattr(self._function, "__name__", "a hook")
        return _HookAttachment(Lane(f"hook {name}", self._call, kind=kind_of))

    async def _call(self, event: object) -> None:
        async with asyncio.timeout(self._timeout):
            found = self._function(event)
            if inspect.isawaitable(found):
                await found


class _HookAttachment:
    limit: float | None = None
    """It ends within :data:`FINISH`."""

    def __init__(self, lane: Lane[object]) -> None:
        self._lane = lane

    def tell(self, event: object) -> None:
        self._lane.put(event)

    async def close(self) -> None:
        await self._lane.close(FINISH)

    def cancel(self) -> None:
        self._lane.cancel()
