"""The part of an IPVS table that one virtual server holds. ``reconciler.py`` has the table
follow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from vrrpkit.ipvs.model.cache import Subject, TableCache
from vrrpkit.ipvs.model.entries import (
    Destination,
    DestinationKey,
    Service,
    ServiceEntry,
    ServiceKey,
)

__all__ = ["ClaimListener", "ClaimOwner", "ServiceClaim"]


class ClaimListener(Protocol):
    """Who holds a claim, and hears of the table."""

    def healthy(self) -> Iterable[DestinationKey]:
        """The real servers that could serve, also those that are not wanted in the table now."""
        ...

    def repaired(self, entries: Sequence[str]) -> None:
        """Another program changed these entries, and they were put right."""
        ...

    def refused(self, failures: Sequence[str], retry_in: float) -> None:
        """The table refuses this, or to be read."""
        ...

    def follows(self) -> None:
        """What it refused is done."""
        ...

    def foreign(self, services: Sequence[ServiceKey]) -> None:
        """No claim has these services of the table."""
        ...

    def polled(self) -> None:
        """The table was read and is as it should be, but for what it refuses."""
        ...

    def failed(self, bug: Exception) -> None:
        """A bug stopped the work on the table."""
        ...


class ClaimOwner(Protocol):
    """Has the table follow claims; what a claim asks of it."""

    @property
    def cache(self) -> TableCache:
        """The table as it was read last, and changed since."""
        ...

    def wish(self, claim: ServiceClaim) -> None:
        """Have the table follow a claim."""

    async def settled(self, claim: ServiceClaim) -> None:
        """See :meth:`ServiceClaim.settled`."""

    async def look(self, claim: ServiceClaim) -> None:
        """See :meth:`ServiceClaim.look`."""

    async def drop(self, claim: ServiceClaim) -> None:
        """See :meth:`ServiceClaim.drop`."""


class ServiceClaim:
    """The services of one virtual server; made by :meth:`TableReconciler.claim`."""

    def __init__(
        self,
        reconciler: ClaimOwner,
        services: Iterable[Service],
        listener: ClaimListener,
        poll_interval: float | None,
    ) -> None:
        self.services = {service.key: service for service in services}
        self.listener = listener
        self.poll_interval = poll_interval
        self.begun = False
        self.leaving = False
        """Whether the services shall go."""
        self.wanted: dict[DestinationKey, Destination] = {}
        """The real servers; port 0 is the port of the service."""
        self.changed: dict[DestinationKey, None] = {}
        """Keys of ``wanted`` that the table may not hold yet."""
        self.whole = False
        """Whether all of it may be another in the table."""
        self.stale: set[ServiceKey] = set()
        """Services of an earlier run that shall go."""
        self.epoch = 0
        """Counts wishes: what was carried out for an older one settles nothing."""
        self.refused: dict[Subject, str] = {}
        self.told: dict[Subject, str] = {}
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []
        """Who waits, and for which wish."""
        self.looks = 0
        """Counts the times that it was begun to be read."""
        self.looked = 0
        """The last of them that succeeded."""
        self._reconciler = reconciler

    @property
    def entries(self) -> Mapping[ServiceKey, ServiceEntry]:
        """The services that are in the table, as they were read last, and changed since."""
        return self._reconciler.cache.excerpt(self.services)

    @property
    def remaining(self) -> tuple[ServiceKey, ...]:
        """Services, also of an earlier run, that the table holds."""
        return tuple(self._reconciler.cache.excerpt((*self.services, *self.stale)))

    def begin(self, wanted: Iterable[Destination], stale: Iterable[ServiceKey] = ()) -> None:
        """Want the services with these real servers in the table, and ``stale`` gone."""
        self.begun = self.whole = True
        self.wanted = {destination.key: destination for destination in wanted}
        self.stale = set(stale)
        self._reconciler.wish(self)

    def update(self, changes: Mapping[DestinationKey, Destination | None]) -> None:
        """Want these real servers otherwise, or gone."""
        for key, destination in changes.items():
            self.changed[key] = None
            if destination is None:
                self.wanted.pop(key, None)
            else:
                self.wanted[key] = destination
        self._reconciler.wish(self)

    async def settled(self) -> None:
        """Wait until the table followed the last wish, or refused to.

        :raises Closed: the event loop ended before that.
        """
        await self._reconciler.settled(self)

    async def look(self) -> Mapping[ServiceKey, ServiceEntry]:
        """Read the services again.

        :raises OSError: the table refused.
        """
        await self._reconciler.look(self)
        return self.entries

    async def withdraw(self, *, remove: bool) -> None:
        """Remove the services from the table, or leave them; returns when it followed, or refused
        to."""
        if self.begun:
            self.leaving = remove
            if remove:
                self._reconciler.wish(self)
            await self._reconciler.settled(self)

    async def drop(self) -> None:
        """Give the services up: others may claim them, and the table may be closed."""
        await self._reconciler.drop(self)
