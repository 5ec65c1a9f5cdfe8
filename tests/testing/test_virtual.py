"""Virtual time: free, exact, repeatable, and loud about what it cannot do."""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vrrpkit.testing.virtual import (
    BlockedForever,
    TasksLeft,
    VirtualLoop,
    randomness,
    run_virtual,
    virtual_time,
)


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_time()
async def test_sleeping_is_exact() -> None:
    assert now() == 1000.0
    await asyncio.sleep(0.1)
    assert now() == 1000.0 + 0.1


def test_sleeping_costs_nothing() -> None:
    before = time.monotonic()
    run_virtual(asyncio.sleep(86400 * 365), limit=math.inf)
    assert time.monotonic() - before < 5


@virtual_time()
async def test_timers_fire_in_order_and_on_time() -> None:
    fired: list[float] = []
    loop = asyncio.get_running_loop()
    for delay in (3.0, 1.0, 2.0, 1e-9):
        loop.call_later(delay, lambda: fired.append(loop.time() - 1000))
    cancelled = loop.call_later(0.5, fired.append, math.nan)
    cancelled.cancel()
    await asyncio.sleep(5)
    assert fired == pytest.approx([1e-9, 1, 2, 3], abs=1e-12)


@virtual_time(start=1e12)
async def test_late_in_the_day_timers_still_fire() -> None:
    await asyncio.sleep(1)
    assert now() == 1e12 + 1


@virtual_time()
async def test_timeouts_and_task_groups_work() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.5):
            await asyncio.sleep(3600)
    assert now() == 1002.5
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(seconds, seconds)) for seconds in (3, 1, 2)]
    assert now() == 1005.5
    assert [task.result() for task in tasks] == [3, 1, 2]


@virtual_time()
async def test_call_soon_threadsafe_works() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon_threadsafe(done.set)
    await done.wait()


@virtual_time(seed=7)
async def test_the_seed_seeds_randomness() -> None:
    assert randomness().random() == random.Random(7).random()


def test_there_is_no_randomness_in_real_time() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="virtual_time"):
            randomness()

    asyncio.run(main())


def test_the_result_and_the_exception_come_out() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    assert run_virtual(asyncio.sleep(1, "done")) == "done"
    with pytest.raises(ZeroDivisionError):
        run_virtual(fail())


async def stuck() -> None:
    await asyncio.get_running_loop().create_future()


def test_blocked_for_ever_is_told_with_the_place() -> None:
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await stuck()
        finally:
            await asyncio.sleep(1)
            cleaned.append("yes")

    with pytest.raises(BlockedForever, match=r"(?s)nothing is scheduled.*test_virtual.*in stuck"):
        run_virtual(main())
    assert cleaned == ["yes"]


def test_blocked_beside_a_ticking_task_is_told() -> None:
    async def tick() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(1)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(tick(), name="ticking")
            group.create_task(stuck())

    with pytest.raises(BlockedForever, match=r"(?s)60 virtual seconds.*'ticking'"):
        run_virtual(main(), limit=60)


def test_spinning_without_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrrpkit.testing.virtual.SPINS", 1000)

    async def main() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(BlockedForever, match="1000 turns"):
        run_virtual(main())


def test_tasks_left_behind_are_told_and_ended() -> None:
    ended: list[asyncio.Task[None]] = []

    async def main() -> None:
        ended.append(asyncio.create_task(stuck(), name="forgotten"))

    with pytest.raises(TasksLeft, match=r"(?s)'forgotten'.*in stuck"):
        run_virtual(main())
    assert ended[0].cancelled()


def test_tasks_that_are_about_to_end_may() -> None:
    async def brief() -> None:
        await asyncio.sleep(0)

    async def main() -> asyncio.Task[None]:
        return asyncio.create_task(brief())

    assert run_virtual(main()).done()


def test_a_failing_callback_fails_the_test() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(main())
    assert caught.group_contains(ZeroDivisionError)


@virtual_time()
async def test_threads_processes_and_sockets_are_refused() -> None:
    with pytest.raises(RuntimeError, match="impossible under virtual time"):
        await asyncio.to_thread(time.sleep, 0)
    with pytest.raises(RuntimeError, match="impossible under virtual time"):
        await asyncio.create_subprocess_exec("true")
    with pytest.raises(RuntimeError, match="impossible under virtual time"):
        await asyncio.create_subprocess_shell("true")
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        with pytest.raises(RuntimeError, match="impossible under virtual time"):
            await asyncio.get_running_loop().sock_recv(left, 1)


def test_a_virtual_run_cannot_be_nested() -> None:
    async def main() -> None:
        inner = asyncio.sleep(0)
        try:
            with pytest.raises(RuntimeError):
                run_virtual(inner)
        finally:
            inner.close()

    with pytest.warns(RuntimeWarning, match="never awaited"):
        run_virtual(main())


def test_nothing_global_is_touched() -> None:
    before = (time.monotonic, time.time, asyncio.sleep)
    run_virtual(asyncio.sleep(1))
    assert (time.monotonic, time.time, asyncio.sleep) == before
    loop = asyncio.new_event_loop()
    assert not isinstance(loop, VirtualLoop)
    loop.close()


@pytest.mark.parametrize("value", [1, 2])
@virtual_time()
async def test_fixtures_and_parameters_arrive(tmp_path: Path, value: int) -> None:
    assert tmp_path.is_absolute()
    assert value in (1, 2)


PLUGIN_TEST = """
import asyncio
import pytest
from vrrpkit.testing.virtual import randomness

@pytest.mark.virtual_time(seed=3, start=5.0)
async def test_marked(tmp_path):
    assert asyncio.get_running_loop().time() == 5.0
    await asyncio.sleep(100)
    assert tmp_path.exists()
    print("drew", randomness().random())

@pytest.mark.virtual_time
async def test_blocked():
    await asyncio.get_running_loop().create_future()

@pytest.mark.virtual_time(7)
async def test_misused():
    pass

@pytest.mark.virtual_time
def test_plain():
    pass
"""


def run_pytest(folder: Path, *options: str) -> str:
    (folder / "test_it.py").write_text(PLUGIN_TEST)
    command = [sys.executable, "-m", "pytest", "-p", "vrrpkit.testing.plugin", "-s", *options]
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [*command, "--strict-markers", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_plugin_runs_marked_tests(tmp_path: Path) -> None:
    output = run_pytest(tmp_path)
    assert "2 failed, 2 passed" in output
    assert "BlockedForever" in output
    assert "keyword arguments only" in output
    assert f"drew {random.Random(3).random()}" in output


def test_the_plugin_takes_another_seed(tmp_path: Path) -> None:
    assert f"drew {random.Random(11).random()}" in run_pytest(tmp_path, "--virtual-seed=11")
