"""The IPVS table of the kernel, through generic netlink."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple, ParamSpec, TypeVar

import attrs

from vrrpkit.errors import KernelRefused, ModuleMissing, PermissionMissing
from vrrpkit.ipvs.base import ConnectionTimeouts, SyncDaemon, SyncRole
from vrrpkit.ipvs.kernel import constants, records, requests as ipvs_requests
from vrrpkit.ipvs.model.entries import (
    MIXED,
    DestinationEntry,
    DestinationKey,
    Operation,
    ServiceEntry,
    ServiceKey,
    Snapshot,
)
from vrrpkit.linux import capabilities
from vrrpkit.linux.netlink import CHUNK, GENERIC, Netlink, NetlinkMessage
from vrrpkit.linux.netns import Namespace, identity
from vrrpkit.runtime import Runtime
from vrrpkit.validate import whole_number

__all__ = ["KernelTable"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_TIMEOUT = 2_147_483
"""Seconds; a kernel with 1000 ticks a second cannot count more."""

READ_TRIES = 3

TURN = 0.005
"""Seconds that the event loop may wait for a chunk before the next one is made smaller."""

NEEDED = {"CAP_NET_ADMIN": "balancing connections with IPVS"}


class _Kernel(NamedTuple):
    netlink: Netlink
    family: int
    namespace: Namespace
    resources: ExitStack


class KernelTable:
    """The IPVS table of a network namespace (implements :class:`vrrpkit.ipvs.base.Table`).

    Every method that asks something of the kernel needs :meth:`open` before.

    :param netns: a name in ``/run/netns``; ``None`` is the namespace that the thread is in when
        the table is opened.
    """

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns
        self._users = 0
        self._opened: _Kernel | None = None
        self._changes = 0
        self._puzzled = False

    @classmethod
    def current(cls, netns: str | None = None) -> KernelTable:
        """The table of the running loop and of a network namespace: the same object for all.

        :raises HostError: there is no such namespace.
        """
        return Runtime.current().use(cls, identity(netns), lambda: cls(netns))

    @property
    def netns(self) -> str | None:
        """The network namespace, as it was given."""
        return self._netns

    async def open(self) -> None:
        """Get ready; may be called by many users, each of whom calls :meth:`close` once.

        :raises PermissionMissing: CAP_NET_ADMIN is missing.
        :raises ModuleMissing: this kernel has no IPVS.
        :raises HostError: there is no such namespace.
        """
        if self._opened is None:
            self._opened = _open(self._netns)
        self._users += 1

    async def close(self) -> None:
        """Give up one :meth:`open`; with the last one the socket is closed. The entries stay."""
        self._users -= 1
        if self._users == 0:
            self.shutdown()

    def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            opened.resources.close()

    @property
    def _kernel(self) -> _Kernel:
        if self._opened is None:
            raise RuntimeError("the IPVS table is not open")
        return self._opened

    def require(self, schedulers: Iterable[str], engines: Iterable[str] = ()) -> None:
        """Make sure that the kernel has these schedulers and persistence engines; it loads their
        modules if it can. Nothing else is changed.

        :raises ModuleMissing: it lacks one.
        """
        wanted = list(schedulers)
        for scheduler in wanted:
            if self._lacks(scheduler, ""):
                raise ModuleMissing(f"ip_vs_{scheduler}", f"the scheduler {scheduler!r}")
        for engine in engines:
            if engine and self._lacks(wanted[0] if wanted else "none", engine):
                raise ModuleMissing(f"ip_vs_pe_{engine}", f"the persistence engine {engine!r}")

    def _lacks(self, scheduler: str, engine: str) -> bool:
        kernel = self._kernel
        (answer,) = kernel.netlink.exchange([ipvs_requests.probe(kernel.family, scheduler, engine)])
        return answer is not None and answer.errno == errno.ENOENT

    async def read(self) -> Snapshot:
        """The whole table, with the connections and counters of now. Other callbacks of the event
        loop run between two parts of it."""
        found: dict[ServiceKey, ServiceEntry] = {}
        for message in self._dump(constants.GET_SERVICE):
            entry = self._understood(records.service, message.payload)
            if entry is not None:
                found[entry.service.key] = await self._complete(entry)
        return found

    async def read_service(self, key: ServiceKey) -> ServiceEntry | None:
        """One service with its real servers, or ``None`` if it is not there."""
        kernel = self._kernel
        body = ipvs_requests.header(constants.GET_SERVICE) + ipvs_requests.about(key)
        try:
            answer = kernel.netlink.get(kernel.family, body)
        except OSError as problem:
            if problem.errno == errno.ESRCH:
                return None
            raise
        entry = self._understood(records.service, answer.payload)
        return None if entry is None else await self._complete(entry)

    async def _complete(self, entry: ServiceEntry) -> ServiceEntry:
        for _try in range(READ_TRIES):
            changes = self._changes
            whole, destinations = await self._destinations(entry.service.key, yields=True)
            # The kernel goes on by the number of the real server: one that is removed meanwhile
            # hides another.
            if whole and changes == self._changes:
                break
        else:
            _, destinations = await self._destinations(entry.service.key, yields=False)
        return attrs.evolve(entry, destinations=destinations)

    async def _destinations(
        self, key: ServiceKey, *, yields: bool
    ) -> tuple[bool, dict[DestinationKey, DestinationEntry]]:
        kernel = self._kernel
        body = ipvs_requests.header(constants.GET_DEST) + ipvs_requests.about(key)
        found: dict[DestinationKey, DestinationEntry] = {}
        whole = True
        # A socket of its own: others ask the kernel between two parts.
        with closing(Netlink(kernel.namespace, GENERIC)) as netlink:
            for part_whole, part in netlink.parts(kernel.family, body):
                whole = whole and part_whole
                for message in part:
                    entry = self._understood(records.destination, message.payload, key.family)
                    if entry is not None:
                        found[entry.destination.key] = entry
                if yields:
                    await asyncio.sleep(0)
        return whole, found

    def _dump(self, command: int) -> list[NetlinkMessage]:
        kernel = self._kernel
        return kernel.netlink.dump(kernel.family, ipvs_requests.header(command))

    async def apply(self, operations: Sequence[Operation]) -> list[OSError | None]:
        """Carry out operations in order; how each ended. Other callbacks of the event loop run
        between two chunks of them.

        One that the kernel refuses does not stop the ones after it.
        """
        answers: list[OSError | None] = []
        size = CHUNK
        while len(answers) < len(operations):
            if answers:
                await asyncio.sleep(0)
            started = time.perf_counter()
            kernel = self._kernel
            chunk = operations[len(answers) : len(answers) + size]
            self._changes += 1
            requests = [ipvs_requests.operation(kernel.family, wanted) for wanted in chunk]
            answers += kernel.netlink.exchange(requests)
            # With thousands of real servers, mh takes the kernel a millisecond for each change.
            slow = time.perf_counter() - started > TURN
            size = max(size // 2, 1) if slow else min(size * 2, CHUNK)
        return answers

    async def flush(self) -> None:
        """Remove every service, also those of other programs.

        :raises KernelRefused: the kernel did not.
        """
        self._changes += 1
        self._request(
            ipvs_requests.request(self._kernel.family, constants.FLUSH), "empty the IPVS table"
        )

    async def timeouts(self) -> ConnectionTimeouts:
        """The timeouts now."""
        kernel = self._kernel
        answer = kernel.netlink.get(kernel.family, ipvs_requests.header(constants.GET_CONFIG))
        return records.timeouts(answer.payload)

    async def set_timeouts(
        self, *, tcp: int | None = None, tcp_fin: int | None = None, udp: int | None = None
    ) -> None:
        """Change timeouts, in seconds from 1 to 2147483; ``None`` leaves one as it is.

        :raises ConfigError: a value is out of range.
        :raises KernelRefused: the kernel did not take them.
        """
        for name, value in (("tcp", tcp), ("tcp_fin", tcp_fin), ("udp", udp)):
            if value is not None:
                hint = "seconds; None leaves it as it is"
                whole_number(f"timeout {name}", value, 1, LONGEST_TIMEOUT, hint)
        request = ipvs_requests.set_timeouts(self._kernel.family, tcp or 0, tcp_fin or 0, udp or 0)
        self._request(request, "set the timeouts of connections")

    async def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """The connection sync daemons that run now, with every value that the kernel uses."""
        dump = self._dump(constants.GET_DAEMON)
        found = [self._understood(records.daemon, message.payload) for message in dump]
        return tuple(daemon for daemon in found if daemon is not None)

    def _understood(self, decoder: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What a decoder makes of a message. One that it cannot read must not hide the others: it
        is left out, and logged once."""
        try:
            return decoder(*args, **kwargs)
        except records.Garbled as problem:
            log.log(logging.DEBUG if self._puzzled else logging.WARNING, "%s", problem.strerror)
            self._puzzled = True
            return None

    async def start_sync_daemon(self, daemon: SyncDaemon) -> None:
        """Start one; the kernel runs at most one of each role.

        :raises KernelRefused: it runs already, there is no such interface, ...
        """
        kernel = self._kernel
        (answer,) = kernel.netlink.exchange([ipvs_requests.start_daemon(kernel.family, daemon)])
        if answer is not None:
            hint = f" ({MIXED})" if answer.errno == errno.EINVAL else ""
            what = f"start the {daemon.role.value} sync daemon on {daemon.interface}"
            raise _refused(answer, what, hint)

    async def stop_sync_daemon(self, role: SyncRole) -> None:
        """Stop one; without effect when none of that role runs.

        :raises KernelRefused: it runs on.
        """
        kernel = self._kernel
        (answer,) = kernel.netlink.exchange([ipvs_requests.stop_daemon(kernel.family, role)])
        # Of a daemon that has not run since it was started the kernel gives no answer (EINTR).
        if answer is not None and any(found.role is role for found in await self.sync_daemons()):
            raise _refused(answer, f"stop the {role.value} sync daemon")

    def _request(self, message: bytearray, what: str) -> None:
        (answer,) = self._kernel.netlink.exchange([message])
        if answer is not None:
            raise _refused(answer, what)


def _refused(answer: OSError, what: str, hint: str = "") -> KernelRefused:
    return KernelRefused(answer.errno, f"cannot {what}: {answer.strerror}{hint}")


def _open(netns: str | None) -> _Kernel:
    capabilities.require(NEEDED)
    with ExitStack() as stack:
        namespace = Namespace(netns)
        stack.callback(namespace.close)
        netlink = Netlink(namespace, GENERIC)
        stack.callback(netlink.close)
        family = _family(netlink)
        try:
            netlink.get(family, ipvs_requests.header(constants.GET_INFO))
        except PermissionError:
            # In a user namespace a thread may have the capability and yet not for IPVS.
            raise PermissionMissing("CAP_NET_ADMIN", NEEDED["CAP_NET_ADMIN"]) from None
        return _Kernel(netlink, family, namespace, stack.pop_all())
    raise AssertionError("an exit stack swallows nothing")


def _family(netlink: Netlink) -> int:
    try:
        answer = netlink.get(constants.CONTROLLER, ipvs_requests.which_family("IPVS"))
    except FileNotFoundError:
        raise ModuleMissing("ip_vs", "balancing connections") from None
    return records.family(answer.payload)
