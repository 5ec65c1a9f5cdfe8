"""What a virtual server asks of an IPVS table; ``kernel/`` and ``memory/`` provide it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.model.entries import Operation, ServiceEntry, ServiceKey, Snapshot
from vrrpkit.validate import text, whole_number
from vrrpkit.values import IPAddress, parse_address

__all__ = [
    "ConnectionTimeouts",
    "SyncDaemon",
    "SyncRole",
    "Table",
    "require_table",
    "sync_group",
]

LONGEST_NAME = 15
"""Octets of the name of a network interface: IFNAMSIZ less the terminator."""


class SyncRole(enum.StrEnum):
    """What a connection sync daemon does (ipvsadm: ``--start-daemon``)."""

    MASTER = "master"
    """Sends the director's connections."""
    BACKUP = "backup"
    """Takes them over from another director."""


def sync_group(value: str | IPAddress | None) -> IPAddress | None:
    """The multicast group of a connection sync daemon; ``None`` is the kernel's own.

    :raises ConfigError: it is no address.
    """
    return None if value is None else parse_address(value, "group")


@attrs.frozen(kw_only=True)
class SyncDaemon:
    """A connection sync daemon of the kernel (keepalived: ``lvs_sync_daemon``).

    The parameters besides ``role`` are those of :class:`vrrpkit.ipvs.ConnectionSyncConfig`;
    ``None`` is what the kernel chooses.

    :param role: see :class:`SyncRole`.
    """

    role: SyncRole
    interface: str
    id: int = 0
    maxlen: int | None = None
    group: IPAddress | None = attrs.field(default=None, converter=sync_group)
    port: int | None = None
    ttl: int | None = None

    def __attrs_post_init__(self) -> None:
        text("sync daemon: interface", self.interface, "'eth1'", empty=True)
        if not self.interface:
            raise ConfigError("sync daemon: interface is empty; name the one between the directors")
        if len(self.interface.encode()) > LONGEST_NAME:
            raise ConfigError(
                f"sync daemon: interface {self.interface!r} is too long: names have at most "
                f"{LONGEST_NAME} octets"
            )
        whole_number("sync daemon: id", self.id, 0, 255, "both directors use the same")
        for name, value, high in (
            ("maxlen", self.maxlen, 65507),
            ("port", self.port, 65535),
            ("ttl", self.ttl, 255),
        ):
            if value is not None:
                whole_number(f"sync daemon: {name}", value, 1, high, "None is the kernel's own")
        if self.group is not None and not self.group.is_multicast:
            raise ConfigError(f"sync daemon: group {self.group} must be a multicast address")


@attrs.frozen(kw_only=True)
class ConnectionTimeouts:
    """Seconds after which an idle connection is forgotten (keepalived: ``lvs_timeouts``; ipvsadm:
    ``--set``)."""

    tcp: int
    tcp_fin: int
    udp: int


@runtime_checkable
class Table(Protocol):
    """An IPVS table: the kernel's, or one in memory. All methods are to be called on one loop."""

    async def open(self) -> None:
        """Get ready; may be called by many users, each of whom calls :meth:`close` once.

        :raises PermissionMissing: CAP_NET_ADMIN is missing.
        :raises ModuleMissing: this kernel has no IPVS.
        """
        ...

    async def close(self) -> None:
        """Give up one :meth:`open`; the last one frees what the table holds. The entries stay."""
        ...

    def require(self, schedulers: Iterable[str], engines: Iterable[str] = ()) -> None:
        """Make sure that the kernel has these schedulers and persistence engines, loading modules
        where that is allowed.

        :raises ModuleMissing: it lacks one.
        """
        ...

    async def read(self) -> Snapshot:
        """The whole table, with the connections and counters of now."""
        ...

    async def read_service(self, key: ServiceKey) -> ServiceEntry | None:
        """One service with its real servers, or ``None`` if it is not there."""
        ...

    async def apply(self, operations: Sequence[Operation]) -> list[OSError | None]:
        """Carry out operations in order, in as few system calls as possible; how each ended.

        One that the kernel refuses does not stop the ones after it.
        """
        ...

    async def flush(self) -> None:
        """Remove every service, also those of other programs (``lvs_flush``; ipvsadm: ``-C``)."""
        ...

    async def timeouts(self) -> ConnectionTimeouts:
        """The timeouts now."""
        ...

    async def set_timeouts(
        self, *, tcp: int | None = None, tcp_fin: int | None = None, udp: int | None = None
    ) -> None:
        """Change timeouts, in seconds from 1; ``None`` leaves one as it is.

        :raises ConfigError: a value is out of range.
        """
        ...

    async def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """The connection sync daemons that run now."""
        ...

    async def start_sync_daemon(self, daemon: SyncDaemon) -> None:
        """Start one; the kernel runs at most one of each role.

        :raises KernelRefused: it runs already, there is no such interface, ...
        """
        ...

    async def stop_sync_daemon(self, role: SyncRole) -> None:
        """Stop one; without effect when none of that role runs."""
        ...


def require_table(what: str, value: object) -> None:
    """Refuse what is no IPVS table; ``what`` begins the message.

    :raises ConfigError: it is neither ``None`` nor a table.
    """
    if value is not None and (isinstance(value, type) or not isinstance(value, Table)):
        raise ConfigError(
            f"{what}: table {value!r} is no IPVS table; write MemoryTable(), or leave it out for "
            "the kernel's"
        )
