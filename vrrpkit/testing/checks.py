"""A checker whose answers a test sets: pools of servers without servers.

::

    @virtual_time(seed=7)
    async def test_pool():
        checker = ScriptedChecker(interval=5, retry=0)
        checker.fails("10.0.0.2:80", "connection refused")     # the others pass
        ...
"""

from __future__ import annotations

import asyncio
import math

import attrs

from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.target import Endpoint, Target
from vrrpkit.errors import CheckFailed
from vrrpkit.validate import seconds_field

__all__ = ["ScriptedChecker"]

AT_ONCE: float | None = 0.0


@attrs.frozen
class _Answer:
    outcome: Weight | CheckFailed | None
    after: float


@attrs.frozen(kw_only=True, eq=False)
class ScriptedChecker(Checker):
    """Passes, fails or hangs as it was told for a server, and passes for every other one.

    A server is named as its target is: by its name, ``"10.0.0.1:80"`` or ``"10.0.0.1"``; where
    answers for several of these are set, the first of them in this order counts. What is set holds
    for attempts that begin from then on. The schedule is any checker's; ``warmup`` is 0 here, so
    that the first check is made at once.

    :param after: seconds until an answer for which no other time was set, from 0.
    """

    warmup: float | None = attrs.field(
        default=AT_ONCE, validator=attrs.validators.optional(seconds_field(0))
    )
    after: float = attrs.field(default=0.0, validator=seconds_field(0))
    _answers: dict[str, _Answer] = attrs.field(init=False, factory=dict[str, _Answer], repr=False)
    _begun: list[tuple[Target, float]] = attrs.field(
        init=False, factory=list[tuple[Target, float]], repr=False
    )

    # An equal schedule does not make it another script.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def passes(
        self, server: str, weight: Weight | int | None = None, *, after: float | None = None
    ) -> None:
        """``server`` is healthy.

        :param weight: with this weight; a number is an absolute one.
        :param after: seconds that an attempt takes.
        """
        self._set(server, Weight(weight) if isinstance(weight, int) else weight, after)

    def fails(self, server: str, text: str = "told to fail", *, after: float | None = None) -> None:
        """``server`` is not healthy.

        :param text: why.
        :param after: seconds that an attempt takes.
        """
        self._set(server, CheckFailed(text), after)

    def hangs(self, server: str) -> None:
        """``server`` does not answer: an attempt ends when its time is up."""
        self._set(server, None, math.inf)

    def attempts(self, server: str) -> list[float]:
        """When attempts for ``server`` began, in seconds of the event loop."""
        return [at for target, at in self._begun if server in _names(target)]

    def _set(self, server: str, outcome: Weight | CheckFailed | None, after: float | None) -> None:
        self._answers[server] = _Answer(outcome, self.after if after is None else after)

    async def check(self, target: Target) -> Weight | None:
        loop = asyncio.get_running_loop()
        self._begun.append((target, loop.time()))
        known = (self._answers.get(name) for name in _names(target))
        answer = next(filter(None, known), None) or _Answer(None, self.after)
        if answer.after == math.inf:
            await loop.create_future()
        elif answer.after:
            await asyncio.sleep(answer.after)
        if isinstance(answer.outcome, CheckFailed):
            # A new one each time: an exception that is raised again collects tracebacks.
            raise CheckFailed(str(answer.outcome))
        return answer.outcome


def _names(target: Target) -> tuple[str, str, str]:
    return target.name, str(Endpoint(target.address, target.port)), str(target.address)
