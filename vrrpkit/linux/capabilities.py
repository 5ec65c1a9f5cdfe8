"""Which Linux capabilities the calling thread has (capabilities(7))."""

from __future__ import annotations

from vrrpkit.errors import PermissionMissing
from vrrpkit.linux.sysctl import read_proc

__all__ = ["require"]

NUMBERS = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}


def _effective() -> int:
    for line in read_proc("/proc/thread-self/status").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def require(purposes: dict[str, str]) -> None:
    """Refuse to go on without capabilities.

    :param purposes: what each capability is needed for.
    :raises PermissionMissing: the first one that is missing.
    """
    effective = _effective()
    for name, purpose in purposes.items():
        if not effective >> NUMBERS[name] & 1:
            raise PermissionMissing(name, purpose)
