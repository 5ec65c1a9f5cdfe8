"""An event loop on which time costs nothing: when nothing is left to do, it is the next moment at
which there is.

::

    @virtual_time(seed=7)
    async def test_takeover():
        await asyncio.sleep(3600)          # takes no time

Everything that asyncio builds on timers works: ``sleep``, ``timeout``, queues, task groups. What
waits for the real world does not, and says so: sockets, pipes, threads, subprocesses. Nothing is
patched; code that reads ``time.monotonic()`` itself reads the real one.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import inspect
import math
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = [
    "BlockedForever",
    "RealWorldNeeded",
    "TasksLeft",
    "VirtualLoop",
    "randomness",
    "run_virtual",
    "virtual_time",
]

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 1000.0
"""Where time starts: not at 0, so that nothing mistakes a moment for a duration."""

LIMIT = 3600.0
"""Virtual seconds after which a test counts as blocked for ever."""

SPINS = 1_000_000
"""Turns of the loop at one and the same moment after which it counts as spinning."""

GRACE = 10
"""Turns of the loop in which tasks may still end after the test did."""


class BlockedForever(AssertionError):
    """The code under test waits for something that will not happen; the message lists its tasks."""


class TasksLeft(AssertionError):
    """The code under test ended and left tasks running; the message lists them."""


class RealWorldNeeded(RuntimeError):
    """The code under test waits for a socket, a process or a thread, for which no time passes; the
    message says what to use instead.

    It is raised where the waiting would begin. In a task or a callback of something that catches
    errors, as what runs trackers, checkers and notifiers does, it ends the test all the same.
    """


class _Selector(selectors.BaseSelector):
    """Instead of waiting for the system, moves the loop's time on."""

    def __init__(self, idle: Callable[[float | None], None]) -> None:
        self._idle = idle
        self._keys: dict[FileDescriptorLike, selectors.SelectorKey] = {}
        self.sealed = False

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        if self.sealed:
            _refuse("waiting for a socket or a pipe")
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._idle(timeout)
        return []


_INSTEAD = (
    ("vrrpkit.notify.mail", "a Mailbox in place of Mail"),
    ("vrrpkit.notify", "a NotifyFunction, into which a test can look"),
    ("vrrpkit.track", "a ScriptedTracker, or a TrackFunction that needs no real time"),
    ("vrrpkit.checks", "a ScriptedChecker, or a checker that needs no real time"),
    ("vrrpkit.ipvs", "a MemoryTable"),
    ("vrrpkit.bfd", "an interface of a MemoryBus"),
    ("vrrpkit.host", "an interface of a MemoryBus, or a Lan"),
    ("vrrpkit.transport", "an interface of a MemoryBus, or a Lan"),
)
"""What to use in place of what, by the rooms that are on the stack."""


