"""Commands that run as another user, and what root does not run."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import tempfile
from collections.abc import Generator
from ipaddress import ip_address
from pathlib import Path

import pytest

from system.lab import require_root_and
from vrrpkit import CheckFailed, ConfigError, Target
from vrrpkit.checks import Weight
from vrrpkit.checks.script import ScriptChecker
from vrrpkit.commands.command import Command, Finished
from vrrpkit.commands.trust import ACCESS_LIST
from vrrpkit.errors import UntrustedCommand

REASON = require_root_and("setpriv") or ""

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

NOBODY = 65534
UNNAMED = 3999999999
"""A user that is in no database."""


def run(command: Command) -> Finished:
    return asyncio.run(command.run())


@pytest.fixture
def place() -> Generator[Path]:
    """A directory that only root may write to, all the way up."""
    path = Path(tempfile.mkdtemp(prefix="vrrpkit-commands-", dir="/var/lib"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def program(path: Path, text: str = "#!/bin/sh\nid -u\n") -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def ids(command: Command) -> list[str]:
    """Users and groups, real, effective and saved, and the further groups."""
    lines = run(command).output.decode().splitlines()
    return [" ".join(line.split()[1:]) for line in lines]


def test_another_user_with_its_own_groups() -> None:
    status = "grep -E '^(Uid|Gid|Groups):' /proc/self/status"
    assert ids(Command(status, user="daemon")) == ["1 1 1 1", "1 1 1 1", "1"]
    assert ids(Command(status, user=1, groups=[2, "sys"])) == ["1 1 1 1", "2 2 2 2", "2 3"]
    assert ids(Command(status, user=UNNAMED, groups=[2])) == [
        " ".join([str(UNNAMED)] * 4),
        "2 2 2 2",
        "2",
    ]
    assert ids(Command(status, user="root", groups=[2])) == ["0 0 0 0", "2 2 2 2", "2"]


def test_another_user_has_its_own_environment_and_no_capability() -> None:
    done = run(Command("printenv USER LOGNAME HOME", user="daemon"))
    assert done.output == b"daemon\ndaemon\n/usr/sbin\n"
    held = run(Command("grep -E '^Cap(Prm|Eff|Amb):' /proc/self/status", user="daemon"))
    assert held.output.split()[1::2] == [b"0" * 16] * 3


def test_it_ends_with_its_group_like_any_other(place: Path) -> None:
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    script = f"trap '' TERM; sleep 60 & echo $! > {shared}/pid; while :; do sleep 0.01; done"
    command = Command(["/bin/sh", "-c", script], user=NOBODY, timeout=0.3, kill_after=0.2)
    done = run(command)
    assert (done.timed_out, done.signal) == (True, 9)
    stat = Path(f"/proc/{(shared / 'pid').read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_one_that_the_user_may_not_run_says_so(place: Path) -> None:
    path = program(place / "check")
    path.chmod(0o700)
    done = run(Command([str(path)], user=NOBODY))
    assert not done.ok
    assert "Permission denied" in str(done)


def test_one_that_cannot_be_executed_has_no_status(place: Path) -> None:
    """The 127 of setpriv would be a weight to a dynamic check."""
    path = program(place / "check", "#!/no/such/interpreter\n")
    checker = ScriptChecker([str(path)], user=NOBODY, dynamic=True)
    with pytest.raises(OSError, match=r"could not be executed: setpriv: .*No such file"):
        asyncio.run(checker.check(Target("192.0.2.1")))
    program(path, "#!/bin/sh\nexit 127\n")
    assert asyncio.run(checker.check(Target("192.0.2.1"))) == Weight(125)


@pytest.mark.parametrize("level", [".", "scripts", "scripts/check"])
def test_what_others_may_change_is_not_run_as_root(place: Path, level: str) -> None:
    directory = place / "scripts"
    directory.mkdir(mode=0o755)
    path = program(directory / "check")
    command = Command([str(path)])
    as_nobody = Command([str(path)], user=NOBODY)
    assert run(command).output == b"0\n"
    changed = (place / level).resolve()
    for mode, uid, gid in ((0o757, 0, 0), (0o775, 0, 1), (0o755, 1, 0)):
        os.chown(changed, uid, gid)
        changed.chmod(mode)
        with pytest.raises(ConfigError, match=f"run as root, but {changed} "):
            Command([str(path)])
        with pytest.raises(UntrustedCommand, match=f"run as root, but {changed} "):
            run(command)
        assert run(as_nobody).output == b"65534\n"
    os.chown(changed, 0, 0)
    assert run(command).output == b"0\n"


def test_who_may_write_by_an_access_control_list(place: Path) -> None:
    path = program(place / "check")

    def allow(permissions: int) -> None:
        unnamed = 2**32 - 1
        entries = [(1, 7, unnamed), (2, permissions, NOBODY)]
        entries += [(4, 7, unnamed), (16, 7, unnamed), (32, 5, unnamed)]
        packed = b"".join(struct.pack("<HHI", *entry) for entry in entries)
        os.setxattr(path, ACCESS_LIST, struct.pack("<I", 2) + packed)

    allow(5)
    command = Command([str(path)])
    assert run(command).output == b"0\n"
    allow(7)
    with pytest.raises(
        UntrustedCommand, match=rf"{path} can be written to by user {NOBODY} \(access"
    ):
        run(command)


def test_a_link_in_a_directory_of_everybody(place: Path) -> None:
    path = program(place / "check")
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link"
    link.symlink_to(path)
    assert run(Command([str(link)])).output == b"0\n"
    os.chown(link, 1, 1, follow_symlinks=False)
    with pytest.raises(ConfigError, match=f"{link} belongs to user 1"):
        Command([str(link)])


def test_a_script_that_checks_as_another_user(place: Path) -> None:
    path = program(place / "check", '#!/bin/sh\n[ "$(id -un)" = daemon ] && [ "$1" = ::1 ]\n')
    target = Target(ip_address("::1"))
    assert asyncio.run(ScriptChecker([str(path), "{address}"], user="daemon").check(target)) is None
    with pytest.raises(CheckFailed, match="exit status 1"):
        asyncio.run(ScriptChecker([str(path), "{address}"]).check(target))
