"""ConnectionSync: the connections of one director are known to the other (keepalived:
``lvs_sync_daemon``)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias
from weakref import WeakSet

import attrs

from vrrpkit.configured import configured_by, described, values_of
from vrrpkit.errors import HostError
from vrrpkit.ipvs.base import SyncRole, Table, require_table
from vrrpkit.ipvs.config import ConnectionSyncConfig
from vrrpkit.ipvs.health import Followed, name_of, require_followed, require_named
from vrrpkit.lifecycle.fork import ProcessOrigin
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.lifecycle.worker import Worker
from vrrpkit.observable import Observable
from vrrpkit.publishing import Hub
from vrrpkit.values import Stamped, State
from vrrpkit.vrrp.instance import VRRPInstance
from vrrpkit.vrrp.protocol.events import Transition
from vrrpkit.vrrp.syncgroup import GroupTransition

__all__ = ["ConnectionSync", "SyncEvent", "SyncRefused", "SyncSwitched"]

log = logging.getLogger(__name__)

RETRY = 10.0
"""Seconds after which what the kernel refused is tried again."""

ORDER = (SyncRole.MASTER, SyncRole.BACKUP)

_taken: WeakSet[Table] = WeakSet()


@attrs.frozen(kw_only=True)
class SyncSwitched(Stamped):
    """Other daemons run than before."""

    interface: str
    at: float
    """Seconds of the event loop's clock."""
    roles: tuple[SyncRole, ...]
    """Those that run now."""

    def __str__(self) -> str:
        roles = " and ".join(role.value for role in self.roles) or "none"
        return f"connection sync on {self.interface}: {roles}"


@attrs.frozen(kw_only=True)
class SyncRefused(Stamped):
    """The kernel did not start or stop a daemon. Published once, and tried again."""

    interface: str
    at: float
    """Seconds of the event loop's clock."""
    failure: str
    retry_in: float
    """Seconds until the next try."""

    def __str__(self) -> str:
        return (
            f"connection sync on {self.interface}: {self.failure}; next try in {self.retry_in:g} s"
        )


SyncEvent: TypeAlias = SyncSwitched | SyncRefused
"""What ``events()`` of a :class:`ConnectionSync` may yield, besides ``EventsLost``."""


def _what(config: ConnectionSyncConfig) -> str:
    return f"connection sync on {config.interface}"


@attrs.frozen
class _ConnectionSyncArguments(ConnectionSyncConfig):
    """The description, and the live objects that no description can have.

    :param follows: the virtual router, or the group, whose MASTER sends. Without it this director
        does both, for directors that serve at the same time.
    :param table: a :class:`vrrpkit.MemoryTable`; by default the kernel's.
    """

    # The object itself takes the place of its name.
    follows: Followed | None = attrs.field(  # type: ignore[assignment]
        default=None, kw_only=True, eq=False, repr=False
    )
    table: Table | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    config: ConnectionSyncConfig = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config = described(ConnectionSyncConfig, self, follows=name_of(self.follows))
        object.__setattr__(self, "config", config)
        require_followed(_what(config), self.follows)
        require_table(_what(config), self.table)


