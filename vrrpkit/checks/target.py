"""What a check is about, and how it gets there."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import attrs

from vrrpkit.values import IPAddress

if TYPE_CHECKING:
    from vrrpkit.checks.base import Checker

__all__ = ["Target", "Way"]


@attrs.frozen
class Way:
    """Where connections go, and from where."""

    address: IPAddress
    port: int | None
    source: IPAddress | None = attrs.field(default=None, kw_only=True)
    source_port: int | None = attrs.field(default=None, kw_only=True)
    interface: str | None = attrs.field(default=None, kw_only=True)
    fwmark: int = attrs.field(default=0, kw_only=True)

    def socket(self, kind: int, protocol: int = 0) -> socket.socket:
        """A non-blocking socket that is bound as the way asks, and not connected.

        :raises OSError: the address is not on this machine, a capability is missing, ...
        """
        family = socket.AF_INET if self.address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            if self.fwmark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.fwmark)
            if self.interface is not None:
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode() + b"\0"
                )
            if self.source is not None or self.source_port is not None:
                if self.source_port is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                anywhere = "0.0.0.0" if family == socket.AF_INET else "::"
                sock.bind((str(self.source or anywhere), self.source_port or 0))
        except BaseException:
            sock.close()
            raise
        return sock

    @property
    def destination(self) -> tuple[str, int]:
        """The address and the port, as ``connect`` takes them."""
        return str(self.address), self.port or 0

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return host if self.port is None else f"{host}:{self.port}"


@attrs.frozen
class Target:
    """One server, as a check sees it.

    :param address: the server's address.
    :param port: the server's port, ``None`` where it has none.
    :param name: what events call it.
    """

    address: IPAddress
    port: int | None = None
    name: str = ""
    checker: Checker | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    """The checker that is asked, if one is; it may lead :meth:`connect` elsewhere."""

    def __str__(self) -> str:
        return self.name or str(Way(self.address, self.port))

    @property
    def way(self) -> Way:
        """Where :meth:`connect` goes."""
        return Way(self.address, self.port) if self.checker is None else self.checker.way(self)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection to the server, from where and to where the checker says.

        The caller closes the writer. The time limit is the attempt's.

        :raises OSError: it was refused, reset, or there is no route.
        """
        way = self.way
        sock = way.socket(socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(sock, way.destination)
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
