"""Whose an abstract unix socket is.

Any user of a host may bind any name, so a name alone proves nothing. The kernel tells the user of a
socket (sock_diag, Linux 5.3), and addresses, routes and tables can be held only by root, by who
runs this, or by a process with CAP_NET_ADMIN.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import struct
from collections.abc import Iterator

from vrrpkit.linux.netlink import Netlink, attributes
from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.sysctl import read_proc

__all__ = ["abstract_names", "may_hold"]

log = logging.getLogger(__name__)

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
AF_UNIX = 1
EVERY_STATE = 0xFFFFFFFF
SHOW_NAME = 0x1
SHOW_UID = 0x40
UNIX_DIAG_NAME = 0
UNIX_DIAG_UID = 7

CAP_NET_ADMIN = 12
OVERFLOW = 65534
"""What stands for a user that has no number in our user namespace."""

_REQUEST = struct.Struct("=BBHIIIII")
_ANSWER = 16
"""Octets of struct unix_diag_msg."""
_U32 = struct.Struct("=I")


def abstract_names(namespace: Namespace) -> Iterator[tuple[str, int | None]]:
    """The names of all abstract unix sockets in a network namespace, each with its user if the
    kernel tells.

    :raises OSError: they cannot be read.
    """
    try:
        yield from _diagnosed(namespace)
    except OSError as problem:
        log.debug("sock_diag: %s", problem)
    else:
        return
    with namespace.inside():
        table = read_proc("/proc/thread-self/net/unix")
    for name in re.findall(r" @([^\n]*)$", table, re.MULTILINE):
        yield name, None


def _diagnosed(namespace: Namespace) -> list[tuple[str, int | None]]:
    question = _REQUEST.pack(AF_UNIX, 0, 0, EVERY_STATE, 0, SHOW_NAME | SHOW_UID, 0, 0)
    with contextlib.closing(Netlink(namespace, NETLINK_SOCK_DIAG)) as netlink:
        messages = netlink.dump(SOCK_DIAG_BY_FAMILY, question)
    found: list[tuple[str, int | None]] = []
    for message in messages:
        told = attributes(message.payload, _ANSWER)
        name, user = told.get(UNIX_DIAG_NAME, b""), told.get(UNIX_DIAG_UID, b"")
        if name.startswith(b"\0"):
            number = int(_U32.unpack(user)[0]) if len(user) == 4 else None
            found.append((name[1:].decode(errors="replace"), number))
    return found


def may_hold(user: int, pid: int) -> bool:
    """Whether a user may hold addresses in a network namespace: as root, as we ourselves do, or by
    the process ``pid``, which is its own and has the capability."""
    if user in (0, os.geteuid()) or (user == OVERFLOW and _partial()):
        return True
    try:
        status = read_proc(f"/proc/{pid}/status")
    except OSError:
        return False
    users = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)
    capabilities = re.search(r"^CapPrm:\s+([0-9a-f]+)", status, re.MULTILINE)
    if users is None or capabilities is None or int(users[1]) != user:
        return False
    return bool(int(capabilities[1], 16) >> CAP_NET_ADMIN & 1)


def _partial() -> bool:
    """Whether some users have no number in our user namespace."""
    try:
        return read_proc("/proc/self/uid_map").split() != ["0", "0", "4294967295"]
    except OSError:
        return True
