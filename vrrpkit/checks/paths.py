"""Paths that a user may write."""

from __future__ import annotations

import os
from pathlib import Path

from vrrpkit.errors import ConfigError

__all__ = ["as_path", "pem_file"]


def as_path(value: str | os.PathLike[str], option: str = "path") -> str:
    """The text of a path; an attrs converter.

    :param option: what messages call it.
    :raises ConfigError: it is none.
    """
    try:
        text = os.fsdecode(value)
        if b"\0" not in os.fsencode(text):
            return text
    except (TypeError, UnicodeError):
        pass
    raise ConfigError(f"{option} {value!r} is no path of a file; write it as '/run/value'")


def pem_file(option: str, value: str | os.PathLike[str] | None) -> Path | None:
    """A file of certificates or keys, if one is given.

    :raises ConfigError: it is no path.
    """
    return None if value is None else Path(as_path(value, option))
