"""Many virtual routers in one process, for the benchmarks.

    python crowd.py '{"interface": "eth0", "count": 255, "interval": 0.1, "priority": 150}'

Transitions are printed as lines of JSON, ``[name, state, reason]``, some time after they happened,
so that telling of a failover does not delay it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import vrrpkit
from vrrpkit import Transition, VRRPInstance

QUIET = 0.5
"""Seconds from a transition until it is printed."""


class Journal:
    """Collects transitions and prints them later."""

    def __init__(self) -> None:
        self._changes: list[Transition] = []

    def note(self, change: Transition) -> None:
        """Keep a transition, to be printed."""
        if not self._changes:
            asyncio.get_running_loop().call_later(QUIET, self._print)
        self._changes.append(change)

    def _print(self) -> None:
        for change in self._changes:
            print(json.dumps([change.router, change.state.value, change.reason.value]))
        sys.stdout.flush()
        self._changes.clear()


async def main(*, interface: str, count: int, interval: float, priority: int) -> None:
    """Run ``count`` virtual routers, with one address each, until a signal comes."""
    journal = Journal()
    async with contextlib.AsyncExitStack() as stack:
        for vrid in range(1, count + 1):
            router = VRRPInstance(
                f"r{vrid}",
                interface,
                vrid=vrid,
                vips=[f"198.18.0.{vrid}/32"],
                priority=priority,
                interval=interval,
            )
            router.on_transition(journal.note)
            await stack.enter_async_context(router)
        await asyncio.Event().wait()


if __name__ == "__main__":
    options: dict[str, Any] = json.loads(sys.argv[1])
    vrrpkit.run(main(**options))
