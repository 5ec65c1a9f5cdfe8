"""Where neighbours ask for IPv6 addresses: their solicited-node groups (RFC 4291 section 2.7.1).

The kernel joins them on the interface that an address is on. A switch that snoops MLD delivers to
those who report, and a macvlan with a virtual MAC address reports nothing (see
:mod:`vrrpkit.host.firewall.filters`). So its base interface joins the same groups, with its own
MAC address.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address

from vrrpkit.transport.sockets import MakeSocket
from vrrpkit.values import IPAddress

__all__ = ["SolicitedNodes", "solicited_node"]

log = logging.getLogger(__name__)

EACH = 100
"""Groups of one socket, whose memory for them is bounded (``net.core.optmem_max``)."""

_PREFIX = bytes.fromhex("ff0200000000000000000001ff")


def solicited_node(address: IPv6Address) -> IPv6Address:
    """The group that neighbours ask for an address in."""
    return IPv6Address(_PREFIX + address.packed[13:])


class SolicitedNodes:
    """Memberships of one interface in the solicited-node groups of addresses on another.

    :param make: makes a socket in the namespace of the interface.
    """

    def __init__(self, make: MakeSocket) -> None:
        self._make = make
        self._groups: list[IPv6Address] = []
        self._index = 0
        self._sockets: list[socket.socket] = []

    def want(self, addresses: Iterable[IPAddress]) -> None:
        """Be a member for these addresses, in place of those before."""
        groups = {solicited_node(each) for each in addresses if isinstance(each, IPv6Address)}
        if sorted(groups) != self._groups:
            self._groups = sorted(groups)
            self._join()

    def move(self, ifindex: int) -> None:
        """Be a member on this interface from now on; 0 is none.

        An interface that vanishes takes the memberships with it, and may return with the same
        index: so all are renewed.
        """
        self._index = ifindex
        self._join()

    def close(self) -> None:
        """Leave all groups; calling it twice is harmless."""
        self.move(0)

    def _join(self) -> None:
        # The old ones go last: a group that stays is never left.
        before, self._sockets = self._sockets, []
        try:
            if self._index:
                for start in range(0, len(self._groups), EACH):
                    self._join_some(self._groups[start : start + EACH])
        except OSError as problem:
            log.warning("cannot join the groups that neighbours ask for addresses in: %s", problem)
        finally:
            for sock in before:
                sock.close()

    def _join_some(self, groups: Iterable[IPv6Address]) -> None:
        # Never bound to a port, so it hears nothing.
        sock = self._make(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        self._sockets.append(sock)
        for group in groups:
            request = group.packed + struct.pack("@I", self._index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
