"""How objects end, whatever is being cancelled around them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from weakref import WeakSet

from vrrpkit.lifecycle.fork import ProcessOrigin
from vrrpkit.lifecycle.shutdown import patience

__all__ = ["TaskGuard", "all_shielded", "ending", "for_so_long", "shielded"]

LAST = 0.2
"""Seconds that work which was given up may take to end."""

# Tasks that asyncio.all_tasks() does not show: see to_the_end.
_hidden: WeakSet[asyncio.Task[None]] = WeakSet()


async def shielded(work: Coroutine[object, object, None], name: str) -> None:
    """Run ``work`` to its end. A cancellation is raised after it, not instead of it.

    Nor does a cancellation of *all* tasks reach it, as by a program that ends so, or by
    ``asyncio.run`` after a SystemExit: its task is not among those of ``asyncio.all_tasks()``.
    Cut short in the middle, it would leave addresses or a table behind that nobody knows of any
    more. Whoever awaits this keeps the loop running until it is done.
    """
    await all_shielded({name: work})


async def all_shielded(works: Mapping[str, Coroutine[object, object, None]]) -> None:
    """Run several to their ends at the same time, as :func:`shielded` does; then raise the first
    of what they raise. (The tasks of a TaskGroup can be cancelled before their first step.)

    :param works: by the names of their tasks.
    """
    ends = [_End(work, name) for name, work in works.items()]
    cancelled: asyncio.CancelledError | None = None
    problem: BaseException | None = None
    for end in ends:
        cancelled = await end.over() or cancelled
        problem = problem or end.problem
    if problem is not None:
        raise problem
    if cancelled is not None:
        raise cancelled


async def for_so_long(
    work: Coroutine[object, object, None], name: str, limit: float | None, hurried: float
) -> bool:
    """Run ``work`` of somebody else, out of reach of who cancels all tasks, and wait no longer than
    its time; whether it has ended by itself. Then it is cancelled, and left behind if it does not
    heed that.

    :param limit: seconds; ``None`` is as long as it takes, until there is a hurry.
    :param hurried: seconds from when the hurry begins.
    """
    end = _End(work, name)
    try:
        async with patience(limit, hurried):
            await end.wait()
    except TimeoutError:
        await end.give_up()
        return False
    except asyncio.CancelledError:
        await end.give_up()
        raise
    if end.problem is not None:
        raise end.problem
    return True


class _End:
    """One piece of work that is run to its end."""

    def __init__(self, work: Coroutine[object, object, None], name: str) -> None:
        self._work = work
        self._name = name
        self._task = self._begin()

    def _begin(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self._do(), name=self._name)
        _hidden.add(task)
        # Documented for who makes tasks of their own ("Extending" in asyncio's documentation).
        asyncio._unregister_task(task)
        return task

    async def _do(self) -> None:
        await self._work

    async def over(self) -> asyncio.CancelledError | None:
        """Wait for the end; the cancellation that came meanwhile, if one did."""
        cancelled: asyncio.CancelledError | None = None
        while True:
            if not self._task.done():
                try:
                    await asyncio.wait({self._task})
                except asyncio.CancelledError as cancellation:
                    cancelled = cancellation
            elif self._unbegun:
                self._task = self._begin()
            else:
                return cancelled

    async def wait(self) -> None:
        """Wait for the end, or for a cancellation of who waits."""
        await asyncio.wait({self._task})
        while self._unbegun:
            self._task = self._begin()
            await asyncio.wait({self._task})

    @property
    def _unbegun(self) -> bool:
        """Whether the task was ended before its first step, in the very turn in which it was
        made."""
        created = inspect.getcoroutinestate(self._work) == inspect.CORO_CREATED
        return self._task.cancelled() and created

    async def give_up(self) -> None:
        """Cancel the work. Nobody waits for it any more, nor looks at what it raises."""
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=LAST)
        if self._unbegun:
            self._work.close()
        _hidden.discard(self._task)

    @property
    def problem(self) -> BaseException | None:
        """What the work has raised."""
        if self._task.cancelled():
            return asyncio.CancelledError(f"{self._name} was cancelled")
        return self._task.exception()


def ending() -> set[asyncio.Task[None]]:
    """The tasks of :func:`shielded` on the running loop that are not done."""
    loop = asyncio.get_running_loop()
    return {task for task in _hidden if not task.done() and task.get_loop() is loop}


class TaskGuard:
    """The body of one object's ``async with``. A bug that ends the object's run cancels it: the bug
    must not go unnoticed because the body waits for something else."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._origin: ProcessOrigin | None = None
        self._ending = False
        self._interrupted = False

    def begin(self) -> None:
        """The object is being entered by the current task."""
        self._task = asyncio.current_task()
        self._origin = ProcessOrigin()

    def interrupt(self) -> None:
        """A bug has ended the run."""
        if self._task is not None and not self._task.done() and not self._ending:
            self._interrupted = True
            self._task.cancel()

    async def end(
        self,
        work: Callable[[], Awaitable[None]],
        failure: Callable[[], BaseException | None],
    ) -> None:
        """Leave by ``work``, then raise the bug that ended the run, if one did: it comes before
        what leaving raises, which may well fail for the same reason. A child of fork() leaves
        nothing, for it is its parent that is there."""
        self._ending = True
        if self._origin is not None and self._origin.elsewhere:
            return
        try:
            await work()
        except (Exception, asyncio.CancelledError):
            if failure() is None:
                raise
        bug = failure()
        if bug is not None:
            if self._interrupted and self._task is not None:
                self._task.uncancel()
            raise bug
