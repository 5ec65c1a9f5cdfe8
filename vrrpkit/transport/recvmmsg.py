"""Many packets from a socket in one system call: ``recvmmsg``, which the socket module lacks.

One ``recvmsg`` of the socket module takes as long as all that is then done with an advert, most of
it for objects that are never looked at.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

__all__ = ["MOST", "Batch", "Received"]

MOST = 64
"""Packets in one batch."""
SIZE = 8192
"""Octets read of one packet: 255 IPv6 addresses and an authentication trailer need 4200."""

_STRIDE = SIZE + 192  # not a multiple of the page size: the cache of the processor likes it better
_NAME = 28
_CONTROL = 96
_MSG_DONTWAIT = 0x40
_NANOSECOND = 1e-9


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovec", ctypes.c_void_p),
        ("iovec_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


_HEADER = ctypes.sizeof(_Mmsghdr)
_LENGTH_AT = ctypes.sizeof(_Msghdr)
_lengths = struct.Struct(f"={_LENGTH_AT}xI{_HEADER - _LENGTH_AT - 4}x").iter_unpack
# What belongs to the socket comes before what belongs to IPv6. Each has a struct cmsghdr.
_CMSG = struct.calcsize("@Nii")
_controls = struct.Struct(f"={_CMSG}xqq{_CMSG}xi{_CONTROL - 2 * _CMSG - 20}x").iter_unpack

_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_int,
    ctypes.c_void_p,
)

Received = tuple[int, int, float, int]
"""Where a packet starts in :attr:`Batch.octets` and where it ends, when the kernel got it (seconds
of CLOCK_REALTIME), and its hop limit, if that was asked for."""


class Batch:
    """Buffers for the packets of one socket, which stamps them (SO_TIMESTAMPNS_NEW)."""

    def __init__(self) -> None:
        buffer = bytearray(MOST * _STRIDE)
        names = bytearray(MOST * _NAME)
        control = bytearray(MOST * _CONTROL)
        self.octets = memoryview(buffer)
        self._names = memoryview(names)
        self._control = memoryview(control)
        self._starts = range(0, MOST * _STRIDE, _STRIDE)
        at, name, extra = (
            ctypes.addressof(ctypes.c_char.from_buffer(each)) for each in (buffer, names, control)
        )
        iovecs = (_Iovec * MOST)()
        headers = (_Mmsghdr * MOST)()
        for number in range(MOST):
            iovecs[number] = _Iovec(at + number * _STRIDE, SIZE)
            headers[number].header = _Msghdr(
                name + number * _NAME,
                _NAME,
                ctypes.addressof(iovecs[number]),
                1,
                extra + number * _CONTROL,
                _CONTROL,
            )
        self._kept = (iovecs, headers)
        self._address = ctypes.addressof(headers)
        self._headers = memoryview(headers).cast("B")
        # The kernel writes into the headers; every reading starts from these.
        self._fresh = bytes(self._headers)

    def read(self, descriptor: int) -> int:
        """Read what waits, up to :data:`MOST` packets, without blocking; how many there were.

        :raises OSError: the kernel reported an error instead.
        """
        self._headers[:] = self._fresh
        count: int = _recvmmsg(descriptor, self._address, MOST, _MSG_DONTWAIT, None)
        if count >= 0:
            return count
        number = ctypes.get_errno()
        if number == errno.EAGAIN:
            return 0
        raise OSError(number, os.strerror(number))

    def packets(self, count: int) -> Iterator[Received]:
        """The ``count`` packets of the last reading."""
        lengths = _lengths(self._headers[: count * _HEADER])
        controls = _controls(self._control[: count * _CONTROL])
        for start, (length,), (seconds, nanoseconds, hops) in zip(
            self._starts, lengths, controls, strict=False
        ):
            yield start, start + length, seconds + nanoseconds * _NANOSECOND, hops

    def sender(self, start: int) -> bytes:
        """The IPv6 address that sent the packet which starts at ``start``."""
        at = start // _STRIDE * _NAME + 8
        return bytes(self._names[at : at + 16])
