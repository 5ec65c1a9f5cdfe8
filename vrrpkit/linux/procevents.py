"""The processes of this machine as they come and go.

Where the kernel tells of them (the process connector, in the first network namespace and with
CAP_NET_ADMIN), nothing is missed. Elsewhere /proc is looked through at intervals, and the end of a
process that matters is seen at once all the same, by its pidfd.

To read what one process is takes some 40 microseconds, so all who listen share what was read, and
every look through /proc but the first is spread over turns of the event loop.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import errno
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import attrs

from vrrpkit.lifecycle.fork import share_nothing
from vrrpkit.linux.sysctl import read_proc
from vrrpkit.runtime import Runtime

__all__ = ["Process", "Processes"]

log = logging.getLogger(__name__)

NETLINK_CONNECTOR = 11
CN_IDX_PROC = 1
CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1

FORK = 0x1
EXEC = 0x2
COMM = 0x200
EXIT = 0x80000000

SOL_NETLINK = 270
SO_RCVBUFFORCE = 33
BUFFER = 1 << 20
PROC = "/proc"

POLL = 1.0
"""Seconds from one look through /proc to the next, where the kernel does not tell."""
ASK_AGAIN = 30.0
"""Seconds until the kernel is asked again to tell, after it could not for want of something."""
PASSING = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN})
"""Failures that are over some time. All others stay: another namespace, no privilege, a kernel
without the connector."""
YOUNG = 5
"""Looks during which a new process is read again: most become what they are to be soon."""
SHARE = 200
"""Older processes that are read again at each look, or a tenth of them if that is more: all have
had their turn after ten looks."""
SLICE = 50
"""Processes that are read in one turn of the event loop."""
NAMES = 500
"""Entries of /proc that are listed in one turn."""
BATCH = 64
"""Messages of the kernel that are read in one turn."""

_HEADER = struct.Struct("=IHHII")
_CONNECTOR = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_IDS = struct.Struct("=IIII")


@attrs.frozen
class Process:
    """What is known of one process."""

    pid: int
    name: str
    """As the kernel calls it: at most 15 octets."""
    command: tuple[str, ...]
    """Its arguments, the program first; empty for a kernel thread."""

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """The process ``pid``, or ``None`` if there is none (any more), or it is a zombie.

        :raises OSError: nothing can be known now, for want of file descriptors for example.
        """
        try:
            status = read_proc(f"{PROC}/{pid}/stat")
            command = read_proc(f"{PROC}/{pid}/cmdline")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None
        name, _, rest = status.partition("(")[2].rpartition(")")
        if rest.split(maxsplit=1)[:1] in (["Z"], ["X"]):
            return None
        return cls(pid, name, tuple(command.split("\0")[:-1]))


Listener: TypeAlias = Callable[[Mapping[int, Process | None]], None]
"""Called with processes that are new or changed, and ``None`` for those that have ended."""


class Processes:
    """Tells of processes that start, end, or become another program; one for each runtime."""

    def __init__(self) -> None:
        self._listeners: dict[object, Listener] = {}
        self._known: dict[int, Process] = {}
        self._socket: socket.socket | None = None
        self._ends: dict[int, int] = {}
        self._look: Iterator[None] | None = None
        self._next: asyncio.Handle | None = None
        self._asking: asyncio.TimerHandle | None = None
        self._missed = False
        self._complained = False
        self._young: deque[set[int]] = deque(maxlen=YOUNG)
        self._last = 0

    @classmethod
    def current(cls) -> Processes:
        """The one of the current runtime."""
        return Runtime.current().use(cls)

    def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        if self._listeners:
            self._listeners.clear()
            self._close()

    @property
    def told(self) -> bool:
        """Whether the kernel tells of every process; else /proc is looked through at intervals."""
        return self._socket is not None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with all processes, now, and later with those that change; returns what
        ends it.

        :raises OSError: /proc cannot be read.
        """
        key = object()
        try:
            if not self._listeners:
                self._open()
            # What has begun since the last look is to be known now.
            for _ in self._through(again=False):
                pass
        except BaseException:
            if not self._listeners:
                self._close()
            raise
        self._listeners[key] = listener
        listener(self._known)

        def stop() -> None:
            if self._listeners.pop(key, None) is not None and not self._listeners:
                self._close()

        return stop

    def mind(self, pid: int) -> None:
        """See the end of ``pid`` at once, where the kernel does not tell of every process."""
        if self._socket is not None or pid in self._ends:
            return
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            self._ends[pid] = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._ended, pid)

    def _ended(self, pid: int) -> None:
        self._forget(pid)
        self._read_now([pid])

    def _forget(self, pid: int) -> None:
        descriptor = self._ends.pop(pid, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    # --- what they are

    def _read(self, pids: Iterable[int]) -> None:
        """See what processes are now, and tell of those that are not what they were."""
        changed: dict[int, Process | None] = {}
        try:
            for pid in pids:
                process = Process.read(pid)
                if process is not None and process != self._known.get(pid):
                    self._known[pid] = changed[pid] = process
                elif process is None and self._known.pop(pid, None) is not None:
                    changed[pid] = None
        finally:
            if changed:
                for key, listener in list(self._listeners.items()):
                    if key in self._listeners:
                        listener(changed)

    def _read_now(self, pids: Iterable[int]) -> None:
        try:
            self._read(pids)
        except OSError as problem:
            self._blind(problem)

    def _through(self, *, again: bool = True) -> Iterator[None]:
        """Look through /proc, with a pause after each piece of work.

        :param again: also read processes that are known, as far as they may be others by now.
        """
        missed = again and self._missed
        if again:
            # What is missed from now on is for the next look.
            self._missed = False
        listed: set[int] = set()
        with os.scandir(PROC) as entries:
            for count, entry in enumerate(entries, 1):
                if entry.name.isdigit():
                    listed.add(int(entry.name))
                if count % NAMES == 0:
                    yield
        gone, new = self._known.keys() - listed, listed - self._known.keys()
        todo = [*gone, *new]
        if again:
            known = listed & self._known.keys()
            todo += known if missed else self._perhaps_others(known)
        if again or new:
            self._young.append(new)
        for start in range(0, len(todo), SLICE):
            self._read(todo[start : start + SLICE])
            yield

    def _perhaps_others(self, known: set[int]) -> set[int]:
        return known & {*self._turn(sorted(known)), *(pid for new in self._young for pid in new)}

    def _turn(self, pids: list[int]) -> list[int]:
        """Those whose turn it is to be read again."""
        start = bisect.bisect_right(pids, self._last)
        turn = [*pids[start:], *pids[:start]][: max(SHARE, -(-len(pids) // 10))]
        self._last = turn[-1] if turn else 0
        return turn

    # --- how it is known

    def _open(self) -> None:
        try:
            self._connect()
        except OSError as problem:
            self._fall_back(problem)
            self._look_later()

    def _connect(self) -> None:
        self._socket = _connector()
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def _disconnect(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _fall_back(self, problem: OSError, *, told: bool = False) -> None:
        """Look through /proc instead.

        :param told: the kernel did tell until now.
        """
        log.info(
            "the kernel does not tell of processes here (%s): /proc is looked through every %g s",
            problem.strerror or problem,
            POLL,
        )
        if told or problem.errno in PASSING:
            self._asking = asyncio.get_running_loop().call_later(ASK_AGAIN, self._ask_again)

    def _ask_again(self) -> None:
        self._asking = None
        try:
            self._connect()
        except OSError as problem:
            self._fall_back(problem)
            return
        log.info("the kernel tells of processes now")
        # The kernel does not tell what has changed since the last look.
        self._miss()

    def _close(self) -> None:
        self._disconnect()
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if self._next is not None:
            self._next.cancel()
        self._next = self._look = None
        self._missed = False
        for pid in list(self._ends):
            self._forget(pid)
        self._known = {}
        self._young.clear()

    def _look_later(self) -> None:
        self._next = asyncio.get_running_loop().call_later(POLL, self._go_on)

    def _go_on(self) -> None:
        """Do the next piece of a look."""
        if self._look is None:
            self._look = self._through()
        try:
            next(self._look)
        except StopIteration:
            self._look = None
            self._complained = False
        except OSError as problem:
            self._look = None
            self._blind(problem)
        if not self._listeners:
            return
        if self._look is not None:
            self._next = asyncio.get_running_loop().call_soon(self._go_on)
        elif self._socket is None or self._missed:
            self._look_later()
        else:
            self._next = None

    def _blind(self, problem: OSError) -> None:
        """Something could not be read: all is looked at again a while later."""
        log.log(
            logging.DEBUG if self._complained else logging.WARNING,
            "processes cannot be looked at: %s",
            problem,
        )
        self._complained = True
        self._miss()

    def _miss(self) -> None:
        self._missed = True
        if self._next is None and self._listeners:
            self._look_later()

    def _readable(self) -> None:
        changed: set[int] = set()
        assert self._socket is not None
        for _ in range(BATCH):
            try:
                datagram = self._socket.recv(4096)
            except BlockingIOError:
                break
            except OSError as problem:
                # Some were missed, and it is not known which.
                self._miss()
                if problem.errno == errno.ENOBUFS:
                    continue
                self._disconnect()
                self._fall_back(problem, told=True)
                break
            pid = changed_by(datagram)
            if pid is not None:
                changed.add(pid)
        if changed:
            self._read_now(changed)


def _connector() -> socket.socket:
    """A socket on which the kernel tells of processes.

    :raises OSError: it does not: another network namespace, no CAP_NET_ADMIN, or no such kernel.
    """
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, NETLINK_CONNECTOR)
    share_nothing(sock)
    try:
        with contextlib.suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        sock.bind((0, CN_IDX_PROC))
        body = struct.pack("=I", PROC_CN_MCAST_LISTEN)
        message = _CONNECTOR.pack(CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(body), 0) + body
        sock.send(_HEADER.pack(16 + len(message), 3, 0, 0, 0) + message)
        # In another process or user namespace the kernel takes the request, and says nothing.
        try:
            sock.recv(4096)
        except BlockingIOError:
            raise OSError(errno.EOPNOTSUPP, "no answer from the kernel") from None
    except BaseException:
        sock.close()
        raise
    return sock


def changed_by(datagram: bytes) -> int | None:
    """The process that a message is about; ``None`` for one that changes no process."""
    start = 16 + _CONNECTOR.size
    if len(datagram) < start + _EVENT.size + 8:
        return None
    what, _processor, _when = _EVENT.unpack_from(datagram, start)
    at = start + _EVENT.size
    if what == FORK:
        if len(datagram) < at + 16:
            return None
        _parent, _group, pid, group = _IDS.unpack_from(datagram, at)
    elif what in (EXEC, COMM, EXIT):
        pid, group = struct.unpack_from("=II", datagram, at)
    else:
        return None
    # A thread that starts or ends is none of our business; one may rename or replace itself.
    return int(group) if pid == group or what in (EXEC, COMM) else None
