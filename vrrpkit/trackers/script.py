"""Tracks what a program says (keepalived: ``vrrp_script``, ``track_script``)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import cast

import attrs

from vrrpkit.commands.command import Command, attempted, group_names, variables, words
from vrrpkit.errors import ConfigError, CouldNotAsk, UntrustedCommand
from vrrpkit.local_errors import Complaints
from vrrpkit.tracking.counter import Counter
from vrrpkit.tracking.limits import rows
from vrrpkit.tracking.runner import complain
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.validate import seconds
from vrrpkit.values import hidden

__all__ = ["TrackScript"]

log = logging.getLogger(__name__)


@attrs.frozen
class TrackScript(Tracker):
    """Good while a program ends with exit status 0::

        TrackScript(["/usr/bin/pgrep", "-x", "haproxy"], interval=2, rise=3, fall=2, weight=-60)

    It runs at once and then every ``interval`` seconds, without a shell, in a process group of its
    own, and never twice at the same time: a run that is due while another is under way is left out.
    One that is not done within ``timeout`` seconds gets SIGTERM with its whole group, two seconds
    later SIGKILL, and has failed, whatever it says then. The first result counts at once, later
    ones after ``rise`` successes or ``fall`` failures in a row; one success forgives all failures.
    Where this machine has no file descriptor or process left, or the exit status is lost, what held
    before holds on.

    :param argv: the program and its arguments (``script``), as a sequence or as text that is split
        the way a shell would.
    :param interval: seconds from the start of one run to that of the next, 0.01 to 86400.
    :param timeout: seconds; by default ``interval``.
    :param rise: successes in a row that count as good, from 1.
    :param fall: failures in a row that count as bad, from 1.
    :param initially: before the first result: ``None``: not known; ``False``: bad, and it takes
        ``rise`` successes (``init_fail``); ``True``: good, and it takes ``fall`` failures.
    :param user: run it as this user (``user``); needs root. By default the user of this program.
    :param groups: with ``user``, the groups instead of the user's own.
    :param environment: variables to add.
    :raises ConfigError: a value is unusable, there is no such program or user, or it would run as
        root and others may change it.
    """

    argv: str | tuple[str, ...] = attrs.field(converter=words)
    interval: float = attrs.field(default=1.0, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True)
    rise: int = attrs.field(default=1, kw_only=True)
    fall: int = attrs.field(default=1, kw_only=True)
    initially: bool | None = attrs.field(default=None, kw_only=True)
    user: str | int | None = attrs.field(default=None, kw_only=True)
    groups: tuple[str | int, ...] | None = attrs.field(
        default=None, kw_only=True, converter=group_names
    )
    environment: Mapping[str, str] = attrs.field(
        factory=dict[str, str], kw_only=True, hash=False, converter=variables, repr=hidden
    )
    _command: Command = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        seconds("TrackScript: interval", self.interval, 0.01, 86400)
        rows("TrackScript", self.rise, self.fall, "results")
        if self.initially is not None and not isinstance(cast(object, self.initially), bool):
            raise ConfigError(
                f"TrackScript: initially {self.initially!r} must be True, False or None"
            )
        command = Command(
            self.argv,
            user=self.user,
            groups=self.groups,
            timeout=self.interval if self.timeout is None else self.timeout,
            environment=self.environment,
        )
        object.__setattr__(self, "_command", command)

    def describe(self) -> str:
        return f"script {self._command.argv[0].rpartition('/')[2]}"

    async def signals(self) -> AsyncGenerator[Signal, None]:
        counter = Counter(self.rise, self.fall, self.initially)
        if counter.up is not None:
            yield counter.up
        loop = asyncio.get_running_loop()
        due = loop.time()
        passed = True
        complaints = Complaints()
        while True:
            try:
                # Of failures in a row the operator wants to know the first one.
                passed = await self._passes(logging.INFO if passed else logging.DEBUG)
            except CouldNotAsk as problem:
                complain(complaints, self.label, problem, loop.time())
            else:
                counter.count(passed)
                yield counter.up
            late = loop.time() - due
            due += self.interval * max(1, -(-late // self.interval))
            await asyncio.sleep(due - loop.time())

    async def _passes(self, level: int) -> bool:
        try:
            done = await attempted(self._command)
        except (UntrustedCommand, OSError) as problem:
            log.log(level, "%s is not run: %s", self.label, problem)
            return False
        if not done.ok:
            log.log(level, "%s: %s", self.label, done)
        return done.ok
