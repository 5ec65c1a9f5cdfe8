"""Key files: what they may hold, and who may read them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from vrrpkit.errors import ConfigError
from vrrpkit.vrrp.keyfile import read_key

KEY = bytes(range(0x40, 0x60))


def write(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "vrrp.key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content",
    [KEY, KEY + b"\n", b"hex:" + KEY.hex().encode(), b"hex:" + KEY.hex().encode() + b"\n"],
)
def test_forms(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, content)
    assert read_key(path) == read_key(str(path)) == KEY
    assert caplog.records == []


def test_one_newline_only(tmp_path: Path) -> None:
    assert read_key(write(tmp_path, KEY + b"\n\n")) == KEY + b"\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602])
def test_others_can_read_it(tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_key(write(tmp_path, KEY, mode)) == KEY
    (record,) = caplog.records
    assert "chmod 600" in record.getMessage()
    assert KEY.decode() not in record.getMessage()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "holds 5 octets; use 32 to 64"),
        (bytes(65), "holds 65 octets"),
        (b"hex:" + b"00" * 31, "holds 31 octets"),
        (b"hex:" + b"00" * 65, "holds 65 octets"),
        (b"hex:" + b"0g" * 32, "pairs of hexadecimal digits"),
        (b"hex:\xff\xfe", "pairs of hexadecimal digits"),
    ],
)
def test_bad_content(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_key(write(tmp_path, content))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; make one with python"):
        read_key(tmp_path / "missing")


def test_a_folder_or_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="is no ordinary file"):
            read_key(path)


def test_a_file_of_somebody_else_is_complained_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, KEY)
    if os.geteuid() == 0:
        os.chown(path, 1234, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert read_key(path) == KEY
    (record,) = caplog.records
    assert "knows and may change the key" in record.getMessage()
