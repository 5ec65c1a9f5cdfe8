"""When attempts begin and results come, to the second of virtual time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import attrs
import pytest

from checks.scripts import (
    FAIL,
    HANG,
    PASS,
    TARGET,
    Answer,
    ByCallback,
    ByTask,
    Kind,
    Notebook,
    Script,
    elapsed,
    kinds,
    passing,
    run,
)
from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.engine.scheduler import Check, CheckScheduler
from vrrpkit.checks.events import CheckResult
from vrrpkit.checks.target import Endpoint, Target
from vrrpkit.errors import CheckFailed
from vrrpkit.testing import VirtualLoop, randomness, virtual_time

# --- interval, warm-up, jitter ------------------------------------------------------------------


@kinds
@virtual_time()
async def test_interval_counts_from_the_end_of_a_check(kind: Kind) -> None:
    script, notes = await run(kind, [passing(0.5)], 6, interval=2)
    assert script.begun == [0, 2.5, 5]
    assert notes.times == [0.5, 3, 5.5]


@kinds
@virtual_time()
async def test_first_check_is_not_made_inside_add(kind: Kind) -> None:
    script, notes = Script([PASS]), Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, kind(script=script))
        assert (script.begun, notes.results) == ([], [])
        assert check.healthy and check.last is None and check.count == 0
        await asyncio.sleep(0.1)
        assert script.begun == [0]


@pytest.mark.parametrize(("warmup", "most"), [(8.0, 8.0), (None, 2.0)])
@virtual_time(seed=3)
async def test_warm_up_spreads_the_first_checks(warmup: float | None, most: float) -> None:
    script = Script([HANG])
    async with CheckScheduler(random=randomness()) as scheduler:
        for _ in range(50):
            scheduler.add(
                ByTask(script=script, warmup=warmup, interval=2, timeout=60, retry=0), TARGET
            )
        await asyncio.sleep(20)
    assert len(script.begun) == 50
    assert all(0 <= at <= most for at in script.begun)
    assert min(script.begun) < most / 5 and max(script.begun) > most * 4 / 5


@virtual_time(seed=3)
async def test_jitter_moves_each_pause() -> None:
    script, _notes = await run(ByCallback, [PASS], 200, interval=2, jitter=0.25)
    pauses = [later - at for at, later in pairwise(script.begun)]
    assert all(1.5 <= pause <= 2.5 for pause in pauses)
    assert min(pauses) < 1.6 and max(pauses) > 2.4


# --- timeout ------------------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_an_attempt_has_its_timeout(kind: Kind) -> None:
    script, notes = await run(kind, [passing(2.75), HANG], 8, timeout=3, interval=2, retry=0)
    assert notes.times == [2.75, 7.75]
    assert notes.passed == [True, False]
    assert notes.texts == ["", "no answer within 3 s"]
    assert script.abandoned == [7.75]


@kinds
@virtual_time()
async def test_an_answer_that_comes_later_counts_for_nothing(kind: Kind) -> None:
    script, notes = await run(
        kind, [passing(3.25), PASS], 9.5, timeout=3, interval=2, retry=0, rise=5
    )
    assert notes.passed == [False, True, True, True]
    assert notes.times == [3, 5, 7, 9]
    assert script.abandoned == [3]


def block(seconds: float) -> None:
    """Let time pass without a turn of the event loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._now += seconds


@kinds
@virtual_time()
async def test_what_came_while_the_event_loop_was_blocked_still_counts(kind: Kind) -> None:
    script, notes = Script([passing(0.5)]), Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, kind(script=script, timeout=1, retry=0))
        await asyncio.sleep(0.25)
        block(10)
        await asyncio.sleep(1)
    assert notes.texts == [""]
    assert script.abandoned == []


@kinds
@virtual_time()
async def test_a_hanging_attempt_ends_soon_after_the_event_loop_was_blocked(kind: Kind) -> None:
    script, notes = Script([HANG]), Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, kind(script=script, timeout=1, retry=0))
        await asyncio.sleep(0.25)
        block(9.75)
        await asyncio.sleep(1)
    assert notes.texts == ["no answer within 1 s"]
    assert notes.times == [pytest.approx(10.1)]


@virtual_time()
async def test_an_attempt_that_has_just_ended_was_in_time() -> None:
    answer = asyncio.Event()

    @attrs.frozen(kw_only=True)
    class Waiting(Checker):
        async def check(self, target: Target) -> None:
            await answer.wait()

    notes = Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, Waiting(warmup=0, timeout=1, retry=0))
        await asyncio.sleep(0.9375)
        answer.set()
        # The task ends in the same turn as its time is up, and before.
        block(0.0625)
        await asyncio.sleep(1)
    assert notes.passed == [True]


