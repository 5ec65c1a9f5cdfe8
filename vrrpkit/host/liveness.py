"""What a killed run left behind, and how runs know of each other.

A run that was killed leaves its addresses on the interface, marked by their IFA_PROTO value. The
next run with the same configuration finds them among its own. After a change of configuration
they belong to nobody, and are removed when it is certain that no live process holds them:

* Every process shows that it lives by an abstract unix socket ``vrrpkit/PID/...`` in the network
  namespace. It is bound before the process touches any address, and the kernel removes it when the
  process dies, however that happens; a stopped process keeps it. Anybody may bind such a name, so
  it counts only if its owner could hold addresses: see :mod:`vrrpkit.linux.socket_owners`.
* The first hold of a program notes the marked addresses that are there already, on all interfaces.
  One second later, when the other virtual routers of the program have made their holds too, those
  that still nobody holds are removed, unless another process lives. An address that appears in
  between is not among those noted. The look at the sockets and the removal follow each other
  without a pause.
* Likewise interfaces with a virtual MAC address, known by their alias, and routes and rules.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket

from vrrpkit.host.links.records import MARK
from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.socket_owners import abstract_names, may_hold
from vrrpkit.linux.sysctl import read_proc

__all__ = ["SETTLE", "Liveness", "speaks_vrrp"]

log = logging.getLogger(__name__)

SETTLE = 1.0
"""Seconds that the other virtual routers of a program have to claim what an earlier run left."""


def speaks_vrrp(namespace: Namespace) -> bool:
    """Whether another process may speak VRRP in the namespace, be it in a container: it has a raw
    socket of that protocol."""
    own: set[str] = set()
    found: set[str] = set()
    try:
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                own.add(os.readlink(f"/proc/self/fd/{number}"))
        with namespace.inside():
            for table in ("raw", "raw6"):
                with contextlib.suppress(FileNotFoundError):
                    found |= _raw_sockets(read_proc(f"/proc/thread-self/net/{table}"))
    except OSError as problem:
        log.debug("who speaks VRRP cannot be told: %s", problem)
        return True
    return not found <= own


def _raw_sockets(table: str) -> set[str]:
    """The sockets of IP protocol 112 in a table of the kernel, as links to them read."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {
        f"socket:[{row[9]}]"
        for row in rows
        if len(row) > 9 and row[1].rpartition(":")[2] == f"{MARK:04X}"
    }


class Liveness:
    """This run's sign of life in a network namespace, from construction until :meth:`close`.

    :param kind: the first part of its name; who lives is asked among those of one kind.
    """

    def __init__(self, namespace: Namespace, kind: str = "vrrpkit") -> None:
        # Random too, for processes in different PID namespaces may share a number.
        self.name = f"{kind}/{os.getpid()}/{secrets.token_hex(4)}"
        self._kind = kind
        self._namespace = namespace
        self._socket = namespace.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
        )
        try:
            self._socket.bind(f"\0{self.name}")
        except BaseException:
            self._socket.close()
            raise

    def alone(self) -> bool:
        """Whether nobody else in the namespace gives a sign of life."""
        with contextlib.suppress(OSError):
            return not self.others()
        return False

    def others(self) -> set[str]:
        """The names of all others in the namespace that live.

        :raises OSError: they cannot be read.
        """
        pattern = re.compile(rf"{re.escape(self._kind)}/(\d+)/[0-9a-f]+")
        found: set[str] = set()
        for name, user in abstract_names(self._namespace):
            match = pattern.fullmatch(name)
            if match is not None and (user is None or may_hold(user, int(match[1]))):
                found.add(name)
        return found - {self.name}

    def close(self) -> None:
        """Be gone; calling it twice is harmless."""
        self._socket.close()
