"""Attempts: one at a time, and what becomes of their outcomes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
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
    Swallower,
    elapsed,
    kinds,
    run,
)
from vrrpkit.checks.base import CallbackChecker, Checker, Done
from vrrpkit.checks.engine.scheduler import Check, CheckScheduler
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, CouldNotAsk, UntrustedCommand
from vrrpkit.testing import virtual_time

# --- one at a time ------------------------------------------------------------------------------


@virtual_time()
async def test_the_next_attempt_waits_for_the_end_of_the_one_before() -> None:
    running: list[int] = []
    begun: list[float] = []

    @attrs.frozen(kw_only=True)
    class Slow(Checker):
        async def check(self, target: Target) -> None:
            begun.append(elapsed())
            running.append(1)
            assert len(running) == 1
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(5)
                running.pop()

    notes = Notebook()
    async with CheckScheduler() as scheduler:
        checker = Slow(warmup=0, timeout=1, interval=2, retry=0)
        check = notes.add(scheduler, checker)
        await asyncio.sleep(4)
        # The result counted at once; the task is still ending.
        assert (notes.times, check.running, scheduler.running) == ([1], False, 1)
        check.soon()
        await asyncio.sleep(4)
        # Begun at 6, when the first had ended.
        assert (begun, notes.times) == ([0, 6], [1, 7])
        check.pause()
        check.resume()
        await asyncio.sleep(5)
    assert begun == [0, 6, 12]
    assert notes.texts[0] == "no answer within 1 s"


@virtual_time()
async def test_a_check_that_swallows_its_cancellation_is_stuck_and_told_once() -> None:
    release = asyncio.Event()

    notes = Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(
            scheduler, Swallower(release=release, warmup=0, timeout=1, interval=2, retry=0)
        )
        assert check.period == 3
        await asyncio.sleep(9.5)
        assert notes.times == [1]
        assert notes.stuck == []
        await asyncio.sleep(90.5)
        [(at, stuck)] = notes.stuck
        assert (at, stuck.since) == (10, 9)
        assert str(stuck) == "web1: no result from Swallower for 9.0 s"
        release.set()
        await asyncio.sleep(1)
        assert notes.passed == [False, True]
        release.clear()
        await asyncio.sleep(20)
        assert [at for at, _stuck in notes.stuck] == [10, 112]
        release.set()


@kinds
@virtual_time()
async def test_a_check_that_only_times_out_is_not_stuck(kind: Kind) -> None:
    _script, notes = await run(kind, [HANG], 500, interval=1, timeout=3, retry=4, jitter=1.0)
    assert len(notes.results) > 10
    assert notes.stuck == []


@virtual_time()
async def test_period_is_the_interval_and_the_worst_case() -> None:
    async with CheckScheduler() as scheduler:
        for schedule, period in (
            ({"interval": 5, "timeout": 3, "retry": 0}, 8),
            ({"interval": 5, "timeout": 3, "retry": 2, "delay_before_retry": 1}, 16),
            ({"interval": 5, "timeout": 3, "retry": 2, "deadline": 4}, 9),
            ({"interval": 5, "timeout": 3, "retry": 0, "deadline": 40}, 8),
        ):
            checker = ByTask(script=Script([PASS]), **schedule)  # type: ignore[arg-type]
            assert scheduler.add(checker, TARGET).period == period


@virtual_time()
async def test_a_callback_that_is_told_of_a_stuck_check_may_stop_it() -> None:
    script = Script([HANG])
    checks: list[Check] = []
    async with CheckScheduler(max_concurrent=1) as scheduler:
        scheduler.add(ByCallback(script=script, timeout=600), TARGET)
        checker = ByCallback(script=script, timeout=1, interval=1, retry=0, warmup=0.01)
        checks.append(scheduler.add(checker, TARGET, on_stuck=lambda stuck: checks[0].close()))
        await asyncio.sleep(100)
        assert (scheduler.checks, scheduler.waiting) == (1, 0)
    assert script.begun == [0]


# --- what could not be asked ---------------------------------------------------------------------

NO_FILE = Answer(OSError(errno.EMFILE, "Too many open files"))
REASON = "[Errno 24] Too many open files (raise the limit on open files: LimitNOFILE="


@pytest.mark.parametrize("before", [True, False])
@kinds
@virtual_time()
async def test_trouble_of_our_own_keeps_the_verdict_and_is_told(kind: Kind, before: bool) -> None:
    first = PASS if before else FAIL
    answers = [first, *[NO_FILE] * 20, PASS if not before else FAIL]
    script, notes = await run(kind, answers, 30, interval=1, timeout=1, retry=0)
    assert script.begun[:22] == list(range(22))
    assert (notes.times[:2], notes.verdicts[:2]) == ([0, 21], [before, not before])
    [(at, told)] = notes.not_made
    assert (at, told.healthy) == (1, before)
    assert told.why.startswith(REASON)
    state = "healthy" if before else "not healthy"
    said = f"web1 could not be checked by {kind.__name__}, and stays {state}: "
    assert str(told).startswith(said)
    # Three times the interval and the timeout without a result.
    [(at, stuck)] = notes.stuck
    assert (at, stuck.since) == (6, 6)
    assert f"no result from {kind.__name__} for 6.0 s: [Errno 24] Too many" in str(stuck)


@virtual_time()
async def test_a_server_that_was_never_asked_is_up_on_trust_still() -> None:
    _script, notes = await run(ByTask, [NO_FILE, FAIL], 1.5, interval=1)
    assert notes.verdicts == [False]
    assert [at for at, _told in notes.not_made] == [0]
    _script, notes = await run(ByTask, [NO_FILE], 9, interval=1)
    assert notes.verdicts == []


@virtual_time()
async def test_what_failed_before_trouble_of_our_own_does_not_count() -> None:
    """Two of three attempts had failed; with three after it, it is down, and not with one."""
    answers = [PASS, FAIL, FAIL, NO_FILE, FAIL, FAIL, FAIL, PASS]
    script, notes = await run(
        ByCallback, answers, 20, interval=5, timeout=1, retry=2, delay_before_retry=1
    )
    assert script.begun[:7] == [0, 5, 6, 7, 12, 13, 14]
    assert notes.times[:2] == [0, 14]
    assert notes.verdicts[:2] == [True, False]


@virtual_time()
async def test_each_spell_of_trouble_is_told_once() -> None:
    answers = [NO_FILE, NO_FILE, PASS, NO_FILE, Answer(CouldNotAsk("lost")), PASS]
    _script, notes = await run(ByTask, answers, 10, interval=1)
    assert [at for at, _told in notes.not_made] == [0, 3]


@virtual_time()
async def test_trouble_of_all_checks_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    lost = Answer(CouldNotAsk("its exit status is lost", errno.ECHILD))
    async with CheckScheduler() as scheduler:
        for _ in range(50):
            Notebook().add(scheduler, ByCallback(script=Script([PASS, NO_FILE, PASS]), interval=9))
        Notebook().add(scheduler, ByTask(script=Script([lost]), interval=9))
        await asyncio.sleep(20)
        told = [r.message for r in caplog.records if r.levelname == "WARNING"]
        assert [("Too many" in text, "exit status is lost" in text) for text in told] == [
            (False, True),
            (True, False),
        ]
        await asyncio.sleep(300)
        Notebook().add(scheduler, ByCallback(script=Script([NO_FILE])))
        await asyncio.sleep(1)
    assert "(and 49 others since the last such line)" in caplog.records[-1].message


@virtual_time()
async def test_a_callback_that_is_told_may_stop_the_check() -> None:
    checks: list[Check] = []
    script = Script([NO_FILE])
    async with CheckScheduler() as scheduler:
        checker = ByCallback(script=script, interval=1)
        checks.append(scheduler.add(checker, TARGET, on_not_made=lambda _told: checks[0].close()))
        await asyncio.sleep(10)
        assert scheduler.checks == scheduler.running == 0
    assert script.begun == [0]


# --- what counts as failed ----------------------------------------------------------------------


async def one(problem: Callable[[], Coroutine[object, object, Any]]) -> tuple[bool, str]:
    """The result of a check that does this."""

    @attrs.frozen(kw_only=True)
    class Broken(Checker):
        async def check(self, target: Target) -> Any:
            return await problem()

    notes = Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, Broken(warmup=0, interval=100))
        await asyncio.sleep(1)
    [(_at, result)] = notes.results
    return result.passed, result.text


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("even its text is broken")


class Base(BaseException):
    """No Exception."""


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (CheckFailed("refused"), "refused"),
        (ValueError(), "ValueError"),
        (OSError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (TimeoutError(), "TimeoutError"),
        (KeyError("port"), "KeyError: 'port'"),
        (UntrustedCommand("others may change it"), "others may change it"),
        (Base("not even an Exception"), "Base: not even an Exception"),
        (CheckFailed("two\nlines, \x1b[31mred\ud800"), "two lines, ?[31mred?"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError(), "CancelledError"),
        (Unspeakable(), "Unspeakable"),
        (CheckFailed("x" * 1000), "x" * 1000),
        (CheckFailed("x" * 1001), "x" * 1000 + "..."),
        (
            ExceptionGroup("both", [ValueError(), OSError()]),
            "ExceptionGroup: both (2 sub-exceptions)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
@virtual_time()
async def test_any_exception_is_a_failure_with_its_text(problem: BaseException, text: str) -> None:
    async def fail() -> None:
        raise problem

    assert await one(fail) == (False, text)


@pytest.mark.parametrize("value", [True, False, "fine", 0, 5, "y" * 2000])
@virtual_time()
async def test_a_wrong_return_value_is_a_failure(value: object) -> None:
    async def answer() -> object:
        return value

    passed, text = await one(answer)
    assert not passed
    assert text.startswith(f"Broken returned {value!r}"[:1000])
    assert text.endswith(
        "a check returns None or a Weight when the server is healthy, and raises when it is not"
    )
    assert len(text) < 1200


@virtual_time()
async def test_a_check_that_is_no_coroutine_function_says_what_to_write() -> None:
    @attrs.frozen(kw_only=True)
    class Plain(Checker):
        def check(self, target: Target) -> None:  # type: ignore[override]
            """Blocks, if it does anything."""

    @attrs.frozen(kw_only=True)
    class Raising(Checker):
        def check(self, target: Target) -> None:  # type: ignore[override]
            raise ValueError("at once")

    notes = Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, Plain(warmup=0))
        notes.add(scheduler, Raising(warmup=0))
        await asyncio.sleep(1)
        assert scheduler.running == 0
    assert notes.texts == [
        "the check() of Plain is no coroutine function: write it with 'async def'",
        "ValueError: at once",
    ]


@virtual_time()
async def test_somebody_who_cancels_all_tasks_says_nothing_about_the_server() -> None:
    script, notes = Script([HANG, PASS]), Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, ByTask(script=script, interval=5, timeout=3))
        await asyncio.sleep(1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(4)
        assert notes.results == []
        await asyncio.sleep(1.5)
        assert scheduler.running == 0
    assert script.begun == [0, 6]
    assert notes.verdicts == [True]
    assert notes.results[0][1].attempts == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_passes_and_says_nothing_about_the_server(
    kind: type[BaseException],
) -> None:
    notes = Notebook()

    @attrs.frozen(kw_only=True)
    class Ending(Checker):
        async def check(self, target: Target) -> None:
            raise kind

    async def main() -> None:
        async with CheckScheduler() as scheduler:
            notes.add(scheduler, Ending(warmup=0))
            await asyncio.sleep(10)

    with pytest.raises(kind):
        asyncio.run(main())
    assert notes.results == []


# --- direct checkers ----------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False)
class Rogue(CallbackChecker):
    act: Callable[[Done], Callable[[], None]]
    warmup: float | None = 0

    def begin(
        self, target: Target, report: Done, loop: asyncio.AbstractEventLoop | None = None
    ) -> Callable[[], None]:
        return self.act(report)


@virtual_time()
async def test_reports_that_come_too_often_or_too_late_count_for_nothing() -> None:
    reports: list[Done] = []

    def twice(report: Done) -> Callable[[], None]:
        reports.append(report)
        report(None)
        report(CheckFailed("again"))
        return lambda: None

    notes = Notebook()
    async with CheckScheduler() as scheduler:
        check = notes.add(scheduler, Rogue(act=twice, interval=1))
        await asyncio.sleep(1.5)
        reports[0](CheckFailed("late"))
        assert notes.passed == [True, True]
        assert scheduler.running == 0
    reports[-1](CheckFailed("after the end"))
    assert len(notes.results) == check.count == 2


@virtual_time()
async def test_a_begin_that_raises_has_failed() -> None:
    def broken(report: Done) -> Callable[[], None]:
        raise RuntimeError("a bug")

    notes = Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, Rogue(act=broken, interval=1, retry=0))
        await asyncio.sleep(1.5)
        assert scheduler.running == 0
    assert notes.texts == ["RuntimeError: a bug"] * 2


@virtual_time()
async def test_a_direct_checker_makes_no_task_unless_its_check_was_replaced() -> None:
    tasks: list[str] = []

    def count(report: Done) -> Callable[[], None]:
        tasks.extend(task.get_name() for task in asyncio.all_tasks())
        report(None)
        return lambda: None

    @attrs.frozen(kw_only=True, eq=False)
    class Replaced(Rogue):
        async def check(self, target: Target) -> None:
            await CallbackChecker.check(self, target)
            raise CheckFailed("by the replacement")

    notes = Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, Rogue(act=count, interval=100))
        await asyncio.sleep(1)
        assert len(tasks) == 1
        tasks.clear()
        notes.add(scheduler, Replaced(act=count, interval=100))
        await asyncio.sleep(1)
    assert "Replaced check of web1" in tasks
    assert notes.texts == ["", "by the replacement"]
