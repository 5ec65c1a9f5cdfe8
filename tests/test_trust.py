"""Which programs root may run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from vrrpkit import ConfigError
from vrrpkit.trust import require_trusted, untrusted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of several owners")


@pytest.fixture
def place() -> Generator[Path]:
    """A directory that only root may write to, all the way up."""
    path = Path(tempfile.mkdtemp(dir="/var/lib"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_roots_own_is_trusted(place: Path) -> None:
    assert untrusted(str(program(place / "check"))) is None
    assert untrusted("/bin/sh") is None


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [
        (0o755, 0, 0, None),
        (0o775, 0, 0, None),
        (0o775, 0, 1, "can be written to by group 1"),
        (0o757, 0, 0, "can be written to by everybody"),
        (0o755, 1, 0, "belongs to user 1"),
        (0o555, 1, 0, "belongs to user 1"),
    ],
)
@pytest.mark.parametrize("level", ["directory", "file"])
def test_every_level_counts(
    place: Path, level: str, mode: int, uid: int, gid: int, expected: str | None
) -> None:
    directory = place / "scripts"
    directory.mkdir(mode=0o755)
    path = program(directory / "check")
    changed = directory if level == "directory" else path
    os.chown(changed, uid, gid)
    changed.chmod(mode)
    found = untrusted(str(path))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(f"{changed} {expected}")


def test_nobody_replaces_what_root_has_in_a_sticky_directory(place: Path) -> None:
    place.chmod(0o1777)
    path = program(place / "check")
    assert untrusted(str(path)) is None
    link = place / "link"
    link.symlink_to("check")
    assert untrusted(str(link)) is None
    os.chown(link, 1, 1, follow_symlinks=False)
    assert untrusted(str(link)) == f"{link} belongs to user 1, not to root"
    path.chmod(0o1777)
    assert untrusted(str(path)) == f"{path} can be written to by everybody"


def test_symbolic_links_are_followed_level_by_level(place: Path) -> None:
    safe = place / "safe"
    safe.mkdir(mode=0o755)
    program(safe / "check")
    risky = place / "risky"
    risky.mkdir()
    risky.chmod(0o777)
    (risky / "detour").symlink_to("../safe")
    (place / "link").symlink_to("risky/detour/check")
    found = untrusted(str(place / "link"))
    assert found == f"{risky} can be written to by everybody"
    risky.chmod(0o755)
    assert untrusted(str(place / "link")) is None
    (place / "absolute").symlink_to(safe / "check")
    assert untrusted(str(place / "absolute")) is None
    (place / "dotted").symlink_to("./risky/../safe/./check")
    assert untrusted(str(place / "dotted")) is None
    (place / "loop").symlink_to("loop")
    assert untrusted(str(place / "loop")) == f"{place}/loop: too many symbolic links"


def test_the_error_names_the_level_and_only_root_is_protected(place: Path) -> None:
    path = program(place / "check")
    path.chmod(0o777)
    with pytest.raises(ConfigError, match=f"would run as root, but {path} can be written"):
        require_trusted(str(path), 0)
    require_trusted(str(path), 1)
    with pytest.raises(ConfigError, match="nothing-here"):
        require_trusted(str(place / "nothing-here"), 0)
