"""TrackProcess on real processes, where the kernel tells of them and where it does not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest

from vrrpkit import ConfigError
from vrrpkit.linux import procevents
from vrrpkit.linux.procevents import Process, Processes, changed_by
from vrrpkit.testing import virtual_time
from vrrpkit.trackers.process import TrackProcess
from vrrpkit.tracking.tracker import Signal

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of a name that is longer than the kernel keeps; what is kept is its own too."""
    path = tmp_path / f"vk{os.getpid()}-sleeps-for-a-minute"
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
def endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the processes are known; polling is forced by a kernel that does not tell."""
    if request.param == "polling":

        def none() -> socket.socket:
            raise OSError("not here")

        monkeypatch.setattr(procevents, "_connector", none)
        monkeypatch.setattr(procevents, "POLL", 0.05)
    else:
        try:
            procevents._connector().close()
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


def test_a_program_comes_and_goes(endpoint: str, program: Path) -> None:
    async def main() -> None:
        async with Watching(TrackProcess(program.name)) as watching:
            assert await watching.next() is False
            assert TrackProcess.told() is (endpoint == "told")
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

    monkeypatch.setattr(procevents, "_connector", none)
    monkeypatch.setattr(procevents, "POLL", 3600.0)

    async def main() -> None:
        with running(program) as process:
            async with Watching(TrackProcess(program.name)) as watching:
                assert await watching.next() is True
                process.kill()
                assert await watching.next() is False

    asyncio.run(main())


def test_quorum_and_arguments(endpoint: str, program: Path) -> None:
    tracker = TrackProcess(program.name, quorum=2, quorum_max=2, arguments=["x"], match="contains")

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


def test_a_restart_within_the_delay_was_never_away(endpoint: str, program: Path) -> None:
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


def test_delays_end(endpoint: str, program: Path) -> None:
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
    assert not TrackProcess("haproxy", arguments=[]).fits(process)
    assert TrackProcess("haproxy", arguments=[]).fits(Process(7, "haproxy", ("haproxy",)))
    for arguments, match, fits in (
        (["-f", "a.cfg"], "partial", True),
        (["-f", "a"], "partial", False),
        ("-W", "partial", False),
        ([], "partial", True),
        (["-f", "a"], "initial", True),
        (["-", "a.cfg"], "initial", False),
        (["-f", "a.cfg", "-W", "-"], "initial", False),
        ([], "initial", True),
        (["-W", "-f"], "contains", True),
        ("-x", "contains", False),
    ):
        tracker = TrackProcess("haproxy", arguments=arguments, match=match)  # type: ignore[arg-type]
        assert tracker.fits(process) is fits, (arguments, match)
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


NOBODY = 2**22 + 1
"""A number that the kernel gives to no process."""


class FakeProc:
    """A /proc of processes that do not exist, read as the real one, on a kernel that does not
    tell."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.reads: list[int] = []
        self.broken = False
        monkeypatch.setattr(procevents, "PROC", str(directory))
        monkeypatch.setattr(procevents, "_connector", self._none)
        read = Process.read

        def counted(pid: int) -> Process | None:
            self.reads.append(pid)
            if self.broken:
                raise OSError(24, "Too many open files")
            return read(pid)

        monkeypatch.setattr(Process, "read", counted)

    def _none(self) -> socket.socket:
        raise OSError("not here")

    def put(self, pid: int, name: str, *arguments: str, state: str = "S") -> None:
        directory = self.directory / str(pid)
        directory.mkdir(exist_ok=True)
        (directory / "stat").write_text(f"{pid} ({name}) {state} 1 2 3")
        (directory / "cmdline").write_text("".join(f"{part}\0" for part in (name, *arguments)))

    def remove(self, pid: int) -> None:
        for file in (self.directory / str(pid)).iterdir():
            file.unlink()
        (self.directory / str(pid)).rmdir()

    def taken(self) -> list[int]:
        """What was read since the last time."""
        reads, self.reads = self.reads, []
        return reads


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    return FakeProc(tmp_path, monkeypatch)


@contextlib.contextmanager
def following(*programs: str) -> Generator[dict[str, set[int]]]:
    """What of some programs runs."""
    found: dict[str, set[int]] = {program: set() for program in programs}

    def listener(program: str) -> Callable[[Mapping[int, Process | None]], None]:
        tracker = TrackProcess(program)

        def take(changed: Mapping[int, Process | None]) -> None:
            for pid, process in changed.items():
                if process is not None and tracker.fits(process):
                    found[program].add(pid)
                else:
                    found[program].discard(pid)

        return take

    stops = [Processes.current().listen(listener(program)) for program in programs]
    try:
        yield found
    finally:
        for stop in stops:
            stop()


