"""Network namespaces: sockets and kernel settings of another one than the thread's own.

A socket stays in the namespace that it was made in, so the thread moves over only while one is
made, synchronously, and nothing else on the event loop ever runs there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Generator
from typing import TypeAlias

from vrrpkit.errors import HostError, PermissionMissing
from vrrpkit.lifecycle.fork import share_nothing

__all__ = ["Identity", "Namespace", "identity"]

CLONE_NEWNET = 0x40000000

Identity: TypeAlias = tuple[int, int]
"""Device and inode: two names of one namespace share them."""

_OWN = "/proc/thread-self/ns/net"
_NAMED = "/run/netns/"

_libc = ctypes.CDLL(None, use_errno=True)


def _open(name: str | None) -> int:
    if name is not None and (not name or "/" in name or name in {".", ".."}):
        raise HostError(f"{name!r} is no name of a network namespace; 'ip netns' lists them")
    path = _OWN if name is None else _NAMED + name
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostError(
            f"there is no network namespace {name!r}; 'ip netns' lists them and 'ip netns add' "
            "makes one"
        ) from None


def _identity(descriptor: int) -> Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def identity(name: str | None) -> Identity:
    """Which namespace ``name`` is; ``None`` is the one that the calling thread is in.

    :raises HostError: there is no namespace of that name in ``/run/netns``.
    """
    descriptor = _open(name)
    try:
        return _identity(descriptor)
    finally:
        os.close(descriptor)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Namespace:
    """An open network namespace: it lives at least as long as this object.

    :param name: as ``ip netns`` lists it, ``None`` for the calling thread's own.
    :raises HostError: there is no namespace of that name.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._descriptor = _open(name)
        self.identity = _identity(self._descriptor)

    @contextlib.contextmanager
    def inside(self) -> Generator[None]:
        """Run the block in the namespace. There must be no ``await`` in it.

        :raises PermissionMissing: moving to another namespace needs CAP_SYS_ADMIN.
        """
        home = _open(None)
        try:
            if _identity(home) == self.identity:
                yield
                return
            try:
                _setns(self._descriptor)
            except PermissionError:
                raise PermissionMissing(
                    "CAP_SYS_ADMIN", f"using network namespace {self.name!r}"
                ) from None
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """Make a socket in the namespace. A child of fork() finds that it leads nowhere."""
        with self.inside():
            made = socket.socket(family, kind, protocol)
        share_nothing(made)
        return made

    def close(self) -> None:
        """Let the namespace go; calling it twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
