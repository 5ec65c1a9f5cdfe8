"""Run a program so that the usual signals end it in an orderly way, and in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import TypeVar

from vrrpkit.lifecycle.callbacks import contain, require_callback
from vrrpkit.lifecycle.fork import ProcessOrigin, in_child
from vrrpkit.lifecycle.leaving import ending
from vrrpkit.lifecycle.shutdown import hurry

__all__ = ["run"]

log = logging.getLogger(__name__)

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

HURRY_AFTER = 6.0
"""Seconds after the first signal from which all waits are short, as after a second signal."""

LIMIT = 9.0
"""Seconds after the first signal at which the program ends, whatever still goes on."""

HURRIED_LIMIT = 1.5
"""The same after a second signal."""

LAST_WORD = 0.25
"""Seconds for the tasks that are cancelled then."""

FILES = 1 << 20
"""The limit on open files is not raised above this: some containers have a hard limit of a billion,
and programs exist that close each one when they start."""

HUNG_UP = 128 + signal.SIGHUP
"""The exit status of a program whose terminal is gone, as shells tell it."""


class _Overdue(SystemExit):
    """The time to leave is up."""


class _Stop:
    """Turns the first signal into a cancellation of the task that installs this, and sees to it
    that leaving comes to an end.

    :param on_hangup: called at SIGHUP instead.
    """

    def __init__(self, on_hangup: Callable[[], object] | None) -> None:
        self.signal: signal.Signals | None = None
        self.status = 0
        self._on_hangup = on_hangup
        # Asked now: of a terminal that is gone nobody can tell that it was one.
        self._terminal = _is_terminal()
        self._task: asyncio.Task[object] | None = None
        self._end: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._named = False

    def install(self) -> None:
        """Listen until the loop closes, so that no signal cuts the cleanup short."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            asked_for = number is signal.SIGHUP and self._on_hangup is not None
            # nohup and shells ignore a signal on behalf of the programs that they start.
            if asked_for or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._received, number)

    def _received(self, number: signal.Signals) -> None:
        if number is signal.SIGHUP and not self._ends_by_hangup():
            return
        loop = asyncio.get_running_loop()
        if self.signal is not None:
            log.warning("%s: leaving because of %s is cut short", number.name, self.signal.name)
            self._expect(HURRIED_LIMIT)
            hurry()
            return
        self.signal = number
        self._began = loop.time()
        log.info("leaving because of %s", number.name)
        self._expect(LIMIT)
        loop.call_later(HURRY_AFTER, hurry)
        if self._task is not None:
            self._task.cancel(number.name)

    def _ends_by_hangup(self) -> bool:
        if self._on_hangup is not None:
            log.info("SIGHUP")
            try:
                self._on_hangup()
            except BaseException as problem:
                contain(problem, log, "%r failed on SIGHUP", self._on_hangup)
            return False
        if not self._terminal:
            log.info("SIGHUP ignored; run(main, on_hangup=...) sets what it does")
            return False
        if self.signal is None:
            self.status = HUNG_UP
        return True

    def _expect(self, seconds: float) -> None:
        """Be done so many seconds from now, or earlier."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._end is not None:
            when = min(when, self._end.when())
            self._end.cancel()
        self._end = loop.call_at(when, self._overdue)

    def _overdue(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._named:
            self._named = True
            log.error(
                "leaving took %.1f s: not waiting any longer for %s",
                loop.time() - self._began,
                "; ".join(_unfinished()) or "the end",
            )
        # Once more: asyncio waits for the tasks that it cancels then, without a limit.
        self._end = loop.call_later(LAST_WORD, self._overdue)
        raise _Overdue(1)


def _is_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):
        # Closed, or none at all.
        return False


def _unfinished() -> Iterator[str]:
    """The tasks that still run, with the line that each is at, and threads."""
    for task in (*asyncio.all_tasks(), *ending()):
        stack = task.get_stack(limit=1)
        where = f" at {stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else ""
        yield f"the task {task.get_name()!r}{where}"
    for thread in _threads():
        yield f"the thread {thread.name!r}"


def _threads() -> list[threading.Thread]:
    """Those of ``asyncio.to_thread`` that are at work; the interpreter would wait for their end."""
    return [each for each in threading.enumerate() if each.name.startswith("asyncio_")]


@contextlib.contextmanager
def _many_files() -> Generator[None, None, None]:
    """Let the program open as many files as it may: each check that runs has one open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as problem:
        log.warning("the limit on open files stays %d: %s", soft, problem)
        yield
        return
    log.info("the limit on open files is raised from %d to %d", soft, wanted)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def _handlers() -> Generator[None, None, None]:
    """Put the handlers of signals back at the end, and at once in a child of fork()."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    stop = in_child(put_back)
    try:
        yield
    finally:
        stop()
        put_back()


def run(
    main: Coroutine[object, object, T],
    *,
    on_hangup: Callable[[], object] | None = None,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run ``main`` as :func:`asyncio.run` does; SIGTERM and SIGINT cancel it.

    The cancellation leaves every ``async with``, so virtual routers say goodbye and remove their
    addresses. That takes 10 seconds at most: what has not ended then is named in the log and left
    alone, and the exit status is 1. A second signal cuts everything that is waited for short, and
    the program ends within 2 seconds. A signal that is ignored when this is called, as SIGHUP is
    under ``nohup``, stays ignored.

    The soft limit on open files (RLIMIT_NOFILE) is raised to the hard one meanwhile. Where SIGCHLD
    is ignored, it has its default action meanwhile: else no exit status of a script arrives.

    :param on_hangup: called on the event loop at each SIGHUP, for example to read a configuration
        again. Without it SIGHUP is logged and ignored, but for a program whose standard input was a
        terminal when this was called: that is gone, and ends it as SIGTERM does.
    :param debug: asyncio's debug mode.
    :param loop_factory: makes the event loop, for example ``uvloop.new_event_loop``.
    :return: what ``main`` returns.
    :raises SystemExit: if a signal cancelled ``main``. With status 0: a service told to stop and
        did so has succeeded; with 129 after SIGHUP; with 1 if it took too long. An exception that
        ``main`` ends with instead comes out as it is.
    :raises ConfigError: ``on_hangup`` cannot be called, or is a coroutine function.
    :raises RuntimeError: this is not the main thread, the only one that Python lets handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        main.close()
        raise RuntimeError(
            "run() handles signals, which Python allows in the main thread only; "
            "call it there, or use asyncio.run() here"
        )
    if on_hangup is not None:
        try:
            require_callback("on_hangup", on_hangup)
        except BaseException:
            main.close()
            raise
    stop = _Stop(on_hangup)
    try:
        with _many_files(), _children_count(), _handlers():
            return _run(main, stop, debug, loop_factory)
    except _Overdue as overdue:
        if _threads():
            # The interpreter would wait for these, however long it takes.
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        raise SystemExit(overdue.code) from None


@contextlib.contextmanager
def _children_count() -> Generator[None, None, None]:
    """Have the exit statuses of programs: where SIGCHLD is ignored, which a program inherits, the
    kernel drops them, and no script could be judged."""
    if signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN:
        yield
        return
    log.warning("SIGCHLD was ignored, as the program was started: set back to its default action")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _run(
    main: Coroutine[object, object, T],
    stop: _Stop,
    debug: bool | None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> T:
    origin = ProcessOrigin()

    async def watched() -> T:
        # On the loop, so that a child of fork() gets an epoll of its own.
        ProcessOrigin()
        stop.install()
        return await main

    runner = asyncio.Runner(debug=debug, loop_factory=loop_factory)
    try:
        return runner.run(watched())
    except asyncio.CancelledError:
        if stop.signal is None:
            raise
        raise SystemExit(stop.status) from None
    finally:
        if not origin.elsewhere:
            runner.close()
