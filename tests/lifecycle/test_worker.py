"""A task that works while there is work, whoever cancels it and whenever."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest

from vrrpkit.lifecycle.worker import AGAIN, Worker
from vrrpkit.testing import virtual_time


class Bench:
    """Work that takes a second a piece."""

    def __init__(self, *pieces: int) -> None:
        self.pieces = list(pieces)
        self.done: list[int] = []
        self.problems: list[BaseException] = []
        self.worker = Worker("work", self.work, lambda: bool(self.pieces))

    async def work(self) -> None:
        while self.pieces:
            if self.problems:
                raise self.problems.pop()
            await asyncio.sleep(1)
            self.done.append(self.pieces.pop(0))


def workers() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "work"]


@virtual_time()
async def test_there_is_one_task_while_there_is_work_and_none_otherwise() -> None:
    bench = Bench(1, 2)
    assert not bench.worker.busy
    bench.worker.start()
    bench.worker.start()
    await asyncio.sleep(0.5)
    bench.worker.start()
    assert len(workers()) == 1
    assert bench.worker.busy
    await bench.worker.idle()
    assert (bench.done, bench.worker.busy, workers()) == ([1, 2], False, [])
    bench.pieces.append(3)
    bench.worker.start()
    await bench.worker.idle()
    assert bench.done == [1, 2, 3]


@pytest.mark.parametrize("after", [0, 0.5, 1.5])
@virtual_time()
async def test_work_goes_on_when_all_tasks_are_cancelled(after: float) -> None:
    bench = Bench(1, 2)
    bench.worker.start()
    if after:
        await asyncio.sleep(after)
    for task in workers():
        task.cancel()
    await bench.worker.idle()
    assert bench.done == [1, 2]


@virtual_time()
async def test_even_when_they_are_cancelled_turn_by_turn() -> None:
    bench = Bench(1)
    bench.worker.start()
    for _ in range(20):
        for task in workers():
            task.cancel()
        await asyncio.sleep(0)
    await bench.worker.idle()
    assert bench.done == [1]


@virtual_time()
async def test_a_start_between_the_end_and_its_news_makes_one_task() -> None:
    bench = Bench(1)
    bench.worker.start()
    (task,) = workers()
    await asyncio.wait({task})
    bench.pieces.append(2)
    bench.worker.start()
    assert len(workers()) == 1
    await bench.worker.idle()
    assert bench.done == [1, 2]


@virtual_time()
async def test_a_bug_is_logged_and_work_goes_on_later(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(1)
    bench.problems.append(ZeroDivisionError("bug"))
    with caplog.at_level(logging.ERROR):
        bench.worker.start()
        await asyncio.sleep(AGAIN / 2)
        assert not bench.worker.busy
        await asyncio.sleep(AGAIN)
        await bench.worker.idle()
    assert bench.done == [1]
    assert "work: a bug" in caplog.text


@virtual_time()
async def test_a_new_wish_does_not_wait_for_the_pause_after_a_bug() -> None:
    bench = Bench(1)
    bench.problems.append(ZeroDivisionError("bug"))
    bench.worker.start()
    await asyncio.sleep(AGAIN / 2)
    bench.worker.start()
    await bench.worker.idle()
    assert bench.done == [1]
    await asyncio.sleep(10)
    assert bench.done == [1]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_comes_out_and_work_goes_on(kind: type[BaseException]) -> None:
    bench = Bench(1)
    bench.problems.append(kind())

    async def main() -> None:
        bench.worker.start()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await bench.worker.idle()
            raise

    with pytest.raises(kind):
        asyncio.run(main())
    assert bench.done == [1]


@virtual_time()
async def test_cancel_is_the_end() -> None:
    bench = Bench(1, 2)
    bench.worker.start()
    await asyncio.sleep(0.5)
    assert not bench.worker.stopped
    bench.worker.cancel()
    await bench.worker.idle()
    bench.worker.start()
    await asyncio.sleep(10)
    assert (bench.done, bench.worker.stopped, bench.worker.busy) == ([], True, False)
    after_a_bug = Bench(1)
    after_a_bug.problems.append(ZeroDivisionError("bug"))
    after_a_bug.worker.start()
    await asyncio.sleep(AGAIN / 2)
    after_a_bug.worker.cancel()
    await asyncio.sleep(10)
    assert after_a_bug.done == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
def test_with_tasks_that_begin_at_once() -> None:
    done: list[int] = []

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
        pieces = [1]

        async def work() -> None:
            while pieces:
                done.append(pieces.pop())

        worker = Worker("work", work, lambda: bool(pieces))
        for _ in range(2):
            pieces.append(1)
            worker.start()
            await worker.idle()

    asyncio.run(main())
    assert done == [1, 1, 1]
