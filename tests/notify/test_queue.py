"""The ordered queue behind every notifier."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit.notify.queue import CoalescingQueue
from vrrpkit.testing import virtual_time


class Worker:
    """Takes a second for each item."""

    def __init__(self, takes: float = 1.0) -> None:
        self.takes = takes
        self.done: list[str] = []
        self.active = self.most = 0

    async def work(self, item: str) -> None:
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(self.takes)
            if item == "bad":
                raise RuntimeError("bad item")
            self.done.append(item)
        finally:
            self.active -= 1


def by_letter(item: str) -> str | None:
    return item[0] if item[0].islower() else None


@virtual_time()
async def test_in_order_one_at_a_time_and_no_task_while_idle() -> None:
    worker = Worker()
    queue = CoalescingQueue("queue", worker.work)
    before = len(asyncio.all_tasks())
    for item in ("A", "bad", "B"):
        queue.put(item)
    assert queue.busy
    await asyncio.sleep(3.5)
    assert (worker.done, worker.most) == (["A", "B"], 1)
    assert not queue.busy
    assert len(asyncio.all_tasks()) == before
    queue.put("C")
    await queue.close(10)
    assert worker.done == ["A", "B", "C"]
    queue.put("D")
    assert not queue.busy


@virtual_time()
async def test_only_the_newest_of_a_kind_waits_and_it_comes_last() -> None:
    worker = Worker()
    queue = CoalescingQueue("queue", worker.work, kind=by_letter)
    for item in ("s1", "s2", "A", "s3", "B"):
        queue.put(item)
    await queue.close(10)
    # The first was under way already.
    assert worker.done[0] in {"s1", "A"}
    assert worker.done[-3:] == ["A", "s3", "B"]
    assert queue.replaced >= 1


@virtual_time()
async def test_beyond_the_limit_the_oldest_goes(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    queue = CoalescingQueue("queue", worker.work, limit=2)
    for item in "ABCDE":
        queue.put(item)
    await queue.close(10)
    assert worker.done == ["D", "E"]
    assert queue.dropped == 3
    assert caplog.text.count("too slow") == 1


@virtual_time()
async def test_closing_is_bounded() -> None:
    worker = Worker(takes=3600)
    queue = CoalescingQueue("queue", worker.work)
    queue.put("A")
    queue.put("B")
    loop = asyncio.get_running_loop()
    start = loop.time()
    await queue.close(5)
    assert loop.time() - start == 5
    assert (worker.active, queue.dropped) == (0, 2)


@virtual_time()
async def test_what_has_no_kind_pushes_out_its_like_only() -> None:
    worker = Worker()
    queue = CoalescingQueue("queue", worker.work, kind=by_letter, limit=2)
    for item in ("A", "state", "B", "other", "C", "D", "E"):
        queue.put(item)
    await queue.close(10)
    assert worker.done == ["state", "other", "D", "E"]
    assert queue.dropped == 3


@virtual_time()
async def test_there_are_limits_to_how_many_kinds_wait() -> None:
    worker = Worker()
    queue = CoalescingQueue("queue", worker.work, kind=by_letter, kinds=2)
    for item in ("A", "b1", "c1", "b2", "d1", "e1"):
        queue.put(item)
    await queue.close(10)
    assert worker.done == ["A", "d1", "e1"]
    assert (queue.replaced, queue.dropped) == (1, 2)


@virtual_time()
async def test_work_that_finds_itself_cancelled_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []

    async def work(item: str) -> None:
        if item == "bad":
            helper = asyncio.ensure_future(asyncio.sleep(10))
            helper.cancel()
            await helper
        done.append(item)

    queue = CoalescingQueue("queue", work)
    for item in ("A", "bad", "B"):
        queue.put(item)
    await queue.close(10)
    assert done == ["A", "B"]
    assert "failed on bad" in caplog.text


@virtual_time()
async def test_work_that_does_not_want_to_end_holds_nobody_up() -> None:
    async def stubborn(_: str) -> None:
        for _ in range(10):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                continue

    queue = CoalescingQueue("queue", stubborn)
    queue.put("A")
    loop = asyncio.get_running_loop()
    start = loop.time()
    await queue.close(5)
    assert loop.time() - start == 10
    await asyncio.sleep(1000)
    assert not queue.busy
