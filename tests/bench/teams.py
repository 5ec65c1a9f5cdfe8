"""The two competitors, each as a crowd of virtual routers in one process on one host."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from system.lab import Host, Lab
from system.peers import BACKUP, MASTER, Keepalived, keepalived_conf

PROGRAM = Path(__file__).with_name("crowd.py")

HIGH, LOW = 150, 100

GARP_DELAY = 5.0
"""Seconds from a takeover until the second set of gratuitous ARP, by default in both."""


def address(vrid: int) -> str:
    """The one virtual address of a virtual router."""
    return f"198.18.0.{vrid}"


def down_interval(interval: float, priority: int = LOW) -> float:
    """Master_Down_Interval in seconds, of version 3."""
    return 3 * interval + (256 - priority) / 256 * interval


class Team(Protocol):
    """One process that runs ``count`` virtual routers on ``host``."""

    host: Host
    count: int

    @property
    def pid(self) -> int:
        """The process that speaks VRRP."""
        ...

    def start(self) -> None:
        """Start; also after :meth:`kill9`."""
        ...

    def kill9(self) -> None:
        """End at once, releasing nothing."""
        ...

    def journal(self) -> list[tuple[str, str]]:
        """Every transition since the last start: name and state."""
        ...


class Vrrpkit:
    """vrrpkit, as ``crowd.py``."""

    def __init__(self, host: Host, *, count: int, interval: float, priority: int) -> None:
        self.host = host
        self.count = count
        self._options = {
            "interface": host.dev,
            "count": count,
            "interval": interval,
            "priority": priority,
        }
        self._log = host.directory / "crowd.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    def start(self) -> None:
        self._log.write_bytes(b"")
        command = [sys.executable, str(PROGRAM), json.dumps(self._options)]
        self._process = self.host.popen(command, log=self._log)

    def kill9(self) -> None:
        assert self._process is not None, "not running"
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def journal(self) -> list[tuple[str, str]]:
        if self._process is not None and self._process.poll() not in (None, -signal.SIGKILL):
            raise RuntimeError(f"vrrpkit ended: {self._log.read_text()}")
        # Warnings are there too, and a last line that is not written to its end yet.
        lines = self._log.read_text().split("\n")[:-1]
        told = [json.loads(line) for line in lines if line.startswith("[")]
        return [(name, state) for name, state, _ in told]


class KeepalivedCrowd:
    """keepalived with many ``vrrp_instance`` blocks."""

    def __init__(self, host: Host, *, count: int, interval: float, priority: int) -> None:
        self.host = host
        self.count = count
        blocks = [
            keepalived_conf(
                name=f"r{vrid}",
                vrid=vrid,
                vips=[f"{address(vrid)}/32"],
                priority=priority,
                interval=interval,
            )
            for vrid in range(1, count + 1)
        ]
        self._daemon = Keepalived(host, "\n".join(blocks))
        self._told = 0

    @property
    def pid(self) -> int:
        (child,) = Path(f"/proc/{self._parent}/task/{self._parent}/children").read_text().split()
        return int(child)

    @property
    def _parent(self) -> int:
        return int((self.host.directory / "keepalived" / "pid").read_text())

    def start(self) -> None:
        self._told = len(self._daemon.log())
        self._daemon.start()

    def kill9(self) -> None:
        self._daemon.kill9()

    def journal(self) -> list[tuple[str, str]]:
        return re.findall(r"\((\w+)\) Entering (\w+) STATE", self._daemon.log()[self._told :])


def settled(team: Team, state: str) -> bool:
    """Whether every virtual router of a team is in a state."""
    return Counter(dict(team.journal()).values()) == {state: team.count}


def wait_settled(team: Team, state: str, timeout: float = 60) -> None:
    """Wait until every virtual router of a team is in a state.

    Raises :class:`TimeoutError`.
    """
    deadline = time.monotonic() + timeout
    while not settled(team, state):
        if time.monotonic() > deadline:
            found = dict(Counter(dict(team.journal()).values()))
            raise TimeoutError(f"{type(team).__name__} on {team.host.name}: {found}, not {state}")
        # Rarely, for reading the journal takes processor time from those that are measured.
        time.sleep(0.1)


def bunch(team: Team, interval: float) -> None:
    """Make all adverts of a master leave together from now on, by holding it up for an interval.

    Both re-arm what was overdue from the moment at which they go on.
    """
    os.kill(team.pid, signal.SIGSTOP)
    time.sleep(1.1 * interval)
    os.kill(team.pid, signal.SIGCONT)


@contextlib.contextmanager
def playing(
    kind: type[Vrrpkit | KeepalivedCrowd], *, count: int, interval: float
) -> Iterator[tuple[Lab, Team, Team]]:
    """A laboratory with two teams of one kind, a master and a backup, that have settled.

    The backup starts when the master has settled: keepalived flaps otherwise.
    """
    with Lab() as lab:
        master: Team = kind(
            lab.host("a", "192.0.2.1/24"), count=count, interval=interval, priority=HIGH
        )
        backup: Team = kind(
            lab.host("b", "192.0.2.2/24"), count=count, interval=interval, priority=LOW
        )
        lab.host("watch", "192.0.2.9/24")
        master.start()
        wait_settled(master, MASTER)
        backup.start()
        wait_settled(backup, BACKUP)
        time.sleep(max(1.0, 3 * interval))
        wait_settled(master, MASTER)
        wait_settled(backup, BACKUP)
        yield lab, master, backup


KINDS: tuple[type[Vrrpkit], type[KeepalivedCrowd]] = (Vrrpkit, KeepalivedCrowd)
