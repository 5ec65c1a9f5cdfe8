"""Many checks: how many run at once, what they share, and what they cost."""

from __future__ import annotations

import asyncio
import gc
import resource
import tracemalloc
import weakref
from collections.abc import Callable
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import attrs
import pytest

from checks.scripts import (
    HANG,
    PASS,
    TARGET,
    Answer,
    ByCallback,
    ByTask,
    Notebook,
    Plain,
    Reaching,
    Script,
    Swallower,
    passing,
)
from vrrpkit.checks.base import Checker, NetworkChecker
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.testing import VirtualLoop, virtual_time

kinds = pytest.mark.parametrize("kind", [ByTask, ByCallback])


def timers() -> int:
    """Timers that the running loop holds."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    pending: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
    return sum(not timer.cancelled() for timer in pending)


def no_room(soft: int) -> Callable[[int], tuple[int, int]]:
    return lambda which: (soft, soft)


# --- adding -------------------------------------------------------------------------------------


@virtual_time()
async def test_a_target_that_cannot_be_checked_is_refused_before_anything_happens() -> None:
    scheduler = CheckScheduler()
    with pytest.raises(ConfigError, match="there is no port to connect to"):
        scheduler.add(Reaching(), Target(ip_address("192.0.2.1")))
    assert (scheduler.checks, scheduler.needed, timers()) == (0, 0, 0)


@pytest.mark.parametrize(
    ("checker", "target", "says"),
    [
        (NetworkChecker, TARGET, "<class .*> is no Checker; write TCPChecker"),
        (print, TARGET, "is no Checker; .* FunctionChecker"),
        (Reaching(port=80), "10.0.0.1", "'10.0.0.1' is no Target; write Target"),
    ],
)
@virtual_time()
async def test_what_is_no_checker_or_no_target_is_refused(
    checker: Any, target: Any, says: str
) -> None:
    scheduler = CheckScheduler()
    with pytest.raises(ConfigError, match=says):
        scheduler.add(checker, target)
    assert scheduler.checks == 0


@virtual_time()
async def test_a_checker_that_cannot_attach_is_not_added() -> None:
    @attrs.frozen(kw_only=True)
    class Unable(Plain):
        def attach(self, target: Target, soon: Callable[[], None]) -> None:
            raise ConfigError("there is nothing to watch")

    scheduler = CheckScheduler()
    with pytest.raises(ConfigError, match="nothing to watch"):
        scheduler.add(Unable(), TARGET)
    assert (scheduler.checks, timers()) == (0, 0)


# --- max_concurrent -----------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_no_more_than_max_concurrent_run_and_the_others_keep_their_order(
    kind: type[ByTask] | type[ByCallback],
) -> None:
    scripts = [Script([passing(1)]) for _ in range(5)]
    async with CheckScheduler(max_concurrent=2) as scheduler:
        for script in scripts:
            scheduler.add(kind(script=script, interval=100), TARGET)
        await asyncio.sleep(0.5)
        assert (scheduler.running, scheduler.waiting) == (2, 3)
        await asyncio.sleep(3)
        assert (scheduler.running, scheduler.waiting) == (0, 0)
    assert [script.begun for script in scripts] == [[0], [0], [1], [1], [2]]


@virtual_time()
async def test_as_many_as_max_concurrent_run_at_once() -> None:
    scripts = [Script([passing(1)]) for _ in range(3)]
    async with CheckScheduler(max_concurrent=3) as scheduler:
        for script in scripts:
            scheduler.add(ByTask(script=script), TARGET)
        await asyncio.sleep(0.5)
        assert (scheduler.running, scheduler.waiting) == (3, 0)


@virtual_time()
async def test_waiting_ends_with_a_pause_or_a_stop_and_soon_does_not_add_to_it() -> None:
    first, paused, stopped, last = (Script([passing(1)]) for _ in range(4))
    async with CheckScheduler(max_concurrent=1) as scheduler:
        checks = [
            scheduler.add(ByTask(script=script, interval=100), TARGET)
            for script in (first, paused, stopped, last)
        ]
        await asyncio.sleep(0.5)
        checks[1].pause()
        await checks[2].stop()
        checks[3].soon()
        await asyncio.sleep(5)
        assert (paused.begun, stopped.begun, last.begun) == ([], [], [1])
        checks[1].resume()
        await asyncio.sleep(5)
        assert paused.begun == [5.5]


@virtual_time()
async def test_an_attempt_that_does_not_end_keeps_its_place() -> None:
    release = asyncio.Event()

    notes, script = Notebook(), Script([PASS])
    async with CheckScheduler(max_concurrent=1) as scheduler:
        scheduler.add(
            Swallower(release=release, warmup=0, timeout=1, interval=100, retry=0), TARGET
        )
        notes.add(scheduler, ByTask(script=script, timeout=1, interval=2, retry=0))
        await asyncio.sleep(50)
        assert (script.begun, scheduler.running) == ([], 1)
        # One that waits is stuck as well.
        assert [at for at, _stuck in notes.stuck] == [9]
        release.set()
        await asyncio.sleep(1)
        assert script.begun == [50]
        assert notes.passed == [True]


@virtual_time()
async def test_a_retry_waits_for_its_turn_too() -> None:
    failing = Script([PASS, Answer(CheckFailed("no"), 0.5)])
    other = Script([passing(1)])
    async with CheckScheduler(max_concurrent=1) as scheduler:
        scheduler.add(ByTask(script=failing, interval=10, retry=1, delay_before_retry=0.25), TARGET)
        await asyncio.sleep(10.25)
        scheduler.add(ByTask(script=other, interval=100), TARGET)
        await asyncio.sleep(2)
    assert failing.begun == [0, 10, 11.5]
    assert other.begun == [10.5]


@virtual_time()
async def test_a_long_queue_of_short_checks_is_no_deep_stack() -> None:
    script, slow = Script([PASS]), Script([passing(1)])
    async with CheckScheduler(max_concurrent=1) as scheduler:
        scheduler.add(ByCallback(script=slow, interval=100), TARGET)
        for _ in range(3000):
            scheduler.add(ByCallback(script=script, interval=100), TARGET)
        await asyncio.sleep(0.5)
        assert scheduler.waiting == 3000
        await asyncio.sleep(1)
    assert script.begun == [1.0] * 3000


@pytest.mark.parametrize(("files", "room"), [(1024, 512), (3, 1), (1, 1), (0, 1)])
def test_the_limit_on_open_files_leaves_room_for_the_program(
    files: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", no_room(files))
    assert CheckScheduler().max_concurrent == room


def test_no_limit_on_open_files_is_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", no_room(resource.RLIM_INFINITY))
    assert CheckScheduler().max_concurrent == 32768


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5", 1_000_001])
def test_max_concurrent_is_a_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="max_concurrent"):
        CheckScheduler(max_concurrent=value)


@virtual_time()
async def test_a_limit_that_is_too_small_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    # Half of its period is spent waiting when the server hangs.
    checker = ByTask(script=Script([PASS]), interval=4, timeout=4, retry=0)
    async with CheckScheduler(max_concurrent=2) as scheduler:
        for _ in range(4):
            scheduler.add(checker, TARGET)
        assert (scheduler.needed, caplog.records) == (2, [])
        more = [scheduler.add(checker, TARGET) for _ in range(2)]
        assert scheduler.needed == 3
        [record] = caplog.records
        assert record.message.startswith(
            "5 checks would need 3 attempts at once if all servers hung, and 2 are allowed: the "
            "others would be late. Raise the limit on open files (LimitNOFILE="
        )
        for check in more:
            await check.stop()
        assert scheduler.needed == 2
        scheduler.add(checker, TARGET)
        assert len(caplog.records) == 1


# --- shared -------------------------------------------------------------------------------------


def test_everybody_on_a_loop_shares_a_scheduler() -> None:
    async def main() -> CheckScheduler:
        first = CheckScheduler.current()
        assert CheckScheduler.current() is first
        return first

    assert asyncio.run(main()) is not asyncio.run(main())


def test_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        CheckScheduler.current()


def test_a_shared_scheduler_lives_as_long_as_its_checks_and_keeps_no_loop() -> None:
    async def main() -> tuple[weakref.ref[CheckScheduler], weakref.ref[asyncio.AbstractEventLoop]]:
        scheduler = weakref.ref(CheckScheduler.current())
        gc.collect()
        assert scheduler() is None
        check = CheckScheduler.current().add(ByTask(script=Script([HANG])), TARGET)
        scheduler = weakref.ref(CheckScheduler.current())
        gc.collect()
        await asyncio.sleep(0.02)
        assert scheduler() is CheckScheduler.current()
        await check.stop()
        return scheduler, weakref.ref(asyncio.get_running_loop())

    scheduler, loop = asyncio.run(main())
    gc.collect()
    assert scheduler() is None
    assert loop() is None


def test_a_scheduler_may_be_made_anywhere_and_used_on_one_loop_after_another() -> None:
    scheduler = CheckScheduler()

    async def main() -> list[bool]:
        passed: list[bool] = []
        checker = ByCallback(script=Script([PASS]))
        check = scheduler.add(
            checker, TARGET, on_result=lambda result: passed.append(result.passed)
        )
        await asyncio.sleep(0.05)
        await check.stop()
        return passed

    assert asyncio.run(main()) == [True]
    assert asyncio.run(main()) == [True]


# --- the end ------------------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_leaving_stops_every_check(kind: type[ByTask] | type[ByCallback]) -> None:
    scripts = [Script([HANG]) for _ in range(3)]
    scheduler = CheckScheduler()

    async def main() -> None:
        async with scheduler:
            for script in scripts:
                scheduler.add(kind(script=script), TARGET)
            await asyncio.sleep(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await main()
    assert [script.abandoned for script in scripts] == [[1], [1], [1]]
    assert (scheduler.checks, scheduler.running, scheduler.waiting, timers()) == (0, 0, 0, 0)
    await scheduler.stop()


@virtual_time()
async def test_attempts_end_side_by_side() -> None:
    @attrs.frozen(kw_only=True)
    class Tidy(Checker):
        async def check(self, target: Target) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(2)

    scheduler = CheckScheduler()
    for _ in range(10):
        scheduler.add(Tidy(warmup=0), TARGET)
    await asyncio.sleep(1)
    began = asyncio.get_running_loop().time()
    await scheduler.stop()
    assert asyncio.get_running_loop().time() == began + 2


@virtual_time()
async def test_a_stop_that_is_cancelled_leaves_nothing_behind() -> None:
    @attrs.frozen(kw_only=True)
    class Tidy(Checker):
        async def check(self, target: Target) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(2)

    scheduler = CheckScheduler()
    check = scheduler.add(Tidy(warmup=0), TARGET)
    await asyncio.sleep(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await check.stop()
    assert (scheduler.checks, scheduler.running) == (0, 1)
    await asyncio.sleep(1.5)
    assert (scheduler.running, timers()) == (0, 0)


# --- cost ---------------------------------------------------------------------------------------


@virtual_time()
async def test_idle_checks_share_one_timer_and_hold_no_task() -> None:
    async with CheckScheduler() as scheduler:
        for _ in range(1000):
            scheduler.add(ByTask(script=Script([PASS]), interval=60), TARGET)
        await asyncio.sleep(30)
        assert timers() == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time()
async def test_an_idle_check_takes_about_a_kilobyte() -> None:
    checker = ByTask(script=Script([PASS]), interval=60, warmup=60)
    async with CheckScheduler(max_concurrent=100_000) as scheduler:
        tracemalloc.start()
        try:
            before, _peak = tracemalloc.get_traced_memory()
            for _ in range(1000):
                scheduler.add(checker, TARGET)
            after, _peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 1500 * 1000


@virtual_time()
async def test_moments_are_exact_under_virtual_time() -> None:
    script = Script([PASS])
    async with CheckScheduler() as scheduler:
        scheduler.add(ByCallback(script=script, interval=1), TARGET)
        other = ByCallback(script=Script([PASS]), interval=1, warmup=0)
        await asyncio.sleep(0.001)
        scheduler.add(other, TARGET)
        await asyncio.sleep(2.5)
    assert script.begun == [0, 1, 2]


def test_in_real_time_one_wake_up_serves_many_checks() -> None:
    async def main() -> tuple[int, int]:
        moments: list[float] = []
        loop = asyncio.get_running_loop()
        async with CheckScheduler() as scheduler:
            for _ in range(200):
                scheduler.add(
                    ByCallback(script=Script([PASS]), interval=0.2, warmup=0.2),
                    TARGET,
                    on_result=lambda result: moments.append(loop.time()),
                )
            await asyncio.sleep(0.5)
        # What is done in one turn lies closer together than two turns do.
        gaps = [later - at for at, later in pairwise(moments)]
        return len(moments), sum(gap > 0.001 for gap in gaps)

    checks, turns = asyncio.run(main())
    assert checks >= 300
    # 0.5 seconds have a hundred steps of 5 ms.
    assert turns <= 110