def test_a_look_through_many_processes_is_cheap_and_in_pieces(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in range(1, 2001):
        proc.put(pid, "idle")
    proc.put(2001, "web")
    turns: list[int] = []
    go_on = Processes._go_on

    def counted(self: Processes) -> None:
        before = len(proc.reads)
        go_on(self)
        turns.append(len(proc.reads) - before)

    monkeypatch.setattr(Processes, "_go_on", counted)

    @virtual_time()
    async def main() -> None:
        with following("web", "db") as found:
            assert found == {"web": {2001}, "db": set()}
            # All who listen share what was read.
            assert len(proc.taken()) == 2001
            await asyncio.sleep(procevents.YOUNG + 2.5)
            proc.taken()
            turns.clear()
            proc.put(2002, "db")
            proc.remove(2001)
            await asyncio.sleep(1)
            assert found == {"web": set(), "db": {2002}}
            assert sum(turns) == len(proc.taken()) < 250
            assert 0 < max(turns) <= procevents.SLICE

    main()


def test_one_that_turns_into_another_program_is_found(proc: FakeProc) -> None:
    for pid in range(1, 1001):
        proc.put(pid, "idle")

    @virtual_time()
    async def main() -> None:
        with following("web") as found:
            await asyncio.sleep(1.5)
            proc.put(2000, "sh")
            await asyncio.sleep(2)
            # A new one soon, an old one in its turn, of which all have one within ten looks.
            proc.put(2000, "web")
            await asyncio.sleep(1)
            assert found == {"web": {2000}}
            await asyncio.sleep(10)
            proc.put(7, "web")
            proc.put(990, "web")
            await asyncio.sleep(10)
            assert found == {"web": {7, 990, 2000}}
            proc.put(7, "web", state="Z")
            await asyncio.sleep(10)
            assert found == {"web": {990, 2000}}

    main()


def test_a_second_listener_knows_what_has_begun_since_the_last_look(proc: FakeProc) -> None:
    proc.put(1, "web")

    @virtual_time()
    async def main() -> None:
        with following("web") as first:
            proc.put(2, "web")
            with following("web") as second:
                assert first == second == {"web": {1, 2}}

    main()


def test_an_error_in_fits_is_for_that_tracker_alone(proc: FakeProc) -> None:
    class Odd(TrackProcess):
        def fits(self, process: Process) -> bool:
            return len(process.command[1]) > 0

    @virtual_time()
    async def main() -> None:
        async with Watching(TrackProcess("web")) as well, Watching(Odd("web")) as odd:
            assert (await well.next(), await odd.next()) == (False, False)
            proc.put(NOBODY, "web")
            assert await well.next() is True
            with pytest.raises(IndexError):
                await odd.next()
            proc.remove(NOBODY)
            assert await well.next() is False

    main()


def test_a_loss_during_a_look_leads_to_another_one(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in range(1, 101):
        proc.put(pid, "idle")
    kernel = Kernel(monkeypatch)
    monkeypatch.setattr(procevents, "POLL", 0.05)
    monkeypatch.setattr(procevents, "NAMES", 1)

    async def main() -> None:
        with following("web") as found:
            async with asyncio.timeout(10):
                kernel.lose(1)
                while Processes.current()._look is None:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                # The directory has been read already, though not yet all of it been taken in.
                proc.put(200, "web")
                kernel.lose(1)
                while not found["web"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)

    with kernel:
        asyncio.run(main())


def test_what_cannot_be_read_has_not_ended(
    proc: FakeProc, caplog: pytest.LogCaptureFixture
) -> None:
    proc.put(1, "web")

    @virtual_time()
    async def main() -> None:
        with following("web") as found:
            proc.broken = True
            proc.put(2, "web")
            await asyncio.sleep(5)
            assert found == {"web": {1}}
            proc.broken = False
            await asyncio.sleep(2)
            assert found == {"web": {1, 2}}
            proc.broken = True
            proc.put(3, "db")
            with pytest.raises(OSError, match="Too many open files"), following("db"):
                pass

    main()
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.message for record in warned] == [
        "processes cannot be looked at: [Errno 24] Too many open files"
    ]


class Kernel:
    """Tells of processes, as the socket that it does so on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.setblocking(False)
        self.lost = 0
        self.fileno = self._ours.fileno
        self.close = self._ours.close
        monkeypatch.setattr(procevents, "_connector", lambda: self)

    def recv(self, size: int) -> bytes:
        if self.lost:
            self.lost -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return self._ours.recv(size)

    def tell(self, what: int, *numbers: int) -> None:
        """Send a message."""
        self._theirs.send(message(what, *numbers))

    def lose(self, count: int) -> None:
        """Have so many losses of messages reported, when there is one to read."""
        self.lost = count
        # It ended before anybody could look.
        self.tell(procevents.FORK, 1, 1, NOBODY, NOBODY)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._theirs.close()


def test_a_storm_of_processes(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of more than is read in time: then all is looked through, but not at once,
    and not for every loss."""
    proc.put(1, "web")
    kernel = Kernel(monkeypatch)

    async def main() -> None:
        with following("web") as found:
            assert Processes.current().told
            proc.put(2, "web")
            kernel.tell(procevents.EXEC, 2, 2)
            async with asyncio.timeout(10):
                while found["web"] != {1, 2}:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                proc.put(3, "web")
                proc.remove(1)
                for _ in range(50):
                    kernel.lose(300)
                while kernel.lost:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                while found["web"] != {2, 3}:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            # Once for all losses, and nothing goes on after it.
            assert proc.taken().count(2) == 2
            await asyncio.sleep(0.7)
            assert proc.taken() == []

    monkeypatch.setattr(procevents, "POLL", 0.5)
    with kernel:
        asyncio.run(main())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EPERM])
