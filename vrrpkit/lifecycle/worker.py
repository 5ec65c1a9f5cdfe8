"""A task that works while there is work.

Whoever follows wishes (addresses, an IPVS table, notifications) has no task while nothing is to be
done, and exactly one otherwise. To keep that by ``if self._task is None: create_task`` and
``finally: self._task = None`` is wrong in three ways: a task that is cancelled before its first
step never reaches its ``finally``; one that an eager task factory has run is done before the
attribute is set; and one that is cancelled by somebody who cancels *all* tasks, as ``asyncio.run``
does at its end, leaves its work undone while others wait for it. All three end in an object that
never works again. :class:`Worker` looks at the task itself, and starts another one while there is
something to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from vrrpkit.lifecycle.callbacks import contain

__all__ = ["AGAIN", "Worker"]

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds after which work goes on that a bug has ended."""


class Worker:
    """Runs ``work`` whenever there is something to do, one at a time.

    A task that somebody cancels is followed by another one while ``pending()`` says so: what was
    being done then is done again, so ``work`` takes nothing off its list before it is done.

    :param name: of the task.
    :param work: does what there is to do, until nothing is left.
    :param pending: whether there is something to do; must not raise.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Coroutine[object, object, None]],
        pending: Callable[[], bool],
    ) -> None:
        self._name = name
        self._work = work
        self._pending = pending
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._stopped

    @property
    def busy(self) -> bool:
        """Whether a task is at work, or about to be."""
        return self._task is not None

    def start(self) -> None:
        """There is something to do. The task begins in the next turn of the loop, with everything
        that is wished in this one; without effect while it runs, and after :meth:`cancel`."""
        if self._stopped or (self._task is not None and not self._task.done()):
            return
        if self._again is not None:
            self._again.cancel()
            self._again = None
        task = asyncio.create_task(self._work(), name=self._name)
        # Before the callback, which an eager task factory lets come at once.
        self._task = task
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._task:
            # Another one was started between its end and this call.
            return
        self._task = None
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not isinstance(problem, KeyboardInterrupt | SystemExit):
            contain(problem, log, "%s: a bug", self._name)
        if self._stopped or not self._pending():
            return
        if problem is None or isinstance(problem, KeyboardInterrupt | SystemExit):
            self.start()
        else:
            self._again = asyncio.get_running_loop().call_later(AGAIN, self.start)

    async def idle(self) -> None:
        """Wait until no task is at work."""
        while self._task is not None:
            if self._task.done():
                # Its end has not been told yet.
                await asyncio.sleep(0)
            else:
                await asyncio.wait({self._task})

    def cancel(self) -> None:
        """Do nothing more; what is being done is cancelled, and :meth:`idle` waits for its end."""
        self._stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._task is not None:
            self._task.cancel()
