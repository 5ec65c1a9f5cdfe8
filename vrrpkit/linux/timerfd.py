"""An alarm on a timerfd: more punctual than the event loop's own timers, and it counts time asleep.

``loop.call_at`` rounds to the milliseconds of ``epoll_wait``; a timerfd wakes the loop like any
other descriptor.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from math import ceil

from vrrpkit.lifecycle.fork import share_nothing

__all__ = ["TimerfdAlarm"]

_NANOSECOND = 1_000_000_000
_FAR = 4e9
"""Seconds; beyond that the alarm means never, for the kernel's clock may not count that far."""

if sys.version_info >= (3, 13):

    def _create() -> int:
        return os.timerfd_create(time.CLOCK_BOOTTIME, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def _settime(descriptor: int, nanoseconds: int) -> None:
        os.timerfd_settime_ns(descriptor, flags=os.TFD_TIMER_ABSTIME, initial=nanoseconds)

else:

    class _Timerspec(ctypes.Structure):
        _fields_ = (
            ("interval_seconds", ctypes.c_long),
            ("interval_nanoseconds", ctypes.c_long),
            ("seconds", ctypes.c_long),
            ("nanoseconds", ctypes.c_long),
        )

        seconds: int
        nanoseconds: int

    _TFD_TIMER_ABSTIME = 1
    _libc = ctypes.CDLL(None, use_errno=True)
    _timerfd_settime = _libc.timerfd_settime
    _timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    # Reused by every call: an alarm belongs to the event loop's thread.
    _spec = _Timerspec()
    _spec_address = ctypes.addressof(_spec)

    def _create() -> int:
        descriptor: int = _libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            _raise_errno()
        return descriptor

    def _settime(descriptor: int, nanoseconds: int) -> None:
        _spec.seconds, _spec.nanoseconds = divmod(nanoseconds, _NANOSECOND)
        if _timerfd_settime(descriptor, _TFD_TIMER_ABSTIME, _spec_address, None):
            _raise_errno()

    def _raise_errno() -> None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class TimerfdAlarm:
    """Wakes the running event loop at a time of CLOCK_BOOTTIME; the last order counts.

    The descriptor is opened by the first order and closed by :meth:`close`, after which an order
    opens another.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[], None] | None = None

    def fileno(self) -> int:
        """See :class:`vrrpkit.lifecycle.fork.HasFileno`."""
        return self._descriptor

    def now(self) -> float:
        """Seconds of CLOCK_BOOTTIME: since boot, those asleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def arm(self, when: float, wake: Callable[[], None]) -> None:
        """Call ``wake`` when ``when`` has come, and forget any earlier order.

        :raises OSError: the kernel refused a descriptor (EMFILE, ENFILE).
        """
        if self._descriptor < 0:
            self._open()
        self._wake = wake
        # Rounded up, for an alarm must never be early. Zero would disarm it.
        _settime(self._descriptor, max(1, ceil(min(when, _FAR) * _NANOSECOND)))

    def close(self) -> None:
        """Forget the order and close the descriptor; calling it twice is harmless."""
        self._wake = None
        if self._descriptor < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop = None
        os.close(self._descriptor)
        self._descriptor = -1

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._descriptor = _create()
        share_nothing(self)
        # Kept because a reader must be removed from the loop that has it, wherever this is closed.
        self._loop = loop
        loop.add_reader(self._descriptor, self._expired)

    def _expired(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:  # a later order replaced the one that had expired
            return
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()
