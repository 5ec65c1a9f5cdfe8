"""A tracker whose signals a test sets: fitness without interfaces, scripts and files.

::

    @virtual_time(seed=7)
    async def test_a_full_disk_moves_the_address():
        disk = ScriptedTracker(name="disk", weight=-100)
        async with Lan() as lan:
            lan.router("a", vips=["192.0.2.10/24"], priority=150, track=[disk])
            ...
            disk.says(False)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import attrs

from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.validate import seconds

__all__ = ["ScriptedTracker"]


@attrs.define(eq=False)
class _Script:
    """What is said, to everybody who looks."""

    latest: Signal | Exception
    lookers: set[_Looker] = attrs.Factory(set["_Looker"])


@attrs.define(eq=False)
class _Looker:
    """One router's look: every signal reaches it, also one that lasts no time."""

    said: deque[Signal | Exception] = attrs.Factory(deque[Signal | Exception])
    news: asyncio.Event = attrs.Factory(asyncio.Event)


def _known(tracker: ScriptedTracker) -> _Script:
    return _Script(tracker.first)


@attrs.frozen(kw_only=True, eq=False)
class ScriptedTracker(Tracker):
    """Says what it was told, and ``first`` until then.

    It may be given to any number of routers: each of them hears the same. ``weight``, ``reverse``
    and ``name`` are any tracker's.

    :param first: what it says at first: ``True``, ``False``, a number, or ``None`` for "not known
        yet".
    """

    first: Signal = True
    _script: _Script = attrs.field(
        init=False, default=attrs.Factory(_known, takes_self=True), repr=False
    )

    # Equal values do not make it another script.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def describe(self) -> str:
        return "scripted"

    def says(self, signal: Signal, *, after: float = 0.0) -> None:
        """Say something else.

        :param signal: as for ``first``.
        :param after: seconds from now.
        :raises ConfigError: ``after`` is negative.
        """
        self._set(signal, after)

    def fails(self, text: str = "told to fail", *, after: float = 0.0) -> None:
        """End with an exception, as a tracker does whose own work fails. It counts as a bad signal,
        and the tracker is started again 5 seconds later; what it is told then counts.

        :param text: the exception's.
        :param after: seconds from now.
        :raises ConfigError: ``after`` is negative.
        """
        self._set(RuntimeError(text), after)

    def _set(self, said: Signal | Exception, after: float) -> None:
        seconds("after", after, 0, 1e9)
        if after:
            asyncio.get_running_loop().call_later(after, self._say, said)
        else:
            self._say(said)

    def _say(self, said: Signal | Exception) -> None:
        self._script.latest = said
        for looker in self._script.lookers:
            looker.said.append(said)
            looker.news.set()

    async def signals(self) -> AsyncGenerator[Signal, None]:
        script, looker = self._script, _Looker()
        looker.said.append(script.latest)
        script.lookers.add(looker)
        try:
            while True:
                while looker.said:
                    said = looker.said.popleft()
                    if isinstance(said, Exception):
                        # A new one each time: one that is raised again collects tracebacks.
                        raise RuntimeError(str(said))
                    yield said
                looker.news.clear()
                await looker.news.wait()
        finally:
            script.lookers.discard(looker)
