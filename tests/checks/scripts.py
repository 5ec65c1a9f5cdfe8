"""Checkers that do as a list says, and a notebook for what the scheduler tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, TypeAlias

import attrs
import pytest

from vrrpkit.checks.base import CallbackChecker, Checker, Done, NetworkChecker, Weight
from vrrpkit.checks.engine.scheduler import Check, CheckScheduler
from vrrpkit.checks.events import CheckNotMade, CheckResult, CheckStuck
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed
from vrrpkit.testing import randomness

TARGET = Target(ip_address("192.0.2.1"), 80, "web1")


@attrs.frozen
class Answer:
    """What an attempt comes to, after so many seconds; ``None`` is never."""

    outcome: Weight | BaseException | None = None
    after: float | None = 0.0


PASS = Answer()
FAIL = Answer(CheckFailed("refused"))
HANG = Answer(after=None)


def passing(after: float) -> Answer:
    return Answer(after=after)


@attrs.define
class Script:
    """The answers to come, the last of them again and again, and when attempts began and were
    abandoned."""

    answers: list[Answer]
    begun: list[float] = attrs.field(factory=list)
    abandoned: list[float] = attrs.field(factory=list)

    def next(self) -> Answer:
        self.begun.append(elapsed())
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def elapsed() -> float:
    """Virtual seconds since the test began."""
    return asyncio.get_running_loop().time() - 1000.0


@attrs.frozen(kw_only=True, eq=False)
class ByTask(Checker):
    script: Script
    warmup: float | None = 0

    async def check(self, target: Target) -> Weight | None:
        answer = self.script.next()
        try:
            if answer.after is None:
                await asyncio.get_running_loop().create_future()
            elif answer.after:
                await asyncio.sleep(answer.after)
        except asyncio.CancelledError:
            self.script.abandoned.append(elapsed())
            raise
        if isinstance(answer.outcome, BaseException):
            raise answer.outcome
        return answer.outcome


@attrs.frozen(kw_only=True, eq=False)
class ByCallback(CallbackChecker):
    script: Script
    warmup: float | None = 0

    def begin(
        self, target: Target, report: Done, loop: asyncio.AbstractEventLoop | None = None
    ) -> Callable[[], None]:
        answer = self.script.next()
        timer: asyncio.TimerHandle | None = None
        if answer.after == 0:
            report(answer.outcome)
        elif answer.after is not None:
            timer = asyncio.get_running_loop().call_later(answer.after, report, answer.outcome)

        def abandon() -> None:
            self.script.abandoned.append(elapsed())
            if timer is not None:
                timer.cancel()

        return abandon


@attrs.define
class Notebook:
    """What a check told, each with its moment."""

    results: list[tuple[float, CheckResult]] = attrs.field(factory=list)
    stuck: list[tuple[float, CheckStuck]] = attrs.field(factory=list)
    not_made: list[tuple[float, CheckNotMade]] = attrs.field(factory=list)

    def add(self, scheduler: CheckScheduler, checker: Checker, **options: bool) -> Check:
        return scheduler.add(
            checker,
            TARGET,
            on_result=lambda result: self.results.append((elapsed(), result)),
            on_stuck=lambda stuck: self.stuck.append((elapsed(), stuck)),
            on_not_made=lambda told: self.not_made.append((elapsed(), told)),
            **options,
        )

    @property
    def times(self) -> list[float]:
        return [at for at, _result in self.results]

    @property
    def passed(self) -> list[bool]:
        return [result.passed for _at, result in self.results]

    @property
    def verdicts(self) -> list[bool]:
        return [result.healthy for _at, result in self.results]

    @property
    def texts(self) -> list[str]:
        return [result.text for _at, result in self.results]


Kind: TypeAlias = type[ByTask] | type[ByCallback]

kinds = pytest.mark.parametrize("kind", [ByTask, ByCallback])


async def run(
    kind: Kind,
    answers: list[Answer],
    seconds: float,
    *,
    alpha: bool = False,
    **schedule: Any,
) -> tuple[Script, Notebook]:
    """Check for some seconds: what was asked, and what was told."""
    script, notes = Script(answers), Notebook()
    async with CheckScheduler(random=randomness()) as scheduler:
        notes.add(scheduler, kind(script=script, **schedule), alpha=alpha)
        await asyncio.sleep(seconds)
    return script, notes


@attrs.frozen(kw_only=True)
class Plain(Checker):
    """As :class:`Checker`, with a check that passes."""

    async def check(self, target: Target) -> None:
        return None


@attrs.frozen(kw_only=True)
class Reaching(NetworkChecker):
    """As :class:`NetworkChecker`, with a check that passes."""

    async def check(self, target: Target) -> None:
        return None


@attrs.frozen(kw_only=True)
class Swallower(Checker):
    """Takes every cancellation for nothing, until it is released."""

    release: asyncio.Event

    async def check(self, target: Target) -> None:
        while not self.release.is_set():
            with suppress(asyncio.CancelledError):
                await self.release.wait()
