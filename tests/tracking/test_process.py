"""TrackProcess on real processes, where the kernel tells of them and where it does not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from vrrpkit import ConfigError
from vrrpkit.host import processes
from vrrpkit.host.processes import Process, Processes, changed_by
from vrrpkit.tracking.process import TrackProcess
from vrrpkit.vrrp.tracker import Signal

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of a name of its own, longer than the kernel keeps."""
    path = tmp_path / f"vrrpkit-sleeper-{os.getpid()}"
    path.symlink_to(sys.executable)
    return path


@contextlib.contextmanager
def running(program: Path, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
    with subprocess.Popen([program, "-c", SLEEP, *arguments]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(params=["told", "polling"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the processes are known; polling is forced by a kernel that does not tell."""
    if request.param == "polling":

        def none() -> socket.socket:
            raise OSError("not here")

        monkeypatch.setattr(processes, "_connector", none)
        monkeypatch.setattr(processes, "POLL", 0.05)
    else:
        try:
            processes._connector().close()
        except OSError as problem:
            pytest.skip(f"the kernel does not tell of processes here: {problem}")
    return str(request.param)


class Watching:
    """Follows the signals of a tracker."""

    def __init__(self, tracker: TrackProcess) -> None:
        self._signals = tracker.signals()

    async def next(self) -> Signal:
        async with asyncio.timeout(20):
            return await anext(self._signals)

    async def silent(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await anext(self._signals)
        except TimeoutError:
            return True
        return False

    async def __aenter__(self) -> Watching:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._signals.aclose()


def test_a_program_comes_and_goes(way: str, program: Path) -> None:
    async def main() -> None:
        async with Watching(TrackProcess(program.name)) as watching:
            assert await watching.next() is False
            assert TrackProcess.told() is (way == "told")
            with running(program) as process:
                assert await watching.next() is True
                process.kill()
                assert await watching.next() is False
        assert not TrackProcess.told()

    asyncio.run(main())


def test_without_the_kernels_word_an_end_is_seen_at_once(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> socket.socket:
        raise OSError("not here")

    monkeypatch.setattr(processes, "_connector", none)
    monkeypatch.setattr(processes, "POLL", 3600.0)

    async def main() -> None:
        with running(program) as process:
            async with Watching(TrackProcess(program.name)) as watching:
                assert await watching.next() is True
                process.kill()
                assert await watching.next() is False

    asyncio.run(main())


def test_quorum_and_arguments(way: str, program: Path) -> None:
    tracker = TrackProcess(program.name, quorum=2, quorum_max=2, arguments=["x"], match="partial")

    async def main() -> None:
        async with Watching(tracker) as watching:
            assert await watching.next() is False
            with running(program, "x"), running(program, "y"), running(program, "x", "z"):
                assert await watching.next() is True
                with running(program, "x"):
                    assert await watching.next() is False
                assert await watching.next() is True
            assert await watching.next() is False

    asyncio.run(main())


def test_a_restart_within_the_delay_was_never_away(way: str, program: Path) -> None:
    async def main() -> None:
        with running(program) as first:
            tracker = TrackProcess(program.name, terminate_delay=30.0)
            async with Watching(tracker) as watching:
                assert await watching.next() is True
                waiting = asyncio.create_task(watching.next())
                first.kill()
                await asyncio.sleep(0.2)
                with running(program):
                    await asyncio.sleep(0.3)
                    assert not waiting.done()
                    waiting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await waiting

    asyncio.run(main())


def test_delays_end(way: str, program: Path) -> None:
    async def main() -> None:
        tracker = TrackProcess(program.name, fork_delay=0.2, terminate_delay=0.2)
        async with Watching(tracker) as watching:
            assert await watching.next() is False
            with running(program):
                assert await watching.next() is True
            assert await watching.next() is False

    asyncio.run(main())


def test_who_fits() -> None:
    process = Process(7, "haproxy", ("/usr/sbin/haproxy", "-f", "a.cfg", "-W"))
    assert TrackProcess("haproxy").fits(process)
    assert TrackProcess("/usr/sbin/haproxy").fits(process)
    assert not TrackProcess("/usr/bin/haproxy").fits(process)
    assert not TrackProcess("nginx").fits(process)
    assert TrackProcess("haproxy", arguments=["-f", "a.cfg", "-W"]).fits(process)
    assert not TrackProcess("haproxy", arguments=["-f", "a.cfg"]).fits(process)
    assert TrackProcess("haproxy", arguments=["-f", "a.cfg"], match="initial").fits(process)
    assert not TrackProcess("haproxy", arguments="-W", match="initial").fits(process)
    assert TrackProcess("haproxy", arguments="-W", match="partial").fits(process)
    assert not TrackProcess("haproxy", arguments="-x", match="partial").fits(process)
    renamed = Process(7, "a-name-that-is-", ("python3", "server.py"))
    assert TrackProcess("a-name-that-is-too-long").fits(renamed)
    assert TrackProcess("kthreadd").fits(Process(2, "kthreadd", ()))


def test_a_zombie_is_no_process(program: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is None:
            pass
        assert Process.read(process.pid) is None
    assert Process.read(2**22 + 1) is None
    me = Process.read(os.getpid())
    assert me is not None
    assert me.pid == os.getpid()


def message(what: int, *numbers: int) -> bytes:
    body = struct.pack("=IIQ", what, 0, 0) + struct.pack(f"={len(numbers)}I", *numbers)
    return bytes(16 + 20) + body.ljust(40, b"\0")


@pytest.mark.parametrize(
    ("datagram", "pid"),
    [
        (message(processes.FORK, 1, 1, 7, 7), 7),
        # A new thread of 7.
        (message(processes.FORK, 7, 7, 8, 7), None),
        (message(processes.EXEC, 7, 7), 7),
        (message(processes.EXEC, 8, 7), 7),
        (message(processes.COMM, 7, 7), 7),
        (message(processes.EXIT, 7, 7, 0, 0), 7),
        (message(processes.EXIT, 8, 7, 0, 0), None),
        (message(0x4, 7, 7), None),
        (b"", None),
        (bytes(40), None),
    ],
)
def test_messages(datagram: bytes, pid: int | None) -> None:
    assert changed_by(datagram) == pid


def test_bad_values_are_refused() -> None:
    for changes in (
        {"program": ""},
        {"quorum": 0},
        {"quorum": 3, "quorum_max": 2},
        {"match": "some"},
        {"fork_delay": -1},
        {"terminate_delay": 4000},
    ):
        with pytest.raises(ConfigError, match="TrackProcess"):
            TrackProcess(**({"program": "x"} | changes))  # type: ignore[arg-type]
    assert TrackProcess("nginx").label == "process nginx"


def test_one_for_each_loop() -> None:
    async def main() -> None:
        assert Processes.current() is Processes.current()

    asyncio.run(main())
