"""FileChecker with real files."""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from vrrpkit import CheckFailed, CheckResult, ConfigError, Target, Weight
from vrrpkit.checks.file import FileChecker
from vrrpkit.checks.scheduler import Scheduler

TARGET = Target(ip_address("10.0.0.1"), 8080)


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
    assert ask(path, " 5 \n", 2) == Weight(10, relative=True)
    assert ask(path, "5", 2, reverse=True) == Weight(-10, relative=True)
    assert ask(path, "-253", 1) == Weight(-253, relative=True)
    assert ask(path, "99999999999", 254) == Weight(2**31 - 1, relative=True)
    with pytest.raises(CheckFailed, match="makes -254"):
        ask(path, "-127", 2)


@pytest.mark.parametrize("text", ["", "up", "1 2", "1.5", "1_0", "0x10", "9" * 100, "\0"])
def test_no_number_is_not_healthy(path: Path, text: str) -> None:
    with pytest.raises(CheckFailed, match="no whole number"):
        ask(path, text)


def test_what_cannot_be_read_is_not_healthy_and_a_fifo_does_not_hang(path: Path) -> None:
    with pytest.raises(CheckFailed, match="No such file"):
        asyncio.run(FileChecker(path).check(TARGET))
    os.mkfifo(path)
    with pytest.raises(CheckFailed, match="no whole number"):
        asyncio.run(FileChecker(path).check(TARGET))


def test_a_change_is_noticed_at_once(path: Path) -> None:
    path.write_text("0")
    results: list[CheckResult] = []

    def write(text: str) -> None:
        path.write_text(text)

    async def main() -> None:
        came = asyncio.Event()

        def take(result: CheckResult) -> None:
            results.append(result)
            came.set()

        checker = FileChecker(path, interval=3600, warmup=0, retry=0)
        async with Scheduler() as scheduler, asyncio.timeout(20):
            scheduler.add(checker, TARGET, on_result=take)
            await came.wait()
            for text in ("1", "0"):
                count = len(results)
                write(text)
                while len(results) == count or results[-1].passed is not (text == "0"):
                    came.clear()
                    await came.wait()

    asyncio.run(main())
    assert results[-1].healthy


def test_bad_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        FileChecker("")
    for weight in (255, -255, 1.5):
        with pytest.raises(ConfigError, match="weight"):
            FileChecker("/x", weight=weight)  # type: ignore[arg-type]
    assert str(FileChecker("/run/value")) == "file /run/value"
