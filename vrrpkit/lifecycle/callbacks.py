"""Code that is not ours: callbacks, notifiers, trackers, checkers, transports.

It may raise whatever it likes wherever it is called, and nothing of ours may be lost by it: no
timer, no slot, no effect that is still to be carried out. So every call of such code is in a
``try`` with ``except BaseException``, and :func:`contain` takes what it raised:

* an exception is logged. CancelledError and GeneratorExit are exceptions like others here: they
  come out of a callback because of something in it, and say nothing about the caller.
* KeyboardInterrupt and SystemExit mean the program. They are passed on in the next turn of the
  event loop, when what has begun is done.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from weakref import WeakKeyDictionary

from vrrpkit.errors import ConfigError, VRRPKitError

__all__ = ["LoopThread", "as_bug", "contain", "is_own_end", "pass_on", "require_callback"]


log = logging.getLogger(__name__)

# Loops on which something was passed on.
_ending: WeakKeyDictionary[asyncio.AbstractEventLoop, None] = WeakKeyDictionary()


def contain(problem: BaseException, log: logging.Logger, message: str, *args: object) -> None:
    """Log what such code raised, or pass it on if it means the program.

    :param message: for the log, with ``args`` as in :meth:`logging.Logger.error`.
    """
    if isinstance(problem, KeyboardInterrupt | SystemExit):
        pass_on(problem)
    else:
        log.error(message, *args, exc_info=problem)


def pass_on(problem: BaseException) -> None:
    """Raise it in the next turn of the running loop, so that what has begun here is done; at once
    where no loop runs.

    Once is enough. Leaving calls such code too, and another one would get ``asyncio.run`` out of
    its wait for all that is being left.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise problem from None
    if loop in _ending:
        log.warning("%r is passed over: the program is ending already", problem)
        return
    _ending[loop] = None
    loop.call_soon(_raise, problem)


def _raise(problem: BaseException) -> None:
    raise problem


def is_own_end(problem: BaseException) -> bool:
    """Whether ``problem`` is the end of the present task itself, and must go on its way: somebody
    has cancelled the task, or its coroutine is being closed. Otherwise it came out of what the task
    waited for."""
    if isinstance(problem, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    if isinstance(problem, GeneratorExit):
        try:
            return asyncio.current_task() is None
        except RuntimeError:
            return True
    return False


def as_bug(problem: BaseException) -> Exception:
    """What ends a run and is raised by its ``async with``: there, a CancelledError that came out of
    somebody's code would read as a cancellation."""
    if isinstance(problem, Exception):
        return problem
    bug = RuntimeError(f"{type(problem).__name__} was raised by code that was called here")
    bug.__cause__ = problem
    return bug


def require_callback(where: str, callback: object) -> None:
    """Refuse what cannot be called as a callback is: now, and with what to write instead.

    :param where: the function that takes it, for the message: ``"on_transition"``.
    :raises ConfigError: it is not callable, or a coroutine function, which nobody would await.
    """
    if inspect.iscoroutine(callback):
        callback.close()
        raise ConfigError(
            f"{where}: a coroutine can run once only; pass a plain function, which may start a "
            "task: lambda event: tasks.create_task(work(event))"
        )
    if not callable(callback):
        raise ConfigError(f"{where}: {callback!r} cannot be called; pass a function of one event")
    plain: object = callback
    while isinstance(plain, functools.partial):
        plain = plain.func
    for function in (plain, getattr(plain, "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(
                f"{where}: {callback!r} is a coroutine function, and nobody would await it; pass a "
                "plain function, which may start a task, or read events() in a task of yours"
            )


class LoopThread:
    """The thread that an object lives in, which is the one that makes this."""

    def __init__(self) -> None:
        self._home = threading.get_ident()

    def require(self, what: str) -> None:
        """Refuse a call from another thread.

        :param what: what is called, for the message: ``"web.demote"``.
        :raises VRRPKitError: this is another thread.
        """
        if threading.get_ident() != self._home:
            raise VRRPKitError(
                f"{what} is called from the thread {threading.current_thread().name!r}, but its "
                "event loop runs in another one: use loop.call_soon_threadsafe(...) for a "
                "function, asyncio.run_coroutine_threadsafe(..., loop) for a coroutine"
            )
