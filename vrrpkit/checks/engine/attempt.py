"""The attempts of one check, one at a time: begun when there is a slot, ended, given up.

Tasks otherwise live in task groups. Here each belongs to its :class:`Attempts`, which makes it,
takes its outcome and waits for its end in :meth:`Attempts.settle`: ten thousand checks that are
idle hold no task, and a group of their own would be one task each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from vrrpkit.checks.base import Begin, CallbackChecker, Checker, Weight
from vrrpkit.checks.engine.rules import Outcome
from vrrpkit.checks.model.concurrency import ConcurrencyLimit
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed
from vrrpkit.lifecycle.callbacks import pass_on
from vrrpkit.lifecycle.turns import Turns

__all__ = ["Attempts"]

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that :meth:`Attempts.settle` waits for a cancelled attempt before it cancels it again:
ending a process may take a few, and a second cancellation would cut that short."""

LIMIT = 30.0
"""Seconds that it waits in all. What leaves waits less: see
:mod:`vrrpkit.checks.engine.closing`."""


def _nothing() -> None:
    """Abandons no attempt."""


class Attempts:
    """Asks one checker about one server, as often as it is told to.

    :param begun: called when an attempt begins.
    :param ended: called with its outcome; what it calls here finds no attempt running.
    :param lost: called instead if it ended without saying anything about the server.
    """

    __slots__ = (
        "_abandon",
        "_begun",
        "_checker",
        "_direct",
        "_ended",
        "_loop",
        "_lost",
        "_number",
        "_queued",
        "_slots",
        "_target",
        "_task",
        "_turns",
        "_wanted",
        "running",
    )

    def __init__(
        self,
        checker: Checker,
        target: Target,
        slots: ConcurrencyLimit,
        turns: Turns,
        *,
        begun: Callable[[], None],
        ended: Callable[[Outcome], None],
        lost: Callable[[], None],
    ) -> None:
        self.running = False
        """Whether one is being made."""
        self._checker = checker
        self._target = target
        self._slots = slots
        self._turns = turns
        self._begun = begun
        self._ended = ended
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        # A subclass that has a check() of its own means that one to be called.
        self._direct: Begin | None = None
        if isinstance(checker, CallbackChecker) and type(checker).check is CallbackChecker.check:
            self._direct = checker.prepare(target)
        self._number = 0
        self._queued = False
        self._wanted = False
        self._task: asyncio.Task[Weight | None] | None = None
        self._abandon: Callable[[], object] = _nothing

    @property
    def waiting(self) -> bool:
        """Whether one is to be made and cannot begin: there is no slot, or the one before does not
        end though it was cancelled."""
        return self._queued or self._wanted

    @property
    def done(self) -> bool:
        """Whether the one that is running has come to its end, and the event loop is about to say
        so."""
        return self._task is not None and self._task.done()

    def start(self) -> None:
        """Make one as soon as there is a slot."""
        if self._task is None:
            self._enter()
        else:
            # Two at a time never run.
            self._wanted = True

    def fail(self, why: CheckFailed) -> None:
        """Give the one up that is running: this is its outcome."""
        self.running = False
        self._abandon()
        self._ended(why)
        if self._task is None:
            self._slots.leave()

    def drop(self) -> None:
        """Give up the one that is running or waiting, if any; it has no outcome."""
        self._wanted = False
        if self._queued:
            self._queued = False
            self._slots.withdraw(self)
            if self._turns.withdraw(self):
                self._slots.leave()
        if not self.running:
            return
        self.running = False
        self._abandon()
        if self._task is None:
            self._slots.leave()

    @property
    def task(self) -> asyncio.Task[Weight | None] | None:
        """The task of the last one, unless it has ended."""
        return self._task

    async def settle(self) -> None:
        """Wait until the one that was given up has really ended, at most half a minute."""
        warned = False
        until = self._loop.time() + LIMIT
        while (task := self._task) is not None and self._loop.time() < until:
            ended, _running = await asyncio.wait({task}, timeout=PATIENCE)
            if ended:
                continue
            if not warned:
                warned = True
                log.warning(
                    "%s of %s was cancelled %g seconds ago and still runs: its check() must let "
                    "asyncio.CancelledError pass",
                    self._checker,
                    self._target,
                    PATIENCE,
                )
            task.cancel()

    def _enter(self) -> None:
        self._queued = True
        self._slots.enter(self, self._begin if self._direct is not None else self._admitted)

    def _admitted(self) -> None:
        """There is a slot: wait for a turn of the loop that has room for the first step of a task,
        of which nobody knows how long it takes. The time limit counts from there."""
        self._turns.enter(self, self._begin)

    def _begin(self) -> None:
        checker = self._checker
        self._queued = False
        self.running = True
        self._number += 1
        number = self._number
        self._begun()
        try:
            if self._direct is not None:
                report = partial(self._reported, number)
                abandon = self._direct(report, self._loop)
                if self.running and self._number == number:
                    self._abandon = abandon
                return
            work: object = checker.check(self._target)
            if not asyncio.iscoroutine(work):
                raise CheckFailed(
                    f"the check() of {type(checker).__name__} is no coroutine function: write it "
                    "with 'async def'"
                )
        except BaseException as problem:
            self._reported(number, problem)
            if isinstance(problem, KeyboardInterrupt | SystemExit):
                pass_on(problem)
            return
        self._task = self._loop.create_task(work, name=f"{checker} check of {self._target}")
        self._task.add_done_callback(self._returned)
        self._abandon = self._task.cancel

    def _reported(self, number: int, outcome: Outcome) -> None:
        if self.running and self._number == number:
            self.running = False
            try:
                self._conclude(outcome, foreign=False)
            finally:
                self._slots.leave()

    def _conclude(self, outcome: Outcome, *, foreign: bool) -> None:
        if foreign or isinstance(outcome, KeyboardInterrupt | SystemExit):
            # The program is ending, or somebody cancels all tasks: that says nothing about the
            # server, and must not take it out of service.
            self._lost()
        else:
            self._ended(outcome)

    def _returned(self, task: asyncio.Task[Weight | None]) -> None:
        self._task = None
        outcome: Outcome
        if task.cancelled():
            outcome = asyncio.CancelledError()
        else:
            outcome = task.exception()
            if outcome is None:
                outcome = task.result()
        self._abandon = _nothing
        try:
            if self.running:
                self.running = False
                self._conclude(outcome, foreign=task.cancelled() and task.cancelling() > 0)
        finally:
            self._slots.leave()
            if self._wanted:
                self._wanted = False
                self._enter()
