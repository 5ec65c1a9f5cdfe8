"""How objects end: their bugs come out, and what must be done is done."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from vrrpkit.lifecycle.leaving import TaskGuard, all_shielded, ending, for_so_long, shielded
from vrrpkit.lifecycle.shutdown import hurry
from vrrpkit.testing import virtual_time


async def nothing() -> None:
    pass


async def fail() -> None:
    raise OSError("leaving failed")


@virtual_time()
async def test_a_cancellation_waits_for_the_work_and_is_raised_then() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(5)
        done.append("work")

    task = asyncio.create_task(shielded(work(), "work"))
    for _ in range(3):
        await asyncio.sleep(1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["work"]
    with pytest.raises(OSError, match="leaving failed"):
        await shielded(fail(), "work")


@virtual_time()
async def test_a_bug_interrupts_the_body_and_is_raised_instead_of_the_cancellation() -> None:
    body = TaskGuard()
    bug = ZeroDivisionError("bug")
    body.begin()
    body.interrupt()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(1000)
    with pytest.raises(ZeroDivisionError):
        await body.end(fail, lambda: bug)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time()
async def test_without_a_bug_what_leaving_raises_is_raised() -> None:
    body = TaskGuard()
    body.begin()
    with pytest.raises(OSError, match="leaving failed"):
        await body.end(fail, lambda: None)
    await body.end(nothing, lambda: None)
    # Whoever is ending already is not interrupted.
    body.interrupt()
    await asyncio.sleep(1)


async def cancel_all() -> None:
    """As a program does that ends so; here with the tasks that it does not see."""
    me = asyncio.current_task()
    for task in (asyncio.all_tasks() - {me}) | ending():
        task.cancel()


@virtual_time()
async def test_a_cancellation_of_all_tasks_does_not_reach_the_work() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(5)
        done.append("work")

    leaving = asyncio.create_task(shielded(work(), "work"))
    for _ in range(3):
        await asyncio.sleep(1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert [task.get_name() for task in ending()] == ["work"]
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert done == ["work"]
    assert ending() == set()


@virtual_time()
async def test_work_that_is_cancelled_before_its_first_step_is_begun_again() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(5)
        done.append("work")

    asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in ending()])
    leaving = asyncio.create_task(shielded(work(), "work"))
    await asyncio.sleep(0)
    for task in ending():
        task.cancel()
    await leaving
    assert done == ["work"]


@virtual_time()
async def test_work_with_a_limit_is_begun_again_too() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(5)
        done.append("work")

    waiting = asyncio.create_task(for_so_long(work(), "work", 8, 1))
    await asyncio.sleep(0)
    for task in ending():
        task.cancel()
    assert await waiting
    assert done == ["work"]
    # Given up before its first step, it is not left for the collector of garbage to find.
    waiting = asyncio.create_task(for_so_long(work(), "work", 8, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done == ["work"]


@virtual_time()
async def test_several_end_at_the_same_time_and_the_first_problem_is_raised() -> None:
    done: list[str] = []

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        done.append(f"{seconds}")

    began = asyncio.get_running_loop().time()
    with pytest.raises(OSError, match="leaving failed"):
        await all_shielded({"a": work(3), "b": fail(), "c": work(2)})
    assert done == ["2", "3"]
    assert asyncio.get_running_loop().time() - began == 3
    await all_shielded({})


@virtual_time()
async def test_work_that_is_cancelled_in_the_middle_says_so() -> None:
    leaving = asyncio.create_task(shielded(asyncio.sleep(5), "work"))
    await asyncio.sleep(1)
    await cancel_all()
    with pytest.raises(asyncio.CancelledError):
        await leaving


class TestForSoLong:
    """Work of somebody else."""

    @virtual_time()
    async def test_what_ends_in_time_has_ended(self) -> None:
        assert await for_so_long(asyncio.sleep(1), "work", 2, 1)

        async def fails() -> None:
            raise ValueError("told to")

        with pytest.raises(ValueError, match="told to"):
            await for_so_long(fails(), "work", 2, 1)

    @virtual_time()
    async def test_what_does_not_is_cancelled_and_left_behind(self) -> None:
        loop = asyncio.get_running_loop()
        ended: list[float] = []

        async def deaf() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
            await asyncio.sleep(100)
            ended.append(loop.time())
            raise ValueError("nobody looks at it")

        began = loop.time()
        assert not await for_so_long(deaf(), "work", 2, 1)
        assert loop.time() - began == pytest.approx(2.2)
        assert ending() == set()
        assert not await for_so_long(asyncio.sleep(100), "work", 2, 1)
        assert loop.time() - began == pytest.approx(4.2)
        await asyncio.sleep(200)
        assert ended == [pytest.approx(began + 102)]

    @virtual_time()
    async def test_in_a_hurry_it_has_less_time(self) -> None:
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(for_so_long(asyncio.sleep(100), "work", None, 1), name="w")
        await asyncio.sleep(5)
        hurry()
        began = loop.time()
        assert not await waiting
        assert loop.time() - began == pytest.approx(1)

    @virtual_time()
    async def test_who_waits_may_be_cancelled(self) -> None:
        waiting = asyncio.create_task(for_so_long(asyncio.sleep(100), "work", None, 1), name="w")
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ending() == set()
