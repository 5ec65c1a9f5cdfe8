"""Haste: what waits while a program ends waits less once somebody is in a hurry.

A first signal ends a program in good order, and good order may take seconds: a server drains, a
script comes to its end, a letter is delivered. A second signal says that the operator has no time
for that. :func:`vrrpkit.run` then calls :func:`hurry`, and every wait under :func:`patience` is cut
down to its shorter limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

__all__ = ["hurried", "hurry", "on_hurry", "patience"]

# Of the loops that are in a hurry, or have somebody who wants to know.
_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Callable[[], None]]] = (
    WeakKeyDictionary()
)
_hurried: WeakKeyDictionary[asyncio.AbstractEventLoop, None] = WeakKeyDictionary()


def hurry() -> None:
    """Shorten all waits on the running loop, those that begin later too; there is no way back."""
    loop = asyncio.get_running_loop()
    _hurried[loop] = None
    for tell in list(_listeners.pop(loop, {}).values()):
        tell()


def hurried() -> bool:
    """Whether the running loop is in a hurry."""
    return asyncio.get_running_loop() in _hurried


def on_hurry(tell: Callable[[], None]) -> Callable[[], None]:
    """Call ``tell`` once when the running loop is in a hurry, at once if it is already. It must not
    raise. Returns what ends it."""
    loop = asyncio.get_running_loop()
    if loop in _hurried:
        tell()
        return _nothing
    key = object()
    _listeners.setdefault(loop, {})[key] = tell

    def stop() -> None:
        _listeners.get(loop, {}).pop(key, None)

    return stop


@asynccontextmanager
async def patience(
    limit: float | None, hurried: float = 0.0
) -> AsyncGenerator[asyncio.Timeout, None]:
    """Like :func:`asyncio.timeout`, but with less patience in a hurry.

    :param limit: seconds, ``None`` for as long as it takes.
    :param hurried: seconds from when the hurry begins; never later than ``limit``.
    :raises TimeoutError: the time is up.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(limit) as timeout:

        def shorten() -> None:
            latest = loop.time() + hurried
            when = timeout.when()
            if not timeout.expired() and (when is None or latest < when):
                timeout.reschedule(latest)

        stop = on_hurry(shorten)
        try:
            yield timeout
        finally:
            stop()


def _nothing() -> None:
    """Nobody is left to be told."""
