"""What adverts cost in processor time and memory, and whether routers hold still under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.table import Figure
from bench.teams import GARP_DELAY, KINDS, Team, Vrrpkit, playing

COUNT = 255


class Reading(NamedTuple):
    """Counters of one process and of its network namespace."""

    cpu: float
    """Seconds of processor time."""
    received: int
    sent: int


def read(team: Team) -> Reading:
    """The counters of a team, now."""
    pid = team.pid
    # Nanoseconds, where /proc/PID/stat has ticks of 10 ms.
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    cpu = sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    (line,) = [line for line in lines if line.strip().startswith(f"{team.host.dev}:")]
    counters = line.partition(":")[2].split()
    return Reading(cpu, int(counters[1]), int(counters[9]))


def cpu(quick: bool) -> Iterator[Figure]:
    """Processor time per advert sent and received, whole processes."""
    window = 4 if quick else 10
    sent: list[float] = []
    received: list[float] = []
    for kind in KINDS:
        with playing(kind, count=COUNT, interval=0.1) as (_, master, backup):
            time.sleep(GARP_DELAY + 1)
            before = read(master), read(backup)
            time.sleep(window)
            after = read(master), read(backup)
        told = after[0].sent - before[0].sent
        heard = after[1].received - before[1].received
        expected = window * COUNT / 0.1
        if not 0.95 * expected < min(told, heard) <= max(told, heard) < 1.1 * expected:
            raise RuntimeError(f"{kind.__name__}: {told} sent, {heard} heard, not {expected:.0f}")
        sent.append((after[0].cpu - before[0].cpu) / told * 1e6)
        received.append((after[1].cpu - before[1].cpu) / heard * 1e6)
    for name, (ours, theirs), target in (("sent", sent, 0.7), ("received", received, 0.9)):
        yield Figure(
            name=f"CPU per advert {name}, {COUNT} instances at 100 ms",
            unit="us",
            vrrpkit=ours,
            keepalived=theirs,
            target=target,
            relative=True,
        )


def steady(quick: bool) -> Iterator[Figure]:
    """Transitions that nobody asked for at the shortest interval, both ends vrrpkit."""
    window = 10 if quick else 60
    with playing(Vrrpkit, count=COUNT, interval=0.01) as (_, master, backup):
        time.sleep(GARP_DELAY + 1)
        before = len(master.journal()) + len(backup.journal())
        time.sleep(window)
        time.sleep(1)
        after = len(master.journal()) + len(backup.journal())
    yield Figure(
        name=f"{COUNT} instances at 10 ms for {window} s: transitions nobody asked for",
        unit="",
        vrrpkit=after - before,
        target=0,
    )


def memory(quick: bool) -> Iterator[Figure]:
    """Resident memory of the larger of the two processes."""
    found: list[float] = []
    for kind in KINDS:
        with playing(kind, count=COUNT, interval=1) as (_, master, backup):
            time.sleep(1 if quick else 5)
            found.append(max(map(resident, (master.pid, backup.pid))))
    ours, theirs = found
    yield Figure(
        name=f"memory of a process with {COUNT} instances",
        unit="MB",
        vrrpkit=ours,
        keepalived=theirs,
        target=55,
    )


def resident(pid: int) -> float:
    """VmRSS of a process in megabytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024 / 1e6
