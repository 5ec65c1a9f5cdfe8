"""What goes past the event loop to the real world asks here first, and learns of virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["needs_real_world"]


def needs_real_world(what: str) -> None:
    """Refuse ``what`` where no real time passes. Sockets and threads that go by the event loop need
    not ask: the loop of :mod:`vrrpkit.testing` refuses those by itself.

    :param what: what is about to begin, as "running a program".
    :raises vrrpkit.testing.RealWorldNeeded: the running event loop is one of virtual time. The test
        ends with it, whatever catches it here.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    refuse: Callable[[str], None] | None = getattr(loop, "refuse_real_world", None)
    if refuse is not None:
        refuse(what)
