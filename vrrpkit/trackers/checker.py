"""Tracks the health of a server by any health checker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import cast

import attrs

from vrrpkit.checks.base import Checker
from vrrpkit.checks.engine.closing import settle
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.events import CheckResult
from vrrpkit.checks.target import Target
from vrrpkit.errors import ConfigError
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.validate import one_line
from vrrpkit.values import IPAddress, parse_address

__all__ = ["TrackChecker"]

log = logging.getLogger(__name__)


def _address(value: str | IPAddress) -> IPAddress:
    return parse_address(value, "address")


@attrs.frozen
class TrackChecker(Tracker):
    """Good while a health checker finds a server healthy::

        TrackChecker(HTTPChecker("/healthz", interval=1), "127.0.0.1", 8080, weight=-60)

    The checker's own interval, retries, ``rise`` and ``fall`` apply. Until its first result the
    signal is not known.

    :param checker: any :class:`vrrpkit.Checker`.
    :param address: the address to check.
    :param port: the port to check, for checkers that need one.
    :raises ConfigError: the checker cannot check that.
    """

    checker: Checker
    address: IPAddress = attrs.field(converter=_address)
    port: int | None = None

    def __attrs_post_init__(self) -> None:
        given = cast(object, self.checker)
        if not isinstance(given, Checker):
            raise ConfigError(f"TrackChecker takes a Checker, not {given!r}")
        self.checker.validate(self._target)

    @property
    def _target(self) -> Target:
        return Target(self.address, self.port)

    def describe(self) -> str:
        return f"{self.checker} of {self._target}"

    async def signals(self) -> AsyncGenerator[Signal, None]:
        came = asyncio.Event()
        results: list[CheckResult] = []

        def take(result: CheckResult) -> None:
            results[:] = [result]
            came.set()

        check = CheckScheduler.current().add(self.checker, self._target, on_result=take)
        try:
            while True:
                await came.wait()
                came.clear()
                result = results[0]
                if result.changed and not result.healthy:
                    log.info("%s: %s", self.label, one_line(result.text))
                yield result.healthy
        finally:
            check.close()
            await settle((check,))
