"""Tells when a file changes, by inotify.

The directories of its path are watched, not the file: so one that is replaced, removed or made
later is followed, and so is one whose directory comes later.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import stat
import struct
from collections.abc import Callable, Iterator

from vrrpkit.lifecycle.callbacks import contain
from vrrpkit.lifecycle.fork import share_nothing
from vrrpkit.runtime import Runtime

__all__ = ["watch"]

log = logging.getLogger(__name__)

IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000
IN_MASK_ADD = 0x20000000

ON_THE_WAY = (
    IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_DONT_FOLLOW | IN_MASK_ADD
)
"""What matters in a directory that leads to a file: that something else has a name now. The mask is
added to what another watch wants of that directory."""

AT_THE_END = ON_THE_WAY | IN_ATTRIB | IN_CLOSE_WRITE
"""And in that of the file. Not IN_MODIFY: a file that is being written is empty for a moment."""

LINKS = 40
"""Symbolic links followed in one path, as in the kernel."""

BUFFER = 65536

_EVENT = struct.Struct("=iIII")
_libc = ctypes.CDLL(None, use_errno=True)


RETRY = 30.0
"""Seconds until a watch is asked for again that the system refused (ENOSPC, ENOMEM, EACCES), or an
instance of inotify (EMFILE, ENFILE, ENOMEM)."""

LOOK = 1.0
"""Seconds between two calls for a path that is not watched meanwhile."""


class _Watch:
    """One path, and what is called when it changes."""

    def __init__(self, path: str, changed: Callable[[], None]) -> None:
        self.path = path
        self.changed = changed
        self.points: set[tuple[int, str]] = set()
        """Where a change matters: the number of a watched directory, and the name in it."""


class _Inotify:
    """One inotify descriptor, for all watches of one runtime."""

    def __init__(self) -> None:
        self.descriptor = -1
        self._loop = asyncio.get_running_loop()
        self.watches: set[_Watch] = set()
        self._points: dict[int, dict[str, set[_Watch]]] = {}
        self._complained: set[str] = set()
        self._refused = False
        self._blind: set[_Watch] = set()
        self._again: asyncio.TimerHandle | None = None
        self._ask_at = self._look_at = 0.0

    def _open(self) -> bool:
        """Have an instance of inotify; whether there is one."""
        if self.descriptor >= 0:
            return True
        descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            number = ctypes.get_errno()
            if "" not in self._complained:
                self._complained.add("")
                hint = ": raise fs.inotify.max_user_instances" if number == errno.EMFILE else ""
                log.warning(
                    "no file can be watched, so that each is looked at every %g s: %s%s",
                    *(LOOK, os.strerror(number), hint),
                )
            return False
        self._complained.discard("")
        self.descriptor = descriptor
        share_nothing(self)
        self._loop.add_reader(descriptor, self.readable)
        return True

    def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        self.watches.clear()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self.descriptor >= 0:
            self._loop.remove_reader(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1

    def fileno(self) -> int:
        """See :class:`vrrpkit.lifecycle.fork.HasFileno`."""
        return self.descriptor

    def add(self, watch: _Watch) -> None:
        self.watches.add(watch)
        self._follow(watch)

    def remove(self, watch: _Watch) -> None:
        self.watches.discard(watch)
        self._blind.discard(watch)
        self._move(watch, set())
        if not self._blind and self._again is not None:
            self._again.cancel()
            self._again = None

    def _follow(self, watch: _Watch) -> None:
        """Watch what decides now what is behind a path, and no more what did before."""
        self._refused = not self._open()
        self._move(watch, set() if self._refused else set(self._walk(watch.path)))
        if not self._refused:
            self._blind.discard(watch)
            return
        self._blind.add(watch)
        if self._again is None:
            now = self._loop.time()
            self._ask_at, self._look_at = now + RETRY, now + LOOK
            self._look_later()

    def _look_later(self) -> None:
        self._again = self._loop.call_later(min(LOOK, RETRY), self._look)

    def _look(self) -> None:
        """Have the paths looked at that are not watched, for a change of them is not seen; every
        now and then ask the system again for what it refused."""
        self._again = None
        now = self._loop.time()
        asking, looking = now >= self._ask_at, now >= self._look_at
        self._ask_at = now + RETRY if asking else self._ask_at
        self._look_at = now + LOOK if looking else self._look_at
        blind = list(self._blind)
        for watch in blind if asking else ():
            self._follow(watch)
        if self._blind and self._again is None:
            self._look_later()
        for watch in blind:
            if watch in self.watches and (looking or watch not in self._blind):
                _call(watch.changed)

    def _move(self, watch: _Watch, points: set[tuple[int, str]]) -> None:
        old, watch.points = watch.points, points
        for number, name in points - old:
            self._points.setdefault(number, {}).setdefault(name, set()).add(watch)
        for number, name in old - points:
            names = self._points.get(number)
            if names is None:
                continue
            names[name].discard(watch)
            if not names[name]:
                del names[name]
            if not names:
                del self._points[number]
                _libc.inotify_rm_watch(self.descriptor, number)

    def _walk(self, path: str) -> Iterator[tuple[int, str]]:
        """Follow a path and its symbolic links as far as there is something. Each directory is
        watched before it is looked into, so that no change falls in between."""
        done = "/"
        pending = _parts(path)
        followed = 0
        while pending:
            part = pending.pop()
            if part == "..":
                done = os.path.dirname(done)
                continue
            number = self._directory(done, ON_THE_WAY if pending else AT_THE_END)
            if number is not None:
                yield number, part
            level = os.path.join(done, part)
            try:
                mode = os.lstat(level).st_mode
                if not stat.S_ISLNK(mode):
                    done = level
                    continue
                target = os.readlink(level)
            except OSError:
                return
            followed += 1
            if followed > LINKS:
                return
            if target.startswith("/"):
                done = "/"
            pending += _parts(target)

    def _directory(self, path: str, mask: int) -> int | None:
        number: int = _libc.inotify_add_watch(self.descriptor, os.fsencode(path), mask)
        if number >= 0:
            return number
        problem = ctypes.get_errno()
        if problem in (errno.ENOENT, errno.ENOTDIR):
            return None
        self._refused = True
        if path not in self._complained:
            self._complained.add(path)
            hint = ": raise fs.inotify.max_user_watches" if problem == errno.ENOSPC else ""
            log.warning("%s cannot be watched: %s%s", path, os.strerror(problem), hint)
        return None

    def readable(self) -> None:
        try:
            data = os.read(self.descriptor, BUFFER)
        except BlockingIOError:
            return
        hit: set[_Watch] = set()
        start = 0
        while start < len(data):
            number, mask, _cookie, length = _EVENT.unpack_from(data, start)
            start += _EVENT.size
            name = os.fsdecode(data[start : start + length].rstrip(b"\0"))
            start += length
            if mask & IN_Q_OVERFLOW:
                hit |= self.watches
            elif mask & IN_IGNORED:
                # The directory is gone, or what it was mounted from.
                for watches in self._points.pop(number, {}).values():
                    hit |= watches
            else:
                hit |= self._points.get(number, {}).get(name, set())
        for watch in hit:
            self._follow(watch)
        for watch in hit:
            # A callback may end the watch of another.
            if watch in self.watches:
                _call(watch.changed)


def _parts(path: str) -> list[str]:
    """The parts of a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _call(changed: Callable[[], None]) -> None:
    try:
        changed()
    except BaseException as problem:
        contain(problem, log, "the callback %r failed", changed)


def watch(path: str | os.PathLike[str], changed: Callable[[], None]) -> Callable[[], None]:
    """Call ``changed`` on the running event loop after each change to the file ``path``: written
    and closed, replaced, removed, made, or other permissions; also by a change to a directory or a
    symbolic link that leads to it. Returns what ends it; to call that again is harmless.

    Several changes may be one call, and a call may come when nothing that matters has changed: look
    at the file to know. A file that is held open is seen when it is closed. What another machine
    changes on a file server is not seen, nor what is mounted over a directory.

    While the system has no inotify instance left (``fs.inotify.max_user_instances``), or refuses a
    watch (``fs.inotify.max_user_watches``), ``changed`` is called every second; the system is asked
    again every 30 seconds.
    """
    runtime = Runtime.current()
    inotify = runtime.use(_Inotify)
    name = os.fspath(path)
    watched = _Watch(name if name.startswith("/") else os.path.join(os.getcwd(), name), changed)
    inotify.add(watched)

    def stop() -> None:
        if watched not in inotify.watches:
            return
        inotify.remove(watched)
        if not inotify.watches:
            runtime.forget(_Inotify)
            inotify.shutdown()

    return stop
