"""Runs external commands so that none can hold up, outlive or surprise the program."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence

import attrs

from vrrpkit.errors import ConfigError, VRRPKitError
from vrrpkit.trust import require_trusted

__all__ = ["Command", "Finished", "Untrusted"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHUNK = 65536
LINGER = 0.5
"""Seconds that output is still read after the command ended: a descendant may hold the pipe."""


class Untrusted(VRRPKitError):
    """A command is not run: since it was configured, somebody other than root may change it, or it
    has gone."""


@attrs.frozen(kw_only=True)
class Finished:
    """How a command ended."""

    status: int | None
    """Its exit status; ``None`` if a signal ended it."""
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

    @property
    def ok(self) -> bool:
        """Whether it ended in time and with exit status 0."""
        return self.status == 0 and not self.timed_out

    def __str__(self) -> str:
        if self.timed_out:
            how = f"not done within {self.duration:.3g} s"
        elif self.signal is not None:
            how = f"ended by {signal.Signals(self.signal).name}"
        else:
            how = f"exit status {self.status}"
        last = self.output.decode(errors="replace").strip().rpartition("\n")[2]
        shown = "".join(c if c.isprintable() else "?" for c in last[-200:])
        return f"{how}: {shown}" if shown else how


def _argv(value: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as problem:
            raise ConfigError(f"command {value!r} cannot be split into words: {problem}") from None
    return tuple(value)


def _names(value: Iterable[str | int] | None) -> tuple[str | int, ...] | None:
    return None if value is None else tuple(value)


@attrs.frozen
class Command:
    """A command and how it is run: without a shell, in a session and process group of its own, with
    a clean environment.

    :param argv: the program and its arguments, as a sequence or as text that is split the way a
        shell would. A program without a slash is looked for in the usual directories.
    :param user: run as this user, by name or number, through ``setpriv`` of util-linux; needs root.
        By default the user of this program.
    :param groups: with ``user``, the groups instead of the user's own; the first is the primary.
    :param timeout: seconds until the whole process group is told to end (SIGTERM); ``None`` is
        never.
    :param kill_after: seconds from then until it is killed (SIGKILL).
    :param environment: added to ``PATH``, ``HOME``, ``USER``, ``LOGNAME`` and ``LANG``.
    :param directory: the working directory.
    :param output_limit: octets of output to keep; the rest is read and forgotten.
    :raises ConfigError: there is no such program or user; or it would run as root and others may
        change it, and the message names the level of its path.
    """

    argv: tuple[str, ...] = attrs.field(converter=_argv)
    user: str | int | None = attrs.field(default=None, kw_only=True)
    groups: tuple[str | int, ...] | None = attrs.field(default=None, kw_only=True, converter=_names)
    timeout: float | None = attrs.field(default=None, kw_only=True)
    kill_after: float = attrs.field(default=2.0, kw_only=True)
    environment: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True, hash=False)
    directory: str = attrs.field(default="/", kw_only=True)
    output_limit: int = attrs.field(default=4096, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ConfigError("the command is empty; give the program and its arguments")
        for word in self.argv:
            if "\0" in word:
                raise ConfigError(f"command {self.argv[0]!r}: {word!r} contains a NUL octet")
        if self.timeout is not None and not 0 < self.timeout <= 86400:
            raise ConfigError(f"{self}: timeout {self.timeout} must be above 0 s, up to 86400")
        if not 0 < self.kill_after <= 3600:
            raise ConfigError(f"{self}: kill_after {self.kill_after} must be above 0 s, up to 3600")
        if self.groups is not None and self.user is None:
            raise ConfigError(f"{self}: groups go with user=; name the user too")
        if self.output_limit < 0:
            raise ConfigError(f"{self}: output_limit {self.output_limit} must be 0 octets or more")
        uid, _ = self._identity()
        require_trusted(self.program, uid)
        if uid != os.geteuid():
            self._prefix()

    def __str__(self) -> str:
        return shlex.join(self.argv)

    @property
    def program(self) -> str:
        """The path of the program.

        :raises ConfigError: there is none, or it cannot be run.
        """
        name = self.argv[0]
        path = name if "/" in name else shutil.which(name, path=PATH)
        if path is None:
            raise ConfigError(
                f"there is no program {name!r} in {PATH}; install it, or write a path"
            )
        path = os.path.join(self.directory, path)
        try:
            mode = os.stat(path).st_mode
        except OSError as problem:
            raise ConfigError(f"{path} cannot be run: {problem.strerror}") from None
        if not stat.S_ISREG(mode) or not mode & 0o111:
            raise ConfigError(f"{path} is no program: make it executable with 'chmod +x'")
        return path

    def _identity(self) -> tuple[int, str]:
        """The user's number and name."""
        try:
            if self.user is None:
                entry = pwd.getpwuid(os.geteuid())
            elif isinstance(self.user, int):
                entry = pwd.getpwuid(self.user)
            else:
                entry = pwd.getpwnam(self.user)
        except KeyError:
            if self.user is None or isinstance(self.user, int):
                uid = os.geteuid() if self.user is None else self.user
                return uid, str(uid)
            raise ConfigError(f"{self}: there is no user {self.user!r}") from None
        return entry.pw_uid, entry.pw_name

    def _prefix(self) -> list[str]:
        """What switches the user, by exec: to fork a big process and change it takes too long."""
        if self.user is None:
            return []
        uid, name = self._identity()
        setpriv = shutil.which("setpriv", path=PATH)
        if setpriv is None:
            raise ConfigError(f"{self}: running as {name} needs setpriv; install util-linux")
        if os.geteuid() != 0 and uid != os.geteuid():
            raise ConfigError(f"{self}: only root can run a command as another user, {name}")
        if os.geteuid() != 0:
            return []
        options = [f"--reuid={uid}"]
        if self.groups is None:
            try:
                options += [f"--regid={pwd.getpwuid(uid).pw_gid}", "--init-groups"]
            except KeyError:
                options += [f"--regid={uid}", "--clear-groups"]
        else:
            numbers = [self._gid(group) for group in self.groups]
            if not numbers:
                raise ConfigError(f"{self}: groups is empty; leave it out for the user's own")
            options += [f"--regid={numbers[0]}", f"--groups={','.join(map(str, numbers))}"]
        return [setpriv, *options, "--"]

    def _gid(self, group: str | int) -> int:
        if isinstance(group, int):
            return group
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigError(f"{self}: there is no group {group!r}") from None

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        uid, name = self._identity()
        home = "/"
        with contextlib.suppress(KeyError):
            home = pwd.getpwuid(uid).pw_dir
        base = {"PATH": PATH, "HOME": home, "USER": name, "LOGNAME": name, "LANG": "C.UTF-8"}
        return base | dict(self.environment) | dict(more)

    async def run(
        self,
        *extra: str,
        input: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run it and wait for its end.

        When its time is up or this is cancelled, its whole process group is ended first. What a
        command that ends by itself leaves running goes on.

        :param extra: further arguments.
        :param input: what it reads from stdin; by default nothing.
        :param environment: added to the other variables.
        :raises Untrusted: it is not run because it may have been changed by somebody else.
        :raises OSError: it cannot be started.
        """
        uid, _ = self._identity()
        try:
            program = self.program
            require_trusted(program, uid)
        except ConfigError as problem:
            raise Untrusted(str(problem)) from None
        # setpriv itself is root's; what it runs is what was looked at.
        argv = [*self._prefix(), program, *self.argv[1:], *extra]
        running = _Running(argv, self._environment(environment or {}), self.directory)
        return await running.finish(self.timeout, self.kill_after, input or b"", self.output_limit)


class _Running:
    """One process group, from its start to its end."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], cwd: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        # No preexec_fn and no user: so that it is vfork and exec, which block for a moment only.
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
        )
        self._output = bytearray()
        self._total = 0
        self._ended = self._loop.create_future()
        self._drained = self._loop.create_future()

    async def finish(
        self, timeout: float | None, kill_after: float, data: bytes, limit: int
    ) -> Finished:
        timed_out = False
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            self._follow(stack, data, limit)
            try:
                try:
                    async with asyncio.timeout(timeout):
                        await asyncio.shield(self._ended)
                except TimeoutError:
                    timed_out = True
                    await self._end(kill_after)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        await asyncio.shield(self._drained)
            except asyncio.CancelledError:
                await self._end_uncancelled(kill_after)
                raise
            code = self._process.wait()
        return Finished(
            status=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            timed_out=timed_out,
            output=bytes(self._output),
            truncated=self._total > len(self._output),
            duration=self._loop.time() - self._start,
        )

    # --- what the process does

    def _follow(self, stack: contextlib.ExitStack, data: bytes, limit: int) -> None:
        descriptor = os.pidfd_open(self._process.pid)
        stack.callback(os.close, descriptor)
        self._loop.add_reader(descriptor, self._exited, descriptor)
        stack.callback(self._loop.remove_reader, descriptor)
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        output = self._process.stdout.fileno()
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._read, output, limit)
        stack.callback(self._loop.remove_reader, output)
        entry = self._process.stdin.fileno()
        os.set_blocking(entry, False)
        self._waiting = memoryview(data)
        self._loop.add_writer(entry, self._write, entry)
        stack.callback(self._loop.remove_writer, entry)

    def _exited(self, descriptor: int) -> None:
        # Not reaped yet: as long as it is not, the number of its group is nobody else's.
        self._loop.remove_reader(descriptor)
        self._ended.set_result(None)

    def _read(self, descriptor: int, limit: int) -> None:
        try:
            part = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        if not part:
            self._loop.remove_reader(descriptor)
            if not self._drained.done():
                self._drained.set_result(None)
            return
        self._total += len(part)
        self._output += part[: max(0, limit - len(self._output))]

    def _write(self, descriptor: int) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(descriptor, self._waiting[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            # It does not want to read; that is its own matter.
            self._waiting = memoryview(b"")
        self._loop.remove_writer(descriptor)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    # --- its end

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _end(self, kill_after: float) -> None:
        """Tell the group to end, and kill what is left of it."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(kill_after):
                await asyncio.shield(self._ended)
        self._signal(signal.SIGKILL)
        await asyncio.shield(self._ended)

    async def _end_uncancelled(self, kill_after: float) -> None:
        ending = asyncio.create_task(self._end(kill_after), name="vrrpkit: ends a command")
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(ending)

    def _close(self) -> None:
        if self._process.returncode is None:
            if not self._ended.done():
                self._signal(signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
