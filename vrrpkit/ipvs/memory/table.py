"""An IPVS table in memory: what a director does to the kernel, without a kernel.

::

    table = MemoryTable()
    async with VirtualServer("192.0.2.10:80", servers=["10.0.0.1:80", "10.0.0.2:80"], table=table):
        (web,) = service_keys("192.0.2.10:80")
        server = table.connect(web, client="198.51.100.7")

It refuses what the kernel refuses, with the same errors. Another program that changes the table is
played by calling :meth:`MemoryTable.apply`.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import assert_never

import attrs

from vrrpkit.errors import KernelRefused, ModuleMissing
from vrrpkit.ipvs.base import ConnectionTimeouts, SyncDaemon, SyncRole
from vrrpkit.ipvs.memory.rules import unfit_destination, unfit_service
from vrrpkit.ipvs.memory.traffic import Traffic
from vrrpkit.ipvs.model.entries import (
    ENGINES,
    MIXED,
    SCHEDULERS,
    AddDestination,
    AddService,
    DeleteDestination,
    DeleteService,
    Destination,
    DestinationEntry,
    DestinationKey,
    EditDestination,
    EditService,
    Operation,
    Service,
    ServiceEntry,
    ServiceKey,
    Snapshot,
)
from vrrpkit.validate import whole_number
from vrrpkit.values import IPAddress, parse_address

__all__ = ["MemoryTable"]

LONGEST_TIMEOUT = 2_147_483

SYNC_GROUP = IPv4Address("224.0.0.81")
SYNC_PORT = 8848
SYNC_MTU = 1500
SYNC_HEADERS = {4: 28, 6: 48}


class _Record:
    """A service with what happens to it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.destinations: dict[DestinationKey, DestinationEntry] = {}
        self.traffic = Traffic()

    def entry(self, now: float) -> ServiceEntry:
        self.traffic.expire(self.destinations, now)
        return ServiceEntry(
            service=self.service,
            destinations=dict(self.destinations),
            counters=self.traffic.counters,
        )


