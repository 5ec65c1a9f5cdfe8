"""Run a program so that the usual signals end it in an orderly way."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import TypeVar

__all__ = ["run"]

log = logging.getLogger(__name__)

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Stop:
    """Turns the first signal into a cancellation of the task that installs this."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._task: asyncio.Task[object] | None = None

    def install(self) -> None:
        """Listen until the loop closes, so that no signal cuts the cleanup short."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            # nohup and shells ignore a signal on behalf of the programs that they start.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._received, number)

    def _received(self, number: signal.Signals) -> None:
        if self.signal is not None:
            log.warning("%s ignored: already leaving because of %s", number.name, self.signal.name)
            return
        self.signal = number
        log.info("leaving because of %s", number.name)
        if self._task is not None:
            self._task.cancel(number.name)


def run(
    main: Coroutine[object, object, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run ``main`` as :func:`asyncio.run` does; SIGTERM, SIGINT and SIGHUP cancel it.

    The cancellation leaves every ``async with``, so virtual routers say goodbye and remove their
    addresses. Further signals are ignored meanwhile; only SIGKILL cuts that short. A signal that is
    ignored when this is called, as SIGHUP is under ``nohup``, stays ignored.

    :param debug: asyncio's debug mode.
    :param loop_factory: makes the event loop, for example ``uvloop.new_event_loop``.
    :return: what ``main`` returns.
    :raises SystemExit: with status 0, if a signal cancelled ``main``: a service told to stop
        and did so has succeeded. An exception that ``main`` ends with instead comes out as it is.
    :raises RuntimeError: this is not the main thread, the only one that Python lets handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        main.close()
        raise RuntimeError(
            "run() handles signals, which Python allows in the main thread only; "
            "call it there, or use asyncio.run() here"
        )
    stop = _Stop()

    async def watched() -> T:
        stop.install()
        return await main

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(watched())
    except asyncio.CancelledError:
        if stop.signal is None:
            raise
        raise SystemExit(0) from None
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
