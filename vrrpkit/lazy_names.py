"""The faces of the package and of its rooms: names that are imported when they are first used.

A face lists where each of its names is defined, and :func:`lazy_names` makes the rest of it
(PEP 562). Importing a face costs nothing that the program does not use: a router in memory never
loads netlink. Type checkers and editors do not follow that list, so a face has the same names as
imports under ``TYPE_CHECKING``; a test compares the two.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import TypeAlias

__all__ = ["LazyNames", "lazy_names"]

LazyNames: TypeAlias = tuple[list[str], Callable[[str], object], Callable[[], list[str]]]
"""``__all__``, ``__getattr__`` and ``__dir__`` of a module."""


def lazy_names(face: str, homes: Mapping[str, tuple[str, ...]]) -> LazyNames:
    """Make ``__all__``, ``__getattr__`` and ``__dir__`` of the module ``face``.

    :param homes: the public names that each module defines.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> object:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {face!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(home), name)
        vars(sys.modules[face])[name] = value
        return value

    def listed() -> list[str]:
        return sorted(name for name in home_of if not name.startswith("_"))

    return listed(), get, listed