class MemoryTable:
    """An IPVS table in memory (implements :class:`vrrpkit.ipvs.base.Table`).

    :param missing: schedulers and persistence engines that this kernel does not have.
    :param interfaces: the network interfaces that it has, for sync daemons; ``None`` is any.
    :param delay: seconds that each request takes.
    """

    def __init__(
        self,
        *,
        missing: Iterable[str] = (),
        interfaces: Iterable[str] | None = None,
        delay: float = 0.0,
    ) -> None:
        self.modules = frozenset((*SCHEDULERS, *ENGINES)) - frozenset(missing)
        """Schedulers and persistence engines that there are."""
        self.interfaces = None if interfaces is None else frozenset(interfaces)
        self.delay = delay
        self.operations: list[list[Operation]] = []
        """What :meth:`apply` was asked for, call by call, refused operations included."""
        self.users = 0
        """How many have called :meth:`open` and not yet :meth:`close`."""
        self._records: dict[ServiceKey, _Record] = {}
        self._trash: dict[tuple[ServiceKey, DestinationKey], DestinationEntry] = {}
        self._refusals: dict[object, tuple[Callable[[Operation], bool], int]] = {}
        self._timeouts = ConnectionTimeouts(tcp=900, tcp_fin=120, udp=300)
        self._daemons: dict[SyncRole, SyncDaemon] = {}

    async def open(self) -> None:
        """Count one more user."""
        self.users += 1

    async def close(self) -> None:
        """Count one user less; the entries stay."""
        self.users -= 1

    def require(self, schedulers: Iterable[str], engines: Iterable[str] = ()) -> None:
        """Make sure that these schedulers and persistence engines are there.

        :raises ModuleMissing: one is not.
        """
        for scheduler in schedulers:
            if scheduler not in self.modules:
                raise ModuleMissing(f"ip_vs_{scheduler}", f"the scheduler {scheduler!r}")
        for engine in engines:
            if engine and engine not in self.modules:
                raise ModuleMissing(f"ip_vs_pe_{engine}", f"the persistence engine {engine!r}")

    async def read(self) -> Snapshot:
        """The whole table, with the connections and counters of now."""
        now = asyncio.get_running_loop().time()
        found = {key: record.entry(now) for key, record in self._records.items()}
        await asyncio.sleep(self.delay)
        return found

    async def read_service(self, key: ServiceKey) -> ServiceEntry | None:
        """One service with its real servers, or ``None`` if it is not there."""
        record = self._records.get(key)
        now = asyncio.get_running_loop().time()
        found = None if record is None else record.entry(now)
        await asyncio.sleep(self.delay)
        return found

    async def apply(self, operations: Sequence[Operation]) -> list[OSError | None]:
        """Carry out operations in order; how each ended.

        They take effect at once; the answer comes after :attr:`delay`.
        """
        self.operations.append(list(operations))
        answers = [self._answer(operation) for operation in operations]
        await asyncio.sleep(self.delay)
        return answers

    async def flush(self) -> None:
        """Remove every service, also those of other programs."""
        for key in list(self._records):
            self._delete_service(key)
        await asyncio.sleep(self.delay)

    async def timeouts(self) -> ConnectionTimeouts:
        """The timeouts now; nothing in memory expires by them."""
        return self._timeouts

    async def set_timeouts(
        self, *, tcp: int | None = None, tcp_fin: int | None = None, udp: int | None = None
    ) -> None:
        """Change timeouts, in seconds from 1 to 2147483; ``None`` leaves one as it is.

        :raises ConfigError: a value is out of range.
        """
        given = {"tcp": tcp, "tcp_fin": tcp_fin, "udp": udp}
        changes = {name: value for name, value in given.items() if value is not None}
        for name, value in changes.items():
            hint = "seconds; None leaves it as it is"
            whole_number(f"timeout {name}", value, 1, LONGEST_TIMEOUT, hint)
        self._timeouts = attrs.evolve(self._timeouts, **changes)

    async def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """The connection sync daemons that run now, with every value that the kernel uses."""
        return tuple(self._daemons.values())

    async def start_sync_daemon(self, daemon: SyncDaemon) -> None:
        """Start one; at most one of each role runs.

        :raises KernelRefused: it runs already, there is no such interface, or the table has a real
            server of another address family than its service.
        """
        what = f"cannot start the {daemon.role.value} sync daemon on {daemon.interface}"
        if daemon.role in self._daemons:
            raise _refused(errno.EEXIST, what)
        if self.interfaces is not None and daemon.interface not in self.interfaces:
            raise _refused(errno.ENODEV, what)
        if any(
            key.address.version != service.family
            for service, record in self._records.items()
            for key in record.destinations
        ):
            raise _refused(errno.EINVAL, what, f" ({MIXED})")
        group = daemon.group or SYNC_GROUP
        self._daemons[daemon.role] = attrs.evolve(
            daemon,
            maxlen=daemon.maxlen or SYNC_MTU - SYNC_HEADERS[group.version],
            group=group,
            port=daemon.port or SYNC_PORT,
            ttl=daemon.ttl or 1,
        )

    async def stop_sync_daemon(self, role: SyncRole) -> None:
        """Stop one; without effect when none of that role runs."""
        self._daemons.pop(role, None)

    def refuse(
        self, which: Operation | Callable[[Operation], bool], number: int = errno.EINVAL
    ) -> Callable[[], None]:
        """Answer some operations by an error, until the function that is returned is called.

        :param which: one operation, or a predicate.
        :param number: the error, a number of :mod:`errno`.
        """

        def equals(operation: Operation) -> bool:
            return operation == which

        matches = which if callable(which) else equals
        token = object()
        self._refusals[token] = matches, number
        return lambda: _drop(self._refusals, token)

    def connect(
        self, service: ServiceKey, client: str | IPAddress = "198.51.100.1"
    ) -> DestinationKey | None:
        """Let a client open a connection; the real server that it reaches, or ``None``.

        This is a simulation that spreads as the weights say and repeats exactly. Of the schedulers,
        rr and wrr take turns; for all others the next one is that with the fewest connections for
        its weight (lc: without weights). Thresholds, persistence and one-packet scheduling have the
        kernel's effect. A connection lasts until :meth:`disconnect`, also without its server.
        """
        record = self._records.get(service)
        if record is None:
            return None
        now = asyncio.get_running_loop().time()
        address = parse_address(client, "client")
        return record.traffic.connect(record.service, record.destinations, address, now)

    def disconnect(self, service: ServiceKey, server: DestinationKey) -> None:
        """Let one connection to a real server end, which may be removed already.

        :raises LookupError: it has none.
        """
        entry = self._entry(service, server)
        if entry is None or not entry.active + entry.inactive:
            raise LookupError(f"{server} of {service} has no connection")
        if entry.active:
            self.set_connections(service, server, active=entry.active - 1)
        else:
            self.set_connections(service, server, inactive=entry.inactive - 1)

    def set_connections(
        self,
        service: ServiceKey,
        server: DestinationKey,
        *,
        active: int | None = None,
        inactive: int | None = None,
    ) -> None:
        """Say how many connections a real server has; ``None`` leaves a number as it is.

        :raises LookupError: there is no such real server.
        """
        entry = self._entry(service, server)
        if entry is None:
            raise LookupError(f"there is no {server} of {service}")
        entry = attrs.evolve(
            entry,
            active=entry.active if active is None else active,
            inactive=entry.inactive if inactive is None else inactive,
        )
        record = self._records.get(service)
        if record is not None and server in record.destinations:
            record.destinations[server] = entry
            record.traffic.weigh(entry)
        else:
            self._throw_away(service, entry)

    def _entry(self, service: ServiceKey, server: DestinationKey) -> DestinationEntry | None:
        record = self._records.get(service)
        entry = None if record is None else record.destinations.get(server)
        return self._trash.get((service, server)) if entry is None else entry

    def _answer(self, operation: Operation) -> OSError | None:
        for matches, number in self._refusals.values():
            if matches(operation):
                return OSError(number, os.strerror(number))
        number = self._carry_out(operation)
        return OSError(number, os.strerror(number)) if number else None

    def _carry_out(self, operation: Operation) -> int:
        match operation:
            case AddService(service):
                return self._add_service(service)
            case EditService(service):
                return self._edit_service(service)
            case DeleteService(key):
                return self._delete_service(key)
            case AddDestination(service, destination):
                return self._add_destination(service, destination)
            case EditDestination(service, destination):
                return self._edit_destination(service, destination)
            case DeleteDestination(service, key):
                return self._delete_destination(service, key)
            case _:
                assert_never(operation)

    def _add_service(self, service: Service) -> int:
        if service.key in self._records:
            return errno.EEXIST
        number = unfit_service(service, self.modules)
        if not number:
            self._records[service.key] = _Record(service)
        return number

    def _edit_service(self, service: Service) -> int:
        record = self._records.get(service.key)
        if record is None:
            return errno.ESRCH
        number = unfit_service(service, self.modules)
        if not number:
            record.service = service
        return number

    def _delete_service(self, key: ServiceKey) -> int:
        record = self._records.pop(key, None)
        if record is None:
            return errno.ESRCH
        for entry in record.destinations.values():
            self._throw_away(key, entry)
        return 0

    def _add_destination(self, service: ServiceKey, destination: Destination) -> int:
        record = self._records.get(service)
        if record is None:
            return errno.ESRCH
        if number := unfit_destination(service, destination, bool(self._daemons)):
            return number
        if destination.key in record.destinations:
            return errno.EEXIST
        trashed = self._trash.pop((service, destination.key), None)
        entry = DestinationEntry(
            destination=destination,
            active=0 if trashed is None else trashed.active,
            inactive=0 if trashed is None else trashed.inactive,
        )
        record.destinations[destination.key] = entry
        record.traffic.weigh(entry)
        return 0

    def _edit_destination(self, service: ServiceKey, destination: Destination) -> int:
        record = self._records.get(service)
        if record is None:
            return errno.ESRCH
        if number := unfit_destination(service, destination, bool(self._daemons)):
            return number
        entry = record.destinations.get(destination.key)
        if entry is None:
            return errno.ENOENT
        record.destinations[destination.key] = attrs.evolve(entry, destination=destination)
        record.traffic.limits_changed(entry.destination, destination)
        return 0

    def _delete_destination(self, service: ServiceKey, key: DestinationKey) -> int:
        record = self._records.get(service)
        if record is None:
            return errno.ESRCH
        entry = record.destinations.pop(key, None)
        if entry is None:
            return errno.ENOENT
        record.traffic.forget(key)
        self._throw_away(service, entry)
        return 0

    def _throw_away(self, service: ServiceKey, entry: DestinationEntry) -> None:
        # A real server that comes back finds its connections again.
        where = service, entry.destination.key
        self._trash.pop(where, None)
        if entry.active or entry.inactive:
            self._trash[where] = entry


def _drop(refusals: dict[object, tuple[Callable[[Operation], bool], int]], token: object) -> None:
    refusals.pop(token, None)


def _refused(number: int, what: str, hint: str = "") -> KernelRefused:
    return KernelRefused(number, f"{what}: {os.strerror(number)}{hint}")
