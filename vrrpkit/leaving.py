"""How objects end, whatever is being cancelled around them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["Body", "to_the_end"]


async def to_the_end(work: Coroutine[object, object, None], name: str) -> None:
    """Run ``work`` to its end. A cancellation is raised after it, not instead of it."""
    task = asyncio.create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
        except Exception:
            break
    task.result()
    if cancelled is not None:
        raise cancelled


class Body:
    """The body of one object's ``async with``. A bug that ends the object's run cancels it: the bug
    must not go unnoticed because the body waits for something else."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._ending = False
        self._interrupted = False

    def begin(self) -> None:
        """The object is being entered by the current task."""
        self._task = asyncio.current_task()

    def interrupt(self) -> None:
        """A bug has ended the run."""
        if self._task is not None and not self._task.done() and not self._ending:
            self._interrupted = True
            self._task.cancel()

    async def end(self, work: Awaitable[None], failure: Callable[[], BaseException | None]) -> None:
        """Leave by ``work``, then raise the bug that ended the run, if one did: it comes before
        what leaving raises, which may well fail for the same reason."""
        self._ending = True
        try:
            await work
        except (Exception, asyncio.CancelledError):
            if failure() is None:
                raise
        bug = failure()
        if bug is not None:
            if self._interrupted and self._task is not None:
                self._task.uncancel()
            raise bug
