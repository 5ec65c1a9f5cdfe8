"""Makes an IPVS table match the last wish of every virtual server of this program.

A wish is synchronous and never waits; the table follows. Wishes that come while it is slow collapse
into the last one, and whatever was wished in one turn of the event loop goes there in one request.
What was read and what was changed since is remembered, so that a change costs no reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence, Set as AbstractSet
from functools import partial
from typing import TypeAlias

import attrs

from vrrpkit.errors import Closed, DuplicateService
from vrrpkit.ipvs.base import Table
from vrrpkit.ipvs.claim import ClaimListener, ServiceClaim
from vrrpkit.ipvs.model.cache import Subject, TableCache, found, placed, refusal, subject
from vrrpkit.ipvs.model.diff import diff
from vrrpkit.ipvs.model.entries import (
    Destination,
    DestinationKey,
    Operation,
    Service,
    ServiceEntry,
    ServiceKey,
)
from vrrpkit.ipvs.model.stages import held_back, makes, stages
from vrrpkit.lifecycle.callbacks import as_bug, contain, is_own_end
from vrrpkit.lifecycle.worker import Worker
from vrrpkit.runtime import Runtime

__all__ = ["TableReconciler"]

log = logging.getLogger(__name__)

RETRY = 10.0
"""Seconds after which what was refused is tried again when no claim polls."""

LISTING = 10.0
"""Seconds after which foreign services are listed at latest."""

SINGLY = 8
"""Services up to which they are read one by one, instead of the whole table."""

READING: Subject = (None, None)
"""What failed when the table could not be read."""

Wanted: TypeAlias = dict[ServiceKey, tuple[Service, Sequence[Destination]]]

Answers: TypeAlias = list[tuple[Operation, OSError | None]]
"""Operations, and how each of them ended."""


@attrs.frozen
class Pass:
    """One pass over the claims, frozen before the table is asked."""

    fresh: bool
    """The table was read right before."""
    epochs: dict[ServiceClaim, int]
    claims: dict[ServiceKey, ServiceClaim]
    """Whom an operation concerns, by its service."""
    wished: set[ServiceKey]
    """Services of which anything may have been wished since the last pass."""
    expected: set[Subject]
    """Real servers of the others that were wished otherwise."""
    operations: list[Operation]

    def foreseen(self, about: Subject) -> bool:
        """Whether a wish is why the table had to be changed there."""
        return about[0] in self.wished or about in self.expected


class TableReconciler:
    """Makes all changes of one table that this program makes."""

    def __init__(self, table: Table) -> None:
        self.cache = TableCache()
        self._table = table
        self._claims: dict[ServiceClaim, None] = {}
        self._owners: dict[ServiceKey, ServiceClaim] = {}
        self._dirty: dict[ServiceClaim, None] = {}
        self._read = False
        self._listed = False
        self._due = False
        """Whether the table is to be read before the next pass."""
        self._timer: asyncio.TimerHandle | None = None
        self._listing: asyncio.TimerHandle | None = None
        self._worker = Worker(
            "vrrpkit IPVS table", self._work, lambda: bool(self._dirty or self._due)
        )
        self._turn = asyncio.Lock()

    @classmethod
    def of(cls, table: Table) -> TableReconciler:
        """The reconciler of a table, the same for all claims on it."""
        return Runtime.current().use(cls, table, lambda: cls(table))

    async def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`. The table stays as it is."""
        for timer in (self._timer, self._listing):
            if timer is not None:
                timer.cancel()
        self._worker.cancel()
        await self._worker.idle()
        for claim in list(self._claims):
            self._settle(claim, Closed("the runtime of the IPVS table has ended"))

    # --- what claims ask ------------------------------------------------------------------------

    async def claim(
        self,
        services: Iterable[Service],
        listener: ClaimListener,
        poll_interval: float | None = None,
    ) -> ServiceClaim:
        """Take services, of which the table may hold some already; nothing is changed yet.

        :param poll_interval: seconds from one reading of the table to the next; the shortest of all
            claims counts.
        :raises DuplicateService: another claim has one of them.
        :raises OSError: the table cannot be read.
        """
        claim = ServiceClaim(self, services, listener, poll_interval)
        for key in claim.services:
            if key in self._owners:
                raise DuplicateService(
                    f"another virtual server of this program has the service {key}; leave it out "
                    "there or here"
                )
        self._owners.update(dict.fromkeys(claim.services, claim))
        self._claims[claim] = None
        try:
            await self.look(claim)
        except BaseException:
            self._forget(claim)
            raise
        self._arm()
        if not self._listed and self._listing is None:
            self._listing = asyncio.get_running_loop().call_later(LISTING, self._list)
        return claim

    def wish(self, claim: ServiceClaim) -> None:
        """Have the table follow a claim."""
        claim.epoch += 1
        self._dirty[claim] = None
        self._worker.start()

    async def settled(self, claim: ServiceClaim) -> None:
        """See :meth:`ServiceClaim.settled`."""
        if claim in self._dirty:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            claim.waiters.append((claim.epoch, waiter))
            await waiter

    async def look(self, claim: ServiceClaim) -> None:
        """See :meth:`ServiceClaim.look`."""
        asked = claim.looks
        async with self._turn:
            if claim.looked > asked:
                # Another call read it while this one waited for its turn.
                return
            claim.looks += 1
            if not self._read or len(claim.services) > SINGLY:
                await self._read_all()
            else:
                for key in claim.services:
                    self.cache.learn_service(key, await self._table.read_service(key))
            claim.looked = claim.looks

    async def drop(self, claim: ServiceClaim) -> None:
        """See :meth:`ServiceClaim.drop`."""
        async with self._turn:
            self._forget(claim)
        if not self._claims:
            await self._worker.idle()

    def _forget(self, claim: ServiceClaim) -> None:
        for key in claim.services:
            del self._owners[key]
        del self._claims[claim]
        self._settle(claim)
        if not self._claims:
            self._due = False
            if self._listing is not None:
                self._listing.cancel()
                self._listing = None
        self._arm()

    # --- time -----------------------------------------------------------------------------------

    @property
    def _interval(self) -> float | None:
        intervals = [
            claim.poll_interval for claim in self._claims if claim.poll_interval is not None
        ]
        if not intervals and any(claim.refused for claim in self._claims):
            return RETRY
        return min(intervals, default=None)

    def _arm(self) -> None:
        """Expect the next reading one interval from now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        interval = self._interval
        if interval is not None:
            self._timer = asyncio.get_running_loop().call_later(interval, self._poll)

    def _poll(self) -> None:
        self._timer = None
        self._due = True
        self._worker.start()

    # --- work -----------------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while self._dirty or self._due:
                async with self._turn:
                    await self._pass()
        except BaseException as problem:
            for claim in self._claims:
                claim.whole = claim.begun
            if is_own_end(problem) or isinstance(problem, KeyboardInterrupt | SystemExit):
                # A part may have been carried out: the next pass reads the table.
                self._due = bool(self._claims)
                raise
            self._due = False
            bug = as_bug(problem)
            for claim in list(self._claims):
                self._settle(claim, bug)
                try:
                    claim.listener.failed(bug)
                except BaseException as another:
                    contain(another, log, "a virtual server failed to end")

    async def _pass(self) -> None:
        fresh, self._due = self._due, False
        if fresh:
            try:
                await self._read_all()
            except OSError as problem:
                self._unreadable(problem)
                return
        job = self._plan(fresh)
        # What adds comes before what takes away, so that no service is empty in between. Where the
        # kernel refuses an addition, the removals that count on it must wait: they would leave the
        # service with no server at all. A later pass, which reads the table first, tries again.
        first, then = stages(job.operations, partial(self._served, job))
        answers = await self._carry_out(first)
        if then:
            refused = {subject(each)[0] for each, problem in answers if problem and makes(each)}
            refused &= {subject(each)[0] for each in then}
            answers += await self._carry_out(then, self._spared(job, refused))
        self._conclude(job, answers)
        if fresh:
            self._list()
            self._arm()
            for claim in job.epochs:
                claim.listener.polled()

    async def _carry_out(
        self, operations: Sequence[Operation], spared: AbstractSet[Subject] = frozenset()
    ) -> Answers:
        """Ask the table for operations, but for those that break what is spared."""
        held: Answers = []
        if spared:
            held = [(each, held_back()) for each in operations if subject(each) in spared]
            operations = [each for each in operations if subject(each) not in spared]
        answers = await self._table.apply(operations) if operations else []
        # The cache follows each answer at once: an error further on must not hide what was done.
        for operation, problem in zip(operations, answers, strict=True):
            if problem is None:
                self.cache.carried_out(operation)
        return [*zip(operations, answers, strict=True), *held]

    def _spared(self, job: Pass, refused: Iterable[ServiceKey]) -> set[Subject]:
        """Real servers that serve on in these services, because no other server does."""
        spared: set[Subject] = set()
        for service in refused:
            if not self._served(job, service):
                fit = job.claims[service].listener.healthy()
                spared.update((service, placed(key, service)) for key in fit)
        return spared

    def _served(self, job: Pass, service: ServiceKey) -> bool:
        """Whether a server of a service gets connections now and is wanted to go on."""
        entry = self.cache.get(service)
        assert entry is not None
        for key, wish in job.claims[service].wanted.items():
            now = entry.destinations.get(placed(key, service)) if wish.weight else None
            if now is not None and now.destination.weight:
                return True
        return False

    async def _read_all(self) -> None:
        self.cache.learn(await self._table.read())
        self._read = True

    def _unreadable(self, problem: OSError) -> None:
        text = f"reading the table: {problem.strerror or problem}"
        for claim in list(self._claims):
            claim.refused = {READING: text}
            claim.whole = claim.begun
        self._arm()
        for claim in list(self._claims):
            self._settle(claim)
            self._tell(claim)

    def _plan(self, fresh: bool) -> Pass:
        """Take the wishes of now; no ``await`` comes between the reading and this."""
        # After a reading any claim may differ from the table, else only those with a new wish.
        begun = [claim for claim in (self._claims if fresh else self._dirty) if claim.begun]
        job = Pass(fresh, {claim: claim.epoch for claim in begun}, {}, set(), set(), [])
        table: dict[ServiceKey, ServiceEntry] = {}
        wanted: Wanted = {}
        going: set[ServiceKey] = set()
        for claim in begun:
            # A service that an earlier run left, and that another claim has taken since, stays.
            claim.stale -= self._owners.keys()
            job.claims.update(dict.fromkeys((*claim.services, *claim.stale), claim))
            gone = {*claim.stale, *(claim.services if claim.leaving else ())}
            going |= gone
            job.wished.update(gone)
            table.update(self.cache.excerpt(gone))
            if not claim.leaving:
                self._want(job, claim, table, wanted)
            # What changes from here on belongs to the next pass, even while this one waits.
            claim.changed.clear()
            claim.whole = False
        job.operations.extend(diff(table, wanted, going))
        return job

    def _want(
        self, job: Pass, claim: ServiceClaim, table: dict[ServiceKey, ServiceEntry], wanted: Wanted
    ) -> None:
        if claim.whole:
            job.wished.update(claim.services)
        for key, service in claim.services.items():
            entry = self.cache.get(key)
            changed = [placed(name, key) for name in claim.changed]
            job.expected.update((key, name) for name in changed)
            names: Iterable[DestinationKey] = claim.wanted
            if entry is not None and not job.fresh and not claim.whole:
                # The others are as they should be, and there may be thousands of them.
                names = [name for name in claim.changed if name in claim.wanted]
                there = entry.destinations
                entry = attrs.evolve(
                    entry, destinations={name: there[name] for name in changed if name in there}
                )
            wanted[key] = (service, [_placed(claim.wanted[name], key) for name in names])
            if entry is not None:
                table[key] = entry

    def _conclude(self, job: Pass, answers: Answers) -> None:
        # Sort the answers. A change that a reading made necessary, and that no wish explains, puts
        # right what another program did: that is worth an event. What was refused before is not,
        # for the table could not have had it.
        failures: dict[ServiceClaim, dict[Subject, str]] = {}
        repairs: dict[ServiceClaim, list[str]] = {}
        for operation, problem in answers:
            about = subject(operation)
            claim = job.claims[about[0]]
            if problem is not None:
                failures.setdefault(claim, {})[about] = refusal(operation, problem)
            elif job.fresh and not job.foreseen(about) and about not in claim.refused:
                repairs.setdefault(claim, []).append(found(operation))
        for claim, epoch in job.epochs.items():
            failed = failures.get(claim, {})
            if failed and not job.fresh:
                # The cache may be wrong about the table: the next pass reads it, and only a refusal
                # that comes again is published.
                self._due = True
                continue
            # What is gone is forgotten: a service that is made again later belongs to its maker.
            claim.stale = {key for key in claim.stale if key in self.cache}
            # A partial pass says nothing of the refusals that it did not try again.
            known = {} if job.fresh else claim.refused
            claim.refused = failed | {
                about: text for about, text in known.items() if not job.foreseen(about)
            }
            # A wish that came while the table was changed is not carried out yet: the claim stays
            # dirty, and only those who wait for earlier wishes go on.
            if claim.epoch == epoch:
                self._settle(claim)
            else:
                self._release(claim, epoch)
        if self._timer is None:
            self._arm()
        # Listeners come last, when the state is consistent: they may wish again at once.
        for claim in job.epochs:
            if claim in repairs:
                claim.listener.repaired(repairs[claim])
            if claim not in failures or job.fresh:
                self._tell(claim)

    def _settle(self, claim: ServiceClaim, problem: Exception | None = None) -> None:
        """Nothing of a claim is left to do now, or nothing more can be done."""
        self._dirty.pop(claim, None)
        self._release(claim, claim.epoch, problem)

    def _release(self, claim: ServiceClaim, epoch: int, problem: Exception | None = None) -> None:
        """Wake the waiters of wishes up to ``epoch``; those of later wishes go on waiting."""
        waiters, claim.waiters = claim.waiters, []
        for since, waiter in waiters:
            if since > epoch:
                claim.waiters.append((since, waiter))
            elif waiter.done():
                continue
            elif problem is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(problem)

    def _tell(self, claim: ServiceClaim) -> None:
        told, claim.told = claim.told, dict(claim.refused)
        if claim.refused and claim.refused != told:
            claim.listener.refused(tuple(claim.refused.values()), self._interval or RETRY)
        elif told and not claim.refused:
            claim.listener.follows()

    def _list(self) -> None:
        """Publish once what else is in the table, when claims that begin together have begun."""
        if self._listed:
            return
        self._listed = True
        ours = self._owners.keys() | {key for claim in self._claims for key in claim.stale}
        foreign = [key for key in self.cache if key not in ours]
        if foreign:
            next(iter(self._claims)).listener.foreign(foreign)


def _placed(destination: Destination, service: ServiceKey) -> Destination:
    key = placed(destination.key, service)
    return destination if key is destination.key else attrs.evolve(destination, key=key)