# --- attempts and checks ------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_the_first_failed_attempt_is_final(kind: Kind) -> None:
    _script, notes = await run(kind, [FAIL], 0.5, retry=3, fall=3)
    assert notes.times == [0]
    [(_at, result)] = notes.results
    assert (result.healthy, result.changed, result.attempts) == (False, True, 1)
    assert result.text == "refused"


@kinds
@virtual_time()
async def test_attempts_are_delay_before_retry_apart(kind: Kind) -> None:
    fail = Answer(CheckFailed("refused"), 0.25)
    script, notes = await run(
        kind, [PASS, fail, fail, PASS], 8, interval=2, retry=2, delay_before_retry=1
    )
    # The delay, too, counts from the end of an attempt.
    assert script.begun == [0, 2, 3.25, 4.5, 6.5]
    assert notes.times == [0, 4.5, 6.5]
    assert notes.passed == [True] * 3
    assert [result.attempts for _at, result in notes.results] == [1, 3, 1]
    assert notes.results[1][1].duration == 2.5


@kinds
@virtual_time()
async def test_a_check_fails_with_its_last_attempt(kind: Kind) -> None:
    script, notes = await run(kind, [PASS, FAIL], 6, interval=2, retry=1, delay_before_retry=1)
    # A server that is down is asked once in each check.
    assert script.begun == [0, 2, 3, 5]
    assert notes.times == [0, 3, 5]
    assert notes.verdicts == [True, False, False]
    assert [result.changed for _at, result in notes.results] == [False, True, False]


@kinds
@virtual_time()
async def test_no_delay_is_no_delay(kind: Kind) -> None:
    script, _notes = await run(kind, [PASS, FAIL], 2.5, interval=2, retry=2, delay_before_retry=0)
    assert script.begun == [0, 2, 2, 2]


@kinds
@virtual_time()
async def test_rise_and_fall_count_checks(kind: Kind) -> None:
    _script, notes = await run(
        kind, [PASS, FAIL, FAIL, PASS, FAIL, PASS], 8.5, interval=1, retry=0, rise=2, fall=2
    )
    assert notes.passed == [True, False, False, True, False, True, True, True, True]
    assert notes.verdicts == [True, True, False, False, False, False, True, True, True]


@kinds
@virtual_time()
async def test_alpha_starts_down(kind: Kind) -> None:
    _script, notes = await run(kind, [FAIL, PASS], 3.5, alpha=True, interval=2)
    assert notes.times == [0, 2]
    assert [result.attempts for _at, result in notes.results] == [1, 1]
    assert notes.verdicts == [False, True]
    assert [result.changed for _at, result in notes.results] == [False, True]


# --- deadline -----------------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_the_deadline_ends_an_attempt(kind: Kind) -> None:
    script, notes = await run(
        kind, [PASS, FAIL, HANG], 8, interval=2, timeout=3, retry=5, deadline=2.5
    )
    assert script.begun == [0, 2, 3, 6.5]
    assert notes.times == [0, 4.5]
    assert notes.texts[1] == "no result within the deadline of 2.5 s"
    assert notes.results[1][1].duration == 2.5
    assert script.abandoned[0] == 4.5


@kinds
@virtual_time()
async def test_an_attempt_that_the_deadline_leaves_no_time_for_is_not_made(kind: Kind) -> None:
    script, notes = await run(
        kind, [PASS, FAIL], 4.9, interval=2, retry=5, delay_before_retry=1, deadline=2
    )
    # Attempts at 2 and 3; the one at 4 would end as it begins, so the result is there at 3.
    assert script.begun == [0, 2, 3]
    assert notes.times == [0, 3]
    assert notes.texts[1] == "refused"


@kinds
@virtual_time()
async def test_a_check_within_its_deadline_does_not_notice_it(kind: Kind) -> None:
    script, notes = await run(
        kind, [PASS, FAIL], 4.5, interval=2, retry=2, delay_before_retry=1, deadline=2.25
    )
    assert script.begun == [0, 2, 3, 4]
    assert notes.results[1][1].attempts == 3


# --- soon ---------------------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_soon_checks_at_once_and_the_interval_counts_from_there(kind: Kind) -> None:
    script, notes = Script([PASS]), Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, kind(script=script, interval=10))
        await asyncio.sleep(3)
        check.soon()
        assert script.begun == [0]
        await asyncio.sleep(11)
    assert script.begun == [0, 3, 13]


@kinds
@virtual_time()
async def test_soon_during_an_attempt_checks_again_after_it(kind: Kind) -> None:
    script, notes = Script([passing(1)]), Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, kind(script=script, interval=10))
        await asyncio.sleep(0.5)
        check.soon()
        check.soon()
        await asyncio.sleep(12)
    assert script.begun == [0, 1, 12]


