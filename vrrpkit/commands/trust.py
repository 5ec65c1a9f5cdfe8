"""Which programs may be run with root's rights (keepalived: ``enable_script_security``)."""

from __future__ import annotations

import os
import stat
import struct

from vrrpkit.errors import ConfigError

__all__ = ["require_trusted", "untrusted"]

LINKS = 40
"""Symbolic links followed in one path, as in the kernel."""

ACCESS_LIST = "system.posix_acl_access"
"""Where the kernel shows an access control list; a file whose permissions say it all has none."""

# Tags and permissions of entries, from linux/posix_acl.h.
NAMED_USER = 0x02
OWN_GROUP = 0x04
NAMED_GROUP = 0x08
WRITE = 0x02

# After a version of four octets: tag, permissions, and the number of the user or group.
_ENTRY = struct.Struct("<HHI")


def untrusted(path: str) -> str | None:
    """Why another user than root could change what ``path`` runs, or ``None``.

    Every level of the path is looked at, also those that symbolic links lead through. A level, or a
    link, must belong to root, and neither its group (unless that is root's), nor those in an access
    control list, nor others may write to it. In a sticky directory such as ``/tmp`` others may:
    what root has there, only root can rename or remove. That is keepalived's rule (which knows no
    access control lists), and like keepalived this looks at the program alone: of ``/bin/sh
    /path/script`` the script is an argument, and only the shell knows what it is.

    :raises OSError: a level does not exist or cannot be looked at.
    """
    done = "/"
    # Not normalised: what ".." means depends on the links before it.
    whole = path if path.startswith("/") else os.path.join(os.getcwd(), path)
    pending = whole.split("/")[::-1]
    followed = 0
    problem = _level(done, os.lstat(done))
    while pending and problem is None:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done)
            continue
        level = os.path.join(done, part)
        found = os.lstat(level)
        problem = _level(level, found)
        if stat.S_ISLNK(found.st_mode):
            followed += 1
            if followed > LINKS:
                return f"{path} leads through too many symbolic links"
            target = os.readlink(level)
            if target.startswith("/"):
                done = "/"
            pending += target.split("/")[::-1]
        else:
            done = level
    return problem


def _level(path: str, found: os.stat_result) -> str | None:
    if found.st_uid != 0:
        return f"{path} belongs to user {found.st_uid}, not to root"
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    # The permissions of a link mean nothing.
    if sticky or stat.S_ISLNK(found.st_mode):
        return None
    # With an access control list these are the permissions that the users named in it, and the
    # group, have at most (acl(5)).
    if found.st_mode & stat.S_IWGRP and (who := _writer(path, found.st_gid)):
        return f"{path} can be written to by {who}"
    if found.st_mode & stat.S_IWOTH:
        return f"{path} can be written to by everybody"
    return None


def _writer(path: str, group: int) -> str | None:
    """Whom but root the permissions of the group let write, or ``None``."""
    try:
        entries = os.getxattr(path, ACCESS_LIST)[4:]
    except OSError:
        # There is none, or the file system knows of no such thing.
        entries = _ENTRY.pack(OWN_GROUP, WRITE, 0)
    for tag, permissions, number in _ENTRY.iter_unpack(entries):
        if not permissions & WRITE:
            continue
        if tag == NAMED_USER and number:
            return f"user {number} (access control list)"
        if tag == NAMED_GROUP and number:
            return f"group {number} (access control list)"
        if tag == OWN_GROUP and group:
            return f"group {group}"
    return None


def require_trusted(path: str, uid: int) -> None:
    """Refuse to run ``path`` as root if another user could change it.

    :param uid: the user that it would run as; only root's programs are looked at.
    :raises ConfigError: it names the level of the path.
    """
    if uid != 0:
        return
    try:
        problem = untrusted(path)
    except OSError as missing:
        raise ConfigError(f"{path} cannot be run: {missing.strerror}: {missing.filename}") from None
    if problem is not None:
        raise ConfigError(
            f"{path} would run as root, but {problem}; let it and every directory above it belong "
            "to root with no write permission for others, or run it as another user (user=)"
        )
