"""Runs one virtual server: checks go into the pool, and what it wants into the table.

Everything that happens to the pool goes through :meth:`Driver._feed`, which has no ``await``: the
events are published and the table is asked to follow before it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

from vrrpkit.checks.engine.closing import settle
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.events import CheckNotMade, CheckResult, CheckStuck
from vrrpkit.errors import Closed, ConfigError, HostError
from vrrpkit.ipvs.base import Table
from vrrpkit.ipvs.claim import ServiceClaim
from vrrpkit.ipvs.config import VirtualServerConfig
from vrrpkit.ipvs.draining import Draining
from vrrpkit.ipvs.first_results import Asking
from vrrpkit.ipvs.health import Followed, PoolChecks
from vrrpkit.ipvs.masquerade.lifecycle import MasqueradeLifecycle, forget_kept, load_rules
from vrrpkit.ipvs.model.adoption import (
    Adoptable,
    PoolMemory,
    Remembered,
    adopt,
    quorate as adopted_quorum,
)
from vrrpkit.ipvs.model.cache import placed
from vrrpkit.ipvs.model.connections import entries_of, live
from vrrpkit.ipvs.model.endpoints import destination_key
from vrrpkit.ipvs.model.entries import MIXED, DestinationKey, ServiceEntry, ServiceKey
from vrrpkit.ipvs.model.events import (
    CheckOverdue,
    CheckPostponed,
    ForeignServices,
    PoolEvent,
    ServicesAdopted,
    StaleServices,
    TableFollows,
    TableRefused,
    TableRepaired,
    VirtualServerEvent,
)
from vrrpkit.ipvs.model.pool import Pool, PoolServer, ServerState
from vrrpkit.ipvs.realserver import RealServer
from vrrpkit.ipvs.reconciler import TableReconciler
from vrrpkit.ipvs.state_writer import StateWriter
from vrrpkit.ipvs.statefile import StateRecord
from vrrpkit.lifecycle.callbacks import as_bug, pass_on
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.lifecycle.shutdown import on_hurry
from vrrpkit.publishing import Hub

__all__ = ["Driver"]

log = logging.getLogger(__name__)


class Driver:
    """The one run of one virtual server.

    :param results: gets every result of a check.
    :param broken: called once when a bug ends the run.
    """

    def __init__(
        self,
        config: VirtualServerConfig,
        table: Table,
        scheduler: CheckScheduler,
        follows: Followed | None,
        hub: Hub[VirtualServerEvent],
        results: Hub[CheckResult],
        broken: Callable[[], None],
    ) -> None:
        self.config = config
        self.pool = Pool(
            config.label,
            quorum=config.quorum,
            hysteresis=config.hysteresis,
            sorry=config.stand_in,
            sorry_inhibit=config.sorry_inhibit,
        )
        self.checking = PoolChecks(scheduler, follows, self._checked, self._overdue, self._not_made)
        self.claim: ServiceClaim | None = None
        self.failure: Exception | None = None
        """The bug that ended the run."""
        self.refusals: tuple[str, ...] = ()
        """What the table refuses now."""
        self.running = False
        self._table = table
        self._hub = hub
        self._results = results
        self._broken = broken
        self._configured = config.configured()
        self._record = StateRecord(config.state_file, config.label)
        self._masquerading: MasqueradeLifecycle | None = None
        self._memorizing = StateWriter(self._record, self._memory)
        self._seen: set[str] = set()
        """Servers that an earlier run saw in service, until their checks begin."""
        self._draining = Draining(config.label)
        self._asking = Asking()
        self._unchecked = {each.member.name: len(each.checks) for each in config.configured_server}
        """How many checks servers have that are not checked yet."""
        self._stack = AsyncExitStack()
        self._begun = False

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Program the table, then begin to check. Whatever is raised, :meth:`end` must follow."""
        config = self.config
        self._stack.callback(on_hurry(self._draining.hurry))
        await self._table.open()
        self._stack.push_async_callback(self._table.close)
        self._table.require((config.scheduler,), filter(None, (config.persistence_engine,)))
        if config.mixed and await self._table.sync_daemons():
            raise HostError(
                f"{config.label}: {MIXED}: use servers of the family of their services, or no "
                "ConnectionSync"
            )
        reconciler = TableReconciler.of(self._table)
        self.claim = await reconciler.claim(config.entries, self, config.poll_interval)
        self._stack.push_async_callback(self.claim.drop)
        adopted = self.claim.entries
        for configured_server in config.configured_server:
            self._configured.enter(configured_server.member)
        await self._begin_masquerading(self.claim)
        self._stack.callback(self._record.close)
        self._record.open()
        quorate = self._adopt(adopted)
        stale = self._record.inherit(self.claim.services.keys())
        if stale:
            self._publish(
                StaleServices(
                    virtual_server=config.label,
                    at=self._now(),
                    services=tuple(sorted(stale, key=str)),
                )
            )
        self._stack.push_async_callback(self._withdraw, self.claim)
        self._begun = self.running = True
        self._feed(self.pool.start(self._now(), quorate=quorate))
        if adopted:
            self._publish(
                ServicesAdopted(
                    virtual_server=config.label, at=self._now(), services=tuple(adopted)
                )
            )
        self.pool.changes()
        self.claim.begin(self.pool.wanted(), stale)
        await self.claim.settled()
        self._record.keep((*self.claim.services, *self.claim.remaining))
        for configured_server in config.configured_server:
            pool_server = self.pool.pool_server(configured_server.member.name)
            # The program may have removed it while the table was programmed.
            if pool_server is not None and pool_server.member is configured_server.member:
                self.checking.add(
                    configured_server,
                    failing=pool_server.failing,
                    seen=configured_server.member.name in self._seen,
                )
            self._unchecked.pop(configured_server.member.name, None)
        self._seen.clear()
        self._memorizing.begin()

    def _adopt(self, entries: Mapping[ServiceKey, ServiceEntry]) -> bool:
        """Take the servers in as an earlier run left them; whether it had its quorum."""
        memory = self._record.recall()
        sorry = self.config.stand_in
        serving = live(entries)
        stand_ins: set[DestinationKey] = set()
        if sorry is not None:
            stand_ins = {placed(sorry.key, key) for key in entries}
        table = Adoptable(live=len(serving - stand_ins), stands_in=bool(serving & stand_ins))
        for configured_server in self.config.configured_server:
            member = configured_server.member
            found = entries_of(member.key, entries)
            adopted = adopt(
                member,
                [str(check) for check in configured_server.checks],
                configured_server.alpha,
                [entry.destination.weight for _, entry in found],
                table,
                memory,
            )
            if adopted.seen:
                self._seen.add(member.name)
            self.pool.adopt(member, adopted, self._now())
        return adopted_quorum(table, sorry is not None, memory)

    def _memory(self) -> PoolMemory:
        servers = {
            pool_server.member.name: Remembered.of(
                pool_server,
                [str(check.checker) for check in self.checking.of(pool_server.member.name)],
            )
            for pool_server in self.pool.pool_servers
        }
        return PoolMemory(at=time.time(), quorate=self.pool.quorate, servers=servers)

    async def end(self) -> None:
        """Stop the checks and give the table back; a cancellation waits for the end."""
        self._draining.end()
        self._asking.end(self.config.label)
        self._memorizing.end()
        checks = self.checking.close()
        if self._begun and self.config.omega:
            self._feed(self.pool.end(self._now()))
        self.running = False

        async def give_back() -> None:
            # The table first: a check that does not end must not keep clients coming.
            try:
                await self._stack.aclose()
            finally:
                await settle(checks)

        try:
            await shielded(give_back(), f"vrrpkit: {self.config.label} leaves the table")
        finally:
            self._hub.close()
            self._results.close()

    async def _withdraw(self, claim: ServiceClaim) -> None:
        remove = self.config.at_exit == "remove"
        await claim.withdraw(remove=remove)
        if remove and claim.remaining:
            kept = ", ".join(str(key) for key in claim.remaining)
            log.warning("%s: the kernel kept %s", self.config.label, kept)
        self._record.keep(claim.remaining)

    async def _begin_masquerading(self, claim: ServiceClaim) -> None:
        name = self.config.label
        if not self.config.masquerade:
            await forget_kept(self._table, name)
            return
        services = [service.key for service in self.config.entries]
        await load_rules(self._table)
        masquerading = MasqueradeLifecycle(self._table, services, name, self._restored)

        async def end() -> None:
            kept = self.config.at_exit == "keep" and bool(claim.remaining)
            await masquerading.end(keep=kept)

        self._stack.push_async_callback(end)
        await masquerading.start(self._configured.members)
        self._masquerading = masquerading

    def _restored(self) -> None:
        self.repaired(["the rules for masquerading were gone"])

    # --- checks ---------------------------------------------------------------------------------

    def _checked(self, name: str, number: int, result: CheckResult) -> None:
        try:
            check = self.checking.of(name)[number]
            check_weight = (
                None if check.weight is None else (check.weight.value, check.weight.relative)
            )
            pool_server = self.pool.pool_server(name)
            if check_weight is None and not result.passed and pool_server is not None:
                # The weight that it gave in an earlier run outlasts a failure, too.
                check_weight = pool_server.check_weights.get(number)
            self._feed(
                self.pool.report(
                    name,
                    number,
                    healthy=result.healthy,
                    reason="" if result.passed else f"{result.checker}: {result.text}",
                    weight=None if check_weight is None else check_weight[0],
                    relative=check_weight is not None and check_weight[1],
                    at=check.since,
                )
            )
            self._results.publish(result)
            self._asking.heard(name, number)
        except BaseException as bug:
            # From what the user's checker says of itself, for example.
            if isinstance(bug, KeyboardInterrupt | SystemExit):
                pass_on(bug)
            else:
                self.failed(as_bug(bug))

    def _overdue(self, name: str, stuck: CheckStuck) -> None:
        self._publish(
            CheckOverdue(
                virtual_server=self.config.label,
                at=self._now(),
                server=name,
                checker=str(stuck.checker),
                since=stuck.since,
                why=stuck.why,
            )
        )

    def _not_made(self, name: str, told: CheckNotMade) -> None:
        self._publish(
            CheckPostponed(
                virtual_server=self.config.label,
                at=self._now(),
                server=name,
                checker=str(told.checker),
                why=told.why,
            )
        )

    # --- commands -------------------------------------------------------------------------------

    def present(self) -> list[PoolEvent]:
        """What who listens from now on must know; nothing before the start and after the end."""
        return self.pool.present(self._now()) if self.running else []

    async def asked(self) -> None:
        """Wait until every check of every server that is there now has given a result.

        :raises Closed: the virtual server ended before.
        """
        missing = [
            (name, number)
            for name in (pool_server.member.name for pool_server in self.pool.pool_servers)
            for number, check in enumerate(self.checking.of(name))
            if check.last is None
        ]
        for name, count in self._unchecked.items():
            missing += [(name, number) for number in range(count)]
        await self._asking.wait(missing)

    async def add(self, server: RealServer) -> None:
        """See :meth:`vrrpkit.VirtualServer.add`."""
        claim = self._claimed
        configured_server = self.config.enlist(server)
        self._configured.enter(configured_server.member)
        if self._masquerading is not None:
            try:
                await self._masquerading.update(self._configured.members)
                claim = self._claimed
            except BaseException:
                self._configured.leave(configured_server.member)
                raise
        failing = range(len(configured_server.checks)) if configured_server.alpha else ()
        self._feed(self.pool.add(configured_server.member, failing, self._now()))
        self.checking.add(configured_server, failing=failing)
        await claim.settled()

    async def look(self) -> Mapping[ServiceKey, ServiceEntry]:
        """Read the services again.

        :raises OSError: the table refused.
        """
        return await self._claimed.look()

    async def remove(self, server: str | RealServer) -> None:
        """See :meth:`vrrpkit.VirtualServer.remove`."""
        await self._remove(self._sought(server))

    async def set_weight(self, server: str | RealServer, weight: int) -> None:
        """See :meth:`vrrpkit.VirtualServer.set_weight`."""
        claim = self._claimed
        name = self._sought(server).member.name
        self._feed(self.pool.set_weight(name, weight, self._now()))
        await claim.settled()

    async def set_admin_state(
        self, server: str | RealServer, admin_state: ServerState | None
    ) -> None:
        """See :meth:`vrrpkit.VirtualServer.disable` and :meth:`vrrpkit.VirtualServer.enable`."""
        claim = self._claimed
        name = self._sought(server).member.name
        self._draining.give_up(name)
        self._feed(self.pool.set_admin_state(name, admin_state, self._now()))
        await claim.settled()

    async def drain(self, server: str | RealServer, timeout: float | None) -> int:
        """See :meth:`vrrpkit.VirtualServer.drain`."""
        pool_server = self._sought(server)
        name = pool_server.member.name
        before = pool_server.admin_state
        call = self._draining.begin(name)
        self._feed(self.pool.set_admin_state(name, ServerState.DRAINING, self._now()))
        try:
            remaining = await self._draining.wait(self._claimed, pool_server, call, timeout)
        except BaseException:
            if self.running and self._draining.give_up(name, call):
                self._feed(self.pool.set_admin_state(name, before, self._now()))
            raise
        await self._remove(pool_server, remaining=remaining)
        return remaining

    async def _remove(self, pool_server: PoolServer, *, remaining: int | None = None) -> None:
        claim = self._claimed
        name = pool_server.member.name
        checks = self.checking.drop(name)
        self._draining.give_up(name)
        self._unchecked.pop(name, None)
        self._asking.gone(name)
        self._configured.leave(pool_server.member)
        self._feed(self.pool.remove(name, self._now(), remaining=remaining))
        await claim.settled()
        if self._masquerading is not None:
            try:
                await self._masquerading.update(self._configured.members)
            except HostError as problem:
                log.warning("%s: it is masqueraded on: %s", name, problem)
        await settle(checks)

    def _sought(self, server: str | RealServer) -> PoolServer:
        """The server of the pool, by its name or its endpoint.

        :raises ConfigError: there is none.
        """
        pool_server = self.pool.pool_server(str(server))
        if pool_server is None:
            endpoint = server.endpoint if isinstance(server, RealServer) else str(server)
            with contextlib.suppress(ConfigError):
                pool_server = self.pool.server_at(destination_key(endpoint))
        if pool_server is None:
            known = ", ".join(pool_server.member.name for pool_server in self.pool.pool_servers)
            raise ConfigError(
                f"{self.config.label} has no real server {str(server)!r}; it has {known or 'none'}"
            )
        return pool_server

    @property
    def _claimed(self) -> ServiceClaim:
        if self.claim is None or not self.running:
            raise Closed(f"{self.config.label} has ended")
        return self.claim

    # --- what the reconciler asks and reports -----------------------------------------------------

    def healthy(self) -> list[DestinationKey]:
        """See :class:`vrrpkit.ipvs.claim.ClaimListener`."""
        return [
            pool_server.member.key
            for pool_server in self.pool.pool_servers
            if pool_server.quorum_weight
        ]

    def repaired(self, entries: Sequence[str]) -> None:
        """See :class:`vrrpkit.ipvs.claim.ClaimListener`."""
        self._publish(
            TableRepaired(virtual_server=self.config.label, at=self._now(), entries=tuple(entries))
        )

    def refused(self, failures: Sequence[str], retry_in: float) -> None:
        """See :class:`vrrpkit.ipvs.claim.ClaimListener`."""
        self.refusals = tuple(failures)
        self._publish(
            TableRefused(
                virtual_server=self.config.label,
                at=self._now(),
                failures=self.refusals,
                retry_in=retry_in,
            )
        )

    def follows(self) -> None:
        """See :class:`vrrpkit.ipvs.claim.ClaimListener`."""
        self.refusals = ()
        self._publish(TableFollows(virtual_server=self.config.label, at=self._now()))

    def foreign(self, services: Sequence[ServiceKey]) -> None:
        """See :class:`vrrpkit.ipvs.claim.ClaimListener`."""
        self._publish(
            ForeignServices(
                virtual_server=self.config.label, at=self._now(), services=tuple(services)
            )
        )

    def polled(self) -> None:
        """See :class:`vrrpkit.ipvs.claim.ClaimListener`."""
        if self._masquerading is not None:
            self._masquerading.look()

    def failed(self, bug: Exception) -> None:
        """See :class:`vrrpkit.ipvs.claim.ClaimListener`."""
        if self.failure is None:
            self.failure = bug
            log.error("%s: a bug ends it", self.config.label, exc_info=bug)
            self._broken()

    # --- how it goes on -------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _feed(self, notices: Iterable[PoolEvent]) -> None:
        changes = self.pool.changes()
        if changes and self.claim is not None and self.claim.begun:
            self.claim.update(changes)
            self._memorizing.changed()
        for notice in notices:
            self._publish(notice)

    def _publish(self, notice: VirtualServerEvent) -> None:
        self._hub.publish(notice)
