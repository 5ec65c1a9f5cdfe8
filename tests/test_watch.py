"""Files that change in every way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vrrpkit.watch import watch


class Told:
    """Counts calls, and waits for the next."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        self.came.set()

    async def after(self, what: Callable[[], object]) -> None:
        """Do something, and be told of it."""
        self.came.clear()
        what()
        async with asyncio.timeout(10):
            await self.came.wait()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_written_replaced_removed_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("1")

    async def main() -> None:
        before = descriptors()
        told = Told()
        stop = watch(path, told)
        await told.after(lambda: path.write_text("2"))
        other = tmp_path / "other"
        other.write_text("3")
        await told.after(lambda: other.rename(path))
        await told.after(lambda: path.write_text("4"))
        await told.after(path.unlink)
        await told.after(lambda: path.write_text("5"))
        await told.after(lambda: path.chmod(0o600))
        stop()
        stop()
        calls = told.calls
        path.write_text("6")
        await asyncio.sleep(0.05)
        assert told.calls == calls
        assert descriptors() == before

    asyncio.run(main())


def test_a_directory_that_comes_later_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "value"

    async def main() -> None:
        told = Told()
        stop = watch(path, told)
        await told.after(lambda: path.parent.mkdir(parents=True))
        await told.after(lambda: path.write_text("1"))
        await told.after(lambda: (tmp_path / "a").rename(tmp_path / "old"))
        old = tmp_path / "old" / "b" / "value"
        await asyncio.sleep(0.05)
        calls = told.calls
        old.write_text("not this one any more")
        await asyncio.sleep(0.05)
        assert told.calls == calls
        await told.after(lambda: path.parent.mkdir(parents=True))
        await told.after(lambda: path.write_text("2"))
        stop()

    asyncio.run(main())


def test_neighbours_do_not_matter_and_many_share_one_descriptor(tmp_path: Path) -> None:
    async def main() -> None:
        before = descriptors()
        tolds = {name: Told() for name in "abc"}
        stops = [watch(tmp_path / name, told) for name, told in tolds.items()]
        # One for inotify itself, which the loop's selector knows.
        assert descriptors() == before + 1
        await tolds["b"].after(lambda: (tmp_path / "b").write_text("1"))
        (tmp_path / "d").write_text("1")
        await asyncio.sleep(0.05)
        assert tolds["a"].calls == tolds["c"].calls == 0
        stops[1]()
        await tolds["a"].after(lambda: (tmp_path / "a").write_text("1"))
        for stop in stops:
            stop()
        assert descriptors() == before

    asyncio.run(main())


def test_when_notices_were_lost_everybody_is_told(tmp_path: Path) -> None:
    path = tmp_path / "value"
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    async def main() -> None:
        told = Told()
        stop = watch(path, told)
        noisy = [tmp_path / f"noise{number}" for number in range(2)]

        def overflow() -> None:
            for number in range(limit + 10):
                os.close(os.open(noisy[number % 2], os.O_CREAT | os.O_WRONLY))

        await told.after(overflow)
        stop()

    asyncio.run(main())


def test_a_callback_that_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        told = Told()

        def broken() -> None:
            raise RuntimeError("my own bug")

        stops = [watch(tmp_path / "value", broken), watch(tmp_path / "value", told)]
        await told.after(lambda: (tmp_path / "value").write_text("1"))
        for stop in stops:
            stop()

    asyncio.run(main())
    assert "my own bug" in caplog.text
