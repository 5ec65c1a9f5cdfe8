"""Haste: waits are cut down, those that go on and those that begin later."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit.lifecycle.shutdown import hurried, hurry, on_hurry, patience
from vrrpkit.testing import virtual_time


async def waited(limit: float | None, less: float) -> float:
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with patience(limit, less):
            await asyncio.sleep(1000)
    return asyncio.get_running_loop().time() - began


@virtual_time()
async def test_a_wait_is_cut_down_when_the_hurry_begins() -> None:
    async with asyncio.TaskGroup() as tasks:
        long = tasks.create_task(waited(20, 2))
        endless = tasks.create_task(waited(None, 0))
        nearly_over = tasks.create_task(waited(6, 3))
        await asyncio.sleep(5)
        assert not hurried()
        hurry()
    assert hurried()
    assert (long.result(), endless.result(), nearly_over.result()) == (7, 5, 6)


@virtual_time()
async def test_a_wait_that_begins_in_a_hurry_is_short() -> None:
    hurry()
    hurry()
    assert await waited(20, 2) == 2
    assert await waited(1, 2) == 1
    assert await waited(None, 0) == 0


@virtual_time()
async def test_what_ends_in_time_is_left_alone() -> None:
    async with patience(5, 1):
        await asyncio.sleep(1)
    hurry()
    async with patience(5, 1):
        await asyncio.sleep(0.5)


@virtual_time()
async def test_who_wants_to_know_is_told_once() -> None:
    told: list[str] = []
    stop = on_hurry(lambda: told.append("one who left"))
    on_hurry(lambda: told.append("one who stays"))
    stop()
    stop()
    hurry()
    hurry()
    on_hurry(lambda: told.append("late"))()
    assert told == ["one who stays", "late"]


@virtual_time()
async def test_another_loop_takes_its_time() -> None:
    assert not hurried()
