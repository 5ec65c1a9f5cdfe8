"""What takes a while and cannot be divided is done aside, so that it does not hold up the loop.

What speaks to the kernel (pyroute2, dpkt) and to mail servers is loaded when the first object that
needs it is entered: a program that stays in memory never loads it. That takes a tenth of a second,
in which the routers that run already would be silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from vrrpkit.lifecycle.leaving import shielded

__all__ = ["aside", "load"]

T = TypeVar("T")

# One import at a time in the whole program: of two threads that import in a circle, Python gives
# one a module that is not finished.
_turn = threading.Lock()


async def load(*names: str) -> None:
    """Import modules in a thread of their own; without effect for those that are loaded.

    :raises ImportError: one cannot be imported.
    """
    missing = [name for name in names if name not in sys.modules]
    if not missing:
        return

    def work() -> None:
        with _turn:
            for name in missing:
                importlib.import_module(name)

    await aside(work)


async def aside(work: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and wait for it; a cancellation waits too, for a
    thread cannot be cut short. (The threads of :func:`asyncio.to_thread` stay, and there may be
    none left.) On a loop with a clock of its own it is called at once: no time passes there, and
    nothing of another thread arrives.

    :raises Exception: what ``work`` raises.
    """
    kind = type(asyncio.get_running_loop())
    if issubclass(kind, asyncio.BaseEventLoop) and kind.time is not asyncio.BaseEventLoop.time:
        return work()
    task = _Aside(work)
    await shielded(task.over(), "vrrpkit: waits for a thread")
    return task.result()


class _Aside(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[T] = self._loop.create_future()

    async def over(self) -> None:
        threading.Thread(target=self._run, name="vrrpkit: aside").start()
        await asyncio.wait({self._outcome})

    def result(self) -> T:
        return self._outcome.result()

    def _run(self) -> None:
        settle: Callable[[], None]
        try:
            found = self._work()
        except BaseException as trouble:
            problem = trouble

            def settle() -> None:
                self._outcome.set_exception(problem)
        else:

            def settle() -> None:
                self._outcome.set_result(found)

        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(settle)
