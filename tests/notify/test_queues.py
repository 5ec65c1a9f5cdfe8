"""Queues side by side, one for each thing."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit.notify.queues import CoalescingQueues
from vrrpkit.testing import virtual_time


class Worker:
    """Takes a second for each item: a subject and a number."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.active: list[str] = []
        self.most = 0

    async def work(self, item: str) -> None:
        assert item[0] not in [one[0] for one in self.active], "two at once about one thing"
        self.active.append(item)
        self.most = max(self.most, len(self.active))
        try:
            await asyncio.sleep(1)
            self.done.append(item)
        finally:
            self.active.remove(item)


def lanes(worker: Worker, *, at_once: int = 2, limit: int = 100) -> CoalescingQueues[str]:
    return CoalescingQueues(
        "lanes",
        worker.work,
        subject=lambda item: item[0],
        kind=lambda item: "state",
        urgent=lambda item: item[0] == "!",
        at_once=at_once,
        limit=limit,
    )


@virtual_time()
async def test_side_by_side_and_in_order_and_the_urgent_at_once() -> None:
    worker = Worker()
    made = lanes(worker)
    for item in ("a1", "b1", "c1", "!1"):
        made.put(item)
    await asyncio.sleep(0.5)
    made.put("a2")
    made.put("a3")
    assert sorted(worker.active) == ["!1", "a1", "b1"]
    await asyncio.sleep(1)
    assert sorted(worker.active) == ["a3", "c1"]
    await asyncio.sleep(1)
    assert sorted(worker.done[:3]) == ["!1", "a1", "b1"]
    assert sorted(worker.done[3:]) == ["a3", "c1"]
    assert (made.busy, made.dropped, worker.most) == (False, 0, 3)


@virtual_time()
async def test_beyond_the_limit_what_is_new_is_dropped_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker()
    made = lanes(worker, limit=2)
    for item in ("a1", "b1", "c1", "d1"):
        made.put(item)
    assert made.dropped == 2
    await asyncio.sleep(1.5)
    # What has nothing to do any more makes room.
    made.put("c2")
    await made.close(5)
    assert worker.done == ["a1", "b1", "c2"]
    assert caplog.text.count("too slow") == 1


@virtual_time()
async def test_a_thousand_things_leave_nothing_behind() -> None:
    worker = Worker()
    made = lanes(worker, at_once=1000, limit=10_000)
    before = len(asyncio.all_tasks())
    for number in range(1000):
        made.put(chr(0x4E00 + number))
    await asyncio.sleep(1.5)
    assert len(worker.done) == 1000
    assert len(asyncio.all_tasks()) == before
    for number in range(3):
        made.put(chr(0x3000 + number))
        await asyncio.sleep(1.5)
        made.put("x")
        await asyncio.sleep(1.5)
    assert len(worker.done) == 1006


@virtual_time()
async def test_the_end_gives_all_of_them_the_same_time() -> None:
    worker = Worker()
    made = lanes(worker, at_once=1)
    for item in ("a1", "b1", "c1", "d1"):
        made.put(item)
    loop = asyncio.get_running_loop()
    start = loop.time()
    await made.close(2.5)
    assert loop.time() - start == pytest.approx(2.5)
    assert worker.done == ["a1", "b1"]
    assert (made.dropped, made.busy) == (2, False)
    made.put("e1")
    assert not made.busy


@virtual_time()
async def test_cancelling_drops_everything() -> None:
    worker = Worker()
    made = lanes(worker)
    for item in ("a1", "b1", "c1"):
        made.put(item)
    await asyncio.sleep(0.5)
    made.cancel()
    await asyncio.sleep(0.1)
    assert (worker.done, worker.active, made.busy) == ([], [], False)
