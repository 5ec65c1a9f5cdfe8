"""Files that change in every way."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import functools
import gc
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ParamSpec

import pytest

from vrrpkit.linux import inotify as module
from vrrpkit.linux.inotify import watch

P = ParamSpec("P")

LIBC = module._libc

QUIET = 0.05
"""Seconds in which a notice would come, that must not."""


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def on_a_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a coroutine function as a test that leaves nothing open."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            before = descriptors()
            await test(*args, **kwargs)
            assert descriptors() == before

        gc.collect()
        asyncio.run(main())

    return run


class Told:
    """Watches a path; counts the calls, and waits for the next."""

    def __init__(self, path: str | Path) -> None:
        self.came = asyncio.Event()
        self.calls = 0
        self.stop = watch(path, self._changed)

    def _changed(self) -> None:
        self.calls += 1
        self.came.set()

    async def after(self, what: Callable[[], object]) -> None:
        """Do something, and be told of it."""
        await asyncio.sleep(QUIET)
        self.came.clear()
        what()
        async with asyncio.timeout(10):
            await self.came.wait()

    async def not_after(self, what: Callable[[], object]) -> None:
        """Do something, and not be told of it."""
        await asyncio.sleep(QUIET)
        calls = self.calls
        what()
        await asyncio.sleep(QUIET)
        assert self.calls == calls


@on_a_loop
async def test_written_replaced_removed_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("1")
    told = Told(path)
    await told.after(lambda: path.write_text("2"))
    other = tmp_path / "other"
    other.write_text("3")
    await told.after(lambda: other.rename(path))
    await told.after(lambda: path.write_text("4"))
    await told.after(lambda: path.rename(other))
    await told.after(lambda: other.rename(path))
    await told.after(path.unlink)
    await told.after(lambda: path.write_text("5"))
    await told.after(lambda: path.chmod(0o600))
    told.stop()
    told.stop()
    await told.not_after(lambda: path.write_text("6"))


@on_a_loop
async def test_a_file_that_is_being_written_is_told_of_when_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("1")
    told = Told(path)
    file = path.open("w")
    await told.not_after(lambda: print("2", file=file, flush=True))
    await told.after(file.close)
    await told.not_after(path.read_text)
    told.stop()


@on_a_loop
async def test_a_directory_that_comes_later_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "value"
    told = Told(path)
    await told.after(path.parent.parent.mkdir)
    await told.after(path.parent.mkdir)
    await told.after(lambda: path.write_text("1"))
    await told.after(lambda: (tmp_path / "a").rename(tmp_path / "old"))
    old = tmp_path / "old" / "b" / "value"
    await told.not_after(lambda: old.write_text("not this one any more"))
    await told.after(lambda: path.parent.mkdir(parents=True))
    await told.after(lambda: path.write_text("2"))
    await told.after(path.unlink)
    await told.after(path.parent.rmdir)
    # All at once, so that it is there when its directory is first looked into.
    (tmp_path / "new" / "b").mkdir(parents=True)
    (tmp_path / "new" / "b" / "value").write_text("3")
    await told.after((tmp_path / "a").rmdir)
    await told.after(lambda: (tmp_path / "new").rename(tmp_path / "a"))
    await told.after(lambda: path.write_text("4"))
    told.stop()


@on_a_loop
async def test_what_is_a_file_for_now_may_become_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "a" / "value"
    (tmp_path / "a").write_text("a file")
    told = Told(path)
    await told.after((tmp_path / "a").unlink)
    await told.after((tmp_path / "a").mkdir)
    await told.after(lambda: path.write_text("1"))
    told.stop()


@on_a_loop
async def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    # What Kubernetes does with its configuration: value -> ..data/value, ..data -> a directory.
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "value").write_text(version)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "value").symlink_to("..data/value")
    told = Told(tmp_path / "value")
    await told.after(lambda: (tmp_path / "1" / "value").write_text("1.1"))
    await told.not_after(lambda: (tmp_path / "2" / "value").write_text("2.1"))
    (tmp_path / "next").symlink_to("2")
    await told.after(lambda: (tmp_path / "next").rename(tmp_path / "..data"))
    await told.after(lambda: (tmp_path / "2" / "value").write_text("2.2"))
    await told.not_after(lambda: (tmp_path / "1" / "value").write_text("1.2"))
    # An absolute one, to what is not there yet; and one that leads to itself.
    (tmp_path / "next").symlink_to(tmp_path / "3" / "value")
    await told.after(lambda: (tmp_path / "next").rename(tmp_path / "value"))
    await told.after((tmp_path / "3").mkdir)
    await told.after(lambda: (tmp_path / "3" / "value").write_text("3"))
    (tmp_path / "next").symlink_to("value")
    await told.after(lambda: (tmp_path / "next").rename(tmp_path / "value"))
    await told.after((tmp_path / "value").unlink)
    told.stop()


@on_a_loop
async def test_two_names_of_one_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path = tmp_path / "real" / "value"
    tolds = [
        Told(path),
        Told(tmp_path / "link" / "value"),
        Told(f"{tmp_path}/link/../real/./value"),
        Told(path),
        # Above the root is the root.
        Told("../" * 20 + str(path)[1:]),
    ]
    for told in tolds:
        await told.after(lambda: path.write_text("1"))
    # One that ends takes nothing from the others.
    for _ in range(len(tolds) - 1):
        tolds.pop(0).stop()
        for told in tolds:
            await told.after(lambda: path.write_text("2"))
    tolds.pop().stop()


@on_a_loop
async def test_neighbours_do_not_matter_and_many_share_one_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    a, b, c = (Told(tmp_path / name) for name in "abc")
    assert descriptors() == before + 1
    # A directory on the way of one is that of the file of another, whichever came first.
    below = Told(tmp_path / "c" / "d")
    await b.after(lambda: (tmp_path / "b").write_text("1"))
    await a.not_after(lambda: (tmp_path / "e").write_text("1"))
    assert a.calls == c.calls == below.calls == 0
    b.stop()
    await a.after(lambda: (tmp_path / "a").write_text("1"))
    await b.not_after(lambda: (tmp_path / "b").write_text("1"))
    for told in (a, c, below):
        told.stop()


@on_a_loop
async def test_when_notices_were_lost_everybody_is_told(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    tolds = [Told(tmp_path / "value"), Told(tmp_path / "far" / "value")]
    noisy = [tmp_path / f"noise{number}" for number in range(2)]

    def overflow() -> None:
        limit = Path("/proc/sys/fs/inotify/max_queued_events").read_text()
        for number in range(int(limit) + 10):
            os.close(os.open(noisy[number % 2], os.O_CREAT | os.O_WRONLY))

    await tolds[1].after(overflow)
    assert [told.calls for told in tolds] == [1, 1]
    await tolds[0].after(lambda: (tmp_path / "value").write_text("1"))
    for told in tolds:
        told.stop()


@on_a_loop
async def test_a_callback_may_end_any_watch(tmp_path: Path) -> None:
    stops: list[Callable[[], None]] = []
    calls: list[int] = []

    def end(number: int) -> None:
        calls.append(number)
        for stop in stops:
            stop()

    stops += [watch(tmp_path / "value", functools.partial(end, number)) for number in range(3)]
    (tmp_path / "value").write_text("1")
    await asyncio.sleep(QUIET)
    assert len(calls) == 1


def test_a_callback_that_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def broken() -> None:
            raise RuntimeError("my own bug")

        stop = watch(tmp_path / "value", broken)
        told = Told(tmp_path / "value")
        await told.after(lambda: (tmp_path / "value").write_text("1"))
        stop()
        told.stop()

    asyncio.run(main())
    assert "my own bug" in caplog.text


def test_it_may_be_ended_after_its_loop(tmp_path: Path) -> None:
    async def main() -> Callable[[], None]:
        return watch(tmp_path / "value", lambda: None)

    before = descriptors()
    asyncio.run(main())()
    assert descriptors() == before


def test_a_directory_that_cannot_be_watched_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._libc

    class Libc:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def inotify_add_watch(self, descriptor: int, path: bytes, mask: int) -> int:
            if path == os.fsencode(tmp_path.parent):
                ctypes.set_errno(errno.ENOSPC)
                return -1
            return int(real.inotify_add_watch(descriptor, path, mask))

    async def main() -> None:
        monkeypatch.setattr(module, "_libc", Libc())
        told = Told(tmp_path / "value")
        # The others are watched all the same.
        await told.after(lambda: (tmp_path / "value").write_text("1"))
        told.stop()

    asyncio.run(main())
    assert caplog.text.count(f"{tmp_path.parent} cannot be watched") == 1
    assert "max_user_watches" in caplog.text


def test_a_watch_that_the_system_refused_is_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fs.inotify.max_user_watches is reached, and then not any more; nobody touches the file."""
    real = module._libc
    full = True
    asked = 0

    class Libc:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def inotify_add_watch(self, descriptor: int, path: bytes, mask: int) -> int:
            nonlocal asked
            if path == os.fsencode(tmp_path):
                asked += 1
                if full:
                    ctypes.set_errno(errno.ENOSPC)
                    return -1
            return int(real.inotify_add_watch(descriptor, path, mask))

    @on_a_loop
    async def main() -> None:
        nonlocal full
        told = Told(tmp_path / "value")
        await asyncio.sleep(0.2)
        assert asked >= 3
        assert not told.came.is_set()

        def make_room() -> None:
            nonlocal full
            full = False

        # Unseen changes are told of once it is watched.
        await told.after(make_room)
        before = asked
        await asyncio.sleep(0.1)
        assert asked == before, "and no more"
        await told.after(lambda: (tmp_path / "value").write_text("1"))
        full = True
        never = Told(tmp_path / "value")
        never.stop()
        before = asked
        await asyncio.sleep(0.1)
        assert asked == before, "whoever left wants nothing"
        told.stop()

    monkeypatch.setattr(module, "_libc", Libc())
    monkeypatch.setattr(module, "RETRY", 0.03)
    main()
    assert caplog.text.count("cannot be watched") == 1


