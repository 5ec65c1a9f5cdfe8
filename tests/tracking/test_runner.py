"""What runs trackers: who shares a look, what becomes of trackers that fail, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Callable

import attrs
import pytest

from vrrpkit import MemoryBus, State, VRRPInstance
from vrrpkit.errors import SourceMissing
from vrrpkit.testing import virtual_time
from vrrpkit.tracking import runner
from vrrpkit.tracking.runner import TrackerRunner
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.vrrp.protocol.events import WeightTooSmall
from vrrpkit.vrrp.syncgroup import SyncGroup


def nothing() -> None:
    pass


@attrs.frozen(kw_only=True)
class TrackCall(Tracker):
    """Gives what a function gives, once a second."""

    call: Callable[[], Signal]

    async def signals(self) -> AsyncIterator[Signal]:
        while True:
            yield self.call()
            await asyncio.sleep(1)


@virtual_time()
async def test_one_that_was_checked_when_it_was_made_is_not_checked_again() -> None:
    made = []

    @attrs.frozen(kw_only=True)
    class TrackOnce(Tracker):
        path: str

        def __attrs_post_init__(self) -> None:
            made.append(self.path)

        async def signals(self) -> AsyncIterator[Signal]:
            yield True
            await asyncio.sleep(3600)

    tracker = TrackOnce(path="/run/x", weight=3)
    trackers = TrackerRunner([tracker], nothing)
    await trackers.start()
    assert trackers.tally.weight == 3
    await trackers.stop()
    assert made == ["/run/x"]


@virtual_time()
async def test_one_object_is_one_look_though_its_class_does_not_compare() -> None:
    starts = []

    @attrs.frozen(kw_only=True, eq=False)
    class TrackUnequal(Tracker):
        async def signals(self) -> AsyncIterator[Signal]:
            starts.append(1)
            yield True
            await asyncio.sleep(3600)

    tracker = TrackUnequal()
    both = [TrackerRunner([tracker], nothing) for _ in range(2)]
    for trackers in both:
        await trackers.start()
        assert not trackers.tally.faults
    assert len(starts) == 1
    for trackers in both:
        await trackers.stop()


@virtual_time()
async def test_a_failure_that_repeats_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    problems: list[Exception] = [
        ZeroDivisionError("a bug"),
        ZeroDivisionError("a bug"),
        SourceMissing("no such address"),
        SourceMissing("no such address"),
        OSError(errno.EMFILE, "too many files"),
    ]

    def fail() -> Signal:
        if problems:
            raise problems.pop(0)
        return True

    trackers = TrackerRunner([TrackCall(call=fail, name="x")], nothing)
    await trackers.start()
    assert trackers.tally.faults == {"x"}
    await asyncio.sleep(26)
    assert not trackers.tally.faults
    await trackers.stop()
    told = [(r.levelname, r.message.partition(";")[0], bool(r.exc_info)) for r in caplog.records]
    # Where a bug is, is shown; what the host lacks is told in words.
    assert [each for each in told if each[0] != "DEBUG"] == [
        ("ERROR", "tracker x failed: ZeroDivisionError: a bug", True),
        ("WARNING", "tracker x failed: SourceMissing: no such address", False),
        # What is ours says nothing about what is looked at.
        (
            "WARNING",
            "tracker x cannot look, and what it said last holds on: [Errno 24] too many files "
            "(raise the limit on open files: LimitNOFILE= in the systemd unit, 'ulimit -n')",
            False,
        ),
    ]


@attrs.frozen(kw_only=True)
class TrackLate(Tracker):
    """Good some time after it is looked at."""

    after: float

    async def signals(self) -> AsyncIterator[Signal]:
        await asyncio.sleep(self.after)
        yield True
        await asyncio.sleep(3600)


@virtual_time()
@pytest.mark.parametrize(
    ("after", "weight", "waits", "begins"),
    [
        # What comes soon spares the operator a FAULT at every start.
        (0.4, 0, 0.4, State.BACKUP),
        (0.6, 0, 0.5, State.FAULT),
        # With a weight nothing is added meanwhile, and nobody need be told.
        (0.4, -20, 0.0, State.BACKUP),
    ],
)
async def test_a_router_waits_a_moment_for_what_would_be_a_fault(
    after: float, weight: int, waits: float, begins: State
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    bus = MemoryBus()
    late = TrackLate(after=after, weight=weight)
    first = router(bus, 1, 150, late)
    second = router(bus, 2, 100, late)
    async with first:
        assert loop.time() - began == pytest.approx(waits)
        assert first.state is begins
        # Of many that look at the same, only the first one waits.
        async with second:
            assert loop.time() - began == pytest.approx(waits)
            assert second.state is begins
            await first.wait_for(State.MASTER)


@virtual_time()
async def test_one_that_says_it_does_not_know_is_not_waited_for() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with router(MemoryBus(), 1, 150, TrackCall(call=lambda: None)) as one:
        assert loop.time() == began
        assert one.state is State.FAULT


@virtual_time()
async def test_those_that_cannot_be_ended_are_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()

    @attrs.frozen(kw_only=True)
    class TrackStubborn(Tracker):
        async def signals(self) -> AsyncIterator[Signal]:
            yield True
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    @attrs.frozen(kw_only=True)
    class TrackDeaf(TrackStubborn):
        """Another one of the kind."""

    loop = asyncio.get_running_loop()
    bus = MemoryBus()
    async with router(bus, 1, 150, TrackStubborn(), TrackDeaf()) as one:
        await one.wait_for(State.MASTER)
        began = loop.time()
    assert loop.time() - began == pytest.approx(runner.GRACE), "both at the same time"
    assert bus.owner("192.0.2.100") is None
    for name in ("stubborn", "deaf"):
        assert f"tracker {name} does not end" in caplog.text
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert len(left) == 2
    release.set()
    await asyncio.wait(left)


@virtual_time()
async def test_two_that_look_at_the_same_end_it_once_and_another_begins_anew() -> None:
    starts, ends = [], []

    @attrs.frozen(kw_only=True)
    class TrackSlow(Tracker):
        async def signals(self) -> AsyncIterator[Signal]:
            starts.append(1)
            yield True
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(2)
                ends.append(1)
                # Which nobody is to hear.
                yield False

    first = TrackerRunner([TrackSlow(), TrackSlow(weight=5, name="x")], nothing)
    await first.start()
    stopping = asyncio.create_task(first.stop())
    await asyncio.sleep(1)
    second = TrackerRunner([TrackSlow()], nothing)
    await second.start()
    await stopping
    assert (len(starts), len(ends)) == (2, 1)
    assert not second.tally.faults
    await second.stop()
    assert len(ends) == 2


@virtual_time()
async def test_one_that_goes_on_after_a_cancellation_is_ended_at_its_next_signal() -> None:
    @attrs.frozen(kw_only=True)
    class TrackOn(Tracker):
        async def signals(self) -> AsyncIterator[Signal]:
            while True:
                yield True
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)

    trackers = TrackerRunner([TrackOn()], nothing)
    await trackers.start()
    await trackers.stop()
    assert len(asyncio.all_tasks()) == 1


def router(
    bus: MemoryBus, number: int, priority: int, *track: Tracker, preempt: bool = True
) -> VRRPInstance:
    return VRRPInstance(
        f"r{number}",
        bus.interface(f"192.0.2.{number}"),
        vrid=51,
        vips=["192.0.2.100/24"],
        priority=priority,
        track=track,
        preempt=preempt,
    )


def warnings_of(*routers: VRRPInstance) -> list[WeightTooSmall]:
    """The warnings of routers, as they come."""
    found: list[WeightTooSmall] = []

    def keep(event: object) -> None:
        if isinstance(event, WeightTooSmall):
            found.append(event)

    for each in routers:
        each._hub.subscribe(keep)
    return found


@virtual_time()
async def test_a_number_is_not_taken_for_a_weight_that_is_too_small() -> None:
    bus = MemoryBus()
    low, high = router(bus, 2, 100), router(bus, 1, 150, TrackCall(call=lambda: -60, weight=1))
    async with low:
        await low.wait_for(State.MASTER)
        found = warnings_of(high)
        async with high:
            await asyncio.sleep(10)
            # It does move the addresses.
            assert (high.state, low.state) == (State.BACKUP, State.MASTER)
    assert found == []


@virtual_time()
async def test_what_the_others_trackers_have_taken_is_no_gap() -> None:
    bus = MemoryBus()
    sick: set[str] = set()
    one = TrackCall(call=lambda: "one" not in sick, weight=-60, name="one")
    two = TrackCall(call=lambda: "two" not in sick, weight=-60, name="two")
    a, b = router(bus, 1, 150, one), router(bus, 2, 100, two)
    found = warnings_of(a, b)
    async with a, b:
        await a.wait_for(State.MASTER)
        await asyncio.sleep(5)
        sick.add("one")
        await b.wait_for(State.MASTER)
        await asyncio.sleep(5)
        # 90 hears 40, which is no reason to doubt the 60 of either.
        sick.add("two")
        await a.wait_for(State.MASTER)
        await asyncio.sleep(5)
        sick.clear()
        await asyncio.sleep(10)
        assert a.state is State.MASTER
    assert found == []


@virtual_time()
async def test_a_weight_above_0_that_takes_too_little_is_explained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    bus = MemoryBus()
    low, high = router(bus, 2, 90), router(bus, 1, 100, TrackCall(call=lambda: True, weight=60))
    async with low:
        await low.wait_for(State.MASTER)
        async with high:
            await high.wait_for(State.MASTER)
    assert (
        "r1: the weight 60 of call cannot hand the addresses from priority 100 to the router of "
        "priority 90; that only adds: it takes -11 or less, or a lower priority" in caplog.text
    )


@virtual_time()
async def test_a_gap_that_only_fault_can_bridge() -> None:
    bus = MemoryBus()
    helped = TrackCall(call=lambda: True, weight=200, name="helped")
    low = router(bus, 2, 10)
    high = router(bus, 1, 100, helped, TrackCall(call=lambda: True, weight=-20))
    found = warnings_of(high)
    async with low:
        await low.wait_for(State.MASTER)
        async with high:
            await high.wait_for(State.MASTER)
    assert [str(each).partition("; ")[2] for each in found] == [
        "that only adds: it takes -91 or less, or a lower priority",
        "it takes weight 0 (FAULT), or a lower priority",
    ]


@virtual_time()
async def test_a_signal_that_is_not_known_at_first_is_judged_when_it_is() -> None:
    bus = MemoryBus()
    known: list[Signal] = [None]
    low = router(bus, 2, 100)
    high = router(bus, 1, 150, TrackCall(call=lambda: known[0], weight=-20), preempt=False)
    found = warnings_of(high)
    async with low:
        await low.wait_for(State.MASTER)
        async with high:
            await asyncio.sleep(10)
            assert found == []
            known[0] = True
            await asyncio.sleep(1)
            assert [each.enough for each in found] == [51]


@virtual_time()
async def test_the_weights_of_all_members_count_where_they_are_added_up() -> None:
    inside, outside = MemoryBus(), MemoryBus()

    tracks = [TrackCall(call=lambda: True, weight=30, name="up")]
    tracks.append(TrackCall(call=lambda: True, weight=-60, name="down"))
    first = [
        VRRPInstance(
            f"m{vrid}",
            bus.interface("192.0.2.1"),
            vrid=51,
            vips=["192.0.2.100/24"],
            priority=100,
            track=[track],
        )
        for vrid, bus, track in zip((1, 2), (inside, outside), tracks, strict=True)
    ]
    second = [
        VRRPInstance(
            f"n{vrid}",
            bus.interface("192.0.2.2"),
            vrid=51,
            vips=["192.0.2.100/24"],
            priority=80,
        )
        for vrid, bus in ((1, inside), (2, outside))
    ]
    found = warnings_of(*first)
    async with SyncGroup("second", second) as other:
        await other.wait_for(State.MASTER)
        async with SyncGroup("first", first, member_weights=True) as group:
            await group.wait_for(State.MASTER)
    # 130 less 60 is below 80; without its 30 it is still above.
    assert {(each.tracker, each.adds) for each in found} == {("up", True)}


@virtual_time()
async def test_trouble_of_our_own_keeps_the_last_signal() -> None:
    @attrs.frozen(kw_only=True)
    class TrackPoorly(Tracker):
        """Good, until it cannot look."""

        async def signals(self) -> AsyncIterator[Signal]:
            yield True
            await asyncio.sleep(1)
            raise OSError(errno.EMFILE, "Too many open files")

    changes: list[None] = []
    trackers = TrackerRunner([TrackPoorly()], lambda: changes.append(None))
    await trackers.start()
    await asyncio.sleep(100)
    assert not trackers.tally.faults
    assert changes == []
    await trackers.stop()