@kinds
@virtual_time()
async def test_soon_cuts_the_wait_for_a_retry(kind: Kind) -> None:
    script, notes = Script([PASS, FAIL, Answer(CheckFailed("slow"), 0.5), PASS]), Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, kind(script=script, interval=2, retry=5, delay_before_retry=1))
        await asyncio.sleep(2.25)
        check.soon()
        await asyncio.sleep(0.25)
        check.soon()
        await asyncio.sleep(1)
    assert script.begun == [0, 2, 2.25, 2.75]
    assert notes.results[1][1].attempts == 3


@virtual_time()
async def test_soon_before_the_warm_up_is_over() -> None:
    script = Script([PASS])
    async with CheckScheduler() as scheduler:
        scheduler.add(ByTask(script=script, warmup=600, interval=600), TARGET).soon()
        await asyncio.sleep(0.5)
    assert script.begun == [0]


# --- pause and resume ---------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_a_pause_abandons_and_keeps_the_verdict(kind: Kind) -> None:
    script, notes = Script([FAIL, HANG, PASS]), Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, kind(script=script, interval=2, retry=0))
        await asyncio.sleep(3)
        assert check.running and not check.paused
        check.pause()
        check.pause()
        check.soon()
        assert not check.running and check.paused
        await asyncio.sleep(100)
        assert script.abandoned == [3]
        assert (notes.times, check.healthy) == ([0], False)
        check.resume()
        check.resume()
        await asyncio.sleep(1)
    assert script.begun == [0, 2, 103]
    assert notes.verdicts == [False, True]
    assert notes.stuck == []


@kinds
@virtual_time()
async def test_a_pause_ends_the_whole_check(kind: Kind) -> None:
    script, notes = Script([PASS, FAIL, FAIL, FAIL, PASS]), Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, kind(script=script, interval=2, retry=1, delay_before_retry=1))
        await asyncio.sleep(2.5)
        check.pause()
        check.resume()
        # A whole check again: its first attempt, and one retry.
        await asyncio.sleep(1.25)
    assert script.begun == [0, 2, 2.5, 3.5]
    assert notes.results[1][1].attempts == 2
    assert notes.results[1][1].duration == 1


@kinds
@virtual_time()
async def test_a_check_may_begin_paused(kind: Kind) -> None:
    script, notes = Script([PASS]), Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, kind(script=script, warmup=600), paused=True)
        await asyncio.sleep(1000)
        assert check.paused and script.begun == []
        check.resume()
        await asyncio.sleep(1)
        assert script.begun == [1000]


# --- stop ---------------------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_nothing_comes_after_stop(kind: Kind) -> None:
    script, notes = Script([HANG]), Notebook()
    check = notes.add(CheckScheduler(), kind(script=script))
    await asyncio.sleep(1)
    await check.stop()
    assert script.abandoned == [1]
    check.soon()
    check.pause()
    check.resume()
    await check.stop()
    await asyncio.sleep(100)
    assert (script.begun, notes.results, notes.stuck) == ([0], [], [])


@virtual_time()
async def test_stop_waits_until_the_attempt_has_ended() -> None:
    ended: list[float] = []

    @attrs.frozen(kw_only=True)
    class Tidy(Checker):
        async def check(self, target: Target) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(2)
                ended.append(elapsed())

    check = CheckScheduler().add(Tidy(warmup=0), TARGET)
    await asyncio.sleep(1)
    first = asyncio.create_task(check.stop(), name="first")
    await check.stop()
    assert ended == [3]
    await first


@virtual_time()
async def test_stop_before_an_attempt_got_to_run() -> None:
    script = Script([HANG])
    check = CheckScheduler().add(ByTask(script=script), TARGET)
    for _ in range(2):
        await asyncio.sleep(0)
    assert check.running
    await check.stop()
    assert (check.running, script.begun) == (False, [])


@virtual_time()
async def test_stop_cancels_again_what_swallowed_its_cancellation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @attrs.frozen(kw_only=True)
    class Deafened(Checker):
        async def check(self, target: Target) -> None:
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1000)

    check = CheckScheduler().add(Deafened(warmup=0), TARGET)
    await asyncio.sleep(1)
    await check.stop()
    assert elapsed() == 21
    assert [record.message for record in caplog.records] == [
        "Deafened of web1 was cancelled 10 seconds ago and still runs: its check() must let "
        "asyncio.CancelledError pass"
    ]


@virtual_time()
async def test_a_check_may_be_stopped_by_its_own_callback() -> None:
    tasks: list[asyncio.Task[None]] = []
    script = Script([PASS])
    checks: list[Check] = []

    def stop(result: CheckResult) -> None:
        tasks.append(asyncio.create_task(checks[0].stop(), name="stop"))

    checks.append(CheckScheduler().add(ByCallback(script=script), TARGET, on_result=stop))
    await asyncio.sleep(100)
    assert script.begun == [0]
    assert tasks[0].done()


