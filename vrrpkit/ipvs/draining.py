"""Waits until the connections of a real server are gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from vrrpkit.errors import Closed, VRRPKitError
from vrrpkit.ipvs.claim import Claim
from vrrpkit.ipvs.connections import connections
from vrrpkit.ipvs.pool import Seat

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
        self._ended = asyncio.Event()

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
        self._ended.set()

    async def over(self, claim: Claim, seat: Seat, call: object, timeout: float | None) -> int:
        """Wait until the connections are gone or the time is up; how many are left.

        :raises VRRPKitError: the draining was given up.
        :raises Closed: the virtual server ended before.
        """
        name = seat.member.name
        now = asyncio.get_running_loop().time
        until = None if timeout is None else now() + timeout
        left: int | None = None
        await claim.settled()
        while not self._ended.is_set():
            began = now()
            found = await self._connections(claim, seat)
            left = left if found is None else found
            if self._calls.get(name) is not call:
                raise VRRPKitError(f"{name} was enabled, disabled or removed while it drained")
            wait = max(LOOK, PAUSE * (now() - began))
            if until is not None:
                wait = min(wait, until - now())
            if left == 0 or wait <= 0:
                return left or 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._ended.wait()
        raise Closed(f"{self._name} has ended")

    async def _connections(self, claim: Claim, seat: Seat) -> int | None:
        """How many connections a server has, ``None`` where nobody can tell now."""
        try:
            return connections(seat.member.key, await claim.look())
        except OSError as problem:
            log.warning("%s: the table cannot be read: %s", self._name, problem)
            return None
