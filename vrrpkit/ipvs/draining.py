"""Waits until the connections of a real server are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from vrrpkit.errors import Closed, VRRPKitError
from vrrpkit.ipvs.claim import ServiceClaim
from vrrpkit.ipvs.model.connections import connections, entries_of
from vrrpkit.ipvs.model.entries import DestinationKey, ServiceEntry, ServiceKey
from vrrpkit.ipvs.model.pool import PoolServer

__all__ = ["Draining"]

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds from one look at the connections of a server that drains to the next."""

PAUSE = 4
"""The same at least, as a multiple of what the look took."""


class Draining:
    """The servers of one virtual server that drain, each for one call.

    :param name: of the virtual server, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: dict[str, object] = {}
        self._pauses: set[asyncio.Future[None]] = set()
        self._ended = self._hurried = self._unreadable = False

    def begin(self, server: str) -> object:
        """Let a call drain a server; returns what stands for the call.

        :raises VRRPKitError: another one does.
        """
        if server in self._calls:
            raise VRRPKitError(f"{server} drains already: wait for that")
        call = self._calls[server] = object()
        return call

    def give_up(self, server: str, call: object = None) -> bool:
        """End the draining of a server, if it is for this call or no call is named; whether it was
        under way."""
        if call is not None and self._calls.get(server) is not call:
            return False
        return self._calls.pop(server, None) is not None

    def end(self) -> None:
        """The virtual server ends."""
        self._ended = True
        self._call_off()

    def hurry(self) -> None:
        """The time of all calls is up, also of those that come later: the program ends."""
        self._hurried = True
        self._call_off()

    def _call_off(self) -> None:
        for pause in tuple(self._pauses):
            if not pause.done():
                pause.set_result(None)

    async def wait(
        self, claim: ServiceClaim, pool_server: PoolServer, call: object, timeout: float | None
    ) -> int:
        """Wait until the connections are gone or the time is up; returns how many remain.

        :raises VRRPKitError: the draining was given up.
        :raises Closed: the virtual server ended before.
        """
        name = pool_server.member.name
        now = asyncio.get_running_loop().time
        until = None if timeout is None else now() + timeout
        remaining: int | None = None
        await claim.settled()
        while not self._ended:
            began = now()
            found = await self._connections(claim, pool_server, remaining)
            remaining = remaining if found is None else found
            if self._calls.get(name) is not call:
                raise VRRPKitError(f"{name} was enabled, disabled or removed while it drained")
            pause = max(LOOK, PAUSE * (now() - began))
            if until is not None:
                pause = min(pause, until - now())
            if remaining == 0 or pause <= 0 or self._hurried:
                return remaining or 0
            await self._pause(pause)
        raise Closed(f"{self._name} has ended")

    async def _pause(self, seconds: float) -> None:
        if self._ended or self._hurried:
            return
        pause = asyncio.get_running_loop().create_future()
        self._pauses.add(pause)
        try:
            await asyncio.wait((pause,), timeout=seconds)
        finally:
            self._pauses.discard(pause)

    async def _connections(
        self, claim: ServiceClaim, pool_server: PoolServer, before: int | None
    ) -> int | None:
        """How many connections a server has, ``None`` while the table cannot be read.

        That it is not in the table does not mean that they have ended: another program took it out,
        and they go on when it is back.
        """
        key = pool_server.member.key
        try:
            entries = await claim.look()
            if not self._whole(claim, key, entries):
                if not any(about[1] == key for about in claim.refused):
                    log.warning("%s: %s was taken out of the table; back with it", self._name, key)
                    claim.update({key: claim.wanted[key]})
                    await claim.settled()
                    entries = await claim.look()
                if before is not None and not self._whole(claim, key, entries):
                    return before
            return connections(key, entries)
        except OSError as problem:
            log.log(
                logging.DEBUG if self._unreadable else logging.WARNING,
                "%s: the table cannot be read: %s",
                self._name,
                problem,
            )
            self._unreadable = True
            return None

    def _whole(
        self, claim: ServiceClaim, key: DestinationKey, entries: Mapping[ServiceKey, ServiceEntry]
    ) -> bool:
        self._unreadable = False
        return key not in claim.wanted or len(entries_of(key, entries)) == len(claim.services)
