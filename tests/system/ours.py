"""vrrpkit as one of the peers: a router in a process of its own, on a host of the laboratory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from system.lab import Host, wait_until
from system.peers import Keepalived
from system.scenario import HIGH, LOW, VIP4, VRID, skew

#: Seconds between the adverts of a router made by :func:`router`.
INTERVAL = 0.2
#: Skew_Time and Master_Down_Interval of one with the lower priority.
SKEW = skew(LOW, INTERVAL)
DOWN = 3 * INTERVAL + SKEW

#: Options of the program, not of a router.
SHARED = ("routers", "group", "notifiers", "freeze")

PROGRAM = Path(__file__).with_name("router.py")


class Vrrpkit:
    """One program with one router, or several, that can be started again and again.

    ``options`` are those of :class:`vrrpkit.VRRPInstance` as ``router.py`` reads them. The program
    runs on ``host``, or on ``run_on`` (with ``netns`` in the options); ``wrapper`` is a command to
    run it with, such as ``["setpriv", "--reuid", "nobody"]``.
    """

    def __init__(
        self,
        host: Host,
        *,
        run_on: Host | None = None,
        wrapper: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.host = host
        self._run_on = run_on or host
        self._wrapper = list(wrapper)
        self._log = host.directory / "vrrpkit.log"
        self._log.touch()
        self._control = host.directory / "vrrpkit.control"
        os.mkfifo(self._control)
        self.options = {
            "name": "vip",
            "interface": host.dev,
            "control": str(self._control),
            **options,
        }
        if "routers" in options:
            shared = {name: options[name] for name in SHARED if name in options}
            self.options = {**shared, "control": str(self._control)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 15) -> None:
        """Start and wait until every router runs."""
        seen = len(self.lines())
        wanted = len(self.options.get("routers", [1]))
        process = self.launch()
        wait_until(
            lambda: (
                process.poll() is not None
                or sum("entered" in line for line in self.lines()[seen:]) >= wanted
            ),
            timeout,
            f"vrrpkit on {self.host.name}",
        )
        if process.poll() is not None:
            self._process = None
            raise RuntimeError(f"vrrpkit ended: {self.log()}")

    def launch(self) -> subprocess.Popen[bytes]:
        """Start without waiting for anything."""
        assert self._process is None, "already running"
        self._process = self._run_on.popen(
            [*self._wrapper, sys.executable, "-u", str(PROGRAM), json.dumps(self.options)],
            log=self._log,
        )
        return self._process

    def fails(self, timeout: float = 15) -> str:
        """Start it for an error: wait for its end and return what it said."""
        seen = len(self.log())
        self.launch()
        code = self.wait(timeout)
        assert code not in (None, 0), self.log()
        return self.log()[seen:]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        self._running().send_signal(number)

    def do(self, command: str, **arguments: object) -> None:
        """Have the program carry out a command, see ``router.py``."""
        self._running()
        with self._control.open("w") as fifo:
            fifo.write(json.dumps({"do": command, **arguments}) + "\n")

    def report(self, timeout: float = 5) -> dict[str, Any]:
        """Its statistics, and ``master``, ``source``, ``faults``, ``priority``, ``signals``; of its
        group ``why`` (it is not MASTER); ``told`` (of processes)."""
        seen = len(self.lines())

        def replies() -> list[dict[str, Any]]:
            return [line for line in self.lines()[seen:] if "statistics" in line]

        self.do("statistics")
        wait_until(lambda: bool(replies()), timeout, "statistics")
        return replies()[0]

    def wait(self, timeout: float = 10) -> int:
        """Wait for its end; returns the exit code."""
        code = self._running().wait(timeout)
        self._process = None
        return code

    def stop(self, timeout: float = 10) -> None:
        """SIGTERM: a master sends priority 0 and removes its VIPs."""
        self.signal(signal.SIGTERM)
        code = self.wait(timeout)
        assert code == 0, self.log()

    def kill9(self) -> None:
        """Die at once, releasing nothing; the VIPs stay on the interface."""
        self.signal(signal.SIGKILL)
        self.wait()

    def restart(self) -> None:
        """Stop if running, then start."""
        if self._process is not None:
            self.stop()
        self.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running().pid

    def state(self, name: str = "vip") -> str | None:
        """The state last entered by a router; None if not running."""
        if self._process is None:
            return None
        states = [
            line["state"] for line in self.lines() if line.get("router") == name and "state" in line
        ]
        return states[-1] if states else None

    def owns(self, address: str) -> bool:
        """Whether the host carries the VIP now (after :meth:`kill9` it still does)."""
        return self.host.has(address)

    def lines(self) -> list[dict[str, Any]]:
        """What it said, one object for each line that is JSON."""
        found: list[dict[str, Any]] = []
        for line in self.log().splitlines():
            if line.startswith("{"):
                try:
                    found.append(json.loads(line))
                except json.JSONDecodeError:
                    # Not written to its end yet.
                    continue
        return found

    def transitions(self, since: float = 0.0) -> list[tuple[str, str]]:
        """State and reason of each change of state from a monotonic time on."""
        return [
            (line["state"], line["reason"])
            for line in self.lines()
            if "reason" in line and "state" in line and line["time"] >= since
        ]

    def events(self, name: str, since: float = 0.0) -> list[dict[str, Any]]:
        """The events of one kind, such as ``AdvertRejected``, from a monotonic time on."""
        return [
            line for line in self.lines() if line.get("event") == name and line["time"] >= since
        ]

    def log(self) -> str:
        """All that it wrote since it was made."""
        return self._log.read_text(errors="replace")

    def cpu_seconds(self) -> float:
        """Processor time used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not running"
        return self._process


def router(host: Host, priority: int = HIGH, **options: Any) -> Vrrpkit:
    """A quick router of one VIP without a second set of announcements, or as ``options`` say."""
    settings: dict[str, Any] = {
        "vrid": VRID,
        "vips": [f"{VIP4}/32"],
        "priority": priority,
        "interval": INTERVAL,
        "announcements": {"delay": 0},
    }
    return Vrrpkit(host, **{**settings, **options})


def mastered(ours: Vrrpkit, *addresses: str) -> None:
    """Wait until a router is MASTER and addresses are on the interface."""
    wait_until(lambda: ours.state() == "MASTER", 5, "MASTER")
    wait_until(lambda: all(map(ours.owns, addresses)), 2, "addresses")


def tracking(host: Host, tracker: dict[str, object], priority: int = HIGH) -> Vrrpkit:
    """A quick router with a tracker, see ``router.py``."""
    return router(host, priority, track=[tracker])


def settled(high: Vrrpkit | Keepalived, low: Vrrpkit | Keepalived) -> None:
    """The higher one is master, and the lower one has heard it."""
    high.start()
    wait_until(lambda: high.state() == "MASTER" and high.owns(VIP4), 10, "MASTER")
    low.start()
    wait_until(lambda: low.state() == "BACKUP", 5, "BACKUP")
    time.sleep(DOWN)
    assert (high.state(), low.state()) == ("MASTER", "BACKUP")
