"""Filters that the kernel runs before a socket hears anything: classic BPF (socket(7))."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["DROP_ALL", "SO_DETACH_FILTER", "Instruction", "attach_filter", "discard"]

# From the kernel's headers; the socket module does not name them.
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27

Instruction: TypeAlias = tuple[int, int, int, int]
"""Of a classic BPF program: code, jump if true, jump if false, operand."""
DROP_ALL: Sequence[Instruction] = ((0x06, 0, 0, 0),)  # ret 0


def attach_filter(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Let a socket hear only what a classic BPF program lets through, instead of what an earlier
    one did."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)


def discard(sock: socket.socket) -> None:
    """Drop what a socket has heard so far."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1)
