"""Runs external commands so that none can hold up, outlive or surprise the program."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import attrs

from vrrpkit.commands.process import Finished, ProcessGroup
from vrrpkit.commands.trust import require_trusted
from vrrpkit.errors import ConfigError, CouldNotAsk, UntrustedCommand
from vrrpkit.lifecycle.turns import spawning
from vrrpkit.local_errors import own_trouble
from vrrpkit.validate import is_number, whole_number
from vrrpkit.values import hidden

__all__ = ["Command", "Finished", "attempted", "group_names", "variables", "words"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NOT_EXECUTED = {126, 127}
"""What ``env`` and ``setpriv`` end with when they cannot execute a command."""

_SIGNIFICANT = re.compile(r"""\\.|['"]|[|&;<>]+|`|\$\(""", re.DOTALL)
"""What begins or ends a quoted part, what is taken as it stands, and the operators of a shell."""

HIGHEST_ID = 2**32 - 2
"""The highest number of a user or group; the one above means "leave it"."""


@attrs.frozen
class _UserIdentity:
    """As whom a command runs. Found out once: a directory service may take its time to answer."""

    uid: int
    name: str
    home: str
    switch: tuple[str, ...] = ()
    """What is put before the command to become that user, by exec: to fork a big process and to
    change the copy takes too long."""


def _own_identity() -> _UserIdentity:
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return _UserIdentity(uid, str(uid), "/")
    return _UserIdentity(uid, entry.pw_name, entry.pw_dir)


def _identity(user: str | int, groups: tuple[str | int, ...] | None, what: object) -> _UserIdentity:
    entry = None
    if not isinstance(user, str):
        whole_number(f"{what}: user", user, 0, HIGHEST_ID, "or a name")
    try:
        entry = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
    except (KeyError, ValueError):
        if isinstance(user, str):
            raise ConfigError(
                f"{what}: there is no user {user!r}; create it with 'useradd --system {user}', or "
                "name another"
            ) from None
    if isinstance(user, str):
        assert entry is not None
        user = entry.pw_uid
    name, home = (str(user), "/") if entry is None else (entry.pw_name, entry.pw_dir)
    if groups is not None:
        numbers = [_group(group, what) for group in groups]
        if not numbers:
            raise ConfigError(f"{what}: groups is empty; leave it out for the user's own")
    elif entry is None:
        raise ConfigError(
            f"{what}: user {user} is in no user database, so its groups are not known; give groups="
        )
    else:
        members = os.getgrouplist(entry.pw_name, entry.pw_gid)
        numbers = [entry.pw_gid, *(group for group in members if group != entry.pw_gid)]
    if user == os.geteuid() and groups is None:
        return _UserIdentity(user, name, home)
    if os.geteuid() != 0:
        raise ConfigError(
            f"{what}: only root can run a command as another user or with other groups, here as "
            f"{name}; run as root, or leave out user="
        )
    setpriv = shutil.which("setpriv", path=PATH)
    if setpriv is None:
        raise ConfigError(f"{what}: running as {name} needs setpriv; install util-linux")
    listed = ",".join(map(str, numbers))
    switch = (setpriv, f"--reuid={user}", f"--regid={numbers[0]}", f"--groups={listed}", "--")
    return _UserIdentity(user, name, home, switch)


def _group(group: str | int, what: object) -> int:
    if not isinstance(group, str):
        whole_number(f"{what}: group", group, 0, HIGHEST_ID, "or a name")
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(f"{what}: there is no group {group!r}; name another") from None


def _argv(value: str | Sequence[str]) -> tuple[str, ...]:
    value = words(value)
    if isinstance(value, str):
        if (operator := _shell_operator(value)) is not None:
            raise ConfigError(
                f"command {value!r} has {operator!r} in it, which only a shell understands, and it "
                f"runs without one; write ['/bin/sh', '-c', {value!r}], or put {operator!r} in "
                "quotes if it is meant as it stands"
            )
        try:
            return tuple(shlex.split(value))
        except ValueError as problem:
            raise ConfigError(f"command {value!r} cannot be split into words: {problem}") from None
    return value


def _shell_operator(text: str) -> str | None:
    """The first operator of a shell outside of quotes, where a shell would obey it."""
    quote = ""
    found = ""
    for part in _SIGNIFICANT.findall(text):
        if quote:
            # A backslash is nothing special between single quotes.
            closes = part.endswith("'") if quote == "'" else part == quote
            quote = "" if closes else quote
        elif part in ("'", '"'):
            quote = part
        elif not part.startswith("\\"):
            found = found or part
    return found or None


def _check_word(word: object) -> None:
    if not isinstance(word, str):
        raise ConfigError(f"{word!r} in a command must be text; write str(...)")
    if "\0" in word:
        raise ConfigError(f"{word!r} in a command contains a NUL octet; take it out")
    if not _encodable(word):
        raise ConfigError(f"{word!r} in a command cannot be written as octets; it is no text")


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeError:
        return False
    return True


def words(value: str | Sequence[str]) -> str | tuple[str, ...]:
    """Freeze the text or the words of a command; an attrs converter.

    :raises ConfigError: it is neither.
    """
    if isinstance(value, str):
        return value
    given = cast(object, value)
    # Octets are a sequence too, of numbers.
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise ConfigError(
            f"argv {value!r} is no command; write ['/usr/bin/pgrep', '-x', 'nginx'], or one text"
        )
    return tuple(value)


def group_names(value: Iterable[str | int] | None) -> tuple[str | int, ...] | None:
    """Freeze the groups of a command; an attrs converter.

    :raises ConfigError: it is one group, or none at all.
    """
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(cast(object, value), Iterable):
        raise ConfigError(f"groups {value!r} must be a sequence: write groups=[{value!r}]")
    return tuple(value)


def variables(value: Mapping[str, str]) -> Mapping[str, str]:
    """Freeze the environment of a command; an attrs converter.

    :raises ConfigError: it is none.
    """
    if not isinstance(cast(object, value), Mapping):
        raise ConfigError("environment must be a mapping; write {'NAME': 'value'}")
    for name, text in value.items():
        for part in cast(tuple[object, ...], (name, text)):
            if not isinstance(part, str) or "\0" in part or not _encodable(part):
                which = "the name" if part is name else "the value of"
                raise ConfigError(
                    f"environment: {which} {name!r} must be text without a NUL octet; write "
                    "str(...)"
                )
        if not name or "=" in name:
            raise ConfigError(f"environment: {name!r} cannot be the name of a variable")
    return dict(value)


def _is_directory(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/") and os.path.isdir(path)


def _check_seconds(what: str, value: object, high: int) -> None:
    # Not a number is not between the limits either.
    if not is_number(value) or not 0 < value <= high:
        raise ConfigError(f"{what} {value!r} must be above 0 seconds, up to {high}")


@attrs.frozen
class Command:
    """A command and how it is run: without a shell, in a session and process group of its own, with
    a clean environment and the usual signals.

    :param argv: the program and its arguments, as a sequence or as text that is split the way a
        shell would. A program without a slash is looked for in the usual directories. What only a
        shell understands (pipes, redirections, ``$(...)``) is refused in a text unless it is in
        quotes.
    :param user: run as this user, by name or number, through ``setpriv`` of util-linux; needs root.
        By default the user of this program.
    :param groups: with ``user``, the groups instead of the user's own; the first is the primary.
    :param timeout: seconds until the whole process group is told to end (SIGTERM), up to 86400;
        ``None`` is never.
    :param kill_after: seconds from then until what is left of the group is killed (SIGKILL), up to
        3600.
    :param environment: added to ``PATH``, ``HOME``, ``USER``, ``LOGNAME`` and ``LANG``.
    :param directory: the working directory, as an absolute path.
    :param output_limit: octets of output to keep; the rest is read and forgotten, but for its end.
    :raises ConfigError: there is no such program or user, a value is unusable; or it would run as
        root and others may change it, and the message names the level of its path.
    """

    argv: tuple[str, ...] = attrs.field(converter=_argv)
    user: str | int | None = attrs.field(default=None, kw_only=True)
    groups: tuple[str | int, ...] | None = attrs.field(
        default=None, kw_only=True, converter=group_names
    )
    timeout: float | None = attrs.field(default=None, kw_only=True)
    kill_after: float = attrs.field(default=2.0, kw_only=True)
    environment: Mapping[str, str] = attrs.field(
        factory=dict[str, str], kw_only=True, hash=False, converter=variables, repr=hidden
    )
    directory: str = attrs.field(default="/", kw_only=True)
    output_limit: int = attrs.field(default=4096, kw_only=True)
    _identity: _UserIdentity = attrs.field(init=False, eq=False, repr=False)
    _program: str = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for word in self.argv:
            _check_word(word)
        if not self.argv or not self.argv[0]:
            raise ConfigError("the command is empty; give the program and its arguments")
        if self.timeout is not None:
            _check_seconds(f"{self}: timeout", self.timeout, 86400)
        _check_seconds(f"{self}: kill_after", self.kill_after, 3600)
        if self.groups is not None and self.user is None:
            raise ConfigError(f"{self}: groups go with user=; name the user too")
        whole_number(f"{self}: output_limit", self.output_limit, 0, 2**31 - 1, "octets")
        if not _is_directory(self.directory):
            raise ConfigError(
                f"{self}: directory {self.directory!r} is none; write an absolute path, as text"
            )
        identity = _own_identity() if self.user is None else _identity(self.user, self.groups, self)
        object.__setattr__(self, "_identity", identity)
        object.__setattr__(self, "_program", self._find())
        self._look()

    def __str__(self) -> str:
        return shlex.join(self.argv)

    @property
    def program(self) -> str:
        """The path of the program."""
        return self._program

    def _find(self) -> str:
        name = self.argv[0]
        if "/" in name:
            return os.path.join(self.directory, name)
        path = shutil.which(name, path=PATH)
        if path is None:
            raise ConfigError(
                f"there is no program {name!r} in {PATH}; install it, or write a path"
            )
        return path

    def _look(self) -> None:
        path = self._program
        try:
            mode = os.stat(path).st_mode
        except OSError as problem:
            raise ConfigError(
                f"{path} cannot be run: {problem.strerror}; install it, or write another path"
            ) from None
        if not stat.S_ISREG(mode) or not mode & 0o111:
            raise ConfigError(f"{path} is no program: make it executable with 'chmod +x'")
        require_trusted(path, self._identity.uid)

    async def run(
        self,
        *extra: str,
        input: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run it and wait for its end.

        When its time is up or this is cancelled, its whole process group is ended first. What a
        command that ends by itself leaves running goes on, and is not waited for; what that writes
        then is not read, and ends it with SIGPIPE unless it has redirected its output.

        :param extra: further arguments.
        :param input: what it reads from stdin; by default nothing.
        :param environment: added to the other variables.
        :raises UntrustedCommand: another user may have changed it, or it is gone: it is not run.
        :raises OSError: it cannot be started.
        """
        try:
            self._look()
        except ConfigError as problem:
            raise UntrustedCommand(str(problem)) from None
        who = self._identity
        environ = {
            "PATH": PATH,
            "HOME": who.home,
            "USER": who.name,
            "LOGNAME": who.name,
            "LANG": "C.UTF-8",
            **self.environment,
            **(environment or {}),
        }
        before = [*_usual_signals(), *who.switch]
        await spawning()
        try:
            group = ProcessGroup(
                [*before, self._program, *self.argv[1:], *extra],
                environment=environ,
                directory=self.directory,
                data=input or b"",
                limit=self.output_limit,
            )
        except OSError as problem:
            raise _explained(problem, self._program) from None
        try:
            done = await group.finish(self.timeout, self.kill_after)
        finally:
            group.close()
        if before:
            _require_begun(done)
        return done


async def attempted(
    command: Command, *extra: str, environment: Mapping[str, str] | None = None
) -> Finished:
    """Run a command whose exit status is an answer; see :meth:`Command.run`.

    :raises CouldNotAsk: this machine could not start it now, or its exit status is lost.
    :raises UntrustedCommand: as there.
    :raises OSError: as there.
    """
    try:
        done = await command.run(*extra, environment=environment)
    except ChildProcessError as problem:
        raise CouldNotAsk(f"{command}: {problem.strerror}", problem.errno) from None
    except OSError as problem:
        if not own_trouble(problem):
            raise
        raise CouldNotAsk(f"{command} is not run: {problem.strerror}", problem.errno) from None
    if not done.known:
        raise CouldNotAsk(f"{command}: {done}", errno.ECHILD)
    return done


def _explained(problem: OSError, program: str) -> OSError:
    """Why a program that is there was not executed; the system's words mislead."""
    if problem.filename != program or not os.path.exists(program):
        return problem
    if problem.errno == errno.ENOENT:
        return OSError(errno.ENOENT, "the interpreter in its first line does not exist", program)
    if problem.errno == errno.ENOEXEC:
        return OSError(errno.ENOEXEC, "no program; let it begin with '#!/bin/sh' or such", program)
    return problem


def _require_begun(done: Finished) -> None:
    """Tell the status of a command from that of the programs before it, which could not execute it.

    :raises OSError: it never began.
    """
    said = done.end.decode(errors="replace").strip()
    who = said.partition(": ")[0].rpartition("/")[2]
    if done.status in NOT_EXECUTED and who in ("env", "setpriv") and "\n" not in said:
        raise OSError(errno.ENOEXEC, f"it could not be executed: {said}")


def _usual_signals() -> list[str]:
    """What is put before a command so that signals reach it. Those that this program blocks stay
    blocked in what it runs, and SIGTERM stays ignored; hardly any program does either."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if not blocked and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        return []
    env = shutil.which("env", path=PATH)
    return [] if env is None else [env, "--default-signal"]
