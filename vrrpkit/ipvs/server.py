"""VirtualServer: connections balanced over healthy servers, as users see it. ``driver.py`` runs
it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import attrs

from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.events import CheckResult
from vrrpkit.configured import configured_by, described, values_of
from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.base import Table, require_table
from vrrpkit.ipvs.config import VirtualServerConfig
from vrrpkit.ipvs.driver import Driver
from vrrpkit.ipvs.health import (
    Followed,
    name_of,
    require_followed,
    require_named,
    require_scheduler,
)
from vrrpkit.ipvs.model.entries import WEIGHT_LIMIT, ServiceKey
from vrrpkit.ipvs.model.events import QuorumDown, QuorumUp, ServerDown, ServerUp, VirtualServerEvent
from vrrpkit.ipvs.model.pool import ServerState
from vrrpkit.ipvs.realserver import RealServer
from vrrpkit.ipvs.status import (
    PoolStatus,
    ServerStatus,
    ServiceStatistics,
    VirtualServerState,
    pool_status,
    statistics,
    status,
)
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.lifecycle.loading import load
from vrrpkit.observable import Notifying
from vrrpkit.publishing import Hub, Notifier
from vrrpkit.validate import flag, is_number, notifiers, whole_number

__all__ = ["RealServer", "VirtualServer"]


def _notifiers(values: Iterable[Notifier]) -> tuple[Notifier, ...]:
    return notifiers(values, "Mail(...) or NotifyFunction(function)")


@attrs.frozen
class _VirtualServerArguments(VirtualServerConfig):
    """A virtual server's description, and the live objects that no description can have.

    :param follows: a virtual router or a sync group; checks pause while it is not MASTER
        (``ha_suspend``). The table stays as it is, with the last verdicts.
    :param table: a :class:`vrrpkit.MemoryTable`; by default the kernel's.
    :param check_scheduler: runs the checks; by default the one that all virtual servers share.
    :param notify: what receives everything that happens, see :mod:`vrrpkit.notify`
        (``notify_up``, ``quorum_down``, ``smtp_alert``, ...).
    """

    # The object itself takes the place of its name.
    follows: Followed | None = attrs.field(  # type: ignore[assignment]
        default=None, kw_only=True, eq=False, repr=False
    )
    table: Table | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    check_scheduler: CheckScheduler | None = attrs.field(
        default=None, kw_only=True, eq=False, repr=False
    )
    notify: tuple[Notifier, ...] = attrs.field(
        default=(), kw_only=True, eq=False, repr=False, converter=_notifiers
    )
    config: VirtualServerConfig = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config = described(VirtualServerConfig, self, follows=name_of(self.follows))
        object.__setattr__(self, "config", config)
        require_followed(config.label, self.follows)
        require_table(config.label, self.table)
        require_scheduler(config.label, self.check_scheduler)


KERNEL_TABLE = "vrrpkit.ipvs.kernel.table"


class VirtualServer(Notifying[VirtualServerEvent]):
    """Balances connections over real servers by the kernel's IPVS, and keeps its table in step with
    their health (keepalived: ``virtual_server``, ``virtual_server_group``).

    ::

        async with VirtualServer(
            "192.0.2.10:80/tcp",
            servers=["10.0.0.1:8080", "10.0.0.2:8080"],
            check=HTTPChecker("/healthz", interval=2),
        ) as web:
            await web.wait_for_quorum()

    Entering returns once the table is programmed. Servers that were in service before the program
    began stay so without an interruption. Leaving, by whatever way, removes the services again,
    unless ``at_exit="keep"``.

    The parameters are those of :class:`vrrpkit.ipvs.VirtualServerConfig`, and live objects beside
    them.
    """

    @configured_by(_VirtualServerArguments)
    def __init__(self, arguments: _VirtualServerArguments) -> None:
        self.config = arguments.config
        """The description that this was made from."""
        hub: Hub[VirtualServerEvent] = Hub(logging.getLogger("vrrpkit.ipvs"))
        super().__init__(self.config.label, hub, arguments.notify)
        self._follows = arguments.follows
        self._table = arguments.table
        self._scheduler = arguments.check_scheduler
        self._results: Hub[CheckResult] = Hub()
        self._driver: Driver | None = None

    @classmethod
    def of(
        cls,
        config: VirtualServerConfig,
        *,
        follows: Followed | None = None,
        table: Table | None = None,
        check_scheduler: CheckScheduler | None = None,
        notify: Iterable[Notifier] = (),
    ) -> Self:
        """Make what ``config`` describes; the other parameters are those of the constructor.

        :param follows: the router or the group that the description names in its ``follows``.
        :raises ConfigError: ``follows`` is not the one that the description names.
        """
        require_named(config.label, config.follows, follows)
        values = values_of(config)
        del values["follows"]
        return cls(
            **values,
            follows=follows,
            table=table,
            check_scheduler=check_scheduler,
            notify=notify,
        )

    def __repr__(self) -> str:
        return f"<VirtualServer {self.name!r} {self.state}>"

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> VirtualServer:
        """Program the table and begin to check.

        When this is cancelled after the table was changed, it ends as leaving does.

        :raises PermissionMissing: CAP_NET_ADMIN is missing.
        :raises ModuleMissing: this kernel has no IPVS, or lacks the scheduler.
        :raises DuplicateService: another virtual server of this program has one of the services.
        :raises HostError: the state file is unusable.
        """
        if self._table is None:
            # Loaded at need: a program that stays in memory never loads netlink.
            await load(KERNEL_TABLE)
        self._enter()
        self._body.begin()
        self._driver = Driver(
            self.config,
            _of_the_kernel() if self._table is None else self._table,
            self._scheduler or CheckScheduler.current(),
            self._follows,
            self._hub,
            self._results,
            self._body.interrupt,
        )
        try:
            self._notify.start(self._hub)
            await self._driver.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        driver = self._running

        async def leave() -> None:
            try:
                await driver.end()
            finally:
                await shielded(self._notify.close(), f"vrrpkit: {self.name} tells its notifiers")

        await self._body.end(leave, lambda: driver.failure)

    @property
    def _running(self) -> Driver:
        driver = self._driver
        return driver if driver is not None else self._required(driver)

    # --- what it is -----------------------------------------------------------------------------

    @property
    def state(self) -> VirtualServerState:
        """INIT, UP or DOWN."""
        if self._driver is None or not self._driver.running:
            return VirtualServerState.INIT
        quorate = self._driver.pool.quorate
        return VirtualServerState.UP if quorate else VirtualServerState.DOWN

    @property
    def services(self) -> tuple[ServiceKey, ...]:
        """What clients connect to, in the order given."""
        return tuple(service.key for service in self.config.entries)

    @property
    def servers(self) -> tuple[ServerStatus, ...]:
        """The real servers, in the order in which they were added. Empty until it is entered."""
        driver = self._driver
        if driver is None:
            return ()
        entries = {} if driver.claim is None else dict(driver.claim.entries)
        return tuple(
            status(
                pool_server,
                driver.pool.serves(pool_server),
                (check.last for check in driver.checking.of(pool_server.member.name)),
                entries,
                driver.checking.paused_since,
            )
            for pool_server in driver.pool.pool_servers
        )

    @property
    def paused_since(self) -> float | None:
        """Since when no server is checked, because the router that it ``follows`` is not MASTER, in
        seconds since 1970: all verdicts are of before. ``None`` while they are checked."""
        return None if self._driver is None else self._driver.checking.paused_since

    def status(self) -> PoolStatus:
        """All of this at one moment in plain values, as they go into JSON."""
        driver = self._driver
        pool = None if driver is None else driver.pool
        return pool_status(
            self.config,
            state=self.state,
            weight=0 if pool is None else pool.weight,
            refused=self.refused,
            paused_since=self.paused_since,
            servers=self.servers,
        )

    def endpoint_of(self, name: str) -> str | None:
        """The address and port of a real server, as :attr:`servers` has it; ``None`` if there is
        none of this name. Costs the same however many there are."""
        pool_server = None if self._driver is None else self._driver.pool.pool_server(name)
        return None if pool_server is None else str(pool_server.member.key)

    @property
    def refused(self) -> tuple[str, ...]:
        """What the kernel refuses now; it is tried again at each poll, at latest after 10 s."""
        return () if self._driver is None else self._driver.refusals

    async def statistics(self) -> dict[ServiceKey, ServiceStatistics]:
        """Read from the table what each service and real server has carried.

        :raises OSError: the kernel refused.
        """
        driver = self._running
        entries = await driver.look()
        members = [pool_server.member for pool_server in driver.pool.pool_servers]
        if self.config.stand_in is not None:
            members.append(self.config.stand_in)
        return statistics(members, entries)

    # --- what it tells --------------------------------------------------------------------------

    async def wait_for_quorum(self, *, checked: bool = False) -> None:
        """Return at once when the quorum is reached, else the next time that it is.

        :param checked: first wait until every check of every real server has given a result. At
            the start all count as healthy, without ``alpha``; after this, those that are do.
            Checks that pause, for a router that is not MASTER, give none.
        :raises Closed: the virtual server ended before.
        """
        self._require_home("wait_for_quorum")
        if checked:
            flag("checked", checked)
            if self._driver is None:
                # It will say one of them when it begins.
                await self._hub.wait_for(lambda notice: isinstance(notice, QuorumUp | QuorumDown))
            if not self._hub.closed:
                await self._running.asked()
        if self.state is VirtualServerState.UP:
            return
        await self._next(lambda event: isinstance(event, QuorumUp), "reach its quorum")

    def _present(self) -> Iterable[VirtualServerEvent]:
        # A notifier that joins learns which servers are down, and whether the quorum is reached.
        return () if self._driver is None else self._driver.present()

    def on_server(self, callback: Callable[[ServerUp | ServerDown], None]) -> Callable[[], None]:
        """Call ``callback`` when a real server goes up or down (``notify_up``, ``notify_down``), on
        the event loop; it must not block. Returns what ends it.

        An exception in it is logged and changes nothing.

        :raises ConfigError: it is not callable, or a coroutine function.
        """
        self._require_callback("on_server", callback)
        return self._hub.on((ServerUp, ServerDown), callback)

    def on_quorum(self, callback: Callable[[QuorumUp | QuorumDown], None]) -> Callable[[], None]:
        """Call ``callback`` when the quorum is reached or lost (``quorum_up``, ``quorum_down``), as
        :meth:`on_server` does."""
        self._require_callback("on_quorum", callback)
        return self._hub.on((QuorumUp, QuorumDown), callback)

    def on_result(self, callback: Callable[[CheckResult], None]) -> Callable[[], None]:
        """Call ``callback`` with every result of a check (``log_all_failures``), as
        :meth:`on_server` does."""
        self._require_callback("on_result", callback)
        return self._results.subscribe(callback)

    # --- what it can be asked -------------------------------------------------------------------

    # Each of these decides at once; what is waited for is that the table follows. A server is meant
    # by its name, its endpoint, or the RealServer that it was described by.

    async def add(self, server: str | RealServer) -> None:
        """Take a real server in; returns when the table follows.

        :raises ConfigError: it does not fit, or its name or endpoint is taken.
        """
        self._require_home("add")
        await self._running.add(RealServer.of(server))

    async def remove(self, server: str | RealServer) -> None:
        """Drop a real server, by its name or endpoint, at once: its connections are cut, see
        :meth:`drain`.

        :raises ConfigError: there is none such.
        """
        self._require_home("remove")
        await self._running.remove(server)

    async def set_weight(self, server: str | RealServer, weight: int) -> None:
        """Give a real server another configured weight, 0 to 2147483647; its connections stay.

        :raises ConfigError: the weight is out of range, or there is no such server.
        """
        self._require_home("set_weight")
        whole_number("weight", weight, 0, WEIGHT_LIMIT, "0 gets no new connections")
        await self._running.set_weight(server, weight)

    async def disable(self, server: str | RealServer) -> None:
        """Send a real server no new connections until :meth:`enable`; those it has stay, and it is
        checked on. It does not count for the quorum.

        :raises ConfigError: there is none such.
        """
        self._require_home("disable")
        await self._running.set_admin_state(server, ServerState.DISABLED)

    async def enable(self, server: str | RealServer) -> None:
        """Let a real server serve again after :meth:`disable`, or give up its draining.

        :raises ConfigError: there is none such.
        """
        self._require_home("enable")
        await self._running.set_admin_state(server, None)

    async def drain(self, server: str | RealServer, timeout: float | None = None) -> int:
        """Send a real server no new connections, wait until those it has are gone or the time is
        up, and drop it. Returns how many were cut.

        In TCP and SCTP only established connections count, otherwise all that the kernel remembers.
        A persistent client goes on to its server unless ``net.ipv4.vs.expire_quiescent_template``
        is 1. When this is cancelled, or the virtual server ends, the server is as before.

        :param timeout: seconds, from 0; ``None`` waits as long as it takes.
        :raises ConfigError: there is none such, or the time is negative.
        :raises VRRPKitError: it drains already, or was enabled, disabled or removed meanwhile.
        :raises Closed: the virtual server ended before.
        """
        self._require_home("drain")
        if timeout is not None and not (is_number(timeout) and timeout >= 0):
            raise ConfigError(f"timeout {timeout!r} must be 0 seconds or more, or None")
        return await self._running.drain(server, timeout)


def _of_the_kernel() -> Table:
    from vrrpkit.ipvs.kernel.table import KernelTable

    return KernelTable.current()