def _instead() -> str:
    rooms: set[str] = set()
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        rooms.add(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    for room, use in _INSTEAD:
        if any(name.startswith(room) for name in rooms):
            return use
    return "the in-memory counterpart"


def _refuse(what: str) -> NoReturn:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    who = "" if task is None else f" (in the task {task.get_name()!r})"
    refusal = RealWorldNeeded(
        f"{what} is impossible under virtual time, because no real time passes{who}; use "
        f"{_instead()}, or run this test under asyncio.run()"
    )
    if isinstance(loop, VirtualLoop):
        loop.refuse(refusal, task)
    raise refusal


class VirtualLoop(asyncio.SelectorEventLoop):
    """The event loop behind :func:`run_virtual`.

    :param seed: seeds :attr:`random`.
    :param start: what :meth:`time` says at first, in seconds.
    :param limit: virtual seconds after which :class:`BlockedForever` is raised.
    """

    def __init__(self, *, seed: int = 0, start: float = START, limit: float = LIMIT) -> None:
        self.random = random.Random(seed)
        """Where code under test takes its randomness from, so that a seed repeats a run."""
        self.problems: list[Exception] = []
        """What callbacks and forgotten tasks raised."""
        self.main: asyncio.Task[object] | None = None
        """The test."""
        self.refusal: Exception | None = None
        """What something besides the test waited for in vain."""
        self._now = start
        self._end = start + limit
        self._limit = limit
        self._spins = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._serial = 0
        selector = _Selector(self._idle)
        super().__init__(selector)
        # asyncio takes what is due within the resolution; the smallest step of a float is exact.
        self._clock_resolution = math.ulp(start)
        selector.sealed = True
        self.set_exception_handler(_collect)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, handle))
        return handle

    def refuse(self, refusal: Exception, task: asyncio.Task[object] | None) -> None:
        """End the test at once, unless it is ``task`` itself, which sees for itself."""
        if self.main is None or task is self.main or self.refusal is not None:
            return
        self.refusal = refusal
        self.main.cancel()

    def run_in_executor(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused: a thread takes real time."""
        _refuse("running something in a thread")

    def refuse_real_world(self, what: str) -> NoReturn:
        """Refused: ``what`` takes real time, and begins without asyncio."""
        _refuse(what)

    async def subprocess_exec(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused: a process takes real time."""
        _refuse("running a subprocess")

    async def subprocess_shell(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused: a process takes real time."""
        _refuse("running a subprocess")

    def _idle(self, timeout: float | None) -> None:
        if timeout is not None and timeout <= 0:
            self._spins += 1
            if self._spins > SPINS:
                self._give_up(f"{SPINS} turns of the event loop passed without any time passing")
            return
        self._spins = 0
        timers = self._timers
        while timers and (timers[0][0] <= self._now or timers[0][2].cancelled()):
            heapq.heappop(timers)
        if not timers:
            self._give_up("nothing is scheduled, so nothing will ever happen again")
        if timers[0][0] > self._end:
            self._give_up(
                f"{self._limit:g} virtual seconds have passed; if it may take longer, pass limit="
            )
        self._now = timers[0][0]
        self._clock_resolution = math.ulp(self._now)

    def _give_up(self, reason: str) -> NoReturn:
        # Leave room for what the tasks do when they are cancelled now.
        self._spins = 0
        self._end = self._now + self._limit
        raise BlockedForever(f"{reason}{_listing(asyncio.all_tasks(self))}")


def _collect(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    problem = context.get("exception")
    if not isinstance(problem, Exception):
        problem = RuntimeError(str(context.get("message")))
    assert isinstance(loop, VirtualLoop)
    loop.problems.append(problem)


def _frames(awaitable: object) -> list[FrameType]:
    frames: list[FrameType] = []
    while inspect.iscoroutine(awaitable):
        if awaitable.cr_frame is not None:
            frames.append(awaitable.cr_frame)
        awaitable = awaitable.cr_await
    return frames


def _listing(tasks: set[asyncio.Task[object]]) -> str:
    lines: list[str] = []
    for task in sorted(tasks, key=lambda task: task.get_name()):
        lines.append(f"\n  task {task.get_name()!r}")
        for frame in _frames(task.get_coro()):
            code = frame.f_code
            lines.append(f"\n    {code.co_filename}:{frame.f_lineno} in {code.co_name}")
    return "".join(lines)


async def _watched(main: Coroutine[object, object, T]) -> T:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.main = asyncio.current_task()
    try:
        outcome = await main
    except BaseException:
        if loop.refusal is not None:
            raise loop.refusal from None
        raise
    finally:
        loop.main = None
    if loop.refusal is not None:
        raise loop.refusal
    for _ in range(GRACE):
        if len(asyncio.all_tasks()) == 1:
            break
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        raise TasksLeft(f"the test ended and these tasks did not:{_listing(left)}")
    if loop.problems:
        raise ExceptionGroup("callbacks or forgotten tasks failed", loop.problems)
    return outcome


def run_virtual(
    main: Coroutine[object, object, T],
    *,
    seed: int = 0,
    start: float = START,
    limit: float = LIMIT,
) -> T:
    """Run ``main`` to its end under virtual time, and return what it returns.

    :param seed: seeds :func:`randomness`.
    :param start: what ``loop.time()`` says at first, in seconds.
    :param limit: virtual seconds that ``main`` may take at most; ``math.inf`` for no limit.
    :raises BlockedForever: it waits for something that cannot happen any more, or takes too long.
    :raises RealWorldNeeded: something in it needs a socket, a process or a thread.
    :raises TasksLeft: it left tasks behind.
    :raises ExceptionGroup: it ended well, but callbacks or tasks that nobody awaited failed.
    """

    def loop() -> VirtualLoop:
        return VirtualLoop(seed=seed, start=start, limit=limit)

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(_watched(main))


def virtual_time(
    *, seed: int = 0, start: float = START, limit: float = LIMIT
) -> Callable[[Callable[P, Coroutine[object, object, T]]], Callable[P, T]]:
    """Make an ordinary function of an ``async`` one, which runs it as :func:`run_virtual` does.

    Any test runner takes the result; pytest still passes the fixtures that the function asks for.
    """

    def decorate(function: Callable[P, Coroutine[object, object, T]]) -> Callable[P, T]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            return run_virtual(function(*args, **kwargs), seed=seed, start=start, limit=limit)

        return wrapper

    return decorate


def randomness() -> random.Random:
    """The random numbers of the running virtual loop: equal seeds give equal runs.

    :raises RuntimeError: the running event loop is no virtual one.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise RuntimeError("there is no virtual time here; decorate the test with @virtual_time()")
    return loop.random
