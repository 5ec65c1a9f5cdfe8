"""Which programs may be run with root's rights (keepalived: ``enable_script_security``)."""

from __future__ import annotations

import os
import stat

from vrrpkit.errors import ConfigError

__all__ = ["require_trusted", "untrusted"]

LINKS = 40
"""Symbolic links followed in one path, as in the kernel."""


def untrusted(path: str) -> str | None:
    """Why somebody other than root could change what ``path`` runs, or ``None``.

    Every level of the path is looked at, also those that symbolic links lead through. A level, or a
    link, must belong to root, and neither its group (unless that is root's), nor those in an access
    control list, nor others may write to it. In a sticky directory such as ``/tmp`` others may:
    what root has there, only root can rename or remove. That is keepalived's rule (which knows no
    access control lists), and like keepalived this looks at the program alone: of ``/bin/sh
    /path/script`` the script is an argument, and nobody but the shell knows what it is.

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
    if found.st_mode & stat.S_IWGRP:
        if found.st_gid != 0:
            return f"{path} can be written to by group {found.st_gid}"
        # With such a list these are the permissions that anybody named in it has at most (acl(5)).
        if _has_list(path):
            return f"{path} has an access control list that lets others write"
    if found.st_mode & stat.S_IWOTH:
        return f"{path} can be written to by everybody"
    return None


def _has_list(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        # None, or the file system knows of no such thing.
        return False


def require_trusted(path: str, uid: int) -> None:
    """Refuse to run ``path`` as root if somebody else could change it.

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
