"""The processes of this machine as they come and go.

Where the kernel tells of them (the process connector, in the first network namespace and with
CAP_NET_ADMIN), nothing is missed. Elsewhere /proc is looked through at intervals, and the end of a
process that matters is seen at once all the same, by its pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import TypeAlias
from weakref import WeakKeyDictionary

import attrs

from vrrpkit.host.sysctl import read_proc

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
POLL = 1.0
"""Seconds between two looks through /proc, where the kernel does not tell."""

_HEADER = struct.Struct("=IHHII")
_CONNECTOR = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_IDS = struct.Struct("=IIII")

Listener: TypeAlias = "Callable[[Iterable[int] | None], None]"
"""Called with the processes that changed, or ``None``: any may have."""


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
        """The process ``pid``, or ``None`` if there is none (any more), or it is a zombie."""
        try:
            status = read_proc(f"/proc/{pid}/stat")
            command = read_proc(f"/proc/{pid}/cmdline")
        except OSError:
            return None
        name, _, rest = status.partition("(")[2].rpartition(")")
        if rest.split()[:1] in (["Z"], ["X"]):
            return None
        return cls(pid, name, tuple(command.split("\0")[:-1]))

    @staticmethod
    def everyone() -> list[int]:
        """The ids of all processes that can be seen."""
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


class Processes:
    """Tells of processes that start, end, or become another program; one for each event loop."""

    def __init__(self) -> None:
        self._listeners: dict[object, Listener] = {}
        self._socket: socket.socket | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._ends: dict[int, int] = {}

    @classmethod
    def current(cls) -> Processes:
        """The one of the running loop."""
        loop = asyncio.get_running_loop()
        found = _processes.get(loop)
        if found is None:
            found = _processes[loop] = cls()
        return found

    @property
    def told(self) -> bool:
        """Whether the kernel tells of every process; else /proc is looked through at intervals."""
        return self._socket is not None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` when processes change; returns what ends it."""
        key = object()
        if not self._listeners:
            self._open()
        self._listeners[key] = listener

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
        self._tell([pid])

    def _forget(self, pid: int) -> None:
        descriptor = self._ends.pop(pid, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _tell(self, pids: Iterable[int] | None) -> None:
        for key, listener in list(self._listeners.items()):
            if key in self._listeners:
                listener(pids)

    # --- how it is known

    def _open(self) -> None:
        try:
            self._socket = _connector()
        except OSError as problem:
            log.info(
                "the kernel does not tell of processes here (%s): /proc is looked through every "
                "%g s",
                problem.strerror or problem,
                POLL,
            )
            self._look_later()
        else:
            asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def _close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        for pid in list(self._ends):
            self._forget(pid)

    def _look_later(self) -> None:
        self._poll = asyncio.get_running_loop().call_later(POLL, self._look)

    def _look(self) -> None:
        self._look_later()
        self._tell(None)

    def _readable(self) -> None:
        changed: set[int] = set()
        assert self._socket is not None
        for _ in range(256):
            try:
                datagram = self._socket.recv(4096)
            except BlockingIOError:
                break
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    raise
                # Some were missed; which ones, nobody knows.
                self._tell(None)
                continue
            pid = changed_by(datagram)
            if pid is not None:
                changed.add(pid)
        if changed:
            self._tell(changed)


_processes: WeakKeyDictionary[asyncio.AbstractEventLoop, Processes] = WeakKeyDictionary()


def _connector() -> socket.socket:
    """A socket on which the kernel tells of processes.

    :raises OSError: it does not: another network namespace, no CAP_NET_ADMIN, or no such kernel.
    """
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, NETLINK_CONNECTOR)
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
