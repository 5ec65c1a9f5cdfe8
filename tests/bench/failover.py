"""How late a backup takes over from a killed master, read off the wire."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

from bench.table import Figure
from bench.teams import (
    GARP_DELAY,
    KINDS,
    KeepalivedCrowd,
    Team,
    Vrrpkit,
    address,
    bunch,
    down_interval,
    playing,
    wait_settled,
)
from system.lab import wait_until
from system.peers import BACKUP, MASTER
from system.wire import Advert, Arp, Sniffer

CROWD = 255


class Lateness(NamedTuple):
    """Milliseconds past Master_Down_Interval until a router was seen to be the new master."""

    advert: float
    announcement: float


def single(quick: bool) -> Iterator[Figure]:
    """One virtual router. At 100 ms, for the lateness does not depend on the interval."""
    kills = 5 if quick else 15
    adverts: list[float] = []
    announcements: list[float] = []
    for kind in KINDS:
        found = [late for (late,) in _kill_again_and_again(kind, 1, 0.1, kills, False)]
        adverts.append(statistics.median(late.advert for late in found))
        announcements.append(statistics.median(late.announcement for late in found))
    for what, (ours, theirs), target in (
        ("first advert", adverts, 1),
        ("first gratuitous ARP", announcements, 2),
    ):
        yield Figure(
            name=f"failover lateness, 1 instance: {what}, median of {kills}",
            unit="ms",
            vrrpkit=ours,
            keepalived=theirs,
            target=target,
        )


def crowd(quick: bool) -> Iterator[Figure]:
    """All virtual routers of a process killed at once, until each address is announced.

    When their adverts leave is up to each daemon, as in real life.
    """
    yield from _crowd(quick, bunched=False, target=15)


def bunched(quick: bool) -> Iterator[Figure]:
    """The same, and all adverts of the killed master left in one burst: the worst case."""
    yield from _crowd(quick, bunched=True, target=None)


def _crowd(quick: bool, *, bunched: bool, target: float | None) -> Iterator[Figure]:
    kills = 1 if quick else 3
    medians: list[float] = []
    worst: list[float] = []
    for kind in KINDS:
        rounds = _kill_again_and_again(kind, CROWD, 1.0, kills, bunched)
        found = sorted(late.announcement for lates in rounds for late in lates)
        medians.append(statistics.median(found))
        worst.append(found[round(0.99 * (len(found) - 1))])
    burst = ", due in one burst" if bunched else ""
    for what, (ours, theirs), allowed in (("p50", medians, None), ("p99", worst, target)):
        yield Figure(
            name=f"failover lateness, {CROWD} instances at 1 s{burst}: gratuitous ARP, {what}",
            unit="ms",
            vrrpkit=ours,
            keepalived=theirs,
            target=allowed,
        )


def _kill_again_and_again(
    kind: type[Vrrpkit | KeepalivedCrowd], count: int, interval: float, kills: int, bunched: bool
) -> Iterator[list[Lateness]]:
    with (
        playing(kind, count=count, interval=interval) as (lab, master, backup),
        Sniffer(lab.switch) as wire,
    ):
        for number in range(kills):
            if number:
                master.start()
                wait_settled(master, MASTER)
                wait_settled(backup, BACKUP)
            if count > 1:
                # Past the second set of announcements.
                time.sleep(GARP_DELAY)
            if bunched:
                bunch(master, interval)
            # At no particular moment.
            time.sleep(0.5 + random.uniform(0, interval))
            yield _kill(master, backup, wire, interval)


def _kill(master: Team, backup: Team, wire: Sniffer, interval: float) -> list[Lateness]:
    old, new = master.host.mac, backup.host.mac
    start = time.monotonic() - 2 * interval
    master.kill9()
    killed = time.monotonic()
    vrids = range(1, backup.count + 1)

    def announced() -> bool:
        arps = wire.frames(Arp, killed)
        seen = {arp.sender for arp in arps if arp.gratuitous and arp.source_mac == new}
        return seen >= {address(vrid) for vrid in vrids}

    time.sleep(down_interval(interval))
    wait_until(announced, 10, "every address announced")
    adverts, arps = wire.frames(Advert, start), wire.frames(Arp, killed)
    last = {advert.vrid: advert.time for advert in adverts if advert.source_mac == old}
    # Backwards, so that the first one of each is kept.
    first = {a.vrid: a.time for a in reversed(adverts) if a.source_mac == new}
    arp = {a.sender: a.time for a in reversed(arps) if a.source_mac == new and a.gratuitous}
    found: list[Lateness] = []
    for vrid in vrids:
        due = last[vrid] + down_interval(interval)
        found.append(Lateness((first[vrid] - due) * 1e3, (arp[address(vrid)] - due) * 1e3))
    return found
