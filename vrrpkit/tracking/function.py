"""Tracks anything that Python can find out."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.tracking.counter import Counter
from vrrpkit.values import whole_number
from vrrpkit.vrrp.tracker import Signal, Tracker

__all__ = ["TrackFunction"]

log = logging.getLogger(__name__)


@attrs.frozen
class TrackFunction(Tracker):
    """Good while a function says so::

        TrackFunction(lambda: pool.ping(), interval=2, weight=-60)

    :param function: called without arguments. If it returns an awaitable, that is awaited and gives
        one signal, and the function is called again ``interval`` seconds after the call before. If
        it returns an async iterator, each item is a signal. A signal is ``True``, ``False`` or a
        number; an exception is a bad one.
    :param interval: seconds between two calls, 0.01 to 86400.
    :param timeout: seconds that an awaitable may take; then the signal is bad.
    :param rise: good signals in a row that count as good, from 1; for ``True`` and ``False`` only.
    :param fall: bad signals in a row that count as bad, from 1.
    :raises ConfigError: a value is unusable.
    """

    function: Callable[[], Awaitable[Signal] | AsyncIterator[Signal]]
    interval: float = attrs.field(default=1.0, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True)
    rise: int = attrs.field(default=1, kw_only=True)
    fall: int = attrs.field(default=1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        given: object = self.function
        if not callable(given):
            raise ConfigError(
                f"TrackFunction takes a function, not {given!r}: write 'lambda: ...' around it"
            )
        if not 0.01 <= self.interval <= 86400:
            raise ConfigError(f"TrackFunction: interval {self.interval} must be 0.01 to 86400 s")
        if self.timeout is not None and not 0 < self.timeout <= 86400:
            raise ConfigError(f"TrackFunction: timeout {self.timeout} must be above 0, to 86400 s")
        for name, value in (("rise", self.rise), ("fall", self.fall)):
            whole_number(f"TrackFunction: {name}", value, 1, 1_000_000, "signals in a row")

    def describe(self) -> str:
        return getattr(self.function, "__name__", "function")

    async def signals(self) -> AsyncGenerator[Signal, None]:
        counter = Counter(self.rise, self.fall)
        loop = asyncio.get_running_loop()
        due = loop.time()
        failed = False
        while True:
            signal: Signal = False
            try:
                found = self.function()
                if not isinstance(found, AsyncIterator):
                    signal = await self._ask(found)
            except ConfigError:
                raise
            except Exception as problem:
                found = None
                level = logging.DEBUG if failed else logging.WARNING
                log.log(level, "%s: %s", self.label, str(problem) or type(problem).__name__)
                failed = True
            else:
                failed = False
            if isinstance(found, AsyncIterator):
                async for item in found:
                    yield item
                return
            if isinstance(signal, bool):
                counter.count(signal)
                yield counter.up
            else:
                yield signal
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _ask(self, found: Awaitable[Signal]) -> Signal:
        if not inspect.isawaitable(found):
            raise ConfigError(
                f"{self.label} gave {found!r}; it must return an awaitable or an async iterator, "
                "so write 'async def'"
            )
        try:
            async with asyncio.timeout(self.timeout):
                return await found
        except TimeoutError:
            raise TimeoutError(f"no answer within {self.timeout} s") from None