def test_the_kernel_is_asked_again_after_a_passing_failure(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    proc.put(1, "web")
    kernel = Kernel(monkeypatch)
    asked: list[None] = []
    failures = 2

    def connector() -> Kernel:
        nonlocal failures
        asked.append(None)
        if failures:
            failures -= 1
            raise OSError(number, os.strerror(number))
        return kernel

    async def main() -> None:
        with following("web") as found:
            processes = Processes.current()
            assert not processes.told
            if number == errno.EPERM:
                await asyncio.sleep(0.3)
                assert len(asked) == 1, "that stays as it is"
                return
            async with asyncio.timeout(10):
                while not processes.told:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                # Begun before the kernel told, and not seen by a look.
                proc.put(2, "web")
                while found["web"] != {1, 2}:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.7)
                proc.taken()
                proc.put(3, "web")
                kernel.tell(procevents.EXEC, 3, 3)
                while found["web"] != {1, 2, 3}:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                assert proc.taken() == [3], "no more looks through all"
        assert len(asked) == 3

    monkeypatch.setattr(procevents, "_connector", connector)
    monkeypatch.setattr(procevents, "POLL", 0.3)
    monkeypatch.setattr(procevents, "ASK_AGAIN", 0.05)
    with kernel:
        asyncio.run(main())


def test_a_connection_to_the_kernel_that_breaks_is_made_again(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.put(1, "web")
    broken, whole = Kernel(monkeypatch), Kernel(monkeypatch)
    kernels = [broken, whole]

    def recv(size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    async def main() -> None:
        with following("web") as found:
            proc.put(2, "web")
            monkeypatch.setattr(broken, "recv", recv)
            broken.tell(procevents.FORK, 1, 1, NOBODY, NOBODY)
            async with asyncio.timeout(10):
                while found["web"] != {1, 2}:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                while not Processes.current().told:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        assert not kernels

    monkeypatch.setattr(procevents, "_connector", lambda: kernels.pop(0))
    monkeypatch.setattr(procevents, "POLL", 0.05)
    monkeypatch.setattr(procevents, "ASK_AGAIN", 0.1)
    with broken, whole:
        asyncio.run(main())


def message(what: int, *numbers: int) -> bytes:
    body = struct.pack("=IIQ", what, 0, 0) + struct.pack(f"={len(numbers)}I", *numbers)
    return bytes(16 + 20) + body.ljust(40, b"\0")


@pytest.mark.parametrize(
    ("datagram", "pid"),
    [
        (message(procevents.FORK, 1, 1, 7, 7), 7),
        # A new thread of 7.
        (message(procevents.FORK, 7, 7, 8, 7), None),
        (message(procevents.EXEC, 7, 7), 7),
        (message(procevents.EXEC, 8, 7), 7),
        (message(procevents.COMM, 7, 7), 7),
        (message(procevents.EXIT, 7, 7, 0, 0), 7),
        (message(procevents.EXIT, 8, 7, 0, 0), None),
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
        {"terminate_delay": "1"},
        {"arguments": [1]},
        {"arguments": 1},
        {"program": 7},
    ):
        with pytest.raises(ConfigError, match="TrackProcess"):
            TrackProcess(**({"program": "x"} | changes))  # type: ignore[arg-type]
    assert TrackProcess("nginx").label == "process nginx"


def test_one_for_each_loop() -> None:
    async def main() -> None:
        assert Processes.current() is Processes.current()

    asyncio.run(main())


def test_why_it_is_bad_is_logged(
    endpoint: str, program: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vrrpkit.tracking")
    few = TrackProcess(program.name, quorum=2)
    many = TrackProcess(program.name, quorum_max=1, name="one")

    async def first(track: TrackProcess) -> Signal:
        signals = track.signals()
        try:
            return await anext(signals)
        finally:
            await signals.aclose()

    with running(program):
        assert asyncio.run(first(few)) is False
        with running(program):
            assert asyncio.run(first(many)) is False
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", f"process {program.name}: processes that run: 1, and it takes 2"),
        ("INFO", "one: processes that run: 2, and there may be 1"),
    ]
