"""So many beginnings in a turn: what is counted is beginnings and turns, not time."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from typing import Any

import pytest

from checks.scripts import TARGET
from vrrpkit.checks.engine.scheduler import TASKS, CheckScheduler
from vrrpkit.checks.function import FunctionChecker
from vrrpkit.checks.script import ScriptChecker
from vrrpkit.checks.target import Target
from vrrpkit.commands.command import Command
from vrrpkit.lifecycle.turns import SPAWNS, Turns
from vrrpkit.testing import virtual_time


class Clock:
    """Counts the turns of the running loop, until it is stopped."""

    def __init__(self) -> None:
        self.turn = 0
        self.stopped = False
        self._tick()

    def _tick(self) -> None:
        self.turn += 1
        if not self.stopped:
            asyncio.get_running_loop().call_soon(self._tick)


@virtual_time()
async def test_they_keep_their_order_and_their_limit() -> None:
    clock = Clock()
    turns = Turns(3)
    begun: list[tuple[int, int]] = []
    for number in range(10):
        turns.enter(number, lambda number=number: begun.append((clock.turn, number)))
    first = clock.turn
    assert begun == [(first, 0), (first, 1), (first, 2)]
    assert turns.waiting == 7
    assert turns.withdraw(4)
    assert not turns.withdraw(4)
    assert not turns.withdraw(0)
    for _ in range(6):
        await asyncio.sleep(0)
    assert [number for _turn, number in begun] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert max(Counter(turn for turn, _number in begun).values()) == 3
    # There is room again after a while.
    turns.enter(10, lambda: begun.append((clock.turn, 10)))
    assert begun[-1][1] == 10
    clock.stopped = True


@virtual_time()
async def test_one_that_enters_while_another_begins_comes_after_those_that_wait() -> None:
    turns = Turns(1)
    begun: list[str] = []

    def again() -> None:
        begun.append("a")
        turns.enter("c", lambda: begun.append("c"))

    turns.enter("a", again)
    turns.enter("b", lambda: begun.append("b"))
    for _ in range(4):
        await asyncio.sleep(0)
    assert begun == ["a", "c", "b"]


class Spawns:
    """Counts the programs that are started in each turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns: Counter[int] = Counter()
        self.clock: Clock | None = None
        popen: Any = subprocess.Popen

        def spawn(*arguments: Any, **options: Any) -> Any:
            assert self.clock is not None
            self.turns[self.clock.turn] += 1
            return popen(*arguments, **options)

        monkeypatch.setattr(subprocess, "Popen", spawn)


def test_a_hundred_programs_start_two_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    spawns = Spawns(monkeypatch)

    async def main() -> None:
        clock = spawns.clock = Clock()
        command = Command(["/bin/true"], timeout=60)
        done = await asyncio.gather(*(command.run() for _ in range(100)))
        clock.stopped = True
        assert all(each.ok for each in done)

    asyncio.run(main())
    assert sum(spawns.turns.values()) == 100
    assert max(spawns.turns.values()) <= SPAWNS


def test_a_hundred_script_checks_that_are_due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spawns = Spawns(monkeypatch)

    async def main() -> None:
        clock = spawns.clock = Clock()
        results: list[bool] = []
        async with CheckScheduler() as scheduler:
            checker = ScriptChecker(["/bin/true"], warmup=0, interval=600, timeout=60)
            for _ in range(100):
                scheduler.add(checker, TARGET, on_result=lambda r: results.append(r.passed))
            async with asyncio.timeout(60):
                while len(results) < 100:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        clock.stopped = True
        assert results == [True] * 100

    asyncio.run(main())
    assert max(spawns.turns.values()) <= SPAWNS


@virtual_time()
async def test_first_steps_of_tasks_spread_over_turns() -> None:
    clock = Clock()
    steps: Counter[int] = Counter()

    async def step(_target: Target) -> None:
        steps[clock.turn] += 1

    async with CheckScheduler() as scheduler:
        for _ in range(50):
            scheduler.add(FunctionChecker(step, warmup=0, interval=600), TARGET)
        for _ in range(200):
            await asyncio.sleep(0)
        assert sum(steps.values()) == 50
        assert scheduler.running == 0
    assert max(steps.values()) <= TASKS
    clock.stopped = True


@virtual_time()
async def test_a_check_that_is_stopped_while_it_waits_for_its_turn_gives_its_slot_back() -> None:
    begun: list[None] = []

    async def step(_target: Target) -> None:
        begun.append(None)

    async with CheckScheduler() as scheduler:
        checks = [
            scheduler.add(FunctionChecker(step, interval=600), TARGET, paused=True)
            for _ in range(10)
        ]
        for check in checks:
            check.resume()
        while not scheduler.running:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for check in checks:
            check.close()
        for _ in range(20):
            await asyncio.sleep(0)
        assert scheduler.running == 0
        assert len(begun) < 10


def test_a_command_that_is_cancelled_while_it_waits_is_never_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawns = Spawns(monkeypatch)

    async def main() -> None:
        spawns.clock = Clock()
        command = Command(["/bin/true"])
        tasks = [asyncio.create_task(command.run()) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for _ in range(20):
            await asyncio.sleep(0)
        spawns.clock.stopped = True

    asyncio.run(main())
    assert sum(spawns.turns.values()) <= SPAWNS
