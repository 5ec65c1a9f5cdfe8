"""One command that runs, with all that it starts: no thread, no shell, and the loop never waits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import attrs

from vrrpkit.lifecycle.fork import ProcessOrigin
from vrrpkit.lifecycle.real_world import needs_real_world
from vrrpkit.local_errors import own_trouble

__all__ = ["Finished", "ProcessGroup"]

log = logging.getLogger(__name__)

CHUNK = 65536

END = 1000
"""Octets of the end of the output that are always kept: the reason is mostly said last."""

SHOWN = 200
"""Characters of its last line that a message shows."""

NOT_KNOWN = (
    "its exit status is not known: another part of this program waits for all children, or SIGCHLD "
    "is ignored"
)

LOOKS = 50
"""Processes that are looked at in one turn of the event loop."""


@attrs.frozen(kw_only=True)
class Finished:
    """How a command ended."""

    status: int | None
    """Its exit status; ``None`` if a signal ended it, or if it is not known: another part of the
    program waited for the process, or ignores SIGCHLD."""
    signal: int | None
    """The signal that ended it."""
    timed_out: bool
    """Whether its time was up; what it said then means nothing."""
    output: bytes
    """What it wrote to stdout and stderr, up to the limit."""
    truncated: bool
    """Whether it wrote more."""
    duration: float
    """Seconds."""
    end: bytes = b""
    """The last 1000 octets that it wrote, also beyond the limit."""
    timeout: float | None = None
    """Seconds that it had."""

    @property
    def ok(self) -> bool:
        """Whether it ended in time and with exit status 0."""
        return self.status == 0 and not self.timed_out

    @property
    def known(self) -> bool:
        """Whether it is known how it ended."""
        return self.timed_out or self.status is not None or self.signal is not None

    def __str__(self) -> str:
        if self.timed_out:
            limit = self.duration if self.timeout is None else self.timeout
            how = f"not done within {limit:.3g} s"
        elif self.signal is not None:
            how = f"ended by {_name(self.signal)}"
        elif self.status is None:
            how = NOT_KNOWN
        else:
            how = f"exit status {self.status}"
        text = (self.end or self.output).decode(errors="replace")
        last = text.strip().rpartition("\n")[2][-SHOWN:]
        shown = "".join(c if c.isprintable() else "?" for c in last)
        return f"{how}: {shown}" if shown else how


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Most real-time signals have none.
        return f"signal {number}"


class ProcessGroup:
    """A command and its descendants, from its start to its end. Call :meth:`close` in the end.

    :raises OSError: it cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: str,
        data: bytes,
        limit: int,
    ) -> None:
        loop = asyncio.get_running_loop()
        # Nothing is started whose end cannot be awaited.
        needs_real_world("running a program")
        self._start = loop.time()
        self._origin = ProcessOrigin()
        self._limit = limit
        self._data = memoryview(data)
        self._output = bytearray()
        self._end = b""
        self._total = 0
        self._status: int | None = None
        self._signalled: int | None = None
        self._cancelled: asyncio.CancelledError | None = None
        self._ended: asyncio.Future[None] = loop.create_future()
        self._abandoned = False
        # Neither preexec_fn nor user=: with them Python forks, which takes the longer the bigger
        # this program is; without them vfork and exec are done in a fraction of a millisecond.
        self._process = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE if data else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._source: IO[bytes] = self._process.stdout
        self._sink: IO[bytes] | None = self._process.stdin
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as problem:
            self._kill_at_once()
            if isinstance(problem, ProcessLookupError):
                raise ChildProcessError(errno.ECHILD, NOT_KNOWN) from None
            raise
        loop.add_reader(self._pidfd, self._exited)
        os.set_blocking(self._source.fileno(), False)
        loop.add_reader(self._source.fileno(), self._readable)
        if self._sink is not None:
            os.set_blocking(self._sink.fileno(), False)
            loop.add_writer(self._sink.fileno(), self._writable)

    async def finish(self, timeout: float | None, kill_after: float) -> Finished:
        """Wait for its end. When its time is up or this is cancelled, the whole group is ended:
        SIGTERM, and SIGKILL for what is left of it ``kill_after`` seconds later. Only then does a
        cancellation go on."""
        timed_out = False
        try:
            await asyncio.wait((self._ended,), timeout=timeout)
            timed_out = not self._ended.done()
        except asyncio.CancelledError as problem:
            self._cancelled = problem
        if (timed_out or self._cancelled is not None) and not self._origin.elsewhere:
            # (A child of fork() must not end what its parent has started.)
            await self._stop(kill_after)
        if self._cancelled is not None:
            raise self._cancelled
        self._reap()
        self._drain()
        return Finished(
            status=self._status,
            signal=self._signalled,
            timed_out=timed_out,
            output=bytes(self._output),
            truncated=self._total > len(self._output),
            duration=asyncio.get_running_loop().time() - self._start,
            end=self._end,
            timeout=timeout,
        )

    def close(self) -> None:
        """Let go of everything. What a command that ended by itself has left running goes on, but
        what it writes is not read any more."""
        loop = asyncio.get_running_loop()
        _hang_up(self._source, loop.remove_reader)
        _hang_up(self._sink, loop.remove_writer)
        if self._ended.done():
            self._reap()
            os.close(self._pidfd)
        else:
            # Not even SIGKILL has ended it yet, as when its disk is away: it is reaped when it
            # does end.
            self._signal(signal.SIGKILL)
            self._abandoned = True

    # --- what the process does

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        if not self._ended.done():
            self._ended.set_result(None)
        if self._abandoned:
            self._reap()
            os.close(self._pidfd)

    def _readable(self) -> None:
        if not self._read(CHUNK):
            _hang_up(self._source, asyncio.get_running_loop().remove_reader)

    def _read(self, most: int) -> int:
        try:
            part = os.read(self._source.fileno(), most)
        except BlockingIOError:
            return 0
        self._total += len(part)
        self._output += part[: max(0, self._limit - len(self._output))]
        self._end = part[-END:] if len(part) >= END else (self._end + part)[-END:]
        return len(part)

    def _drain(self) -> None:
        """Read what was written before the end: that is no more than the pipe holds. A descendant
        may hold the pipe for ever, and is not waited for."""
        if self._source.closed:
            return
        left = fcntl.fcntl(self._source.fileno(), fcntl.F_GETPIPE_SZ)
        while left > 0 and (read := self._read(min(left, CHUNK))):
            left -= read

    def _writable(self) -> None:
        assert self._sink is not None
        try:
            sent = os.write(self._sink.fileno(), self._data[:CHUNK])
        except BlockingIOError:
            return
        except OSError:
            # It does not want to read; that is its own matter.
            sent = len(self._data)
        self._data = self._data[sent:]
        if not self._data:
            _hang_up(self._sink, asyncio.get_running_loop().remove_writer)

    # --- its end

    async def _stop(self, kill_after: float) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            limit = loop.time() + kill_after
            await self._hold(self._ended, limit)
            if self._ended.done():
                # As long as it is not reaped it counts as a member itself.
                self._reap()
                if await self._dissolved(limit):
                    return
        if not self._ended.done():
            log.warning(
                "process %d still runs %g s after SIGKILL: it waits in the kernel, perhaps for a "
                "disk or a file server",
                self._process.pid,
                kill_after,
            )

    async def _dissolved(self, limit: float) -> bool:
        """Wait until the group has no member that lives, till ``limit`` at most; whether it is so.
        Nothing tells of the end of processes that are not our children: they are looked at again
        and again."""
        known: list[str] = []
        pause = 0.002
        while True:
            await self._pause(min(pause, max(0.0, limit - asyncio.get_running_loop().time())))
            if not self._members():
                return True
            # They may be dead: where orphans are not reaped, in a container without an init, those
            # count as members for ever.
            known = [pid for pid in known if self._lives(pid)] or await self._living()
            if not known:
                return True
            if asyncio.get_running_loop().time() >= limit:
                return False
            pause = min(2 * pause, 0.1)

    async def _living(self) -> list[str]:
        found: list[str] = []
        try:
            names = os.listdir("/proc")
        except OSError:
            # Nothing is known now: as if the leader, whose number is still the group's, lived.
            return [str(self._process.pid)]
        for count, pid in enumerate(filter(str.isdigit, names), 1):
            if self._lives(pid):
                found.append(pid)
            if count % LOOKS == 0:
                await self._pause(0)
        return found

    def _lives(self, pid: str) -> bool:
        """Whether a process is a member, and lives."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name before may contain anything.
                state, _parent, group = file.read().rpartition(b")")[2].split()[:3]
        except OSError as problem:
            # For want of a file descriptor nothing is known: not that it is gone.
            return own_trouble(problem) and not isinstance(problem, PermissionError)
        return int(group) == self._process.pid and state not in (b"Z", b"X")

    async def _pause(self, seconds: float) -> None:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._hold(never, asyncio.get_running_loop().time() + max(seconds, 0.0001))

    async def _hold(self, future: asyncio.Future[None], limit: float) -> None:
        """Wait for it, till ``limit`` at most, and however often this task is cancelled meanwhile:
        what is being ended must not be left half ended."""
        loop = asyncio.get_running_loop()
        while not future.done() and (left := limit - loop.time()) > 0:
            try:
                await asyncio.wait((future,), timeout=left)
            except asyncio.CancelledError as problem:
                self._cancelled = problem

    def _signal(self, number: int) -> None:
        # The number of the group belongs to no other while the leader is not reaped or the group
        # has a member, and no signal is sent otherwise.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _members(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            # They have become another user.
            return True
        return True

    def _reap(self) -> None:
        if not self._ended.done() or self._process.returncode is not None:
            return
        # Popen takes a process that was waited for elsewhere as one that ended with status 0.
        try:
            found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            found = None
        if found is not None and found.si_code == os.CLD_EXITED:
            self._status = found.si_status
        elif found is not None:
            self._signalled = found.si_status
        # Popen has nothing left to wait for.
        self._process.returncode = 0

    def _kill_at_once(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._source.close()
        if self._sink is not None:
            self._sink.close()


def _hang_up(pipe: IO[bytes] | None, forget: Callable[[int], bool]) -> None:
    # Closed and forgotten together: the number may be another file's at once.
    if pipe is not None and not pipe.closed:
        forget(pipe.fileno())
        pipe.close()
