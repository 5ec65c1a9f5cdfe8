"""How objects end: their bugs come out, and what must be done is done."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit.leaving import Body, to_the_end
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

    task = asyncio.create_task(to_the_end(work(), "work"))
    for _ in range(3):
        await asyncio.sleep(1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["work"]
    with pytest.raises(OSError, match="leaving failed"):
        await to_the_end(fail(), "work")


@virtual_time()
async def test_a_bug_interrupts_the_body_and_is_raised_instead_of_the_cancellation() -> None:
    body = Body()
    bug = ZeroDivisionError("bug")
    body.begin()
    body.interrupt()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(1000)
    with pytest.raises(ZeroDivisionError):
        await body.end(fail(), lambda: bug)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time()
async def test_without_a_bug_what_leaving_raises_is_raised() -> None:
    body = Body()
    body.begin()
    with pytest.raises(OSError, match="leaving failed"):
        await body.end(fail(), lambda: None)
    await body.end(nothing(), lambda: None)
    # Whoever is ending already is not interrupted.
    body.interrupt()
    await asyncio.sleep(1)
