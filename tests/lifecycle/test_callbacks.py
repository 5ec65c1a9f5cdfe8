"""Code that is not ours may raise anything."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncIterator

import pytest

from vrrpkit.errors import ConfigError, VRRPKitError
from vrrpkit.lifecycle.callbacks import (
    LoopThread,
    as_bug,
    contain,
    is_own_end,
    pass_on,
    require_callback,
)
from vrrpkit.testing import virtual_time

log = logging.getLogger(__name__)


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError, GeneratorExit, BaseException])
@virtual_time()
async def test_what_is_raised_is_logged(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    contain(kind("why"), log, "the callback %s failed", "f")
    assert "the callback f failed" in caplog.text
    assert kind.__name__ in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_means_the_program_is_raised_when_the_rest_is_done(kind: type[BaseException]) -> None:
    done: list[str] = []

    async def main() -> None:
        for _ in range(2):
            # One is enough.
            contain(kind(), log, "not logged")
        done.append("the rest")
        await asyncio.sleep(10)

    with pytest.raises(kind):
        asyncio.run(main())
    assert done == ["the rest"]
    # Where no loop runs there is no later.
    with pytest.raises(kind):
        pass_on(kind())


@virtual_time()
async def test_a_cancellation_is_meant_if_the_task_is_cancelled() -> None:
    found: list[bool] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as problem:
            found.append(is_own_end(problem))

    task = asyncio.create_task(waits())
    await asyncio.sleep(1)
    task.cancel()
    await task
    found.append(is_own_end(asyncio.CancelledError()))
    found.append(is_own_end(GeneratorExit()))
    found.append(is_own_end(ValueError()))
    assert found == [True, False, False, False]


def test_a_coroutine_that_is_closed_is_meant_to_end() -> None:
    assert is_own_end(GeneratorExit())

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: found.append(is_own_end(GeneratorExit())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    found: list[bool] = []
    asyncio.run(main())
    assert found == [True]


def test_what_ends_a_run_is_no_cancellation_of_who_runs_it() -> None:
    bug = ValueError("bug")
    assert as_bug(bug) is bug
    cancelled = asyncio.CancelledError()
    told = as_bug(cancelled)
    assert isinstance(told, RuntimeError)
    assert told.__cause__ is cancelled
    assert "CancelledError" in str(told)


async def coroutine_function(event: object) -> None:
    """What nobody would await."""


async def generator(event: object) -> AsyncIterator[int]:
    yield 1


class Asynchronous:
    async def __call__(self, event: object) -> None:
        """Nor this."""


@pytest.mark.parametrize(
    "callback",
    [
        coroutine_function,
        functools.partial(coroutine_function),
        functools.partial(functools.partial(coroutine_function)),
        generator,
        Asynchronous(),
    ],
)
def test_coroutine_functions_are_refused_with_what_to_write(callback: object) -> None:
    with pytest.raises(ConfigError, match=r"on_transition: .* coroutine function.*events\(\)"):
        require_callback("on_transition", callback)


def test_what_cannot_be_called_is_refused() -> None:
    for wrong in (None, "script.sh", 5):
        with pytest.raises(ConfigError, match=r"on_result: .* cannot be called"):
            require_callback("on_result", wrong)
    with pytest.raises(ConfigError, match="a coroutine can run once only"):
        require_callback("on_result", coroutine_function(None))
    for right in (print, lambda event: None, [].append, functools.partial(print), ValueError):
        require_callback("on_result", right)


def test_another_thread_is_told_what_to_use() -> None:
    home = LoopThread()
    home.require("web.demote")
    problems: list[Exception] = []

    def elsewhere() -> None:
        try:
            home.require("web.demote")
        except VRRPKitError as problem:
            problems.append(problem)

    thread = threading.Thread(target=elsewhere, name="worker 7")
    thread.start()
    thread.join()
    assert "web.demote is called from the thread 'worker 7'" in str(problems[0])
    assert "loop.call_soon_threadsafe(" in str(problems[0])
