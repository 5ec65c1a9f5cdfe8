"""Tracks anything that Python can find out."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.lifecycle.callbacks import is_own_end
from vrrpkit.local_errors import Complaints, own_trouble
from vrrpkit.tracking.counter import Counter
from vrrpkit.tracking.limits import rows
from vrrpkit.tracking.runner import complain
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.validate import seconds

__all__ = ["TrackFunction"]

log = logging.getLogger(__name__)


@attrs.frozen
class TrackFunction(Tracker):
    """Good while a function says so::

        TrackFunction(lambda: pool.ping(), interval=2, weight=-60)

    :param function: called without arguments. If it returns an awaitable, that is awaited and gives
        one signal, and the function is called again ``interval`` seconds after the call before. If
        it returns an async iterator, each item is a signal. A signal is ``True``, ``False`` or a
        number; an exception is a bad one, unless it is trouble of this machine
        (:func:`vrrpkit.checks.own_trouble`): then what it said last holds on.
    :param interval: seconds between two calls, 0.01 to 86400.
    :param timeout: seconds that an awaitable may take, 0.001 to 86400; then the signal is bad. By
        default it may take for ever.
    :param rise: how often in a row ``True`` must come until it counts, from 1. The very first
        signal counts at once.
    :param fall: the same for ``False``.
    :raises ConfigError: a value is unusable.
    """

    # What functools.partial holds may be a password.
    function: Callable[[], Awaitable[Signal] | AsyncIterator[Signal]] = attrs.field(
        repr=lambda function: getattr(function, "__name__", type(function).__name__)
    )
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
        seconds("TrackFunction: interval", self.interval, 0.01, 86400)
        if self.timeout is not None:
            seconds("TrackFunction: timeout", self.timeout, 0.001, 86400)
        rows("TrackFunction", self.rise, self.fall, "signals")

    def describe(self) -> str:
        return getattr(self.function, "__name__", "function")

    async def signals(self) -> AsyncGenerator[Signal, None]:
        counter = Counter(self.rise, self.fall)
        loop = asyncio.get_running_loop()
        due = loop.time()
        failed = False
        complaints = Complaints()
        while True:
            signal: Signal = False
            known = True
            try:
                found = self.function()
                if not isinstance(found, AsyncIterator):
                    signal = await self._ask(found)
            except ConfigError:
                raise
            except BaseException as problem:
                if is_own_end(problem) or isinstance(problem, KeyboardInterrupt | SystemExit):
                    raise
                found = None
                known = not own_trouble(problem)
                if known:
                    level = logging.DEBUG if failed else logging.INFO
                    log.log(level, "%s: %s", self.label, str(problem) or type(problem).__name__)
                    failed = True
                else:
                    complain(complaints, self.label, problem, loop.time())
            else:
                failed = False
            if isinstance(found, AsyncIterator):
                try:
                    async for item in found:
                        yield _counted(counter, item)
                finally:
                    # Or the collector of garbage would end it, some time.
                    if isinstance(found, AsyncGenerator):
                        await found.aclose()
                return
            if known:
                yield _counted(counter, signal)
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


def _counted(counter: Counter, signal: Signal) -> Signal:
    if not isinstance(signal, bool):
        return signal
    counter.count(signal)
    return counter.up
