"""FileChecker with real files."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from checks.attempts import descriptors
from vrrpkit import CheckFailed, ConfigError, Target
from vrrpkit.checks import Weight
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.file import FileChecker, read_number
from vrrpkit.errors import CouldNotAsk
from vrrpkit.events import CheckResult

TARGET = Target(ip_address("10.0.0.1"), 8080)
LIMIT = 2**31 - 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "value"


def ask(path: Path, text: str, weight: int = 0, *, reverse: bool = False) -> Weight | None:
    path.write_text(text)
    return asyncio.run(FileChecker(path, weight=weight, reverse=reverse).check(TARGET))


def test_without_a_weight_0_is_healthy(path: Path) -> None:
    assert ask(path, "0\n") is None
    with pytest.raises(CheckFailed, match="holds 1"):
        ask(path, "1")
    with pytest.raises(CheckFailed, match="holds 0"):
        ask(path, "0", reverse=True)
    assert ask(path, "-3", reverse=True) is None


def test_with_a_weight_the_product_is_added(path: Path) -> None:
    assert ask(path, " +5 \n", 2) == Weight(10, relative=True)
    assert ask(path, "0", 2) == Weight(0, relative=True)
    assert ask(path, "5", 2, reverse=True) == Weight(-10, relative=True)
    assert ask(path, "-1000", 1) == Weight(-1000, relative=True)


def test_the_limits_of_the_product(path: Path) -> None:
    assert ask(path, "99999999999", 254) == Weight(LIMIT, relative=True)
    assert ask(path, str(-LIMIT), 1) == Weight(-LIMIT, relative=True)
    assert ask(path, "1", -LIMIT) == Weight(-LIMIT, relative=True)
    with pytest.raises(CheckFailed, match="holds -1073741824, which makes -2147483648"):
        ask(path, str(-(2**30)), 2)
    with pytest.raises(CheckFailed, match="makes -2147483648"):
        ask(path, str(2**31), 1, reverse=True)


@pytest.mark.parametrize("text", [" ", "up", "1 2", "1\n2", "1.5", "1_0", "0x10", "9" * 100, "\0"])
def test_no_number_is_not_healthy(path: Path, text: str) -> None:
    with pytest.raises(CheckFailed, match="no whole number"):
        ask(path, text, 1)


def test_what_cannot_be_read_is_not_healthy_and_nothing_hangs(path: Path) -> None:
    path.unlink(missing_ok=True)
    with pytest.raises(CheckFailed, match="No such file"):
        asyncio.run(FileChecker(path).check(TARGET))
    os.mkfifo(path)
    with pytest.raises(CheckFailed, match="holds nothing"):
        asyncio.run(FileChecker(path).check(TARGET))
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with pytest.raises(CheckFailed, match="cannot be read"):
        asyncio.run(FileChecker(path).check(TARGET))
    os.close(writer)
    with pytest.raises(CheckFailed, match="Is a directory"):
        asyncio.run(FileChecker(path.parent).check(TARGET))
    with pytest.raises(CheckFailed, match="no whole number"):
        asyncio.run(FileChecker("/dev/zero").check(TARGET))


def test_one_that_is_being_written_says_nothing_yet(path: Path) -> None:
    """``slow-command > file``: the shell empties it, and the command takes its time."""
    with pytest.raises(CouldNotAsk, match="holds nothing: it may be being written"):
        ask(path, "")
    results: list[CheckResult] = []

    def fill() -> None:
        path.write_text("0")

    fill()

    async def main() -> None:
        async with CheckScheduler() as scheduler:
            scheduler.add(
                FileChecker(path, interval=0.02, warmup=0), TARGET, on_result=results.append
            )
            await asyncio.sleep(0.1)
            os.truncate(path, 0)
            await asyncio.sleep(0.1)
            fill()
            await asyncio.sleep(0.1)

    asyncio.run(main())
    assert len(results) > 2
    assert all(result.passed for result in results)


def test_a_change_is_noticed_at_once_and_nothing_blocks(path: Path) -> None:
    path.write_text("0")
    results: list[CheckResult] = []
    other = path.with_name("other")

    def change() -> None:
        path.write_text("1")

    async def main() -> None:
        came = asyncio.Event()

        def take(result: CheckResult) -> None:
            results.append(result)
            came.set()

        async def becomes(passed: bool, what: Callable[[], object]) -> None:
            count = len(results)
            what()
            while len(results) == count or results[-1].passed is not passed:
                came.clear()
                await came.wait()

        checker = FileChecker(path, interval=3600, warmup=0, retry=0)
        async with CheckScheduler() as scheduler, asyncio.timeout(20):
            with blockbuster_ctx("vrrpkit") as blockbuster:
                # Where a link leads to is on a local disk.
                blockbuster.functions["os.readlink"].can_block_in(
                    "vrrpkit/linux/inotify.py", "_walk"
                )
                check = scheduler.add(checker, TARGET, on_result=take)
                await becomes(True, lambda: None)
                await becomes(False, change)
                other.write_text("0")
                await becomes(True, lambda: other.rename(path))
                await becomes(False, path.unlink)
                await becomes(True, lambda: path.write_text("0"))
                await check.stop()
            before = len(results)
            change()
            await asyncio.sleep(0.05)
            assert len(results) == before

    # What another test has left to the garbage collector must not go meanwhile.
    gc.collect()
    before = descriptors()
    asyncio.run(main())
    assert descriptors() == before


@pytest.mark.parametrize("interval", [0.01, 3600])
def test_without_inotify_it_is_read_at_its_intervals_and_every_second(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, interval: float
) -> None:
    class Libc:
        def inotify_init1(self, flags: int) -> int:
            ctypes.set_errno(errno.EMFILE)
            return -1

    monkeypatch.setattr("vrrpkit.linux.inotify._libc", Libc())
    results: list[CheckResult] = []

    async def main() -> None:
        done = asyncio.Event()

        def take(result: CheckResult) -> None:
            results.append(result)
            path.write_text("0")
            if result.passed:
                done.set()

        checker = FileChecker(path, interval=interval, warmup=0, retry=0)
        async with CheckScheduler() as scheduler, asyncio.timeout(20):
            scheduler.add(checker, TARGET, on_result=take)
            await done.wait()

    asyncio.run(main())
    assert not results[0].passed
    assert "no file can be watched, so that each is looked at every 1 s" in caplog.text


def test_bad_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        FileChecker("")
    for weight in (LIMIT + 1, -LIMIT - 1, 1.5):
        with pytest.raises(ConfigError, match="weight"):
            FileChecker("/x", weight=weight)  # type: ignore[arg-type]
    FileChecker("/x", weight=-LIMIT)
    assert str(FileChecker("/run/value")) == "file /run/value"
    assert FileChecker("/run/value") == FileChecker(Path("/run/value"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_what_cannot_be_opened_now_is_no_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_path: str, _flags: int) -> int:
        raise OSError(number, os.strerror(number))

    path.write_text("0")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CouldNotAsk, match="cannot be read: ") as caught:
        read_number(str(path))
    assert caught.value.errno == number
