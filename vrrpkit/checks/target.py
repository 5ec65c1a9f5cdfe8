"""What a check is about, and how it gets there."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from ipaddress import IPv6Address, ip_address

import attrs

from vrrpkit.errors import PermissionMissing
from vrrpkit.validate import text, whole_number
from vrrpkit.values import IPAddress, parse_address

__all__ = ["EPHEMERAL", "Endpoint", "Target", "is_self_connection"]

EPHEMERAL = 32768
"""The lowest port that the kernel by default gives to a connection that asks for none."""


def _mark(sock: socket.SocketType, fwmark: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, fwmark)
    except PermissionError:
        raise PermissionMissing("CAP_NET_ADMIN", f"fwmark={fwmark}") from None


def _leave_by(sock: socket.SocketType, interface: str) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
    except PermissionError:
        raise PermissionMissing("CAP_NET_RAW", f"interface={interface!r}") from None
    except OSError as problem:
        raise OSError(problem.errno, f"interface {interface!r}: {problem.strerror}") from None


def _bind(sock: socket.SocketType, source: IPAddress | None, port: int | None) -> None:
    if port is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    anywhere = "0.0.0.0" if sock.family == socket.AF_INET else "::"
    end = Endpoint(source or ip_address(anywhere), port)
    try:
        sock.bind(end.destination)
    except OSError as problem:
        raise OSError(problem.errno, f"from {end}: {problem.strerror}") from None


@attrs.frozen
class Endpoint:
    """Where connections go, and from where."""

    address: IPAddress
    port: int | None
    source: IPAddress | None = attrs.field(default=None, kw_only=True)
    source_port: int | None = attrs.field(default=None, kw_only=True)
    interface: str | None = attrs.field(default=None, kw_only=True)
    fwmark: int = attrs.field(default=0, kw_only=True)
    family: int = attrs.field(init=False, eq=False, repr=False)
    """The address family of its sockets."""
    destination: tuple[str, int] = attrs.field(init=False, eq=False, repr=False)
    """The address and the port, as ``connect`` takes them."""
    _link: str | None = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Asked for in every attempt: to write an address takes longer than to connect to it.
        six = isinstance(self.address, IPv6Address)
        for name, value in (
            ("family", socket.AF_INET6 if six else socket.AF_INET),
            ("destination", (str(self.address), self.port or 0)),
            ("_link", self.address.scope_id if isinstance(self.address, IPv6Address) else None),
        ):
            object.__setattr__(self, name, value)

    def socket(self, kind: int, protocol: int = 0) -> socket.SocketType:
        """A non-blocking socket that is bound as the way asks, and not connected.

        :raises OSError: the source address is not on this machine, there is no such interface, ...
        :raises PermissionMissing: ``fwmark`` or ``interface`` needs a capability. (It is an OSError
            too.)
        """
        # The class in C, without the one in Python around it: a quarter of what a socket costs.
        sock = socket.SocketType(self.family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            if self.fwmark:
                _mark(sock, self.fwmark)
            if self.interface is not None:
                _leave_by(sock, self.interface)
            if self.source is not None or self.source_port is not None:
                _bind(sock, self.source, self.source_port)
        except BaseException:
            sock.close()
            raise
        return sock

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """As :attr:`destination`, with the number of the link that a link-local address names. The
        name alone would not do: to find its number is a look-up, which sockets leave out.

        :raises OSError: there is no such link.
        """
        if (link := self._link) is not None:
            number = int(link) if link.isdecimal() else socket.if_nametoindex(link)
            return self.host, self.port or 0, 0, number
        return self.destination

    @property
    def host(self) -> str:
        """The address as the other side knows it: which link of ours it is on means nothing there
        (RFC 6874 section 4)."""
        return str(self.address).partition("%")[0]

    def authority(self, usual_port: int) -> str:
        """The address and the port, unless that is the usual one, as a server is told them."""
        host = f"[{self.host}]" if self.address.version == 6 else self.host
        return host if self.port == usual_port else f"{host}:{self.port}"

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return host if self.port is None else f"{host}:{self.port}"


def is_self_connection(endpoint: Endpoint, sock: socket.SocketType) -> bool:
    """Whether a connected socket is connected to itself: where nobody listens on a port of this
    machine, the kernel may pick that very port for our end, and to connect succeeds."""
    if (endpoint.port or 0) < EPHEMERAL and endpoint.source_port is None:
        return False
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        # It is connected no more.
        return False


def _address(value: str | IPAddress) -> IPAddress:
    # An object may carry a zone: a link-local server is found by its link.
    return value if isinstance(value, IPv6Address) else parse_address(value, "target: address")


@attrs.frozen
class Target:
    """One server, as a check sees it.

    :param address: the server's address, as text or as an object of :mod:`ipaddress`. An
        ``IPv6Address`` may name the link of a link-local address: ``fe80::1%eth0``.
    :param port: the server's port, 1 to 65535; ``None`` or 0 where it has none.
    :param name: what events call it.
    :raises ConfigError: the address is none, the port is out of range, or the name has control
        characters.
    """

    address: IPAddress = attrs.field(converter=_address)
    port: int | None = None
    name: str = ""
    via: Endpoint | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    """Where :meth:`connect` goes instead, and from where, if the checker says so
    (:meth:`vrrpkit.Checker.endpoint`). The scheduler puts it here."""

    def __attrs_post_init__(self) -> None:
        text("target: name", self.name, "'web1'", empty=True)
        if self.port is not None:
            whole_number("target: port", self.port, 0, 65535, "leave it out where there is none")

    def __str__(self) -> str:
        return self.name or str(Endpoint(self.address, self.port))

    @property
    def endpoint(self) -> Endpoint:
        """Where :meth:`connect` goes."""
        return Endpoint(self.address, self.port) if self.via is None else self.via

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection to the server, from where and to where the checker says.

        The caller closes the writer. The time limit is the attempt's.

        :raises OSError: it was refused, reset, or there is no route.
        """
        endpoint = self.endpoint
        # asyncio takes nothing less than the class in Python.
        sock = socket.socket(fileno=endpoint.socket(socket.SOCK_STREAM).detach())
        try:
            try:
                await asyncio.get_running_loop().sock_connect(sock, endpoint.sockaddr)
            except OSError as problem:
                # asyncio's words are of its calls.
                number = problem.errno or errno.EIO
                what = f"cannot connect to {endpoint}: {os.strerror(number)}"
                raise OSError(number, what) from None
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
