"""Tells that something on a host has changed which may matter to what the kernel refused: a link,
an address or a route, unless this library did it.

Opened only while somebody waits for it: a host may learn thousands of routes a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from vrrpkit.host.links.monitor import LinkMonitor
from vrrpkit.host.links.records import MARK
from vrrpkit.host.routing import records
from vrrpkit.linux.netlink import Overrun, Subscription
from vrrpkit.linux.netns import Namespace
from vrrpkit.timers import Deadlines

__all__ = ["HostChanges"]

log = logging.getLogger(__name__)

GROUPS = 0x40 | 0x400
"""RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE."""

BY_KERNEL = 2
"""RTPROT_KERNEL: routes that come with an address, of which the link monitor tells."""

READS = 64
"""Datagrams read in one go."""

RETRY = 30.0
"""Seconds until routes are followed that could not be, for want of a socket."""


class HostChanges:
    """Calls ``changed`` from when it is made until :meth:`close`, on the event loop."""

    def __init__(
        self,
        namespace: Namespace,
        monitor: LinkMonitor,
        deadlines: Deadlines,
        changed: Callable[[], None],
    ) -> None:
        self._namespace = namespace
        self._changed = changed
        self._routes: Subscription | None = None
        # Kept because a reader must be removed from the loop that has it, whoever closes.
        self._loop = asyncio.get_running_loop()
        self._deadlines = deadlines
        self._retry = deadlines.new(self._open)
        self._unwatch = monitor.watch_all(changed)
        self._open()

    def close(self) -> None:
        """Follow nothing any more; calling it twice is harmless."""
        self._unwatch()
        self._retry.set(None)
        routes, self._routes = self._routes, None
        if routes is not None:
            self._loop.remove_reader(routes.fileno())
            routes.close()

    def _open(self) -> None:
        try:
            self._routes = Subscription(self._namespace, GROUPS)
        except OSError as problem:
            log.warning("routes cannot be followed: %s; tries again in %g s", problem, RETRY)
            self._retry.set(self._deadlines.now() + RETRY)
            return
        self._loop.add_reader(self._routes.fileno(), self._readable)

    def _readable(self) -> None:
        if self._read():
            self._changed()

    def _read(self) -> bool:
        """Take in what waits; whether any of it matters."""
        seen = False
        try:
            for _ in range(READS):
                messages = [] if self._routes is None else self._routes.read()
                if not messages:
                    break
                for message in messages:
                    record = records.parse_route(message.payload)
                    seen = seen or (record is not None and record.protocol not in (BY_KERNEL, MARK))
        except Overrun:
            return True
        return seen
