"""When gratuitous ARP and unsolicited neighbour advertisements leave an interface.

That is rounds, sets, refreshes and pacing. What the frames look like, and how they reach the wire,
is the business of ``send``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence

from vrrpkit.host.base import Announcements
from vrrpkit.timers import Deadlines
from vrrpkit.values import VIP

__all__ = ["CHUNK", "Announcer"]

log = logging.getLogger(__name__)

CHUNK = 64
"""Frames in one turn of the event loop. A larger burst would keep adverts waiting."""

LULL = 2
"""Turns of the event loop in which nothing was started, before second packets leave: of hundreds of
routers that take over at once, none shall wait for the repetitions of another."""


class _Burst:
    """What one key still has to send: whole rounds over all its addresses, one after the other."""

    __slots__ = ("key", "place", "rounds", "vips")

    def __init__(self, key: Hashable, vips: tuple[VIP, ...], rounds: int) -> None:
        self.key = key
        self.vips = vips
        self.rounds = rounds
        self.place = 0

    def take(self, most: int) -> tuple[VIP, ...]:
        """The next addresses of the present round, at most ``most`` of them."""
        taken = self.vips[self.place : self.place + most]
        self.place += len(taken)
        if self.place == len(self.vips):
            self.place = 0
            self.rounds -= 1
        return taken


class _Plan:
    """The further sets of one key: the second one, then the refreshes."""

    def __init__(self, vips: tuple[VIP, ...], how: Announcements, now: float) -> None:
        self.vips = vips
        self.how = how
        self.second = now + how.delay if how.delay > 0 else None
        self.refresh = now + how.refresh if how.refresh > 0 else None

    def next(self) -> float | None:
        """When the next set is due."""
        times = [when for when in (self.second, self.refresh) if when is not None]
        return min(times, default=None)

    def due(self, now: float) -> int:
        """How many rounds are due at ``now``; what they came from is moved on."""
        rounds = 0
        if self.second is not None and self.second <= now:
            self.second = None
            rounds = self.how.repeat
        if self.refresh is not None and self.refresh <= now:
            # From now: a host that slept owes no refreshes.
            self.refresh = now + self.how.refresh
            rounds = max(rounds, self.how.refresh_repeat)
        return rounds


class Announcer:
    """Tells the neighbours on one interface where its virtual addresses are.

    Every address gets its first packet before any that waits gets its second, whichever virtual
    router it belongs to: what counts after a takeover is when the last address has moved.

    :param deadlines: the deadlines of the host.
    :param send: puts one frame per address on the wire, without blocking; may raise ``OSError``.
    """

    def __init__(self, deadlines: Deadlines, send: Callable[[Sequence[VIP]], None]) -> None:
        self.sent = 0
        """Frames handed to the wire so far."""
        self.failed = 0
        """Frames that the system refused so far."""
        self._deadlines = deadlines
        self._send = send
        self._plans: dict[Hashable, _Plan] = {}
        self._live: dict[Hashable, _Burst] = {}
        self._fresh: deque[_Burst] = deque()
        self._rest: deque[_Burst] = deque()
        self._spent = 0
        self._lull = 0
        self._gathering = False
        self._not_before: float | None = None
        self._turn: asyncio.Handle | None = None
        self._sets = deadlines.new(self._sets_due)
        self._pace = deadlines.new(self._flush)

    def start(self, key: Hashable, vips: Sequence[VIP], announcements: Announcements) -> None:
        """Announce ``vips`` now, and later as ``announcements`` says, until :meth:`stop`.

        The first round leaves before this returns, unless pacing or :data:`CHUNK` holds it back.
        """
        self.stop(key)
        if not vips:
            return
        plan = _Plan(tuple(vips), announcements, self._deadlines.now())
        self._plans[key] = plan
        self._lull = LULL
        self._queue(key, plan, announcements.repeat)
        due = plan.next()
        if due is not None and (self._sets.when is None or due < self._sets.when):
            self._sets.set(due)

    @contextlib.contextmanager
    def together(self) -> Generator[None]:
        """What is started inside leaves at the end of the block, in as few calls as possible."""
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            self._flush()

    def again(self, key: Hashable, repeat: int) -> None:
        """Announce the addresses of ``key`` once more, ``repeat`` packets each, if it was started.

        Asking again and again makes no longer queue: the larger number of rounds counts.
        """
        plan = self._plans.get(key)
        if plan is not None:
            self._queue(key, plan, repeat)

    def stop(self, key: Hashable) -> None:
        """Send no packet for ``key`` any more, queued ones included."""
        if self._plans.pop(key, None) is not None:
            self._drop(key)

    def close(self) -> None:
        """Stop everything."""
        self._plans.clear()
        self._live.clear()
        self._fresh.clear()
        self._rest.clear()
        self._sets.set(None)
        self._pace.set(None)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _drop(self, key: Hashable) -> int:
        burst = self._live.pop(key, None)
        if burst is None:
            return 0
        (self._fresh if burst in self._fresh else self._rest).remove(burst)
        return burst.rounds

    def _queue(self, key: Hashable, plan: _Plan, rounds: int) -> None:
        # What still waits for this key is replaced, so that frequent requests add up to nothing.
        rounds = max(rounds, self._drop(key))
        if rounds > 0:
            burst = self._live[key] = _Burst(key, plan.vips, rounds)
            self._fresh.append(burst)
            if not self._gathering:
                self._flush()

    def _sets_due(self) -> None:
        now = self._deadlines.now()
        for key, plan in list(self._plans.items()):
            rounds = plan.due(now)
            if rounds:
                self._queue(key, plan, rounds)
        times = [when for plan in self._plans.values() if (when := plan.next()) is not None]
        self._sets.set(min(times, default=None))

    def _flush(self) -> None:
        while self._fresh or self._rest:
            interval = self._interval()
            if interval > 0:
                # Paced: one frame at a time, and a timer for the next. The pause holds for all
                # bursts behind this one, or pacing would protect no switch.
                now = self._deadlines.now()
                if self._not_before is not None and now < self._not_before:
                    self._pace.set(self._not_before)
                    break
                self._put(self._take(1))
                self._not_before = now + interval
            elif self._spent < CHUNK and (self._fresh or not self._lull):
                # First rounds leave at once, a chunk in each turn of the loop; repetitions wait
                # until no first round has come for some turns, for another router may be about to
                # take over in the next one.
                taken = self._take(CHUNK - self._spent)
                self._spent += len(taken)
                self._put(taken)
            else:
                break
        if (self._spent or self._lull) and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._spent = 0
        self._lull = max(0, self._lull - 1)
        self._flush()

    def _interval(self) -> float:
        plan = self._plans[(self._fresh or self._rest)[0].key]
        return plan.how.interval

    def _take(self, most: int) -> list[VIP]:
        taken: list[VIP] = []
        queue = self._fresh or self._rest
        while queue and len(taken) < most:
            burst = queue[0]
            before = burst.rounds
            taken += burst.take(most - len(taken))
            if burst.rounds == before:
                break
            queue.popleft()
            if burst.rounds:
                # Behind all that wait: each address gets its first packet before any gets a second.
                self._rest.append(burst)
            else:
                del self._live[burst.key]
            # The next one may have a pace of its own, which the caller looks up.
            if most == 1 or (queue and self._plans[queue[0].key].how.interval > 0):
                break
        return taken

    def _put(self, vips: Sequence[VIP]) -> None:
        try:
            self._send(vips)
        except OSError as problem:
            self.failed += len(vips)
            log.debug("%d announcements were refused: %s", len(vips), problem)
        else:
            self.sent += len(vips)
