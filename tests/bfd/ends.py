"""Two ends of a session on a bus in memory."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from vrrpkit import MemoryBus
from vrrpkit.bfd.protocol.events import BFDEvent, BFDTransition
from vrrpkit.bfd.protocol.packet import BFDState
from vrrpkit.bfd.session import BFDSession
from vrrpkit.publishing import EventsLost

A, B = "192.0.2.1", "192.0.2.2"


def end(bus: MemoryBus, own: str = A, other: str = B, **options: Any) -> BFDSession:
    """The session from one interface of the bus to another; it detects within half a second."""
    seed = random.Random(own)
    return BFDSession(other, interface=bus.interface(own), random=seed, **options)


async def both_up(a: BFDSession, b: BFDSession) -> None:
    """Wait until both are Up and have agreed on their timers."""
    await a.wait_for(BFDState.UP)
    await b.wait_for(BFDState.UP)
    await asyncio.sleep(1)


class Journal:
    """What a session tells, and when, from now on."""

    def __init__(self, session: BFDSession) -> None:
        self._start = asyncio.get_running_loop().time()
        self._stream = session.events()
        self._task = asyncio.create_task(self._read(), name="reads a BFD session's events")
        self.notices: list[BFDEvent | EventsLost] = []

    async def _read(self) -> None:
        async for notice in self._stream:
            self.notices.append(notice)

    @property
    def changes(self) -> list[tuple[float, str, str]]:
        """Time since the start, state and diagnostic of each change of state."""
        return [
            (round(notice.at - self._start, 3), str(notice.state), str(notice.diagnostic))
            for notice in self.notices
            if isinstance(notice, BFDTransition)
        ]

    async def ended(self) -> None:
        """Wait for the end of the session."""
        await self._task
