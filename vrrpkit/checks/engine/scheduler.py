"""The scheduler: one heap of moments for all checks of an event loop."""

from __future__ import annotations

import asyncio
import logging
import random as randomness
import resource
from collections.abc import Callable
from math import ceil
from types import TracebackType

from vrrpkit.checks.base import Checker
from vrrpkit.checks.engine.check import Check
from vrrpkit.checks.engine.closing import settle
from vrrpkit.checks.engine.rules import period, worst_case
from vrrpkit.checks.events import CheckNotMade, CheckResult, CheckStuck
from vrrpkit.checks.model.concurrency import ConcurrencyLimit
from vrrpkit.checks.target import Target
from vrrpkit.errors import ConfigError
from vrrpkit.lifecycle.turns import Turns
from vrrpkit.local_errors import Complaints
from vrrpkit.runtime import Runtime
from vrrpkit.timers import Deadlines, LoopAlarm
from vrrpkit.validate import whole_number

__all__ = ["Check", "CheckScheduler"]

log = logging.getLogger(__name__)

TASKS = 2
"""Attempts that begin in one turn of the event loop, of checkers that work in a task each."""

FILES_AT_MOST = 65536
"""What no limit on open files counts as."""


def _affordable() -> int:
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = FILES_AT_MOST
    # An attempt has one file open, a script a few; the program has files of its own.
    return max(1, files // 2)


def _require(kind: type[object], given: object, how: str) -> None:
    if not isinstance(given, kind):
        raise ConfigError(f"{given!r} is no {kind.__name__}; write {how}")


def _in_real_time() -> bool:
    # On a loop with a clock of its own no wake-up costs anything, and moments are exact.
    kind = type(asyncio.get_running_loop())
    return not issubclass(kind, asyncio.BaseEventLoop) or kind.time is asyncio.BaseEventLoop.time


class CheckScheduler:
    """Runs checks. All of them share one timer, and one that is idle holds no task.

    On a real clock a check may begin up to 5 ms early, never late, so that those that are due
    together cost one wake-up; under virtual time every moment is exact.

    Leaving its ``async with`` block stops every check; one that has none left holds nothing, so
    that a scheduler without such a block need not be closed.

    :param max_concurrent: attempts that may run at the same time, from 1; those beyond wait in the
        order in which they became due. ``None`` is half of the files that this process may have
        open (RLIMIT_NOFILE). It is logged once if the checks may need more than that when all of
        their servers hang.
    :param random: what warm-up and jitter are drawn from; one with a seed repeats a run.
    :raises ConfigError: ``max_concurrent`` is less than 1.
    """

    def __init__(
        self, *, max_concurrent: int | None = None, random: randomness.Random | None = None
    ) -> None:
        if max_concurrent is not None:
            whole_number(
                "max_concurrent", max_concurrent, 1, 1_000_000, "None fits the limit on open files"
            )
        self._slots = ConcurrencyLimit(_affordable() if max_concurrent is None else max_concurrent)
        self._random = randomness.Random() if random is None else random
        self._checks: dict[Check, float] = {}
        self._deadlines: Deadlines | None = None
        self._complaints = Complaints()
        self._turns = Turns(TASKS)
        self._needed = 0.0
        self._warned = False

    @classmethod
    def current(cls) -> CheckScheduler:
        """The scheduler that everybody on the running loop shares; made on first use, and gone when
        nobody has it or a check of it."""
        return Runtime.current().use(cls)

    @property
    def max_concurrent(self) -> int:
        """Attempts that may run at the same time."""
        return self._slots.limit

    @property
    def needed(self) -> int:
        """Attempts that would run at the same time if every server hung: each check counts with the
        share of its period that it then spends waiting."""
        # The sum of fractions that come to a whole number may be a little more than it.
        return ceil(self._needed - 1e-6)

    @property
    def checks(self) -> int:
        """Checks that were added and not stopped."""
        return len(self._checks)

    @property
    def running(self) -> int:
        """Attempts that run now, with those that were cancelled and have not ended yet."""
        return self._slots.taken

    @property
    def waiting(self) -> int:
        """Checks that are due and wait because ``max_concurrent`` attempts run."""
        return self._slots.waiting

    def add(
        self,
        checker: Checker,
        target: Target,
        *,
        alpha: bool = False,
        seen: bool = False,
        paused: bool = False,
        on_result: Callable[[CheckResult], None] | None = None,
        on_stuck: Callable[[CheckStuck], None] | None = None,
        on_not_made: Callable[[CheckNotMade], None] | None = None,
    ) -> Check:
        """Check a server from now on, first within ``warmup``; call it on the event loop.

        What a callback raises is logged and changes nothing.

        :param alpha: the server counts as down until enough checks have passed.
        :param seen: an earlier run saw the server healthy: the first failed attempt is not final.
        :param paused: begin with :meth:`Check.resume`.
        :param on_result: called with every result.
        :param on_stuck: called when there was no result for three periods: three times the interval
            and the longest that a check can take. That means an attempt that does not end though
            it was cancelled, a ``max_concurrent`` that is far too small, or trouble of our own.
            Once, until the next result.
        :param on_not_made: called when a check could not be made, for a reason that is ours (see
            :func:`vrrpkit.checks.own_trouble`): no file descriptor, no local address, an exit
            status that is lost. The verdict stays, and the check is due again after its interval.
            Called for the first of several in a row.
        :raises ConfigError: the checker cannot check this target, or one of them is no such thing.
        """
        _require(Checker, checker, "TCPChecker(), or FunctionChecker(function) around a function")
        _require(Target, target, "Target('10.0.0.1', 80)")
        checker.validate(target)
        if self._deadlines is None:
            self._deadlines = Deadlines(LoopAlarm(), herds=_in_real_time())
        check = Check(
            checker,
            target,
            alpha=alpha,
            seen=seen,
            paused=paused,
            on_result=on_result,
            on_stuck=on_stuck,
            on_not_made=on_not_made,
            complaints=self._complaints,
            deadlines=self._deadlines,
            slots=self._slots,
            turns=self._turns,
            random=self._random,
            forget=self._forget,
        )
        share = worst_case(checker) / period(checker)
        self._checks[check] = share
        self._needed += share
        if self.needed > self._slots.limit and not self._warned:
            self._warned = True
            log.warning(
                "%d checks would need %d attempts at once if all servers hung, and %d are allowed: "
                "the others would be late. Raise the limit on open files (LimitNOFILE= in the "
                "systemd unit, 'ulimit -n') or max_concurrent, or check less often",
                len(self._checks),
                self.needed,
                self._slots.limit,
            )
        return check

    async def stop(self) -> None:
        """Stop every check, as :meth:`Check.stop` does, and wait 3 seconds for all of them
        together; the log names those that do not end."""
        checks = list(self._checks)
        for check in checks:
            check.close()
        await settle(checks)

    async def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        await self.stop()

    async def __aenter__(self) -> CheckScheduler:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _forget(self, check: Check) -> None:
        self._needed -= self._checks.pop(check)
        if not self._checks and self._deadlines is not None:
            self._needed = 0.0
            self._deadlines.close()
            self._deadlines = None
