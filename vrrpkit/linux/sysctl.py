"""Kernel settings of one network namespace, put back when the last who wanted them is done."""

from __future__ import annotations

import logging
import os

from vrrpkit.linux.netns import Namespace

__all__ = ["Sysctls", "read_proc"]

log = logging.getLogger(__name__)


def read_proc(path: str) -> str:
    """The text of a file in /proc.

    :raises OSError: it cannot be read.
    """
    # Not open(): proc never blocks, and detectors of blocking calls know that only
    # of descriptors that say so.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        parts: list[bytes] = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="replace")


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


class _Loan:
    """One setting that was changed: by how many, from what, to what."""

    def __init__(self, before: str, value: str, holders: int) -> None:
        self.before = before
        self.value = value
        self.holders = holders


class Sysctls:
    """Reads and borrows settings below ``/proc/sys/net``.

    Names are paths, as in ``ipv4/conf/eth0/arp_ignore``, for interface names may contain dots.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._loans: dict[str, _Loan] = {}

    def read(self, name: str) -> int | None:
        """The value of a setting that is a number; ``None`` where the kernel has none such."""
        try:
            with self._namespace.inside():
                return int(read_proc(f"/proc/sys/net/{name}"))
        except (OSError, ValueError):
            return None

    def write(self, name: str, value: int) -> None:
        """Set a setting for good. One that this kernel does not have is passed over.

        :raises OSError: the kernel refused.
        """
        try:
            with self._namespace.inside():
                _write(f"/proc/sys/net/{name}", str(value))
        except FileNotFoundError:
            log.debug("this kernel has no setting net/%s", name)

    def before(self, name: str) -> int | None:
        """What is to be restored after another :meth:`borrow`."""
        now = self.read(name)
        loan = self._loans.get(name)
        return int(loan.before) if loan is not None and str(now) == loan.value else now

    def borrow(self, name: str, value: int, before: int | None = None) -> None:
        """Set a setting until :meth:`give_back`. Others may borrow it too, at the same value.

        :param before: what to restore instead of the value now, which a killed run left behind.
        :raises OSError: the kernel refused.
        """
        now = self.read(name)
        loan = self._loans.get(name)
        if now is not None and (loan is None or str(now) != loan.value):
            # A setting that was lent may have been changed since, or its interface made again.
            self.write(name, value)
            holders = 0 if loan is None else loan.holders
            loan = _Loan(str(now if before is None else before), str(value), holders)
            self._loans[name] = loan
        if loan is not None:
            loan.holders += 1

    def give_back(self, name: str, *, restore: bool = True) -> None:
        """End one loan; with the last one the old value returns, unless it was changed
        since, or ``restore`` is false: another process needs it."""
        loan = self._loans.get(name)
        if loan is None:
            return
        loan.holders -= 1
        if loan.holders:
            return
        del self._loans[name]
        if not restore:
            return
        now = self.read(name)
        if now is not None and str(now) == loan.value:
            self._restore(name, loan.before)

    def recall(self, name: str, value: int, before: int) -> None:
        """Put back a setting that a killed run has left at ``value``: now, or when those are done
        who have borrowed it since."""
        loan = self._loans.get(name)
        if loan is not None:
            loan.before = str(before)
        elif self.read(name) == value:
            self._restore(name, str(before))

    def _restore(self, name: str, before: str) -> None:
        try:
            self.write(name, int(before))
        except OSError as problem:
            log.warning("net/%s was %s and cannot be restored: %s", name, before, problem)
