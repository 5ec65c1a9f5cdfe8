"""The ping checker: ICMP and ICMPv6 echo."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from functools import partial

import attrs

from vrrpkit.checks.base import Begin, CallbackChecker, Done
from vrrpkit.checks.io.udp import ask
from vrrpkit.checks.target import Endpoint, Target
from vrrpkit.errors import CheckFailed, ConfigError, PermissionMissing
from vrrpkit.lifecycle.real_world import needs_real_world
from vrrpkit.validate import whole_number

__all__ = ["PingChecker"]

# RFC 792 and RFC 4443: the types of request and reply, by the version of IP.
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}
_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}

# linux/icmp.h: what raw sockets need not be shown, as a set of types.
_SOL_RAW = 255
_ICMP_FILTER = 1
_ICMP6_FILTER = 1

_HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number."""

IP_HEADER = 60
"""Octets of an IPv4 header at most; raw sockets deliver it too."""

TOKEN = 8
"""Octets at the beginning of the content that are random: a reply to another request than ours has
others."""

SEQUENCE = 1

_FILLING = bytes(range(256)) * 256


@attrs.frozen(kw_only=True)
class PingChecker(CallbackChecker):
    """A server is healthy if it answers an ICMP or ICMPv6 echo request (keepalived:
    ``PING_CHECK``)::

        PingChecker(interval=1, timeout=0.5, fall=3)

    One request for each attempt; ``retry`` gives further ones. Every request has random content,
    and the reply must bring it back unchanged. An ICMP error about the request is a failure at
    once.

    No privilege is needed where the sysctl ``net.ipv4.ping_group_range`` covers a group of this
    process (it is for IPv6 too); otherwise CAP_NET_RAW is. It is looked at when the checker is
    given a server, and keepalived's habit of widening the range is not followed.

    :param size: octets of content, 8 to 65507; as with ``ping -s``, the headers come on top.
    :raises ConfigError: a value is unusable, or ``port`` or ``source_port`` is given: there are no
        ports in ICMP.
    """

    size: int = 56

    needs_port = False

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        whole_number("PingChecker: size", self.size, TOKEN, 65507, "octets, 8 of them are random")
        for name, value in (("port", self.port), ("source_port", self.source_port)):
            if value is not None:
                raise ConfigError(f"PingChecker: there are no ports in ICMP; leave {name} out")

    def endpoint(self, target: Target) -> Endpoint:
        return attrs.evolve(super().endpoint(target), port=None)

    def validate(self, target: Target) -> None:
        """Refuse a target that cannot be pinged.

        :raises ConfigError: it lacks something.
        :raises PermissionMissing: this process may not ping.
        """
        super().validate(target)
        needs_real_world("a ping")
        try:
            _socket(self.endpoint(target)).close()
        except PermissionMissing:
            raise
        except OSError:
            # A source address or an interface may come later: an attempt fails until then.
            return

    def prepare(self, target: Target) -> Begin:
        return partial(self._ask, self.endpoint(target))

    def _ask(
        self, endpoint: Endpoint, report: Done, loop: asyncio.AbstractEventLoop | None
    ) -> Callable[[], None]:
        content = os.urandom(TOKEN) + _FILLING[: self.size - TOKEN]
        version = endpoint.address.version
        return ask(
            endpoint,
            request(version, int.from_bytes(content[:2], "big"), content),
            partial(answered, version, content),
            report,
            limit=IP_HEADER + _HEADER.size + self.size + 1,
            opened=_socket,
            loop=loop,
        )


def _socket(endpoint: Endpoint) -> socket.SocketType:
    version = endpoint.address.version
    try:
        return endpoint.socket(socket.SOCK_DGRAM, _PROTOCOL[version])
    except PermissionMissing:
        raise
    except PermissionError:
        return _raw(endpoint)


def _raw(endpoint: Endpoint) -> socket.SocketType:
    version = endpoint.address.version
    try:
        sock = endpoint.socket(socket.SOCK_RAW, _PROTOCOL[version])
    except PermissionMissing:
        raise
    except PermissionError:
        raise PermissionMissing(
            "CAP_NET_RAW",
            "a ping by a process with no group in the range of the sysctl "
            "net.ipv4.ping_group_range",
        ) from None
    # Everything else that comes from the server, which need not wake us.
    if version == 4:
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << _REPLY[4]) & 0xFFFFFFFF))
    else:
        words = [0xFFFFFFFF] * 8
        words[_REPLY[6] // 32] &= ~(1 << _REPLY[6] % 32)
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
    return sock


def request(version: int, identifier: int, content: bytes) -> bytes:
    """An echo request. The kernel puts its own identifier into that of an unprivileged socket, and
    computes the checksum but for raw sockets of IPv4, where it must be here."""
    kind = _REQUEST[version]
    unsummed = _HEADER.pack(kind, 0, 0, identifier, SEQUENCE) + content
    return _HEADER.pack(kind, 0, _checksum(unsummed), identifier, SEQUENCE) + content


def _checksum(message: bytes) -> int:
    """RFC 1071: the ones' complement of the ones' complement sum of all 16-bit words. The sum is
    the remainder to 65535, for 65536 is 1 there."""
    even = message if len(message) % 2 == 0 else message + b"\0"
    return 65535 - int.from_bytes(even, "big") % 65535


def answered(version: int, content: bytes, message: bytes) -> bool:
    """Whether ``message`` is the reply to the request with ``content``.

    :raises CheckFailed: it is, and has suffered on the way.
    """
    if version == 4 and message[:1] and message[0] >> 4 == 4:
        # From a raw socket, with the IP header. An ICMP message of type 64 to 79 is none of ours.
        message = message[(message[0] & 15) * 4 :]
    if len(message) < _HEADER.size:
        return False
    kind, code, _, _, sequence = _HEADER.unpack_from(message)
    if (kind, code, sequence) != (_REPLY[version], 0, SEQUENCE):
        return False
    found = message[_HEADER.size :]
    if found[:TOKEN] != content[:TOKEN]:
        return False
    if found != content:
        raise CheckFailed(
            f"the reply is not what was sent: {len(found)} octets, expected {len(content)}"
            if len(found) != len(content)
            else "the reply is not what was sent: octets have changed"
        )
    return True
