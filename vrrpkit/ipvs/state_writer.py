"""Has what is known of a pool written down when it changes, and often enough to stay young."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vrrpkit.ipvs.model.adoption import LIFETIME, PoolMemory
from vrrpkit.ipvs.statefile import StateRecord

__all__ = ["StateWriter"]

PAUSE = 1.0
"""Seconds from a change until it is written: servers that flap cost one write for all."""

SHARE = 20
"""The same at least, as a multiple of what the last write took."""

REFRESH = LIFETIME / 4
"""Seconds after which it is written although nothing changed."""


class StateWriter:
    """Writes down what one virtual server knows of its servers; without a state file, nothing.

    :param current: what is known now.
    """

    def __init__(self, record: StateRecord, current: Callable[[], PoolMemory]) -> None:
        self._record = record
        self._current = current
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        self._took = 0.0

    def begin(self) -> None:
        """Write now, and from now on."""
        if self._record.kept:
            self._write()

    def changed(self) -> None:
        """Something may be otherwise than it was written."""
        if self._timer is not None and not self._soon:
            self._soon = True
            self._arm(max(PAUSE, SHARE * self._took))

    def end(self) -> None:
        """Write what has not been written, and nothing from now on."""
        if self._timer is not None:
            self._write()
            self._timer.cancel()
            self._timer = None

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._record.remember(self._current())
        self._took = loop.time() - began
        self._soon = False
        self._arm(REFRESH)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._write)
