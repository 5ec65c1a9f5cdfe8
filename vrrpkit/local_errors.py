"""Whose trouble an error is: ours, or that of the server which was asked. Pure.

A health check that could not be made says nothing about the server, and a tracker that could not
look says nothing about what it looks at. Which errors those are is decided here alone, by errno.
"""

from __future__ import annotations

import errno
from typing import cast

from vrrpkit.errors import CouldNotAsk, PermissionMissing

__all__ = ["Complaints", "advised", "own_trouble"]

_ADVICE = {
    errno.EMFILE: "raise the limit on open files: LimitNOFILE= in the systemd unit, 'ulimit -n'",
    errno.ENFILE: "the whole machine has too many files open: raise the sysctl fs.file-max",
    errno.EAGAIN: "raise the limit on processes: TasksMax= in the systemd unit, 'ulimit -u'",
    errno.EADDRNOTAVAIL: "is the source address on this machine, and is a local port left?",
    errno.EADDRINUSE: "another program, or a connection that has just ended, has the local port",
    errno.ENODEV: "is there such an interface?",
    errno.EPERM: "a capability, a firewall rule or a full table of connections forbids it",
    errno.EACCES: "a permission, a route of type prohibit or a security module forbids it",
    errno.ECHILD: "let SIGCHLD have its default action, and nothing else wait for all children",
}

OURS = frozenset(_ADVICE) | {errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EAFNOSUPPORT}
"""EAGAIN is what fork says: no coroutine gets it from a socket. ENOSPC is epoll's and inotify's,
whose watches are limited; EAFNOSUPPORT is a kernel without IPv6. Not here, and so the server's:
ECONNREFUSED, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENETDOWN and all others."""

_OTHER_NUMBERS = ("socket", "ssl")
"""Modules whose exceptions are OSErrors with numbers of another kind: 1 is no EPERM there."""


def own_trouble(problem: BaseException) -> bool:
    """Whether an error is trouble of this program or this machine: no file descriptor, no memory,
    no local address, no permission, no such interface, an exit status that is lost.

    For checkers, trackers and notifiers of your own. A :class:`vrrpkit.Checker` need not call it:
    of what its ``check()`` raises, such errors leave the verdict as it is; to say so about an
    error of another kind, raise :class:`vrrpkit.errors.CouldNotAsk`.

    :param problem: an exception; of a group, all that are in it must be of this kind.
    """
    if isinstance(problem, CouldNotAsk | PermissionMissing | MemoryError):
        return True
    if isinstance(problem, BaseExceptionGroup):
        several = cast(BaseExceptionGroup[BaseException], problem)
        return all(map(own_trouble, several.exceptions))
    if not isinstance(problem, OSError):
        return False
    if any(kind.__module__ in _OTHER_NUMBERS for kind in type(problem).__mro__):
        return False
    return problem.errno in OURS


def advised(text: str, number: int | None) -> str:
    """What the system said, and what to do about it.

    :param number: the errno, if there is one.
    """
    advice = _ADVICE.get(number or 0)
    return text if advice is None else f"{text} ({advice})"


class Complaints:
    """Which of many complaints of one kind are worth a line: the first, and later one in so many
    seconds, with the number of those between.

    :param pause: seconds between two lines of one kind.
    :param kinds: kinds that are told apart; the oldest is forgotten.
    """

    def __init__(self, pause: float = 300.0, kinds: int = 32) -> None:
        self._pause = pause
        self._kinds = kinds
        self._told: dict[object, tuple[float, int]] = {}

    def worth(self, kind: object, now: float) -> int | None:
        """Whether this one is worth a line: how many were left out since the last, or ``None``."""
        last, left_out = self._told.get(kind, (None, 0))
        if last is not None and now < last + self._pause:
            self._told[kind] = (last, left_out + 1)
            return None
        self._told.pop(kind, None)
        if len(self._told) >= self._kinds:
            del self._told[next(iter(self._told))]
        self._told[kind] = (now, 0)
        return left_out
