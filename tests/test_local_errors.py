"""Whose trouble an error is, and which complaints are worth a line."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

from vrrpkit.errors import (
    CheckFailed,
    CouldNotAsk,
    KernelRefused,
    PermissionMissing,
    UntrustedCommand,
)
from vrrpkit.local_errors import Complaints, advised, own_trouble

OURS = (
    "EMFILE ENFILE ENOBUFS ENOMEM EAGAIN EADDRNOTAVAIL EADDRINUSE",
    "EACCES EPERM ENODEV ECHILD ENOSPC EAFNOSUPPORT",
)
THEIRS = (
    "ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ETIMEDOUT EHOSTUNREACH EHOSTDOWN",
    "ENETUNREACH ENETDOWN ENOENT ENOEXEC EPROTO EINVAL",
)


@pytest.mark.parametrize("name", " ".join(OURS).split())
def test_ours(name: str) -> None:
    number = getattr(errno, name)
    assert own_trouble(OSError(number, os.strerror(number)))
    assert own_trouble(KernelRefused(number, os.strerror(number)))


@pytest.mark.parametrize("name", " ".join(THEIRS).split())
def test_the_servers(name: str) -> None:
    number = getattr(errno, name)
    assert not own_trouble(OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("problem", "ours"),
    [
        (CouldNotAsk("no answer"), True),
        (PermissionMissing("CAP_NET_RAW", "a ping"), True),
        (MemoryError(), True),
        (CheckFailed("refused"), False),
        (UntrustedCommand("others may change it"), False),
        (TimeoutError(), False),
        (ValueError(24), False),
        (OSError("no number"), False),
        # Their numbers are not the system's: 1 is EPERM there, 11 is EAGAIN.
        (ssl.SSLError(1, "alert"), False),
        (ssl.SSLCertVerificationError(1, "expired"), False),
        (socket.gaierror(11, "System error"), False),
        (socket.herror(1, "Unknown host"), False),
        (ExceptionGroup("", [OSError(errno.EMFILE, ""), MemoryError()]), True),
        (ExceptionGroup("", [OSError(errno.EMFILE, ""), ValueError()]), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_others(problem: BaseException, ours: bool) -> None:
    assert own_trouble(problem) is ours


def test_advice() -> None:
    assert advised("no", None) == advised("no", errno.ENOMEM) == "no"
    assert advised("no", errno.EMFILE).startswith("no (raise the limit on open files: LimitNOFILE=")


def test_complaints_are_bounded_and_counted() -> None:
    complaints = Complaints(pause=300, kinds=2)
    assert [complaints.worth("a", now) for now in (0, 1, 299.9)] == [0, None, None]
    assert complaints.worth("b", 299.9) == 0
    assert [complaints.worth("a", now) for now in (300, 301, 600)] == [2, None, 1]
    # A third kind: the one that was told the longest ago is forgotten.
    assert complaints.worth("c", 601) == 0
    assert complaints.worth("a", 601) is None
    assert complaints.worth("b", 602) == 0
