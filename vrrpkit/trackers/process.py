"""Tracks whether a program runs (keepalived: ``vrrp_track_process``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Literal, cast

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.linux.procevents import Process, Processes
from vrrpkit.tracking.runner import Reasons
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.validate import no_control, seconds, whole_number

__all__ = ["TrackProcess"]


def _arguments(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    try:
        found = (value,) if isinstance(value, str) else tuple(value)
    except TypeError:
        raise ConfigError(
            f"TrackProcess: arguments {value!r} must be a sequence; write ['-f', 'a.cfg']"
        ) from None
    for argument in found:
        if not isinstance(cast(object, argument), str):
            raise ConfigError(f"TrackProcess: argument {argument!r} must be text; write str(...)")
    return found


@attrs.frozen
class TrackProcess(Tracker):
    """Good while enough processes of a program run::

        TrackProcess("haproxy", quorum=2, terminate_delay=0.5)

    :param program: the name of the program (``process``): what ``ps -o comm`` shows, or the last
        part of its first argument; with a slash in it, the whole first argument
        (``full_command``).
    :param arguments: only processes with these arguments count; an empty sequence: only those
        without any.
    :param match: which arguments count as these (``param_match``): ``"exact"``; ``"partial"``: the
        first ones are, and more may follow; ``"initial"``: as before, and the last of these may be
        the beginning of a longer one; ``"contains"``: each of these is somewhere among them.
    :param quorum: processes that make it good, from 1 (``quorum``). If none may run, use 1 and
        ``reverse=True``.
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
    match: Literal["exact", "partial", "initial", "contains"] = attrs.field(
        default="exact", kw_only=True
    )
    quorum: int = attrs.field(default=1, kw_only=True)
    quorum_max: int | None = attrs.field(default=None, kw_only=True)
    fork_delay: float = attrs.field(default=0.0, kw_only=True)
    terminate_delay: float = attrs.field(default=0.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not isinstance(cast(object, self.program), str) or not self.program:
            raise ConfigError(
                f"TrackProcess: program {self.program!r} must be the name of a program, as text"
            )
        no_control("TrackProcess: program", self.program)
        if self.match not in ("exact", "partial", "initial", "contains"):
            raise ConfigError(
                f"TrackProcess: match {self.match!r} must be 'exact', 'partial', 'initial' or "
                "'contains'"
            )
        whole_number(
            "TrackProcess: quorum",
            self.quorum,
            1,
            1_000_000,
            "processes; if none may run, use 1 and reverse=True",
        )
        if self.quorum_max is not None:
            whole_number(
                "TrackProcess: quorum_max", self.quorum_max, self.quorum, 1_000_000, "or None"
            )
        for name, delay in (
            ("fork_delay", self.fork_delay),
            ("terminate_delay", self.terminate_delay),
        ):
            seconds(f"TrackProcess: {name}", delay, 0, 3600)

    def describe(self) -> str:
        return f"process {self.program}"

    @staticmethod
    def told() -> bool:
        """Whether the kernel tells of every process on this event loop while one is tracked. Else
        /proc is looked through once a second, and only the end of a process is seen at once; where
        there are more than 200, an old one that turns into another program is seen within ten
        seconds."""
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
        if self.match == "contains":
            return set(wanted) <= set(found)
        first = found[: len(wanted)]
        if self.match == "partial" or not wanted:
            return first == wanted
        return (
            len(first) == len(wanted)
            and first[:-1] == wanted[:-1]
            and first[-1].startswith(wanted[-1])
        )

    async def signals(self) -> AsyncGenerator[Signal, None]:
        processes = Processes.current()
        news: dict[int, Process | None] = {}
        fitting: set[int] = set()
        changed = asyncio.Event()
        reasons = Reasons(self.label)

        def hear(found: Mapping[int, Process | None]) -> None:
            news.update(found)
            changed.set()

        def enough() -> bool:
            # Here and not where it is heard: an error in fits() is for this tracker alone.
            for pid, process in news.items():
                if process is not None and self.fits(process):
                    fitting.add(pid)
                    processes.mind(pid)
                else:
                    fitting.discard(pid)
            news.clear()
            return self._enough(len(fitting))

        stop = processes.listen(hear)
        try:
            told = enough()
            reasons.look("" if told else self._count(len(fitting)))
            yield told
            while True:
                await changed.wait()
                changed.clear()
                good = enough()
                if good is told:
                    continue
                delay = self.fork_delay if good else self.terminate_delay
                if delay and not await _lasts(good, delay, changed, enough):
                    continue
                told = good
                reasons.look("" if told else self._count(len(fitting)))
                yield told
        finally:
            stop()

    def _count(self, count: int) -> str:
        """Why that many processes are no good."""
        if count < self.quorum:
            return f"processes that run: {count}, and it takes {self.quorum}"
        return f"processes that run: {count}, and there may be {self.quorum_max}"

    def _enough(self, count: int) -> bool:
        return count >= self.quorum and (self.quorum_max is None or count <= self.quorum_max)


async def _lasts(
    good: bool, delay: float, changed: asyncio.Event, enough: Callable[[], bool]
) -> bool:
    """Whether it stays so for ``delay`` seconds."""
    try:
        async with asyncio.timeout(delay):
            while enough() is good:
                await changed.wait()
                changed.clear()
    except TimeoutError:
        return True
    changed.set()
    return False
