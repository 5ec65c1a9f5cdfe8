"""Under virtual time, what needs the real world ends the test at once and says what to use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vrrpkit
from vrrpkit import (
    Checker,
    DNSChecker,
    HTTPChecker,
    Mail,
    MemoryBus,
    MemoryTable,
    NotifyFIFO,
    NotifyScripts,
    PingChecker,
    RealServer,
    ScriptChecker,
    SMTPChecker,
    TCPChecker,
    TrackFile,
    TrackFunction,
    TrackInterface,
    TrackProcess,
    TrackScript,
    UDPChecker,
    VirtualServer,
    VRRPInstance,
)
from vrrpkit.testing import RealWorldNeeded, run_virtual


def router(**options: Any) -> VRRPInstance:
    interface = MemoryBus().interface("192.0.2.1")
    return VRRPInstance("a", interface, vrid=5, vips=["192.0.2.9/24"], **options)


def refusal(of: Any) -> str:
    """What a test says that enters this, and then waits for a minute."""

    async def main() -> float:
        async with of():
            await asyncio.sleep(60)
        return asyncio.get_running_loop().time()

    with pytest.raises(RealWorldNeeded) as caught:
        run_virtual(main())
    return str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: TrackScript("/bin/true"),
        lambda path: TrackFile(path),
        lambda path: TrackProcess("init"),
        lambda path: TrackInterface("lo"),
        lambda path: TrackFunction(lambda: asyncio.to_thread(int)),
    ],
)
def test_trackers(make: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("1")
    assert "use a ScriptedTracker" in refusal(lambda: router(track=[make(path)]))


@pytest.mark.parametrize(
    "checker",
    [
        TCPChecker(warmup=0),
        HTTPChecker(warmup=0),
        UDPChecker(warmup=0),
        DNSChecker(warmup=0),
        SMTPChecker(warmup=0),
        PingChecker(warmup=0),
        ScriptChecker("/bin/true", warmup=0),
    ],
    ids=lambda checker: type(checker).__name__,
)
def test_checkers(checker: Checker) -> None:
    said = refusal(
        lambda: VirtualServer(
            "192.0.2.9:80",
            servers=[RealServer("127.0.0.1:80")],
            check=checker,
            table=MemoryTable(),
        )
    )
    assert "use a ScriptedChecker" in said


def test_scripts() -> None:
    assert "use a NotifyFunction" in refusal(lambda: router(notify=[NotifyScripts("/bin/true")]))


def test_a_fifo_that_is_full(tmp_path: Path) -> None:
    """One that takes the lines works, and to wait for its reader does not."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(reader, bytes(4096)):
            pass
    try:
        assert "use a NotifyFunction" in refusal(lambda: router(notify=[NotifyFIFO(path)]))
    finally:
        os.close(reader)


def test_no_room_knows_of_virtual_time() -> None:
    """One question, asked in one place."""
    package = Path(vrrpkit.__file__).parent
    asking = [
        path.relative_to(package)
        for path in package.rglob("*.py")
        if re.search(r"refuse_real_world|VirtualLoop", path.read_text())
    ]
    assert {str(path) for path in asking if path.parts[0] != "testing"} == {
        "lifecycle/real_world.py"
    }


def test_mail() -> None:
    class Mailed:
        def __init__(self) -> None:
            self.mail = Mail("127.0.0.1", to="a@example.net", security="none", flush=0.1)
            self.router = router(notify=[self.mail])

        async def __aenter__(self) -> None:
            await self.mail.__aenter__()
            await self.router.__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            await self.router.__aexit__(*error)
            await self.mail.__aexit__(*error)

    assert "use a Mailbox" in refusal(Mailed)


def test_it_ends_at_once_also_where_cancellation_is_swallowed() -> None:
    async def helper() -> None:
        with contextlib.suppress(RuntimeError):
            await asyncio.to_thread(int)

    async def main() -> float:
        task = asyncio.create_task(helper())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await task
        return 1.0

    with pytest.raises(RealWorldNeeded, match="in the task"):
        run_virtual(main())


def test_a_test_may_expect_it_itself() -> None:
    async def main() -> int:
        with pytest.raises(RealWorldNeeded):
            await asyncio.to_thread(int)
        return 7

    assert run_virtual(main()) == 7
