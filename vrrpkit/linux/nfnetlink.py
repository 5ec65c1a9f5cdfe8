"""Hears what becomes of tables of nftables, from the kernel (nfnetlink, NFNLGRP_NFTABLES)."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator

from vrrpkit.linux.netns import Namespace

__all__ = ["TableWatch"]

# From the kernel's headers; the socket module does not name them.
NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NEW_TABLE = 10 << 8
DELETE_TABLE = 10 << 8 | 2
TABLE_NAME = 1
FAMILY_INET = 1

_HEADER = struct.Struct("=IHHIIBBH")
"""Length, type, flags, sequence, port; family, version and resource of netfilter."""
_ATTRIBUTE = struct.Struct("=HH")


class TableWatch:
    """Watches one table of the family ``inet`` from construction until :meth:`close`.

    :param gone: called on the event loop when the table has been deleted, and perhaps when it has
        not: ask. A replacement in one transaction is not heard.
    """

    def __init__(self, namespace: Namespace, table: str, gone: Callable[[], None]) -> None:
        self._table = table.encode() + b"\0"
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._socket = namespace.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            NETLINK_NETFILTER,
        )
        try:
            # With a port of its own: the kernel sends notices to all ports but 0.
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
            self._loop.add_reader(self._socket, self._read)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Watch no more; calling it twice is harmless."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        gone = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as problem:
                # Too much at once: it may have been among what is lost.
                gone = True
                if problem.errno == errno.ENOBUFS:
                    continue
                break
            for kind, name in _tables(data):
                if name == self._table:
                    gone = kind == DELETE_TABLE
        if gone:
            self._gone()


def _tables(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tables of the family ``inet`` that messages tell of, with their types."""
    while len(data) >= _HEADER.size:
        length, kind, _, _, _, family, _, _ = _HEADER.unpack_from(data)
        if kind in (NEW_TABLE, DELETE_TABLE) and family == FAMILY_INET:
            attributes = data[_HEADER.size : length]
            while len(attributes) >= _ATTRIBUTE.size:
                size, name = _ATTRIBUTE.unpack_from(attributes)
                if name == TABLE_NAME:
                    yield kind, attributes[_ATTRIBUTE.size : size]
                attributes = attributes[max((size + 3) & ~3, _ATTRIBUTE.size) :]
        data = data[max((length + 3) & ~3, _HEADER.size) :]
