"""Routes and rules that a killed run left behind (see :mod:`vrrpkit.host.liveness`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set

from vrrpkit.errors import KernelRefused
from vrrpkit.host.liveness import SETTLE, Liveness
from vrrpkit.host.routing.kernel import GONE, Leftover, RouteTable
from vrrpkit.host.routing.records import Key
from vrrpkit.timers import Deadlines

__all__ = ["RouteLeftovers"]

log = logging.getLogger(__name__)


class RouteLeftovers:
    """Notes them, and removes those that are claimed at once, all others a second later unless
    another process lives.

    :param wanted: whether a route or a rule of this process is in place under a key.
    """

    def __init__(
        self,
        table: RouteTable,
        deadlines: Deadlines,
        liveness: Liveness,
        wanted: Callable[[Key], bool],
    ) -> None:
        self._table = table
        self._deadlines = deadlines
        self._liveness = liveness
        self._wanted = wanted
        self._found: list[Leftover] = []
        self._sweep = deadlines.new(self._remove)

    def note(self) -> None:
        """See what is there. The table must be able to ask."""
        try:
            self._found = self._table.marked()
        except OSError as problem:
            # A kernel without rules, for example: who wants none need not care.
            log.info("not looking for routes and rules that were left behind: %s", problem)
            self._found = []
        if self._found:
            self._sweep.set(self._deadlines.now() + SETTLE)

    def claim(self, keys: Set[Key]) -> None:
        """Remove those of the present configuration.

        :raises KernelRefused: the kernel keeps one.
        """
        mine = [leftover for leftover in self._found if leftover.key in keys]
        self._found = [leftover for leftover in self._found if leftover.key not in keys]
        answers = self._table.exchange([leftover.request for leftover in mine])
        for (key, _request), problem in zip(mine, answers, strict=True):
            log.info("removing %s, which an earlier run left behind", key)
            if problem is not None and problem.errno not in GONE:
                raise KernelRefused(
                    problem.errno,
                    f"{key} is left from an earlier run and cannot be removed: {problem.strerror}",
                )

    def close(self) -> None:
        """Remove nothing any more."""
        self._sweep.set(None)
        self._found = []

    def _remove(self) -> None:
        doomed = [leftover for leftover in self._found if not self._wanted(leftover.key)]
        self._found = []
        if not doomed:
            return
        if not self._liveness.alone():
            log.info("routes may be another process's: none is removed")
            return
        names = ", ".join(str(leftover.key) for leftover in doomed)
        log.warning("removing %s, left behind by a run that was killed", names)
        for problem in self._table.exchange([leftover.request for leftover in doomed]):
            if problem is not None and problem.errno not in GONE:
                log.warning("%s: %s", names, problem)
