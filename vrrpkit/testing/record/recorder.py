"""Records what virtual routers live through, so that it can happen again: see ``replay.py``.

::

    with Recorder("/var/log/vrrp/web.jsonl") as recorder:
        async with VRRPInstance("web", "eth0", ..., recorder=recorder): ...

A recording is lines of JSON. Each file begins with its format and the session; then, for each run
of a router, what its machine is made of, and every event with its time and its effects. A repeated
advert, which is nearly all that happens, takes some thirty octets.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import queue
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from weakref import WeakKeyDictionary

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.testing.record.jsonform import JSON, machine_state, to_json
from vrrpkit.vrrp.protocol.effects import Effect
from vrrpkit.vrrp.protocol.inputs import Input, Refreshed, Shutdown, Startup
from vrrpkit.vrrp.protocol.machine import Machine

__all__ = ["FORMAT", "Recorder", "recorded_files"]

log = logging.getLogger(__name__)

FORMAT = 1
"""Goes up when older recordings cannot be read any more."""

GATHER = 0.2
"""Seconds for which lines are gathered before they are written: what a SIGKILL may lose."""

QUEUE = 4 * 1024 * 1024
"""Octets that wait for a slow disk at most; what comes then is left out."""

MARGIN = 4096
"""Octets of a file that are kept for what must go along with an event."""

PATIENCE = 5.0
"""Seconds that closing waits for the disk."""


@attrs.define
class _Run:
    """One machine on record."""

    number: int
    known: bool = False
    """Whether the present file tells how the machine stands."""


class Recorder:
    """Writes what any number of virtual routers live through to files of bounded size.

    The event loop only formats lines; a thread writes them. Trouble with the disk ends the
    recording, never the router: see :attr:`failure`.

    :param path: the present file. Older ones are called ``path.1``, ``path.2`` and so on; a file
        that is there already becomes one of them.
    :param max_bytes: octets in each file, from 10,000.
    :param files: how many files are kept, the present one included, from 1.
    :raises ConfigError: a limit is out of range, or ``path`` is a device or a directory.
    :raises OSError: the file cannot be made.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_bytes: int = 10_000_000, files: int = 5
    ) -> None:
        if max_bytes < 10_000:
            raise ConfigError(f"max_bytes {max_bytes} must be 10000 or more")
        if files < 1:
            raise ConfigError(f"files {files} must be 1 or more")
        if Path(path).exists() and not Path(path).is_file():
            raise ConfigError(f"{path} is no ordinary file, and cannot be renamed when it is full")
        self.path = Path(path)
        self.failure: Exception | None = None
        """What ended the recording early."""
        self.left_out = 0
        """Events that were not recorded because the disk was too slow."""
        self._max_bytes = max_bytes
        self._files = files
        self._session = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._runs: WeakKeyDictionary[Machine, _Run] = WeakKeyDictionary()
        self._gap = False
        self._size = 0
        self._queued = 0
        self._written = 0
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._closed = False
        self._file = self._begin_file()
        self._head()
        self._thread = threading.Thread(
            target=self._write, name=f"vrrpkit recorder {self.path.name}", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is waiting, for at most :data:`PATIENCE` seconds, and end."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        self._lines.put(None)
        self._thread.join(PATIENCE)

    # --- on the event loop -----------------------------------------------------------------------

    def record(self, machine: Machine, event: Input, now: float, effects: Sequence[Effect]) -> None:
        """Put down that ``machine`` took ``event`` in at ``now`` and answered with ``effects``."""
        if self._closed or self.failure is not None:
            return
        if self._queued - self._written > QUEUE:
            self._leave_out()
            return
        try:
            self._record(machine, event, now, effects)
        except Exception as bug:
            # A router must not end because of who watches it.
            log.exception("%s: the recording ends here", self.path)
            self.failure = bug

    def _leave_out(self) -> None:
        if not self.left_out:
            log.warning("%s: the disk is too slow, events are left out", self.path)
        self.left_out += 1
        self._gap = True
        self._forget()

    def _record(
        self, machine: Machine, event: Input, now: float, effects: Sequence[Effect]
    ) -> None:
        run = self._runs.get(machine)
        fresh = run is None and isinstance(event, Startup)
        if run is None:
            run = self._runs[machine] = _Run(next(self._numbers))
        step = _step(run.number, event, now, effects)
        if self._size + len(step) + MARGIN > self._max_bytes:
            self._forget()
            self._head()
        if self._gap:
            self._gap = False
            self._put(_line(left_out=self.left_out))
        if fresh:
            run.known = True
            self._put(_line(run=run.number, config=to_json(machine.config)))
        self._put(step)
        if not run.known:
            run.known = True
            config, state = to_json(machine.config), machine_state(machine)
            self._put(_line(run=run.number, config=config, state=state))
        if isinstance(event, Shutdown):
            del self._runs[machine]

    def _forget(self) -> None:
        for run in self._runs.values():
            run.known = False

    def _head(self) -> None:
        self._size = 0
        self._put(_line(vrrpkit=FORMAT, session=self._session))

    def _put(self, line: bytes) -> None:
        self._size += len(line)
        self._queued += len(line)
        self._lines.put(line)

    # --- in the thread ---------------------------------------------------------------------------

    def _write(self) -> None:
        first = True
        try:
            while True:
                batch = self._gather()
                for line in batch:
                    if line is None:
                        return
                    if line.startswith(b'{"vrrpkit"') and not first:
                        self._file.close()
                        self._file = self._begin_file()
                    first = False
                    self._file.write(line)
                    self._written += len(line)
                self._file.flush()
        except OSError as problem:
            self.failure = problem
            log.error("%s: the recording ends here: %s", self.path, problem)
        finally:
            # What could not be written before cannot be written now.
            with contextlib.suppress(OSError):
                self._file.close()

    def _gather(self) -> list[bytes | None]:
        batch = [self._lines.get()]
        self._closing.wait(GATHER)
        while not self._lines.empty():
            batch.append(self._lines.get())
        return batch

    def _begin_file(self) -> BinaryIO:
        for number in range(self._files - 1, 0, -1):
            older = _numbered(self.path, number - 1)
            if older.exists():
                older.replace(_numbered(self.path, number))
        # Made anew: not what somebody has put there meanwhile, and through no link.
        self.path.unlink(missing_ok=True)
        return self.path.open("xb")


def recorded_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files of a recording, the oldest first.

    :raises FileNotFoundError: there is none.
    """
    files: list[Path] = []
    for number in itertools.count():
        file = _numbered(Path(path), number)
        if not file.exists():
            break
        files.insert(0, file)
    if not files:
        raise FileNotFoundError(f"there is no recording at {path}")
    return files


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _step(run: int, event: Input, now: float, effects: Sequence[Effect]) -> bytes:
    if isinstance(event, Refreshed) and not effects:
        return b'{"run":%d,"again":%r}\n' % (run, event.at)
    return _line(
        run=run, now=now, event=to_json(event), effects=[to_json(effect) for effect in effects]
    )


def _line(**fields: JSON) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
