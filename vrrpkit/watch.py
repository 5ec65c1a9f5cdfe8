"""Tells when a file changes, by inotify.

The directories of the path are watched, not the file: so a file that is replaced, removed or made
later is followed, and so is one whose directory comes later.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable
from weakref import WeakKeyDictionary

__all__ = ["watch"]

log = logging.getLogger(__name__)

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000

INTEREST = (
    IN_MODIFY
    | IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MOVE_SELF
    | IN_ONLYDIR
)

_EVENT = struct.Struct("=iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class _Watch:
    """One path that somebody wants to know about."""

    def __init__(self, path: str, changed: Callable[[], None]) -> None:
        parts = [part for part in path.split("/") if part]
        self.levels = {"/" + "/".join(parts[:depth]): parts[depth] for depth in range(len(parts))}
        """Each directory of the path, and the name in it that matters."""
        self.changed = changed


class _Inotify:
    """One inotify descriptor, for all watches of one event loop."""

    def __init__(self) -> None:
        descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._descriptor = descriptor
        self._watches: dict[object, _Watch] = {}
        self._directories: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        asyncio.get_running_loop().add_reader(descriptor, self._readable)

    def add(self, key: object, watch: _Watch) -> None:
        self._watches[key] = watch
        self._extend()

    def remove(self, key: object) -> bool:
        """Forget a watch; whether it was the last."""
        self._watches.pop(key, None)
        wanted = {path for watch in self._watches.values() for path in watch.levels}
        for path, number in list(self._numbers.items()):
            if path not in wanted:
                self._forget(number)
                _libc.inotify_rm_watch(self._descriptor, number)
        return not self._watches

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _extend(self) -> None:
        """Watch every directory of every path, as far as there are any."""
        for watch in self._watches.values():
            for path in watch.levels:
                if path in self._numbers:
                    continue
                number = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), INTEREST)
                if number < 0:
                    self._cannot(path, ctypes.get_errno())
                    break
                # Two names of one directory share a number; the later name is as good.
                self._directories[number] = path
                self._numbers[path] = number

    def _cannot(self, path: str, number: int) -> None:
        if number not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            log.warning("%s cannot be watched: %s", path, os.strerror(number))

    def _forget(self, number: int) -> None:
        path = self._directories.pop(number, None)
        if path is not None:
            self._numbers.pop(path, None)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        touched: set[tuple[str, str]] = set()
        everything = moved = False
        start = 0
        while start + _EVENT.size <= len(data):
            number, mask, _cookie, length = _EVENT.unpack_from(data, start)
            start += _EVENT.size
            name = os.fsdecode(data[start : start + length].rstrip(b"\0"))
            start += length
            if mask & IN_Q_OVERFLOW:
                everything = True
                continue
            path = self._directories.get(number)
            if path is None:
                continue
            if mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF):
                # What has this name now is another directory, or none.
                self._forget(number)
                if not mask & IN_IGNORED:
                    _libc.inotify_rm_watch(self._descriptor, number)
            if mask & (IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE):
                moved = True
                self._drop(os.path.join(path, name))
            touched.add((path, name))
        if moved or everything:
            self._extend()
        for key, watch in list(self._watches.items()):
            hit = everything or any(watch.levels.get(path) == name for path, name in touched)
            if hit and key in self._watches:
                _call(watch.changed)

    def _drop(self, path: str) -> None:
        """A directory has another meaning now: watch what is below it anew."""
        for known, number in list(self._numbers.items()):
            if known == path or known.startswith(path + "/"):
                self._forget(number)
                _libc.inotify_rm_watch(self._descriptor, number)


_open: WeakKeyDictionary[asyncio.AbstractEventLoop, _Inotify] = WeakKeyDictionary()


def _call(changed: Callable[[], None]) -> None:
    try:
        changed()
    except Exception:
        log.exception("the callback %r failed", changed)


def watch(path: str | os.PathLike[str], changed: Callable[[], None]) -> Callable[[], None]:
    """Call ``changed`` on the running event loop after each change to the file ``path``, or to a
    directory that leads to it: written, replaced, removed, made. Returns what ends it.

    It may be called when nothing that matters has changed; look at the file to know. Symbolic links
    are not followed: a change to what a link leads to is not seen, another link in its place is.

    :raises OSError: the system has no inotify instance left (``fs.inotify.max_user_instances``).
    """
    loop = asyncio.get_running_loop()
    inotify = _open.get(loop)
    if inotify is None:
        inotify = _open[loop] = _Inotify()
    key = object()
    inotify.add(key, _Watch(os.path.abspath(path), changed))

    def stop() -> None:
        if _open.get(loop) is inotify and inotify.remove(key):
            del _open[loop]
            inotify.close()

    return stop
