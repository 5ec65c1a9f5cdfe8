"""A FIFO that a program of the operator reads (keepalived: ``notify_fifo``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections import deque

from vrrpkit.errors import ConfigError, HostError
from vrrpkit.notify.model.keepalived import Notification, notification_of
from vrrpkit.publishing import Attachment, Notifier
from vrrpkit.validate import as_path, whole_number

__all__ = ["NotifyFIFO"]

log = logging.getLogger(__name__)


class NotifyFIFO(Notifier):
    """Writes a line for every change into a named pipe, in keepalived's formats::

        INSTANCE "VI_1" MASTER 150
        GROUP "gateway" FAULT 0
        VS [192.0.2.10]:tcp:80 UP
        RS [10.0.0.1]:tcp:8080 [192.0.2.10]:tcp:80 DOWN

    A virtual server of several services has one line for all of them and is called by its name,
    ``[web]:0``, as keepalived calls a ``virtual_server_group``; one of a firewall mark ``FWM 7``.

    One line after the other, each whole, and all objects share the pipe. Nothing waits for its
    reader: when the pipe is full, at most ``limit`` lines are kept, and then the oldest is dropped
    and counted. It is made if it is not there, and then removed with its last user; if somebody
    replaces it meanwhile, the next line goes to the new one.

    :param path: of the pipe. One that is there already must be a FIFO (a symbolic link is not
        followed), belong to root or to the user of this program, and not be writable for everybody
        unless ``mode`` says so.
    :param mode: permissions of a pipe that is made.
    :param limit: lines that wait besides those in the pipe.
    :param priorities: tell of changes of priority too (``vrrp_notify_priority_changes``).
    :raises ConfigError: a value is unusable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: int = 0o600,
        limit: int = 1000,
        priorities: bool = False,
    ) -> None:
        self._path = as_path(path, "NotifyFIFO: the path", "/run/vrrp.fifo")
        if not self._path:
            raise ConfigError("NotifyFIFO: the path is empty")
        whole_number("NotifyFIFO: limit", limit, 1, 1_000_000, "lines that may wait")
        whole_number("NotifyFIFO: mode", mode, 0, 0o777, "permissions such as 0o600")
        self._mode = mode
        self._limit = limit
        self._priorities = priorities
        self._users = 0
        self._made = False
        self._descriptor = -1
        self._trouble = ""
        self._waiting: deque[bytes] = deque()
        self._writing = False
        self.dropped = 0
        """Lines that were lost because nobody read."""

    @property
    def waiting(self) -> int:
        """Lines that wait because the pipe is full."""
        return len(self._waiting)

    def attach(self, subject: object) -> Attachment:
        """Open the pipe, if it is not open yet.

        :raises HostError: it cannot be made or opened, or is something else.
        """
        if self._users == 0:
            self._open()
        self._users += 1
        return _FIFOAttachment(self, subject)

    def write(self, word: Notification) -> None:
        """Write one line, as soon as the pipe takes it."""
        if word.state.endswith("_PRIORITY") and not self._priorities:
            return
        if self._descriptor < 0:
            return
        self._follow()
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            if not self.dropped:
                log.warning("nobody reads %s: the oldest lines are dropped", self._path)
            self.dropped += 1
        self._waiting.append(f"{word.line}\n".encode())
        self._flush()

    def release(self) -> None:
        """One object needs it no more."""
        self._users -= 1
        if self._users == 0:
            self._close()

    def _open(self) -> None:
        made = False
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self._path, 0o600)
                made = True
            descriptor = self._opened(made)
        except OSError as problem:
            if made:
                self._unlink()
            raise HostError(f"the FIFO {self._path} cannot be used: {problem.strerror}") from None
        if self._descriptor >= 0:
            self._stop_writing()
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._made = made
        self._trouble = ""

    def _opened(self, made: bool) -> int:
        """Open what has this name, once it is known to be a FIFO that may be written to.

        What is looked at is what is opened, whatever somebody makes of the name meanwhile: first
        only a handle, for to open a device or a file might do something, and then the pipe by way
        of the handle.
        """
        handle = os.open(self._path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            problem = self._unfit(os.fstat(handle))
            if problem is not None:
                raise HostError(f"{self._path} {problem}")
            # For reading too: so that it can be opened, and written to, while nobody reads.
            descriptor = os.open(
                f"/proc/self/fd/{handle}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
            )
            try:
                if made:
                    os.fchmod(descriptor, self._mode)
            except OSError:
                os.close(descriptor)
                raise
            return descriptor
        finally:
            os.close(handle)

    def _unfit(self, found: os.stat_result) -> str | None:
        """Why what has been found is not written to, with what to do."""
        if stat.S_ISLNK(found.st_mode):
            return "is no FIFO but a symbolic link; give the path of the FIFO itself"
        if not stat.S_ISFIFO(found.st_mode):
            return "is no FIFO; remove it, or choose another path"
        if found.st_uid not in (0, os.geteuid()):
            return (
                f"belongs to user {found.st_uid}, who could read it in place of its reader; remove "
                f"it, or 'chown {os.geteuid()}' it"
            )
        if found.st_mode & ~self._mode & stat.S_IWOTH:
            return "can be written to by everybody, who could put in lines; 'chmod o-w' it"
        return None

    def _follow(self) -> None:
        """Open the pipe anew if somebody has put another one in its place, or removed it: what is
        written into the old one, nobody can read."""
        if self._in_place():
            return
        try:
            self._open()
        except HostError as problem:
            if str(problem) != self._trouble:
                self._trouble = str(problem)
                log.warning("%s: what is written meanwhile may be lost", problem)

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _close(self) -> None:
        self._stop_writing()
        self.dropped += len(self._waiting)
        self._waiting.clear()
        # What somebody else has put there since is not ours to remove.
        ours = self._made and self._in_place()
        os.close(self._descriptor)
        self._descriptor = -1
        if ours:
            self._unlink()

    def _flush(self) -> None:
        while self._waiting:
            try:
                # Up to PIPE_BUF octets are written whole or not at all.
                os.write(self._descriptor, self._waiting[0])
            except BlockingIOError:
                if not self._writing:
                    asyncio.get_running_loop().add_writer(self._descriptor, self._flush)
                    self._writing = True
                return
            self._waiting.popleft()
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            asyncio.get_running_loop().remove_writer(self._descriptor)


class _FIFOAttachment:
    """One object's lines."""

    def __init__(self, fifo: NotifyFIFO, subject: object) -> None:
        self._fifo = fifo
        self._subject = subject
        self._open = True

    def tell(self, event: object) -> None:
        word = notification_of(event, self._subject)
        if word is not None:
            self._fifo.write(word)

    async def close(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        if self._open:
            self._open = False
            self._fifo.release()
