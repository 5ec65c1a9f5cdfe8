"""Which programs root may run."""

from __future__ import annotations

import os
import stat
import struct
from types import SimpleNamespace

import attrs
import pytest

from vrrpkit import ConfigError
from vrrpkit.commands import trust as module
from vrrpkit.commands.trust import require_trusted, untrusted

DIRECTORY = stat.S_IFDIR | 0o755
PROGRAM = stat.S_IFREG | 0o755
STICKY = stat.S_IFDIR | 0o1777


@attrs.define
class Node:
    mode: int
    uid: int = 0
    gid: int = 0
    target: str = ""
    acl: bytes | None = None


class Tree:
    """A file system in memory: files of several owners need no root here."""

    def __init__(self) -> None:
        self.nodes = {"/": Node(DIRECTORY)}

    def add(self, path: str, mode: int, uid: int = 0, gid: int = 0) -> None:
        parts = path.split("/")
        for depth in range(2, len(parts)):
            self.nodes.setdefault("/".join(parts[:depth]), Node(DIRECTORY))
        self.nodes[path] = Node(mode, uid, gid)

    def link(self, path: str, target: str, uid: int = 0) -> None:
        self.add(path, stat.S_IFLNK | 0o777, uid)
        self.nodes[path].target = target

    def lstat(self, path: str) -> os.stat_result:
        try:
            node = self.nodes[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", path) from None
        return os.stat_result((node.mode, 1, 1, 1, node.uid, node.gid, 0, 0, 0, 0))

    def getxattr(self, path: str, name: str) -> bytes:
        assert name == "system.posix_acl_access"
        if (found := self.nodes[path].acl) is None:
            raise OSError(61, "No data available", path)
        return found

    def readlink(self, path: str) -> str:
        return self.nodes[path].target


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> Tree:
    made = Tree()
    monkeypatch.setattr(
        module,
        "os",
        SimpleNamespace(
            path=os.path,
            lstat=made.lstat,
            readlink=made.readlink,
            getxattr=made.getxattr,
            getcwd=lambda: "/opt",
        ),
    )
    return made


def test_roots_own_is_trusted(tree: Tree) -> None:
    tree.add("/opt/scripts/check", PROGRAM)
    assert untrusted("/opt/scripts/check") is None
    assert untrusted("//opt/./scripts//../scripts/check") is None
    assert untrusted("scripts/check") is None


@pytest.mark.parametrize(
    ("permissions", "uid", "gid", "expected"),
    [
        (0o755, 0, 0, None),
        (0o775, 0, 0, None),
        (0o755, 0, 1, None),
        (0o775, 0, 1, "can be written to by group 1"),
        (0o757, 0, 0, "can be written to by everybody"),
        (0o755, 1, 0, "belongs to user 1"),
        (0o555, 1, 0, "belongs to user 1"),
    ],
)
@pytest.mark.parametrize("level", ["/", "/opt", "/opt/scripts", "/opt/scripts/check"])
def test_every_level_counts(
    tree: Tree, level: str, permissions: int, uid: int, gid: int, expected: str | None
) -> None:
    tree.add("/opt/scripts/check", PROGRAM)
    kind = stat.S_IFMT(tree.nodes[level].mode)
    tree.nodes[level] = Node(kind | permissions, uid, gid)
    found = untrusted("/opt/scripts/check")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(f"{level} {expected}")


def access_list(*named: tuple[int, int, int], own_group: int = 7) -> bytes:
    """As the kernel shows it: entries of tag, permissions and number."""
    unnamed = [(0x01, 7, 2**32 - 1), (0x04, own_group, 2**32 - 1), (0x20, 5, 2**32 - 1)]
    entries = sorted([*unnamed, *named, (0x10, 7, 2**32 - 1)])
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.parametrize("level", ["/opt", "/opt/check"])
@pytest.mark.parametrize(
    ("gid", "acl", "who"),
    [
        (0, access_list((0x02, 7, 1000)), "user 1000 (access control list)"),
        (0, access_list((0x08, 6, 50)), "group 50 (access control list)"),
        (0, access_list((0x02, 5, 1000), (0x08, 4, 50)), None),
        (0, access_list((0x02, 7, 0), (0x08, 7, 0)), None),
        (50, access_list((0x02, 5, 1000)), "group 50"),
        (50, access_list((0x02, 7, 0), own_group=5), None),
        (0, None, None),
        (50, None, "group 50"),
    ],
)
def test_an_access_control_list_counts(
    tree: Tree, level: str, gid: int, acl: bytes | None, who: str | None
) -> None:
    tree.add("/opt/check", PROGRAM)
    node = tree.nodes[level]
    node.acl, node.gid = acl, gid
    assert untrusted("/opt/check") is None, "its mask lets nobody write"
    node.mode |= stat.S_IWGRP
    assert untrusted("/opt/check") == (who and f"{level} can be written to by {who}")


def test_nobody_replaces_what_root_has_in_a_sticky_directory(tree: Tree) -> None:
    tree.add("/tmp", STICKY)
    tree.add("/tmp/check", PROGRAM)
    assert untrusted("/tmp/check") is None
    # What is not root's in there is anybody's.
    tree.nodes["/tmp/check"].uid = 1
    assert untrusted("/tmp/check") == "/tmp/check belongs to user 1, not to root"
    tree.link("/tmp/link", "/opt/check", uid=1)
    tree.add("/opt/check", PROGRAM)
    assert untrusted("/tmp/link") == "/tmp/link belongs to user 1, not to root"
    tree.nodes["/tmp/link"].uid = 0
    assert untrusted("/tmp/link") is None
    # The bit says nothing about a file, and nothing about a directory of another owner.
    tree.nodes["/opt/check"].mode = stat.S_IFREG | 0o1757
    assert untrusted("/opt/check") == "/opt/check can be written to by everybody"
    tree.nodes["/tmp"].uid = 1
    assert untrusted("/tmp/link") == "/tmp belongs to user 1, not to root"


def test_symbolic_links_are_followed_level_by_level(tree: Tree) -> None:
    tree.add("/safe/check", PROGRAM)
    tree.add("/risky", stat.S_IFDIR | 0o777)
    tree.link("/risky/detour", "../safe")
    tree.link("/link", "risky/detour/check")
    assert untrusted("/link") == "/risky can be written to by everybody"
    tree.nodes["/risky"].mode = DIRECTORY
    assert untrusted("/link") is None
    tree.link("/opt/absolute", "/safe/./check")
    assert untrusted("/opt/absolute") is None
    tree.link("/opt/loop", "loop")
    assert untrusted("/opt/loop") == "/opt/loop leads through too many symbolic links"


def test_the_parent_of_what_a_link_leads_to_is_not_that_of_the_link(tree: Tree) -> None:
    tree.add("/home/user/check", PROGRAM, uid=1)
    tree.add("/home/user/deep", DIRECTORY)
    tree.link("/opt/link", "/home/user/deep")
    tree.add("/opt/check", PROGRAM)
    # That is /home/user/check, not /opt/check.
    assert untrusted("/opt/link/../check") == "/home/user/check belongs to user 1, not to root"


def test_the_error_names_the_level_and_only_root_is_protected(tree: Tree) -> None:
    tree.add("/opt/check", stat.S_IFREG | 0o777)
    with pytest.raises(ConfigError, match="would run as root, but /opt/check can be written"):
        require_trusted("/opt/check", 0)
    require_trusted("/opt/check", 1)
    with pytest.raises(ConfigError, match="No such file or directory: /opt/nothing"):
        require_trusted("/opt/nothing/here", 0)
