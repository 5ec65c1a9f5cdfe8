"""One check that runs again and again: when its attempts begin, how long they may take, and what
follows from their outcomes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TypeVar

import attrs

from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.engine.attempt import Attempts
from vrrpkit.checks.engine.rules import Outcome, judged, period, text_of
from vrrpkit.checks.events import CheckNotMade, CheckResult, CheckStuck
from vrrpkit.checks.model.concurrency import ConcurrencyLimit
from vrrpkit.checks.model.health import Health, HealthStep
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed
from vrrpkit.lifecycle.callbacks import contain
from vrrpkit.lifecycle.turns import Turns
from vrrpkit.local_errors import Complaints, advised, own_trouble
from vrrpkit.publishing import stamp
from vrrpkit.timers import Deadlines

__all__ = ["Check"]

T = TypeVar("T")

log = logging.getLogger(__name__)

STUCK_PERIODS = 3
"""Periods without a result after which a check is reported as stuck."""

LATE = 0.1
"""Seconds by which a time limit may surface too late before the event loop counts as blocked. What
arrived meanwhile waits in sockets, so the attempt gets as many seconds again to hear it."""

STEP = 0.005
"""Seconds. On a real clock a check may begin early by a twentieth of its pause and at most this, at
a multiple of it, so that one wake-up of the process serves many checks: it costs more than they."""


class Check:
    """One server, checked by one checker, again and again; made by :meth:`Scheduler.add`."""

    __slots__ = (
        "__weakref__",
        "_again",
        "_attempts",
        "_began",
        "_complaints",
        "_deadline",
        "_deadlines",
        "_detach",
        "_due",
        "_final",
        "_forget",
        "_health",
        "_late",
        "_on_not_made",
        "_on_result",
        "_on_stuck",
        "_paused",
        "_random",
        "_since",
        "_slack",
        "_stopped",
        "_stuck_at",
        "_tries",
        "_why_not_made",
        "checker",
        "count",
        "last",
        "period",
        "target",
        "weight",
    )

    def __init__(
        self,
        checker: Checker,
        target: Target,
        *,
        alpha: bool,
        seen: bool,
        paused: bool,
        on_result: Callable[[CheckResult], None] | None,
        on_stuck: Callable[[CheckStuck], None] | None,
        on_not_made: Callable[[CheckNotMade], None] | None,
        complaints: Complaints,
        deadlines: Deadlines,
        slots: ConcurrencyLimit,
        turns: Turns,
        random: random.Random,
        forget: Callable[[Check], None],
    ) -> None:
        self.checker = checker
        """What decides whether the server is healthy."""
        self.target = attrs.evolve(target, via=checker.endpoint(target))
        """The server, and where its checker connects to."""
        self.weight: Weight | None = None
        """What the last check that passed said about the weight."""
        self.last: CheckResult | None = None
        """The last result, if there was one yet."""
        self.count = 0
        """Results so far."""
        self.period = period(checker)
        """Seconds from one result to the next at the latest, jitter aside."""
        self._on_result = on_result
        self._on_stuck = on_stuck
        self._on_not_made = on_not_made
        self._complaints = complaints
        self._why_not_made = ""
        self._deadlines = deadlines
        self._deadline = deadlines.new(self._fire)
        self._attempts = Attempts(
            checker,
            self.target,
            slots,
            turns,
            begun=self._begun,
            ended=self._attempted,
            lost=self._abandoned,
        )
        self._random = random
        self._forget = forget
        self._health = Health(
            rise=checker.rise, fall=checker.fall, retry=checker.retry, alpha=alpha, seen=seen
        )
        self._tries, self._began, self._final = 0, 0.0, False
        self._late = False
        self._again = False
        self._stopped = False
        self._paused = paused
        self._since = deadlines.now()
        self._due: float | None = None
        self._slack = 0.0
        self._stuck_at: float | None = None
        self._detach = checker.attach(self.target, self.soon)
        if not paused:
            spread = checker.interval if checker.warmup is None else checker.warmup
            self._expect(self._since, random.uniform(0, spread) if spread else 0.0)

    @property
    def healthy(self) -> bool:
        """The verdict, with ``rise`` and ``fall`` counted."""
        return self._health.up

    @property
    def since(self) -> float:
        """When the last result came, in seconds of the event loop; before the first, when the
        checks began."""
        return self._since

    @property
    def running(self) -> bool:
        """Whether an attempt is being made."""
        return self._attempts.running

    @property
    def ending(self) -> asyncio.Task[Weight | None] | None:
        """The attempt that runs, or that was cancelled and has not ended."""
        return self._attempts.task

    @property
    def paused(self) -> bool:
        """Whether :meth:`pause` holds it."""
        return self._paused

    def pause(self) -> None:
        """Check no more until :meth:`resume`, and keep the verdict; an attempt that is being made
        is abandoned, and the check it belongs to ends without a result."""
        if self._paused or self._stopped:
            return
        self._paused = True
        self._drop()

    def resume(self) -> None:
        """Check at the next turn of the event loop, and from then on as before the pause."""
        if not self._paused or self._stopped:
            return
        self._paused = False
        self._since = self._deadlines.now()
        self._expect(self._since, 0.0)

    def soon(self) -> None:
        """Check at the next turn of the event loop, or again right after the attempt that is being
        made; the interval counts from there. Without effect while paused."""
        if self._paused or self._stopped or self._attempts.waiting:
            return
        if self._attempts.running:
            self._again = True
        else:
            self._due = self._deadlines.now()
            self._arm()

    def close(self) -> None:
        """End: no result comes after this call. An attempt that is being made is cancelled, and
        :meth:`stop` waits until it has ended. May be called again."""
        if self._stopped:
            return
        self._stopped = True
        self._drop()
        self._deadline.drop()
        if self._detach is not None:
            try:
                self._detach()
            except BaseException as problem:
                contain(problem, log, "%s could not be detached from %s", self.checker, self.target)
        self._forget(self)

    async def stop(self) -> None:
        """End, as :meth:`close` does, and wait until an attempt that was being made has ended, at
        most 30 seconds. May be called again."""
        self.close()
        await self._attempts.settle()

    # --- time -----------------------------------------------------------------------------------

    def _expect(self, now: float, wait: float) -> None:
        self._stuck_at = now + STUCK_PERIODS * self.period
        self._due = now + wait
        self._arm(min(wait / 20, STEP) if self._deadlines.herds else 0.0)

    def _arm(self, slack: float = 0.0, look: float | None = None) -> None:
        due, stuck = self._due, self._stuck_at
        if due is None or (stuck is not None and stuck < due):
            due, slack = stuck, 0.0
        self._slack = slack
        self._deadline.set(due, slack, STEP, look=look)

    def _fire(self) -> None:
        # Not the clock: to look at it costs as much as the rest of this where it is a system call.
        now = self._deadlines.woken_at
        if self._stuck_at is not None and now >= self._stuck_at:
            self._stuck_at = None
            self._tell_stuck(now)
        due = self._due
        # The callback that was told may have paused this.
        if due is None or now < due - self._slack:
            self._arm()
        elif self._attempts.running:
            self._out_of_time(now, due)
        else:
            self._due = None
            self._attempts.start()
            if self._attempts.waiting:
                self._arm()

    # --- one attempt ----------------------------------------------------------------------------

    def _begun(self) -> None:
        checker = self.checker
        now = self._deadlines.now()
        self._again = self._late = False
        if not self._tries:
            self._began = now
        self._tries += 1
        due = now + checker.timeout
        self._final = False
        if checker.deadline is not None and self._began + checker.deadline < due:
            due = self._began + checker.deadline
            self._final = True
        self._due = due
        # Nearly all attempts end long before that, and the next check is due then. Looked at where
        # that will be, if this one takes as long as the last, the limit costs nothing.
        look = None
        if self.last is not None and not checker.jitter:
            look = now + self.last.duration + checker.interval
        self._arm(look=look)

    def _out_of_time(self, now: float, due: float) -> None:
        if self._attempts.done:
            # It was in time.
            self._due = None
            self._arm()
            return
        if now - due > LATE and not self._late:
            self._late = True
            self._due = now + LATE
            self._arm()
            return
        checker = self.checker
        if self._final:
            text = f"no result within the deadline of {checker.deadline:g} s"
        else:
            text = f"no answer within {checker.timeout:g} s"
        self._attempts.fail(CheckFailed(text))

    def _drop(self) -> None:
        """Forget what is going on; nothing of it counts."""
        self._due = self._stuck_at = None
        self._deadline.set(None)
        self._again = False
        self._tries = 0
        self._health.restart()
        self._attempts.drop()

    # --- the end of an attempt, and of a check --------------------------------------------------

    def _pause_between(self) -> float:
        checker = self.checker
        if self._again:
            return 0.0
        if not checker.jitter:
            return checker.interval
        return checker.interval * (1 + checker.jitter * self._random.uniform(-1, 1))

    def _abandoned(self) -> None:
        self._tries = 0
        self._health.restart()
        self._due = self._deadlines.now() + self._pause_between()
        self._arm()

    def _attempted(self, outcome: Outcome) -> None:
        if isinstance(outcome, BaseException) and own_trouble(outcome):
            self._not_made(outcome)
            return
        checker = self.checker
        now = self._deadlines.now()
        passed, weight, text = judged(checker, outcome)
        wait = 0.0 if self._again else checker.delay_before_retry
        last = checker.deadline is not None and now + wait >= self._began + checker.deadline
        step = self._health.attempt(passed, last=last)
        if step is HealthStep.RETRY:
            self._due = now + wait
            self._arm()
            return
        tries, self._tries = self._tries, 0
        self.count += 1
        self._why_not_made = ""
        if passed:
            self.weight = weight
        self._since = now
        self._expect(now, self._pause_between())
        result = self.last = CheckResult(
            target=self.target,
            checker=checker,
            passed=passed,
            healthy=self._health.up,
            changed=step is HealthStep.CHANGED,
            weight=weight,
            text=text,
            attempts=tries,
            duration=now - self._began,
            at=now,
            count=self.count,
        )
        stamp(result)
        _call(self._on_result, result)

    def _not_made(self, problem: BaseException) -> None:
        """The trouble is ours. What failed before counts no more, lest it be the server's that is
        next found without a fault of its own; how long there was no result still does."""
        number: object = getattr(problem, "errno", None)
        number = number if isinstance(number, int) else None
        why = advised(text_of(problem), number)
        first = not self._why_not_made
        self._why_not_made = why
        self._abandoned()
        if not first:
            return
        now = self._deadlines.now()
        told = CheckNotMade(
            target=self.target,
            checker=self.checker,
            why=why,
            healthy=self._health.up,
            at=now,
        )
        stamp(told)
        left_out = self._complaints.worth(number or type(problem), now)
        if left_out is None:
            log.debug("%s", told)
        elif left_out:
            log.warning("%s (and %d others since the last such line)", told, left_out)
        else:
            log.warning("%s", told)
        _call(self._on_not_made, told)

    def _tell_stuck(self, now: float) -> None:
        stuck = CheckStuck(
            target=self.target,
            checker=self.checker,
            at=now,
            since=now - self._since,
            why=self._why_not_made,
        )
        stamp(stuck)
        log.warning("%s", stuck)
        _call(self._on_stuck, stuck)


def _call(callback: Callable[[T], None] | None, told: T) -> None:
    if callback is not None:
        try:
            callback(told)
        except BaseException as problem:
            contain(problem, log, "the callback %r failed on %s", callback, told)
