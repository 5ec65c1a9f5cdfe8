"""Tracks whether a program runs (keepalived: ``vrrp_track_process``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Literal

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.host.processes import Process, Processes
from vrrpkit.values import whole_number
from vrrpkit.vrrp.tracker import Signal, Tracker

__all__ = ["TrackProcess"]


def _arguments(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class TrackProcess(Tracker):
    """Good while enough processes of a program run::

        TrackProcess("haproxy", quorum=2, terminate_delay=0.5)

    :param program: the name of the program (``process``): what ``ps -o comm`` shows, or the last
        part of its first argument; with a slash in it, the whole first argument
        (``full_command``).
    :param arguments: only processes with these arguments count (``param_match``).
    :param match: which arguments count as these: ``"exact"``; ``"initial"``: the first ones are;
        ``"partial"``: each of them is among them.
    :param quorum: processes that make it good, from 1 (``quorum``).
    :param quorum_max: more than so many are bad again, ``None`` for any number (``quorum_max``).
    :param fork_delay: seconds that it must stay good before that counts (``fork_delay``).
    :param terminate_delay: seconds that it must stay bad before that counts
        (``terminate_delay``): a program that is restarted sooner was never away.
    :raises ConfigError: a value is unusable.
    """

    program: str
    arguments: tuple[str, ...] | None = attrs.field(
        default=None, converter=_arguments, kw_only=True
    )
    match: Literal["exact", "initial", "partial"] = attrs.field(default="exact", kw_only=True)
    quorum: int = attrs.field(default=1, kw_only=True)
    quorum_max: int | None = attrs.field(default=None, kw_only=True)
    fork_delay: float = attrs.field(default=0.0, kw_only=True)
    terminate_delay: float = attrs.field(default=0.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.program:
            raise ConfigError("TrackProcess: the name of the program is empty")
        if self.match not in ("exact", "initial", "partial"):
            raise ConfigError(
                f"TrackProcess: match {self.match!r} must be 'exact', 'initial' or 'partial'"
            )
        whole_number("TrackProcess: quorum", self.quorum, 1, 1_000_000, "processes")
        if self.quorum_max is not None:
            whole_number(
                "TrackProcess: quorum_max", self.quorum_max, self.quorum, 1_000_000, "or None"
            )
        for name, delay in (
            ("fork_delay", self.fork_delay),
            ("terminate_delay", self.terminate_delay),
        ):
            if not 0 <= delay <= 3600:
                raise ConfigError(f"TrackProcess: {name} {delay} must be 0 to 3600 seconds")

    def describe(self) -> str:
        return f"process {self.program}"

    @staticmethod
    def told() -> bool:
        """Whether the kernel tells of every process on this event loop while one is tracked; else
        /proc is looked through once a second, and only the end of a process is seen at once."""
        return Processes.current().told

    def fits(self, process: Process) -> bool:
        """Whether a process is one of those that count."""
        first = process.command[0] if process.command else ""
        if "/" in self.program:
            named = first == self.program
        else:
            # The kernel keeps 15 octets of a name.
            short = self.program.encode()[:15].decode(errors="ignore")
            named = first.rpartition("/")[2] == self.program or process.name == short
        return named and self._arguments_fit(process.command[1:])

    def _arguments_fit(self, found: tuple[str, ...]) -> bool:
        wanted = self.arguments
        if wanted is None:
            return True
        if self.match == "exact":
            return found == wanted
        if self.match == "initial":
            return found[: len(wanted)] == wanted
        return set(wanted) <= set(found)

    async def signals(self) -> AsyncGenerator[Signal, None]:
        processes = Processes.current()
        fitting: set[int] = set()
        changed = asyncio.Event()

        def look(pids: Iterable[int] | None) -> None:
            if pids is None:
                pids = {*Process.everyone(), *fitting}
            for pid in pids:
                process = Process.read(pid)
                if process is not None and self.fits(process):
                    fitting.add(pid)
                    processes.mind(pid)
                else:
                    fitting.discard(pid)
            changed.set()

        stop = processes.listen(look)
        try:
            look(None)
            told = self._enough(len(fitting))
            yield told
            while True:
                await changed.wait()
                changed.clear()
                good = self._enough(len(fitting))
                if good is told:
                    continue
                delay = self.fork_delay if good else self.terminate_delay
                if delay and not await self._lasts(good, delay, changed, fitting):
                    continue
                told = good
                yield told
        finally:
            stop()

    def _enough(self, count: int) -> bool:
        return count >= self.quorum and (self.quorum_max is None or count <= self.quorum_max)

    async def _lasts(
        self, good: bool, delay: float, changed: asyncio.Event, fitting: set[int]
    ) -> bool:
        """Whether it stays so for ``delay`` seconds."""
        try:
            async with asyncio.timeout(delay):
                while self._enough(len(fitting)) is good:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            return True
        changed.set()
        return False
