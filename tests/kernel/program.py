"""Runs of ``director.py`` on a director."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from subprocess import Popen
from typing import Any

from kernel.farm import PORT, PROGRAMS, VIP, endpoint
from system.lab import Host, wait_until

SERVICE = f"{VIP}:{PORT}/tcp"
WAIT = 60.0
"""Seconds within which anything happens, on a slow machine; on a fast one it is a few."""

_numbers = itertools.count(1)


def servers(*names: str, **options: Any) -> list[Any]:
    """Real servers of the farm as ``director.py`` takes them, all with the same options."""
    return [{"endpoint": endpoint(name), "name": name, **options} for name in names]


def one_pool(*names: str, **options: Any) -> dict[str, Any]:
    """A pool of real servers on :data:`SERVICE`, checked by TCP; ``options`` of VirtualServer."""
    return {
        "name": "web",
        "services": SERVICE,
        "servers": servers(*names),
        "scheduler": "rr",
        "check": {"kind": "tcp"},
        **options,
    }


class Program:
    """A director's program, started and ready; killed with the farm's director."""

    def __init__(self, host: Host, *pools: dict[str, Any], **options: Any) -> None:
        number = next(_numbers)
        self.host = host
        self._log = host.directory / f"program-{number}.log"
        self._control = host.directory / f"program-{number}.control"
        os.mkfifo(self._control)
        arguments = {"pools": pools, "control": str(self._control), **options}
        script = str(PROGRAMS / "director.py")
        self._process: Popen[bytes] = host.python(script, json.dumps(arguments), log=self._log)

    def ready(self) -> Program:
        """Wait until everything has been entered."""
        self.event("Ready")
        return self

    @property
    def said(self) -> str:
        """All that the program has printed."""
        return self._log.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of JSON so far, decoded."""
        whole = self.said.rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def event(self, name: str, text: str = "", timeout: float = WAIT) -> dict[str, Any]:
        """Wait for an event with ``text`` in its text, and return its line."""

        def found() -> list[dict[str, Any]]:
            events = [line for line in self.lines if line.get("event") == name]
            return [line for line in events if text in line.get("text", "")]

        self.waits_for(lambda: bool(found()), timeout)
        return found()[0]

    @contextlib.contextmanager
    def another(self, name: str) -> Iterator[None]:
        """Wait, after the block, for an event of a class that came since it began."""

        def count() -> int:
            return sum(line.get("event") == name for line in self.lines)

        before = count()
        yield
        self.waits_for(lambda: count() > before)

    def waits_for(self, condition: Callable[[], bool], timeout: float = WAIT) -> None:
        """Wait until a condition holds; what the program has said is told if it does not."""

        def holds() -> bool:
            if condition():
                return True
            assert self.running, f"the program has ended\n{self.said}"
            return False

        try:
            wait_until(holds, timeout)
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s\n{self.said}") from None

    def command(self, name: str, *args: object) -> None:
        """Call a method of the first pool."""
        with self._control.open("w") as control:
            control.write(json.dumps({"do": name, "args": args}) + "\n")

    def did(self, name: str) -> bool:
        """Whether a method that was called has returned."""
        return any(line.get("did") == name for line in self.lines)

    def result(self, name: str) -> object:
        """What a method that was called has returned."""
        return next(line["result"] for line in self.lines if line.get("did") == name)

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait(30)

    def terminate(self) -> None:
        """SIGTERM, without a wait."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(WAIT)

    def wait(self) -> int:
        """Wait until the program has ended by itself; the exit status."""
        return self._process.wait(WAIT)
