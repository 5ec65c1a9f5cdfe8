"""Single attempts of checkers on real sockets."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
from collections.abc import Awaitable, Callable
from typing import ParamSpec

from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, CouldNotAsk

P = ParamSpec("P")

PASSED = "passed"
NOT_ASKED = "could not ask: "


def real_sockets(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a coroutine function as a test, on an event loop of its own; afterwards nothing must be
    open that was not before, and no callback may have failed."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        gc.collect()
        before = descriptors()
        problems: list[object] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _loop, what: problems.append(what.get("exception") or what["message"])
            )
            await test(*args, **kwargs)

        asyncio.run(main())
        gc.collect()
        assert not problems, problems
        assert descriptors() == before, os.listdir("/proc/self/fd")

    return run


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def attempt(checker: Checker, target: Target, timeout: float = 10.0) -> str:
    """Make one attempt: :data:`PASSED`, or why not; "timeout" if there is no verdict, and what
    begins with :data:`NOT_ASKED` if the trouble was ours."""
    try:
        async with asyncio.timeout(timeout):
            assert await checker.check(target) is None
    except CheckFailed as problem:
        return str(problem)
    except CouldNotAsk as problem:
        return f"{NOT_ASKED}{problem}"
    except TimeoutError:
        return "timeout"
    return PASSED


async def until(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    """Wait for something that the other side is about to do."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def collect(into: list[object]) -> Callable[[Weight | BaseException | None], None]:
    """A report that is written down: PASSED or the text."""

    def report(outcome: Weight | BaseException | None) -> None:
        into.append(PASSED if outcome is None else str(outcome))

    return report
