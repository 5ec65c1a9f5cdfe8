"""What a child of fork() must not do: anything to the host.

A child that comes from ``os.fork()`` or from ``multiprocessing`` has copies of all objects, and the
same sockets, the same epoll, the same timer as its parent. If its copies "leave" when it exits, the
parent's addresses go, other routers hear priority 0, and to take a descriptor out of the child's
event loop takes it out of the parent's, for both are one epoll in the kernel. So in the child, at
once:

* descriptors that were shared lead nowhere (:func:`share_nothing`), epolls are fresh and empty,
* objects know that they were begun elsewhere (:class:`ProcessOrigin`) and end without doing
anything.

Programs that are started (``asyncio.create_subprocess_exec``, ``subprocess``) are no such children:
they are another program from their first instruction on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
import signal
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

__all__ = ["ProcessOrigin", "in_child", "renew_epoll", "share_nothing"]


class HasFileno(Protocol):
    """A socket, or what else has a descriptor and may be closed by now."""

    def fileno(self) -> int: ...


_generation = 0
_deaf: WeakSet[HasFileno] = WeakSet()
_epolls: WeakSet[HasFileno] = WeakSet()
_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, None] = WeakKeyDictionary()
_resets: dict[object, Callable[[], None]] = {}


class ProcessOrigin:
    """The process that an object began its work in. Made on its event loop, which a child then
    gets an epoll of its own for."""

    def __init__(self) -> None:
        self._generation = _generation
        with contextlib.suppress(RuntimeError):
            _loops[asyncio.get_running_loop()] = None

    @property
    def elsewhere(self) -> bool:
        """Whether this is a child of that process: its copy of the object must do nothing."""
        return self._generation != _generation


def share_nothing(descriptor: HasFileno) -> None:
    """In a child of fork(), let a descriptor lead nowhere: whatever is asked of it fails. It need
    not be told when it is closed."""
    _deaf.add(descriptor)


def renew_epoll(epoll: HasFileno) -> None:
    """In a child of fork(), let an epoll be a new and empty one."""
    _epolls.add(epoll)


def in_child(reset: Callable[[], None]) -> Callable[[], None]:
    """Call ``reset`` in children of fork(), first thing; it must not raise. Returns what ends
    it."""
    key = object()
    _resets[key] = reset

    def stop() -> None:
        _resets.pop(key, None)

    return stop


def _in_child() -> None:
    global _generation
    _generation += 1
    with contextlib.suppress(ValueError):
        # Else a signal to the child would be told to the parent's loop. (Not the main thread: there
        # is no handler to be told.)
        signal.set_wakeup_fd(-1)
    for reset in list(_resets.values()):
        reset()
    _resets.clear()
    nowhere = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for shared in list(_deaf):
            _replace(shared, nowhere)
    finally:
        os.close(nowhere)
    epolls = [*_epolls]
    for loop in list(_loops):
        selector = getattr(loop, "_selector", None)
        # Other loops, such as uvloop's, see to a fork themselves.
        if isinstance(selector, selectors.EpollSelector):
            epolls.append(selector)
    for epoll in epolls:
        with select.epoll() as fresh:
            _replace(epoll, fresh.fileno())
    for known in (_deaf, _epolls, _loops):
        known.clear()


def _replace(shared: HasFileno, by: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        descriptor = shared.fileno()
        if descriptor >= 0:
            os.dup2(by, descriptor, inheritable=False)


os.register_at_fork(after_in_child=_in_child)
