"""Gratuitous ARP and neighbour advertisements on the wire: when they come and what they say."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from system.lab import wait_until
from system.ours import INTERVAL, mastered, router
from system.scenario import (
    VIP4,
    VIP6,
    Bench,
    announcements,
)
from system.wire import Advert, Arp

pytestmark = pytest.mark.system


def test_announcements_come_in_rounds_sets_and_refreshes(bench: Bench) -> None:
    ours = router(
        bench.a,
        vips=[VIP4, "192.0.2.11"],
        announcements={"delay": 0.6, "refresh": 1.2, "refresh_repeat": 2},
    )
    ours.start()
    mastered(ours, VIP4)
    start = bench.wire.wait_for(Advert).time
    time.sleep(max(0, start + 2.8 - time.monotonic()))
    for vip in (VIP4, "192.0.2.11"):
        frames = bench.wire.garps(vip, 0)
        after = [frame.time - start for frame in frames if frame.time - start < 2.7]
        sets = [[at for at in after if abs(at - due) < 0.3] for due in (0.0, 0.6, 1.2, 2.4)]
        assert [len(each) for each in sets] == [5, 5, 2, 2]
        assert len(after) == 14
        for frame in frames:
            assert (frame.operation, frame.sender_mac) == (1, bench.a.mac)
            assert frame.target_mac == "ff:ff:ff:ff:ff:ff"
    first = [frame.sender for frame in bench.wire.frames(Arp) if frame.gratuitous][:10]
    assert first == [VIP4, "192.0.2.11"] * 5


def test_neighbour_advertisements_say_what_they_must(bench: Bench) -> None:
    ours = router(bench.a, vips=["fe80::51:10/64", VIP6])
    ours.start()
    mastered(ours, VIP6)
    wait_until(lambda: len(bench.wire.unsolicited(VIP6)) == 5, 5, "a set")
    frames = bench.wire.unsolicited(VIP6)
    for frame in frames:
        assert (frame.source, frame.destination, frame.mac) == (VIP6, "ff02::1", bench.a.mac)
        assert frame.override and not frame.router
    bench.a.sysctl({"net/ipv6/conf/eth0/forwarding": 1})
    asked = time.monotonic()
    ours.do("announce", repeat=2)
    wait_until(lambda: len(bench.wire.unsolicited(VIP6, asked)) == 2, 1, "two more")
    assert all(frame.router for frame in bench.wire.unsolicited(VIP6, asked))


def test_announcements_are_paced(bench: Bench) -> None:
    addresses = [f"198.51.100.{n}" for n in range(1, 5)]
    ours = router(
        bench.a, vips=addresses, announcements={"delay": 0, "repeat": 3, "interval": 0.05}
    )
    ours.start()
    mastered(ours, *addresses)

    def frames() -> list[Arp]:
        return [frame for frame in bench.wire.frames(Arp) if frame.gratuitous]

    wait_until(lambda: len(frames()) == 12, 5, "all announcements")
    assert [frame.sender for frame in frames()] == addresses * 3
    gaps = [later.time - sooner.time for sooner, later in pairwise(frames())]
    # Shorter than 0.05 where the sender was kept waiting between its clock and the wire.
    assert min(gaps) > 0.02
    assert sum(gaps) >= 11 * 0.05 - 0.02


def test_announcements_on_demand(bench: Bench) -> None:
    ours = router(bench.a)
    ours.start()
    mastered(ours, VIP4)

    def sent(since: float = 0) -> int:
        return len(announcements(bench, VIP4, since, bench.a.mac))

    wait_until(lambda: sent() == 5, 5, "the first set")
    asked = time.monotonic()
    ours.do("announce")
    ours.do("announce", repeat=3)
    wait_until(lambda: sent(asked) >= 5, 5, "another set")
    # Time for more: an advert, for which the router must have come around again.
    bench.wire.wait_for(Advert, since=time.monotonic() + INTERVAL)
    # Asked again while the first were under way, or after: never more than both together.
    assert sent(asked) <= 8
    asked = time.monotonic()
    ours.do("announce", repeat=3)
    wait_until(lambda: sent(asked) >= 3, 5, "three more")
    bench.wire.wait_for(Advert, since=time.monotonic() + INTERVAL)
    assert sent(asked) == 3