class NoInstance:
    """A C library on a system that has no instance of inotify left, until it has."""

    def __init__(self) -> None:
        self.full = True
        self.asked = 0

    def __getattr__(self, name: str) -> object:
        return getattr(LIBC, name)

    def inotify_init1(self, flags: int) -> int:
        self.asked += 1
        if self.full:
            ctypes.set_errno(errno.EMFILE)
            return -1
        return int(LIBC.inotify_init1(flags))


def test_no_instance_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are looked at again and again; the system is asked again, until it has one."""
    system = NoInstance()

    @on_a_loop
    async def main() -> None:
        told, other = Told(tmp_path / "value"), Told(tmp_path / "other")
        first = system.asked
        async with asyncio.timeout(10):
            while told.calls < 3:
                told.came.clear()
                await told.came.wait()
        assert system.asked > first and other.calls
        system.full = False
        await asyncio.sleep(0.1)
        calls = told.calls
        await asyncio.sleep(0.1)
        assert told.calls == calls, "it is watched now"
        await told.after(lambda: (tmp_path / "value").write_text("1"))
        told.stop()
        other.stop()
        system.full = True
        never = Told(tmp_path / "value")
        never.stop()
        asked = system.asked
        await asyncio.sleep(0.1)
        assert system.asked == asked, "no watch, no questions"

    monkeypatch.setattr(module, "_libc", system)
    monkeypatch.setattr(module, "RETRY", 0.03)
    monkeypatch.setattr(module, "LOOK", 0.02)
    main()
    assert caplog.text.count("raise fs.inotify.max_user_instances") == 2, "once for each outage"
