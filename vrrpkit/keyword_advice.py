"""What to write instead of a keyword that a constructor does not have: keepalived's word for it, or
a slip of the pen. Pure."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

__all__ = ["WORDS", "advised"]

T = TypeVar("T")

_TIMES = {
    "delay_loop": "interval= (seconds)",
    "connect_timeout": "timeout= (seconds)",
    "connect_port": "port=",
    "connect_ip": "address=",
}

WORDS: dict[str, dict[str, str]] = {
    "Announcements": {
        "garp_master_delay": "delay= (seconds)",
        "garp_master_repeat": "repeat=",
        "garp_master_refresh": "refresh= (seconds)",
        "garp_master_refresh_repeat": "refresh_repeat=",
        "vrrp_garp_interval": "interval= (seconds)",
    },
    "Mail": {
        "smtp_server": "the first argument",
        "notification_email": "to=",
        "notification_email_from": "sender=",
        "smtp_connect_timeout": "deadline= (seconds)",
        "smtp_helo_name": "helo=",
    },
    "TCPChecker": _TIMES,
    "HTTPChecker": _TIMES,
}
"""What users of keepalived, and of other programs, write for the options of each class, and what
that is here."""


def advised(cls: type[T]) -> type[T]:
    """Have a class say what to write when its constructor gets a keyword that it does not have.

    The error stays a :class:`TypeError`, as Python raises it.
    """
    init: Any = cls.__init__

    @functools.wraps(init)
    def __init__(  # noqa: N807 - it becomes one
        self: T, *args: Any, **options: Any
    ) -> None:
        try:
            init(self, *args, **options)
        except TypeError:
            # Those of an __init__ that calls this one, or is called by it, have names of their own.
            known = list(inspect.signature(init).parameters)[1:]
            unknown = [name for name in options if name not in known]
            if not unknown:
                raise
            words = {word: use for word, use in WORDS[cls.__name__].items() if word not in known}
            raise TypeError(_advice(cls.__name__, unknown[0], words, known)) from None

    setattr(cls, "__init__", __init__)  # noqa: B010 - what the class has is replaced
    return cls


def _advice(name: str, unknown: str, words: dict[str, str], known: list[str]) -> str:
    if unknown in words:
        use, _, unit = words[unknown].partition(" ")
        if use.isidentifier() or not use.endswith("="):
            return f"{name}: instead of {unknown}= write {words[unknown]}"
        return f"{name}: {unknown}= is called {use} here {unit}".rstrip()
    # At need: it is for those who err.
    import difflib

    near = difflib.get_close_matches(unknown, known, 1)
    hint = f"did you mean {near[0]}=?" if near else f"it knows {', '.join(known)}"
    return f"{name} has no option {unknown}=; {hint}"
