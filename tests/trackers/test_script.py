"""TrackScript: its rhythm under virtual time, and real programs."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.commands.command import Command, Finished
from vrrpkit.errors import UntrustedCommand
from vrrpkit.testing import virtual_time
from vrrpkit.trackers.script import TrackScript
from vrrpkit.tracking.tracker import Signal


async def told(tracker: TrackScript, count: int) -> list[tuple[float, Signal]]:
    """The first signals, and when they came."""
    loop = asyncio.get_running_loop()
    start, found = loop.time(), []
    signals = tracker.signals()
    async for signal in signals:
        found.append((round(loop.time() - start, 3), signal))
        if len(found) == count:
            break
    await signals.aclose()
    return found


class Runs:
    """Takes the place of real programs: how long each run takes, and how it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *runs: tuple[float, str]) -> None:
        self._runs = list(runs)
        self.started: list[float] = []
        self.active = 0
        runs_ = self

        async def run(self: Command, environment: Mapping[str, str] | None = None) -> Finished:
            return await runs_._run(self)

        monkeypatch.setattr(Command, "run", run)

    async def _run(self, command: Command) -> Finished:
        assert self.active == 0, "two runs at once"
        self.active += 1
        loop = asyncio.get_running_loop()
        self.started.append(round(loop.time() - 1000, 3))
        takes, how = self._runs.pop(0)
        assert command.timeout is not None
        timed_out = takes > command.timeout
        await asyncio.sleep(takes)
        self.active -= 1
        if how == "gone":
            raise UntrustedCommand("gone")
        if how == "busy":
            raise OSError(errno.EMFILE, "Too many open files")
        return Finished(
            status=None if how == "lost" else 0 if how == "+" else 1,
            signal=None,
            timed_out=timed_out,
            output=b"",
            truncated=False,
            duration=takes,
        )


def test_it_runs_at_once_and_at_a_fixed_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, (0.25, "+"), (0.5, "-"), (0.0, "+"))

    @virtual_time()
    async def main() -> None:
        assert await told(TrackScript("true", interval=1), 3) == [
            (0.25, True),
            (1.5, False),
            (2.0, True),
        ]

    main()
    assert runs.started == [0, 1, 2]


def test_a_run_that_is_due_during_another_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, (2.5, "+"), (0.0, "+"), (1.0, "+"), (0.0, "+"))

    @virtual_time()
    async def main() -> None:
        await told(TrackScript("true", interval=1, timeout=10), 4)

    main()
    assert runs.started == [0, 3, 4, 5]


def test_what_took_too_long_has_failed_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    Runs(monkeypatch, (0.0, "+"), (3.0, "+"), (0.0, "gone"))

    @virtual_time()
    async def main() -> None:
        assert await told(TrackScript("true", interval=1), 3) == [
            (0, True),
            (4, False),
            (4, False),
        ]

    main()


@pytest.mark.parametrize(
    ("initially", "results", "expected"),
    [
        (None, "+--+", [True, True, False, False]),
        (False, "++-", [False, False, True, True]),
        (True, "---", [True, True, False, False]),
    ],
)
def test_counter_rules(
    monkeypatch: pytest.MonkeyPatch, initially: bool | None, results: str, expected: list[Signal]
) -> None:
    Runs(monkeypatch, *((0.0, result) for result in results))
    tracker = TrackScript("true", rise=2, fall=2, initially=initially)
    assert [s for _, s in virtual_time()(told)(tracker, len(expected))] == expected


def sh(script: str, **options: Any) -> TrackScript:
    return TrackScript(["/bin/sh", "-c", script], **options)


def test_real_programs() -> None:
    assert [s for _, s in asyncio.run(told(sh("exit 0", interval=0.01), 2))] == [True, True]
    assert [s for _, s in asyncio.run(told(sh("exit 2", interval=0.01), 1))] == [False]
    hangs = sh("trap 'exit 0' TERM; sleep 60 & wait", timeout=0.1)
    assert [s for _, s in asyncio.run(told(hangs, 1))] == [False]


def test_stopping_ends_a_run_that_is_under_way(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def main() -> None:
        task = asyncio.create_task(told(sh(f"echo $$ > {pid}; sleep 60", timeout=60), 1))
        async with asyncio.timeout(10):
            while not (os.path.exists(pid) and os.path.getsize(pid)):  # noqa: ASYNC110, ASYNC240
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert not os.path.exists(f"/proc/{pid.read_text().strip()}")


def test_one_that_vanishes_has_failed_and_is_found_again(tmp_path: Path) -> None:
    program = tmp_path / "fit"

    def install() -> None:
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)

    async def main() -> None:
        bus = MemoryBus()
        track = [TrackScript([str(program)], interval=0.05, timeout=10)]
        program.unlink()
        async with VRRPInstance(
            "a",
            bus.interface("192.0.2.1"),
            vrid=1,
            vips=["192.0.2.10/24"],
            interval=0.02,
            track=track,
        ) as a:
            assert a.faults == {"script fit"}
            async with asyncio.timeout(20):
                for _ in range(2):
                    install()
                    await a.wait_for(State.MASTER)
                    program.unlink()
                    await a.wait_for(State.FAULT)
                    assert a.signals == {"script fit": False}

    install()
    asyncio.run(main())


def test_its_environment_is_its_own() -> None:
    given = {"A": "1"}
    tracker = TrackScript("true", environment=given)
    given["A"] = "2"
    assert tracker == TrackScript("true", environment={"A": "1"})


def test_bad_values_are_refused() -> None:
    for changes in (
        {"interval": 0},
        {"interval": "1"},
        {"interval": float("nan")},
        {"timeout": 0},
        {"rise": 0},
        {"fall": 0},
        {"initially": 1},
    ):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            TrackScript("true", **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="install it"):
        TrackScript("no-such-program-anywhere")
    assert TrackScript("/bin/true -x").label == "script true"


@virtual_time()
async def test_the_first_of_failures_in_a_row_is_logged_with_what_it_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Runs(monkeypatch, (0, "+"), (0, "-"), (0, "-"), (0, "gone"), (0, "+"), (0, "gone"))
    caplog.set_level("INFO")
    await told(TrackScript("true"), 6)
    warned = [record.message for record in caplog.records if record.levelname == "INFO"]
    assert len(warned) == 2
    assert "exit status 1" in warned[0]
    assert "is not run: gone" in warned[1]


def test_trouble_of_our_own_is_no_result(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two failures in a row count, and what could not be run stands between them."""
    caplog.set_level(logging.DEBUG)
    Runs(monkeypatch, *((0.0, how) for how in ("+", "-", "busy", "lost", "busy", "-")))
    tracker = TrackScript("true", fall=2)
    found = virtual_time()(told)(tracker, 3)
    assert found == [(0, True), (1, True), (5, False)]
    lines = [r.message for r in caplog.records if "cannot look" in r.message]
    assert [("Too many open files" in line, "not known" in line) for line in lines] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    # The same again is worth no line.
    assert [r.levelname for r in caplog.records if "cannot look" in r.message] == [
        "WARNING",
        "WARNING",
        "DEBUG",
    ]
