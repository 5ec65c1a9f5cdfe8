"""When announcements leave: rounds, sets, refresh, pacing, chunks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from vrrpkit.host.announce.announcer import CHUNK, Announcer
from vrrpkit.testing.virtual import virtual_time
from vrrpkit.timers import Deadlines, LoopAlarm
from vrrpkit.values import VIP, Announcements

ONE = [VIP("192.0.2.10/24")]
TWO = [VIP("192.0.2.10/24"), VIP("192.0.2.11/24")]
BARE = Announcements(repeat=5, delay=0)


def many(count: int) -> list[VIP]:
    return [VIP(f"10.0.{number // 250}.{number % 250 + 1}/32") for number in range(count)]


class Wire:
    """Notes what leaves, when, and in which call."""

    def __init__(self) -> None:
        self.deadlines = Deadlines(LoopAlarm())
        self.announcer = Announcer(self.deadlines, self.send)
        self.frames: list[tuple[float, VIP]] = []
        self.calls: list[int] = []
        self.down = False

    def send(self, vips: Sequence[VIP]) -> None:
        if self.down:
            raise OSError(100, "Network is down")
        self.calls.append(len(vips))
        self.frames += [(self.deadlines.now() - 1000, vip) for vip in vips]

    @property
    def times(self) -> list[float]:
        return [round(when, 6) for when, _vip in self.frames]

    @property
    def vips(self) -> list[VIP]:
        return [vip for _when, vip in self.frames]


@virtual_time()
async def test_the_first_round_leaves_at_once() -> None:
    wire = Wire()
    wire.announcer.start("a", TWO, BARE)
    assert wire.vips[:2] == TWO


@virtual_time()
async def test_rounds_alternate_over_all_addresses() -> None:
    wire = Wire()
    wire.announcer.start("a", TWO, Announcements(repeat=3, delay=0))
    await asyncio.sleep(1)
    assert wire.vips == TWO * 3
    assert wire.announcer.sent == 6


@virtual_time()
async def test_a_second_set_follows() -> None:
    wire = Wire()
    wire.announcer.start("a", ONE, Announcements(repeat=2, delay=5))
    await asyncio.sleep(100)
    assert wire.times == [0, 0, 5, 5]


@virtual_time()
async def test_refreshes_go_on() -> None:
    wire = Wire()
    wire.announcer.start("a", ONE, Announcements(repeat=2, delay=0, refresh=10, refresh_repeat=3))
    await asyncio.sleep(25)
    assert wire.times == [0, 0, 10, 10, 10, 20, 20, 20]


@virtual_time()
async def test_stop_drops_what_is_queued_and_all_that_would_come() -> None:
    wire = Wire()
    wire.announcer.start("a", ONE, Announcements(repeat=5, delay=5, refresh=1, interval=0.1))
    await asyncio.sleep(0.25)
    wire.announcer.stop("a")
    wire.announcer.stop("a")
    await asyncio.sleep(100)
    assert wire.times == [0, 0.1, 0.2]


@virtual_time()
async def test_starting_again_starts_afresh() -> None:
    wire = Wire()
    how = Announcements(repeat=1, delay=5)
    wire.announcer.start("a", ONE, how)
    await asyncio.sleep(3)
    wire.announcer.start("a", ONE, how)
    await asyncio.sleep(100)
    assert wire.times == [0, 3, 8]


@virtual_time()
async def test_pacing_spreads_the_frames_of_the_whole_interface() -> None:
    wire = Wire()
    how = Announcements(repeat=2, delay=0, interval=0.1)
    wire.announcer.start("a", TWO, how)
    wire.announcer.start("b", [VIP("192.0.2.12/24")], how)
    await asyncio.sleep(10)
    assert wire.times == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    # Every address has its first packet before any has its second.
    assert len(set(wire.vips[:3])) == 3


@virtual_time()
async def test_a_paced_router_does_not_slow_down_the_others_for_good() -> None:
    wire = Wire()
    wire.announcer.start("paced", ONE, Announcements(repeat=2, delay=0, interval=1))
    wire.announcer.start("free", [TWO[1]], BARE)
    await asyncio.sleep(10)
    assert Counter(wire.vips) == {TWO[0]: 2, TWO[1]: 5}


@virtual_time()
async def test_large_bursts_leave_in_chunks_with_a_turn_between() -> None:
    wire = Wire()
    vips = many(200)
    wire.announcer.start("a", vips, Announcements(repeat=2, delay=0))
    assert len(wire.frames) == CHUNK
    turns = 0
    while len(wire.frames) < 400:
        before = len(wire.frames)
        await asyncio.sleep(0)
        assert len(wire.frames) - before <= CHUNK
        turns += 1
    assert turns >= 400 // CHUNK - 1
    assert wire.vips == vips * 2
    assert wire.times == [0] * 400


@virtual_time()
async def test_first_rounds_go_before_second_ones_of_other_routers() -> None:
    wire = Wire()
    vips = many(255)
    for vip in vips:
        wire.announcer.start(vip, [vip], BARE)
    assert len(wire.frames) == CHUNK
    await asyncio.sleep(1)
    # What leaves in the turn of the takeover may repeat; no other overtakes a first packet.
    first = {vip: wire.vips.index(vip) for vip in vips}
    assert max(first.values()) < CHUNK + 255
    assert Counter(wire.vips) == dict.fromkeys(vips, 5)


@virtual_time()
async def test_again_announces_at_once_and_only_what_was_started() -> None:
    wire = Wire()
    wire.announcer.again("a", 3)
    wire.announcer.start("a", ONE, Announcements(repeat=1, delay=0))
    await asyncio.sleep(1)
    wire.announcer.again("a", 3)
    await asyncio.sleep(1)
    assert wire.times == [0, 1, 1, 1]


@virtual_time()
async def test_asking_again_and_again_makes_no_longer_queue() -> None:
    wire = Wire()
    wire.announcer.start("a", ONE, Announcements(repeat=5, delay=0, interval=1))
    for _ in range(1000):
        wire.announcer.again("a", 3)
    await asyncio.sleep(100)
    assert len(wire.frames) == 5


@virtual_time()
async def test_refused_frames_are_counted_and_dropped() -> None:
    wire = Wire()
    wire.down = True
    wire.announcer.start("a", TWO, Announcements(repeat=2, delay=5))
    await asyncio.sleep(1)
    wire.down = False
    await asyncio.sleep(10)
    assert (wire.announcer.failed, wire.announcer.sent) == (4, 4)
    assert wire.times == [5] * 4


@virtual_time()
async def test_close_stops_everything() -> None:
    wire = Wire()
    wire.announcer.start("a", many(200), Announcements(repeat=5, delay=5, refresh=1))
    wire.announcer.close()
    await asyncio.sleep(100)
    assert len(wire.frames) == CHUNK


@virtual_time()
async def test_nothing_to_announce_is_fine() -> None:
    wire = Wire()
    wire.announcer.start("a", [], BARE)
    wire.announcer.again("a", 3)
    await asyncio.sleep(100)
    assert wire.frames == []


@virtual_time()
async def test_repetitions_wait_until_nobody_takes_over_any_more() -> None:
    wire = Wire()
    wire.announcer.start("a", ONE, BARE)
    await asyncio.sleep(0)
    wire.announcer.start("b", [TWO[1]], BARE)
    assert wire.vips == [ONE[0], TWO[1]]
    await asyncio.sleep(1)
    assert Counter(wire.vips) == {ONE[0]: 5, TWO[1]: 5}
    assert set(wire.times) == {0}


@virtual_time()
async def test_what_is_started_together_leaves_in_one_call() -> None:
    wire = Wire()
    with wire.announcer.together():
        wire.announcer.start("a", ONE, BARE)
        wire.announcer.start("b", [TWO[1]], BARE)
        assert wire.frames == []
    assert wire.calls == [2]
