"""TrackFile with real files."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from vrrpkit import ConfigError
from vrrpkit.errors import CouldNotAsk
from vrrpkit.testing import virtual_time
from vrrpkit.trackers.file import TrackFile


def test_the_number_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "value"

    def write(text: str) -> None:
        other = tmp_path / "new"
        other.write_text(text)
        other.rename(path)

    async def main() -> None:
        signals = TrackFile(path, missing=7).signals()
        async with asyncio.timeout(10):
            assert await anext(signals) == 7
            for text, value in (("5\n", 5), ("-3", -3), ("many", 7), ("0", 0)):
                write(text)
                while (found := await anext(signals)) != value:
                    assert found is not None
            path.unlink()
            while await anext(signals) != 7:
                pass
        await signals.aclose()

    asyncio.run(main())


def test_missing_is_not_known_where_asked(tmp_path: Path) -> None:
    async def main() -> None:
        signals = TrackFile(tmp_path / "value", missing=None).signals()
        assert await anext(signals) is None
        await signals.aclose()

    asyncio.run(main())


def test_one_that_cannot_be_watched_is_read_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Libc:
        def inotify_init1(self, flags: int) -> int:
            ctypes.set_errno(errno.EMFILE)
            return -1

    monkeypatch.setattr("vrrpkit.linux.inotify._libc", Libc())
    path = tmp_path / "value"

    @virtual_time()
    async def main() -> None:
        signals = TrackFile(path).signals()
        found = [await anext(signals)]
        path.write_text("3")
        found.append(await anext(signals))
        await signals.aclose()
        assert found == [0, 3]

    main()
    assert "no file can be watched, so that each is looked at every 1 s" in caplog.text
    assert "raise fs.inotify.max_user_instances" in caplog.text


def test_bad_values_are_refused() -> None:
    for missing in ("x", True, 1.5):
        with pytest.raises(ConfigError, match=r"missing .* must be a whole number or None"):
            TrackFile("/run/value", missing=missing)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="empty"):
        TrackFile("")
    assert TrackFile("/run/value").label == "file /run/value"


@virtual_time()
async def test_one_that_cannot_be_looked_into_now_keeps_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    outcomes: list[int | Exception] = [5, CouldNotAsk("no file", 24), CouldNotAsk("no file", 24), 7]

    def read(_path: str) -> int:
        found = outcomes.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    changes: list[Callable[[], None]] = []

    def watch(_path: str, changed: Callable[[], None]) -> Callable[[], None]:
        changes.append(changed)
        return lambda: None

    monkeypatch.setattr("vrrpkit.trackers.file.read_number", read)
    monkeypatch.setattr("vrrpkit.trackers.file.watch", watch)
    signals = TrackFile(tmp_path / "value").signals()
    assert await anext(signals) == 5
    changes[0]()
    # It is looked at again a while later, though nobody tells of another change.
    assert await anext(signals) == 7
    assert asyncio.get_running_loop().time() == 1002
    await signals.aclose()
    assert [r.levelname for r in caplog.records if "cannot look" in r.message] == [
        "WARNING",
        "DEBUG",
    ]
