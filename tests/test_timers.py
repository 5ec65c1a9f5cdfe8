"""The heap of deadlines: what fires when, and how often the alarm is touched."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from vrrpkit.testing.virtual import run_virtual, virtual_time
from vrrpkit.timers import Deadline, Deadlines, LoopAlarm


class ManualAlarm:
    """An alarm that the test rings itself."""

    def __init__(self) -> None:
        self.time = 100.0
        self.order: tuple[float, Callable[[], None]] | None = None
        self.armed = 0

    def now(self) -> float:
        return self.time

    def arm(self, when: float, wake: Callable[[], None]) -> None:
        self.order = (when, wake)
        self.armed += 1

    def close(self) -> None:
        self.order = None

    def go(self, until: float) -> None:
        """Let time pass, ringing whenever it is due."""
        while self.order is not None and self.order[0] <= until:
            self.time = max(self.time, self.order[0])
            wake = self.order[1]
            self.order = None
            wake()
        self.time = until


@pytest.fixture
def alarm() -> ManualAlarm:
    return ManualAlarm()


@pytest.fixture
def deadlines(alarm: ManualAlarm) -> Deadlines:
    return Deadlines(alarm)


def test_fires_in_order_of_time(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[tuple[str, float]] = []

    def note(name: str) -> None:
        fired.append((name, alarm.time))

    for name, when in (("late", 103.0), ("early", 101.0), ("middle", 102.0)):
        deadlines.new(partial(note, name)).set(when)
    alarm.go(110)
    assert fired == [("early", 101.0), ("middle", 102.0), ("late", 103.0)]


def test_one_that_is_dropped_never_fires_and_keeps_nothing(
    alarm: ManualAlarm, deadlines: Deadlines
) -> None:
    fired: list[float] = []

    class Owner:
        def due(self) -> None:
            fired.append(alarm.time)

    kept = deadlines.new(lambda: fired.append(alarm.time))
    kept.set(150)
    owner = Owner()
    gone = weakref.ref(owner)
    deadline = deadlines.new(owner.due)
    deadline.set(120)
    deadline.drop()
    deadline.drop()
    del owner
    gc.collect()
    assert gone() is None
    deadline.set(130)
    alarm.go(200)
    assert fired == [150]


def heap_of(thing: object) -> object:
    """The heap of a deadline, and nothing of anything else."""
    return thing._heap if isinstance(thing, Deadline) else None


def test_many_that_are_dropped_are_swept_out(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []
    kept = deadlines.new(lambda: fired.append(alarm.time))
    kept.set(100_000)
    for number in range(1000):
        deadline = deadlines.new(lambda: None)
        deadline.set(50_000 - number)
        deadline.drop()
    assert sum(kept is deadlines for kept in map(heap_of, gc.get_objects())) <= 35
    alarm.go(100_000)
    assert fired == [100_000]


def test_a_callback_may_drop_those_that_are_due_next(
    alarm: ManualAlarm, deadlines: Deadlines
) -> None:
    fired: list[int] = []
    others = [deadlines.new(partial(fired.append, number)) for number in range(100)]

    def drop() -> None:
        for other in others[:-1]:
            other.drop()

    deadlines.new(drop).set(101)
    for other in others:
        other.set(101)
    alarm.go(102)
    assert fired == [99]


def test_moving_later_does_not_touch_the_alarm(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []
    deadline = deadlines.new(lambda: fired.append(alarm.time))
    deadline.set(101)
    for step in range(100):
        deadline.set(102 + step / 100)
    assert alarm.armed == 1
    alarm.go(110)
    assert fired == [102.99]


def test_moving_earlier_counts_at_once(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []
    deadline = deadlines.new(lambda: fired.append(alarm.time))
    deadline.set(105)
    deadline.set(101)
    alarm.go(110)
    assert fired == [101]


def test_earlier_then_later_fires_once_at_the_last_time(
    alarm: ManualAlarm, deadlines: Deadlines
) -> None:
    fired: list[float] = []
    deadline = deadlines.new(lambda: fired.append(alarm.time))
    for when in (105.0, 101.0, 105.0):
        deadline.set(when)
    alarm.go(110)
    assert fired == [105]


def test_unset_never_fires_and_can_be_set_again(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []
    deadline = deadlines.new(lambda: fired.append(alarm.time))
    deadline.set(101)
    deadline.set(None)
    alarm.go(102)
    assert fired == []
    deadline.set(103)
    alarm.go(110)
    assert fired == [103]


def test_a_callback_may_set_its_own_deadline(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []

    def tick() -> None:
        fired.append(alarm.time)
        if len(fired) < 3:
            deadline.set(alarm.time + 1)

    deadline = deadlines.new(tick)
    deadline.set(101)
    alarm.go(110)
    assert fired == [101, 102, 103]


def test_slack_lets_one_wake_up_serve_many(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []
    for when in (101.0, 101.004, 101.006):
        deadlines.new(lambda: fired.append(alarm.time)).set(when, slack=0.005)
    alarm.go(110)
    assert fired == [101.0, 101.0, 101.006]


def test_slack_never_makes_late(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []
    deadlines.new(lambda: fired.append(alarm.time)).set(101.0, slack=0.005)
    alarm.go(110)
    assert fired == [101.0]


def test_drains_run_before_anything_fires(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []
    deadline = deadlines.new(lambda: fired.append(alarm.time))
    deadline.set(101)
    drained: list[float] = []

    def drain() -> None:
        if not drained:
            deadline.set(104)
        drained.append(alarm.time)

    deadlines.drains["socket"] = drain
    alarm.go(110)
    assert (drained[0], fired) == (101, [104])


def test_drains_say_how_far_they_came(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    heard: list[float] = []
    deadline = deadlines.new(lambda: heard.append(deadlines.heard_to))
    assert deadlines.heard_to == math.inf
    for when, read in ((101.0, (None, None)), (102.0, (None, 99.5)), (103.0, (102.5, 100.5))):
        for name, to in zip("ab", read, strict=True):
            deadlines.drains[name] = lambda to=to: to
        deadline.set(when)
        alarm.go(when)
    assert heard == [math.inf, 99.5, 100.5]


def test_a_failing_callback_stops_none_of_the_others(
    alarm: ManualAlarm, deadlines: Deadlines
) -> None:
    fired: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    deadlines.new(fail).set(101)
    deadlines.new(lambda: fired.append("other")).set(101)
    with pytest.raises(ZeroDivisionError):
        alarm.go(110)
    alarm.go(110)
    assert fired == ["other"]


def test_a_socket_that_cannot_be_read_keeps_nothing_from_firing(
    alarm: ManualAlarm, deadlines: Deadlines
) -> None:
    fired: list[str] = []

    def fail() -> float | None:
        raise asyncio.CancelledError

    def drain() -> float | None:
        fired.append("drained")
        return None

    deadlines.drains["broken"] = fail
    deadlines.drains["other"] = drain
    deadlines.new(lambda: fired.append("due")).set(101)
    with pytest.raises(asyncio.CancelledError):
        alarm.go(110)
    assert fired == ["drained", "due"]


def test_close_forgets_everything(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []
    deadlines.new(lambda: fired.append(alarm.time)).set(101)
    deadlines.close()
    alarm.go(110)
    assert fired == []


@virtual_time()
async def test_the_loop_alarm_follows_the_loop() -> None:
    deadlines = Deadlines(LoopAlarm())
    fired: list[float] = []
    deadline = deadlines.new(lambda: fired.append(deadlines.now()))
    deadline.set(1002.5)
    deadlines.new(lambda: fired.append(deadlines.now())).set(1001.25)
    await asyncio.sleep(10)
    assert fired == [1001.25, 1002.5]
    deadlines.close()


def test_the_loop_alarm_needs_a_loop() -> None:
    with pytest.raises(RuntimeError):
        LoopAlarm()

    async def main() -> float:
        return LoopAlarm().now()

    assert run_virtual(main(), start=5.0) == 5.0


def test_a_herd_gathers_at_multiples_of_the_step(alarm: ManualAlarm) -> None:
    deadlines = Deadlines(alarm, herds=True)
    fired: dict[str, list[float]] = {"a": [], "b": []}

    def tick(name: str, deadline: list[Deadline]) -> None:
        fired[name].append(alarm.time)
        deadline[0].set(alarm.time + 1, slack=0.05, step=0.5)

    for name, first in (("a", 100.33), ("b", 100.62)):
        mine: list[Deadline] = []
        mine.append(deadlines.new(partial(tick, name, mine)))
        mine[0].set(first, slack=0.05, step=0.5)
    alarm.go(120)
    for name, phase in (("a", 0.0), ("b", 0.5)):
        gaps = [later - sooner for sooner, later in pairwise(fired[name])]
        assert all(0.95 <= round(gap, 6) <= 1 for gap in gaps), "early within the slack, never late"
        assert [round(when % 1, 6) for when in fired[name][-3:]] == [phase] * 3


def test_an_exact_deadline_is_not_herded(alarm: ManualAlarm) -> None:
    deadlines = Deadlines(alarm, herds=True)
    fired: list[float] = []
    deadlines.new(lambda: fired.append(alarm.time)).set(101.3, step=0.5)
    alarm.go(110)
    assert fired == [101.3]


def test_many_callbacks_are_spread_over_turns(alarm: ManualAlarm, deadlines: Deadlines) -> None:
    fired: list[float] = []

    def slow() -> None:
        alarm.time += 0.001
        fired.append(alarm.time)

    for _ in range(30):
        deadlines.new(slow).set(101)
    assert alarm.order is not None
    alarm.time = 101
    alarm.order[1]()
    assert len(fired) == 8
    assert alarm.order[0] == 101, "the rest follows at once"
    alarm.go(110)
    assert len(fired) == 30


def test_a_limit_that_is_looked_at_where_the_next_moment_will_be_costs_no_entry(
    alarm: ManualAlarm,
) -> None:
    deadlines = Deadlines(alarm, herds=True)
    fired: list[float] = []
    deadline = deadlines.new(lambda: fired.append(alarm.time))
    deadline.set(105.0, look=100.502, step=0.005)
    assert alarm.order is not None and alarm.order[0] == pytest.approx(100.5)
    armed = alarm.armed
    # It was not needed: what is due instead is found at the same place.
    deadline.set(100.503, slack=0.005, step=0.005)
    assert alarm.armed == armed
    alarm.go(101)
    assert fired == [pytest.approx(100.5)]
    alarm.go(110)
    assert len(fired) == 1


@pytest.mark.parametrize("herds", [False, True])
def test_a_limit_that_is_looked_at_early_holds_all_the_same(
    alarm: ManualAlarm, herds: bool
) -> None:
    deadlines = Deadlines(alarm, herds=herds)
    fired: list[float] = []
    deadline = deadlines.new(lambda: fired.append(alarm.time))
    deadline.set(105.0, look=100.5)
    alarm.go(104.9)
    assert fired == []
    alarm.go(106)
    assert fired == [105.0]
    # A look that is later than the moment means nothing.
    deadline.set(107.0, look=109.0)
    alarm.go(120)
    assert fired == [105.0, 107.0]
