"""Tracks the number in a file (keepalived: ``track_file``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

import attrs

from vrrpkit.checks.file import read_number
from vrrpkit.errors import CheckFailed, ConfigError, CouldNotAsk
from vrrpkit.linux.inotify import watch
from vrrpkit.local_errors import Complaints
from vrrpkit.tracking.runner import complain
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.validate import as_path, is_whole, no_control

__all__ = ["TrackFile"]

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds until a file is read again that could not be, for a reason of ours."""


@attrs.frozen
class TrackFile(Tracker):
    """The whole number in a file, times ``weight``, is added to the priority::

        TrackFile("/run/priority-offset", weight=1)

    A product of -254 or less is FAULT. With ``weight=0`` any number but 0 is FAULT. A change is
    noticed at once (by inotify; where the system has none left, within a second).

    :param path: the file (``file``).
    :param missing: what counts while there is no such file, or it holds no whole number; ``None``:
        not known, which adds nothing, and is FAULT with ``weight=0``.
    :raises ConfigError: the path is empty, or ``missing`` is no number.
    """

    path: str = attrs.field(converter=as_path)
    missing: int | None = attrs.field(default=0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.path:
            raise ConfigError("TrackFile: the path is empty; name the file")
        no_control("TrackFile: path", self.path)
        if self.missing is not None and not is_whole(self.missing):
            raise ConfigError(f"TrackFile: missing {self.missing!r} must be a whole number or None")

    def describe(self) -> str:
        return f"file {self.path}"

    async def signals(self) -> AsyncGenerator[Signal, None]:
        changed = asyncio.Event()
        stop = watch(self.path, changed.set)
        complaints = Complaints()
        try:
            while True:
                again: float | None = None
                try:
                    value = self._value()
                except CouldNotAsk as problem:
                    again = LOOK
                    now = asyncio.get_running_loop().time()
                    complain(complaints, self.label, problem, now)
                else:
                    yield value
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(again):
                        await changed.wait()
                changed.clear()
        finally:
            stop()

    def _value(self) -> int | None:
        try:
            return read_number(self.path)
        except CheckFailed as problem:
            log.info("%s: %s counts: %s", self.label, self.missing, problem)
            return self.missing