@kinds
@virtual_time()
async def test_a_callback_may_pause_or_close(kind: Kind) -> None:
    async with CheckScheduler() as scheduler:
        for act in (Check.pause, Check.close):
            script = Script([PASS])
            checks: list[Check] = []

            def note(
                result: CheckResult, act: Callable[[Check], None] = act, checks: Any = checks
            ) -> None:
                act(checks[0])

            checks.append(scheduler.add(kind(script=script), TARGET, on_result=note))
            await asyncio.sleep(100)
            assert len(script.begun) == 1
        assert scheduler.running == 0


# --- what a result says -------------------------------------------------------------------------


@kinds
@virtual_time()
async def test_a_result_tells_everything(kind: Kind) -> None:
    weight = Weight(7)
    script, notes = Script([Answer(weight, 0.5), FAIL]), Notebook()
    before = time.time()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, kind(script=script, interval=1, retry=0, fall=2))
        await asyncio.sleep(2)
        (_, first), (_, second) = notes.results
        # Two clocks, as in every event.
        assert before <= first.time <= time.time()
        assert first.at == asyncio.get_running_loop().time() - 1.5
        assert first == CheckResult(
            target=TARGET,
            checker=check.checker,
            passed=True,
            healthy=True,
            changed=False,
            weight=weight,
            text="",
            attempts=1,
            duration=0.5,
            at=first.at,
            count=1,
        )
        assert (second.passed, second.weight, second.text, second.count) == (
            False,
            None,
            "refused",
            2,
        )
        assert check.last is second
        assert (check.count, check.healthy) == (2, True)
        # A check that failed has nothing to say about the weight.
        assert check.weight == weight


@kinds
@virtual_time()
async def test_since_tells_when_the_last_result_came(kind: Kind) -> None:
    await asyncio.sleep(1)
    async with CheckScheduler() as scheduler:
        check = Notebook().add(scheduler, kind(script=Script([PASS]), interval=2))
        began = check.since
        await asyncio.sleep(0.1)
        first = check.since
        await asyncio.sleep(2)
        assert (first - began, check.since - first) == (0, 2)
        assert check.count == 2


@virtual_time()
async def test_the_target_knows_where_its_checker_connects() -> None:
    seen: list[Target] = []

    @attrs.frozen(kw_only=True)
    class Looking(Checker):
        async def check(self, target: Target) -> None:
            seen.append(target)

        def endpoint(self, target: Target) -> Endpoint:
            return Endpoint(target.address, 8080)

    checker = Looking(warmup=0)
    async with CheckScheduler() as scheduler:
        check = scheduler.add(checker, TARGET)
        await asyncio.sleep(1)
    assert seen[0].endpoint == Endpoint(TARGET.address, 8080)
    assert seen[0] == check.target == TARGET
    assert TARGET.via is None


@virtual_time()
async def test_a_callback_that_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(told: object) -> None:
        raise RuntimeError("a bug in a callback")

    script = Script([PASS])
    async with CheckScheduler(max_concurrent=1) as scheduler:
        scheduler.add(ByCallback(script=script, interval=2), TARGET, on_result=broken)
        await asyncio.sleep(3)
        assert script.begun == [0, 2]
        assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
        assert "on web1 healthy by ByCallback" in caplog.text
        caplog.clear()
        hanging = ByCallback(script=Script([HANG]), timeout=600)
        scheduler.add(hanging, TARGET)
        late = ByCallback(script=script, interval=1, timeout=1, retry=0)
        scheduler.add(late, TARGET, on_stuck=broken)
        await asyncio.sleep(50)
        assert "no result from ByCallback for" in caplog.text
        assert "a bug in a callback" in caplog.text
        assert scheduler.checks == 3


# --- attach -------------------------------------------------------------------------------------


@virtual_time()
async def test_what_a_checker_attaches_lasts_as_long_as_the_check() -> None:
    told: list[str] = []
    calls: list[Callable[[], None]] = []

    @attrs.frozen(kw_only=True, eq=False)
    class Watching(ByTask):
        def attach(self, target: Target, soon: Callable[[], None]) -> Callable[[], None]:
            told.append(f"begins with {target} at {target.via}")
            calls.append(soon)
            return lambda: told.append("ends")

    script = Script([PASS])
    async with CheckScheduler() as scheduler:
        check = scheduler.add(Watching(script=script, interval=100), TARGET, paused=True)
        assert told == ["begins with web1 at 192.0.2.1:80"]
        calls[0]()
        await asyncio.sleep(1)
        assert script.begun == []
        check.resume()
        await asyncio.sleep(1)
        calls[0]()
        await asyncio.sleep(1)
        assert script.begun == [1, 2]
        await check.stop()
        await check.stop()
        assert told[1:] == ["ends"]
        calls[0]()
        await asyncio.sleep(1)
    assert script.begun == [1, 2]