class ConnectionSync(Observable[SyncEvent]):
    """Runs the kernel's connection sync daemons, so that a takeover cuts no connection::

        async with (
            VRRPInstance("web", "eth0", vrid=51, vips=["192.0.2.10/32"]) as router,
            ConnectionSync("eth1", follows=router),
            VirtualServer("192.0.2.10:80", servers=servers, follows=router),
        ):
            ...

    The director whose router is MASTER sends its connections, every other one takes them over.
    Daemons that a killed run left are taken over if they fit, and replaced if not. Leaving stops
    the daemons. A table with daemons takes no real server of another address family than its
    service.

    The parameters are those of :class:`vrrpkit.ipvs.ConnectionSyncConfig`, and live objects beside
    them.
    """

    @configured_by(_ConnectionSyncArguments)
    def __init__(self, arguments: _ConnectionSyncArguments) -> None:
        config, follows = arguments.config, arguments.follows
        self.config = config
        """The description that this was made from."""
        super().__init__(_what(config), Hub(logging.getLogger("vrrpkit.ipvs")))
        vrid = follows.config.vrid if isinstance(follows, VRRPInstance) else 0
        self._daemons = {role: config.daemon(role, vrid) for role in ORDER}
        self._interface = config.interface
        self._follows = follows
        self._given = arguments.table
        self._table: Table | None = None
        self._roles: frozenset[SyncRole] = frozenset()
        self._wanted: frozenset[SyncRole] = frozenset()
        self._told: str | None = None
        self._unfollow: Callable[[], None] | None = None
        self._origin: ProcessOrigin | None = None
        self._unsure = False
        """Whether a switch was cut short, so that it is unknown what runs."""
        self._worker = Worker(f"vrrpkit {self.name}", self._work, self._pending)
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(
        cls,
        config: ConnectionSyncConfig,
        *,
        follows: Followed | None = None,
        table: Table | None = None,
    ) -> Self:
        """Make what ``config`` describes; the other parameters are those of the constructor.

        :param follows: the router or the group that the description names in its ``follows``.
        :raises ConfigError: ``follows`` is not the one that the description names.
        """
        require_named(_what(config), config.follows, follows)
        values = values_of(config)
        del values["follows"]
        return cls(**values, follows=follows, table=table)

    @property
    def roles(self) -> frozenset[SyncRole]:
        """The daemons that run."""
        return self._roles

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> ConnectionSync:
        """Start the daemons that the present state asks for.

        :raises PermissionMissing: CAP_NET_ADMIN is missing.
        :raises ModuleMissing: this kernel has no IPVS.
        :raises KernelRefused: there is no such interface, it has no address, or a real server is of
            another address family than its service.
        :raises HostError: another ConnectionSync runs on this table.
        """
        self._enter()
        self._origin = ProcessOrigin()
        table = _of_the_kernel() if self._given is None else self._given
        await table.open()
        if table in _taken:
            await table.close()
            raise HostError(
                "another ConnectionSync of this program runs on this table: the kernel has one "
                "daemon of each role, so let the one follow what both followed"
            )
        _taken.add(table)
        self._table = table
        self._wanted = self._aim
        try:
            self._roles = await self._found(table)
            await self._switch(table)
        except BaseException:
            await self._end()
            raise
        if self._follows is not None:
            self._unfollow = self._follows.on_transition(self._followed)
            self._followed()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        table, self._table = self._table, None
        if table is None or self._origin is None or self._origin.elsewhere:
            return
        self._wanted = frozenset()
        if self._unfollow is not None:
            self._unfollow()
        if self._timer is not None:
            self._timer.cancel()

        async def give_back() -> None:
            try:
                await self._worker.idle()
                try:
                    await self._switch(table)
                except OSError as problem:
                    log.warning("connection sync on %s: %s", self._interface, problem)
            finally:
                _taken.discard(table)
                await table.close()

        try:
            await shielded(give_back(), f"vrrpkit: connection sync on {self._interface} ends")
        finally:
            self._hub.close()

    # --- work -----------------------------------------------------------------------------------

    @property
    def _aim(self) -> frozenset[SyncRole]:
        if self._follows is None:
            return frozenset(ORDER)
        master = self._follows.state is State.MASTER
        return frozenset((SyncRole.MASTER if master else SyncRole.BACKUP,))

    def _followed(self, transition: Transition | GroupTransition | None = None) -> None:
        self._wanted = self._aim
        self._start()

    def _start(self) -> None:
        # One switch at a time: the last state wins, however often it changes meanwhile.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending():
            self._worker.start()

    def _pending(self) -> bool:
        if self._table is None or self._timer is not None:
            return False
        return self._unsure or self._roles != self._wanted

    async def _work(self) -> None:
        while (table := self._table) is not None and (self._unsure or self._roles != self._wanted):
            wanted = self._wanted
            try:
                await self._switch(table)
            except OSError as problem:
                self._refused(problem)
                if wanted == self._wanted:
                    break

    async def _switch(self, table: Table) -> None:
        """Stop what should not run, and start what should.

        :raises OSError: the kernel refused.
        """
        before = self._roles
        unsure, self._unsure = self._unsure, True
        try:
            if unsure:
                self._roles = await self._found(table)
            for role in ORDER:
                if role in self._roles and role not in self._wanted:
                    await table.stop_sync_daemon(role)
                    self._roles -= {role}
            for role in ORDER:
                if role in self._wanted and role not in self._roles:
                    await table.start_sync_daemon(self._daemons[role])
                    self._roles |= {role}
            self._told = None
            self._unsure = False
        except OSError:
            # The kernel has answered, and what it refused is as it was.
            self._unsure = unsure
            raise
        finally:
            if self._roles != before:
                roles = tuple(role for role in ORDER if role in self._roles)
                self._publish(SyncSwitched(interface=self._interface, at=_now(), roles=roles))

    async def _found(self, table: Table) -> frozenset[SyncRole]:
        """The daemons that run already and are as they should be; others are stopped."""
        fitting: set[SyncRole] = set()
        for found in await table.sync_daemons():
            ours = self._daemons[found.role]
            if found == attrs.evolve(
                ours,
                maxlen=ours.maxlen or found.maxlen,
                group=ours.group or found.group,
                port=ours.port or found.port,
                ttl=ours.ttl or found.ttl,
            ):
                fitting.add(found.role)
            else:
                log.warning("stopping a foreign %s sync daemon on %s", found.role, found.interface)
                await table.stop_sync_daemon(found.role)
        return frozenset(fitting)

    def _refused(self, problem: OSError) -> None:
        text = problem.strerror or str(problem)
        if self._table is not None:
            self._timer = asyncio.get_running_loop().call_later(RETRY, self._start)
        if text != self._told:
            self._told = text
            notice = SyncRefused(interface=self._interface, at=_now(), failure=text, retry_in=RETRY)
            self._publish(notice)

    def _publish(self, notice: SyncEvent) -> None:
        self._hub.publish(notice)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _of_the_kernel() -> Table:
    # Imported at need: a program that stays in memory never loads netlink.
    from vrrpkit.ipvs.kernel.table import KernelTable

    return KernelTable.current()
