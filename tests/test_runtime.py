"""One owner of what all objects of an event loop share."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import weakref
from collections.abc import Awaitable

import pytest

from vrrpkit.errors import Closed
from vrrpkit.runtime import Runtime
from vrrpkit.testing.virtual import virtual_time

ENDED: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ended() -> None:
    ENDED.clear()


class Pump:
    """Shared, and closed at once."""

    def __init__(self, name: str = "pump") -> None:
        self.name = name
        # As a socket that the loop reads from does.
        self.loop = asyncio.get_running_loop()

    def shutdown(self) -> None:
        ENDED.append(self.name)


class Tap:
    """Shared, and takes its time to close."""

    def shutdown(self) -> Awaitable[None]:
        return self._close()

    async def _close(self) -> None:
        await asyncio.sleep(2)
        ENDED.append("tap")


class Broken:
    """Shared, and does not close."""

    def shutdown(self) -> None:
        raise OSError("stuck")


@virtual_time()
async def test_all_who_ask_get_the_same_while_any_of_them_holds_it() -> None:
    runtime = Runtime.current()
    assert Runtime.current() is Runtime.current(asyncio.get_running_loop()) is runtime
    first = runtime.use(Pump)
    assert runtime.use(Pump) is first is runtime.find(Pump)
    other = runtime.use(Pump, "eth0", lambda: Pump("other"))
    assert other is runtime.use(Pump, "eth0") and other.name == "other"
    assert runtime.find(Tap) is None
    known = weakref.ref(first)
    del first
    assert known() is None and runtime.find(Pump) is None


@virtual_time()
async def test_what_is_forgotten_is_another_for_those_who_come_later() -> None:
    runtime = Runtime.current()
    first, other = runtime.use(Pump), runtime.use(Pump, "eth0")
    runtime.forget(Pump)
    runtime.forget(Pump)
    assert runtime.use(Pump) is not first
    assert runtime.use(Pump, "eth0") is other


@virtual_time()
async def test_what_is_open_at_the_end_is_closed_last_made_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    default = Runtime.current()
    outside = default.use(Pump)
    began = asyncio.get_running_loop().time()
    async with Runtime() as runtime:
        assert Runtime.current() is runtime is not default
        a = runtime.use(Pump, "a", lambda: Pump("a"))
        held = [a, runtime.use(Tap), runtime.use(Broken), runtime.use(Pump, "b", lambda: Pump("b"))]
    assert ENDED == ["b", "tap", "a"]
    assert asyncio.get_running_loop().time() == began + 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "Broken failed to close" in caplog.text
    assert Runtime.current() is default and default.use(Pump) is outside
    await runtime.close()
    assert len(ENDED) == 3 and held
    with pytest.raises(Closed, match="has ended"):
        runtime.use(Pump)


@virtual_time()
async def test_tasks_of_the_block_use_its_runtime_as_long_as_it_lasts() -> None:
    go_on = asyncio.Event()
    seen: list[Runtime] = []

    async def work() -> None:
        seen.append(Runtime.current())
        await go_on.wait()
        seen.append(Runtime.current())

    async with asyncio.TaskGroup() as tasks:
        async with Runtime() as runtime:
            tasks.create_task(work())
            await asyncio.sleep(1)
        go_on.set()
    assert seen == [runtime, Runtime.current()]
    assert Runtime.current() is not runtime


def test_a_context_that_reaches_another_loop_does_not_bring_the_runtime() -> None:
    async def find() -> Runtime:
        return Runtime.current()

    async def main() -> None:
        async with Runtime() as runtime:
            assert await asyncio.to_thread(asyncio.run, find()) is not runtime
            assert Runtime.current() is runtime

    asyncio.run(main())


def test_no_loop_is_kept_alive_by_what_it_shares() -> None:
    async def leave_it() -> None:
        runtime = Runtime.current()
        pump = runtime.use(Pump)
        # As a reader of the loop does.
        asyncio.get_running_loop().call_later(3600, pump.shutdown)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_it())
    known = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert known() is None


@virtual_time()
async def test_a_cancellation_leaves_nothing_open() -> None:
    runtime = Runtime()
    held = [runtime.use(Pump), runtime.use(Tap)]
    task = asyncio.create_task(runtime.close())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ENDED == ["pump"] and held


def _exit_status(child: int) -> int:
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@virtual_time()
async def test_a_child_of_fork_closes_nothing() -> None:
    runtime = Runtime()
    held = runtime.use(Pump)
    child = os.fork()
    if not child:
        try:
            with pytest.raises(StopIteration):
                runtime.close().send(None)
        finally:
            os._exit(len(ENDED))
    assert _exit_status(child) == 0
    await runtime.close()
    assert [held.name] == ENDED
