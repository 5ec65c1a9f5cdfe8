"""Waits until checks that were closed have really ended, but not for ever: what a user wrote may
swallow its cancellation, or spend half a minute on a goodbye."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from vrrpkit.checks.engine.check import Check
from vrrpkit.lifecycle.shutdown import patience
from vrrpkit.runtime import Runtime

__all__ = ["settle"]

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds for all together. A command that does not heed SIGTERM is killed after 2."""

SHORT = 0.5
"""The same in a hurry, and where others did not end a moment ago: many pools may leave in a row."""

MOMENT = 30.0

AGAIN = 0.1
"""Seconds after a second cancellation."""


class _LeftBehind:
    """Checks were left behind a moment ago. The timer keeps it for as long as that is so."""

    def __init__(self) -> None:
        self._expiry = asyncio.get_running_loop().call_later(MOMENT, self.shutdown)

    def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        self._expiry.cancel()


async def settle(checks: Iterable[Check]) -> None:
    """Wait until the attempts of these checks have ended; the checks are closed. What does not end
    is named in the log and left behind: nobody hears of it any more."""
    pending = {check.ending: check for check in checks if check.ending is not None}
    if not pending:
        return
    loop = asyncio.get_running_loop()
    since = loop.time()
    runtime = Runtime.current(loop)
    recently = runtime.find(_LeftBehind) is not None
    try:
        async with patience(SHORT if recently else PATIENCE, SHORT):
            await asyncio.wait(pending)
    except TimeoutError:
        # Whoever ends a process has had the time for it: the second one may cut that short.
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN)
    stuck = [check for task, check in pending.items() if not task.done()]
    if stuck:
        runtime.forget(_LeftBehind)
        runtime.use(_LeftBehind)
        names = ", ".join(f"{check.checker} of {check.target}" for check in stuck[:5])
        more = f" and {len(stuck) - 5} more" if len(stuck) > 5 else ""
        log.warning(
            "checks that were cancelled %.1f s ago still run and are left behind: %s%s; their "
            "check() must let asyncio.CancelledError pass",
            loop.time() - since,
            names,
            more,
        )
