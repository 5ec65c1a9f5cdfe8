"""Doing without Linux capabilities for a while."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """This thread uses none of its capabilities in the block."""
    header = _Header(VERSION_3, 0)
    sets = (_Sets * 2)()
    _call("capget", header, sets)
    before = [part.effective for part in sets]
    for part in sets:
        part.effective = 0
    _call("capset", header, sets)
    try:
        yield
    finally:
        for part, effective in zip(sets, before, strict=True):
            part.effective = effective
        _call("capset", header, sets)


def _call(name: str, header: _Header, sets: ctypes.Array[_Sets]) -> None:
    if getattr(_libc, name)(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), name)
