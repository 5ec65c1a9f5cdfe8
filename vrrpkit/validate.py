"""Whether what a user wrote is of the right kind, in its range and unit: every check of that sort.

A check takes the name of the option first, for the message, and raises ``ConfigError``. It knows no
class of this package: ``of_kind`` is given the one that is meant. Those that end in ``_field`` are
validators for ``attrs.field(validator=)``, and name the class before the option. Pure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeAlias, TypeGuard, TypeVar, cast, runtime_checkable

import attrs

from vrrpkit.errors import ConfigError

__all__ = [
    "as_path",
    "demotion",
    "flag",
    "flag_field",
    "having",
    "is_number",
    "is_whole",
    "link_name",
    "listed",
    "no_control",
    "notifiers",
    "of_kind",
    "one_line",
    "optional_path",
    "seconds",
    "seconds_field",
    "text",
    "times_field",
    "whole_number",
]

NOTIFIERS = "NotifyScripts('/etc/vrrp/notify.sh') or NotifyFunction(function)"

YEAR = 365 * 86400.0

T = TypeVar("T")
N = TypeVar("N", int, float)

FieldCheck: TypeAlias = "Callable[[object, attrs.Attribute[N], N], None]"


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number; ``True`` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a whole or a floating-point number; ``True`` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole_number(what: str, value: object, low: int, high: int, hint: str) -> int:
    """Refuse everything but a whole number from ``low`` to ``high``, and return it.

    :raises ConfigError: it is something else; ``hint`` ends the message.
    """
    if not is_whole(value) or not low <= value <= high:
        raise ConfigError(f"{what} {value!r} must be a whole number from {low} to {high}: {hint}")
    return value


def seconds(what: str, value: object, low: float, high: float, hint: str = "") -> None:
    """Refuse everything but a number of seconds from ``low`` to ``high``.

    :raises ConfigError: it is something else; ``hint`` ends the message.
    """
    # Not a number is not between the limits either.
    if not is_number(value) or not low <= value <= high:
        more = f": {hint}" if hint else ""
        raise ConfigError(f"{what} {value!r} must be {low:g} to {high:g} seconds{more}")


def demotion(value: object) -> None:
    """Refuse everything but the length of a demotion, up to a year.

    :raises ConfigError: it is something else.
    """
    if not is_number(value) or not 0 < value <= YEAR:
        raise ConfigError(
            f"demote({value!r}): give the number of seconds, more than 0 and up to a year"
        )


def flag(what: str, value: object) -> None:
    """Refuse everything but ``True`` and ``False``, also what only counts as one, as ``"no"`` does.

    :raises ConfigError: it is something else.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{what} {value!r} must be True or False")


def flag_field(instance: object, attribute: attrs.Attribute[bool], value: bool) -> None:
    """An attrs validator: ``True`` or ``False``.

    :raises ConfigError: it is something else.
    """
    flag(f"{type(instance).__name__}: {attribute.name}", value)


def seconds_field(low: float, high: float = 86400.0) -> FieldCheck[float]:
    """An attrs validator: a number of seconds from ``low`` to ``high``."""

    def validate(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
        seconds(f"{type(instance).__name__}: {attribute.name}", value, low, high)

    return validate


def times_field(low: int, high: int = 1_000_000) -> FieldCheck[int]:
    """An attrs validator: a whole number of times from ``low`` to ``high``."""

    def validate(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
        what = f"{type(instance).__name__}: {attribute.name}"
        whole_number(what, value, low, high, "it is a number of times")

    return validate


def one_line(value: str) -> str:
    """Text without line ends and other control characters: fit for a log, a header, a variable.

    What a peer, a server or a script said may hold any.
    """
    if value.isprintable() and "  " not in value:
        return value.strip()
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())


def no_control(what: str, value: str) -> None:
    """Refuse a name with control characters: it stands in lines of logs, of a FIFO and of mail.

    :raises ConfigError: it has line ends, tabs or the like.
    """
    if not value.isprintable():
        wanted = one_line(value) or "web"
        raise ConfigError(
            f"{what} {value!r} has control characters, or a line end, in it; write {wanted!r}"
        )


def text(what: str, value: object, example: str, *, empty: bool = False) -> str:
    """Refuse everything but text, and return it.

    :param empty: whether there may be nothing in it.
    :raises ConfigError: it is empty, has control characters in it, or is something else;
        ``example`` ends the message.
    """
    if not isinstance(value, str) or not (value or empty):
        raise ConfigError(f"{what} {value!r} must be text, such as {example}")
    no_control(what, value)
    return value


def link_name(what: str, value: object) -> None:
    """Refuse what cannot be the name of a network interface; ``None`` is none.

    :raises ConfigError: it is something else.
    """
    # IFNAMSIZ is 16 in linux/if.h, with the NUL at the end. No octets stand for a lone surrogate,
    # which is not printable either.
    named = isinstance(value, str) and value.isprintable() and 0 < len(value.encode()) < 16
    if value is not None and not named:
        raise ConfigError(
            f"{what} {value!r} must be the name of a network interface, 1 to 15 octets as in 'eth0'"
        )


def listed(what: str, values: Iterable[T], example: str = "") -> tuple[T, ...]:
    """The values of a list, or of anything else that can be iterated over but text.

    :param example: a list for the message; without one, and for text, it is the value in brackets.
    :raises ConfigError: it is a single value, or none.
    """
    given = cast(object, values)
    if given is None and not example:
        raise ConfigError(f"{what} None must be a list; an empty one is written []")
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        wanted = f"{what}=[{given!r}]" if isinstance(given, str) or not example else example
        raise ConfigError(f"write {what} as a list: {wanted}")
    return tuple(values)


def of_kind(what: str, value: object, kind: type[object], example: str) -> None:
    """Refuse everything but an object of a class.

    :raises ConfigError: it is something else, perhaps the class itself.
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{what} {value!r} must be {example}")


def having(what: str, value: object, method: str, example: str) -> None:
    """Refuse everything but an object that has a method.

    :raises ConfigError: it is something else, perhaps the class itself.
    """
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        raise ConfigError(f"{what} {value!r} must be {example}")


def notifiers(values: Iterable[T], example: str = NOTIFIERS) -> tuple[T, ...]:
    """The notifiers of a list: each has a method ``attach``.

    :raises ConfigError: it is no list, or one of them is no notifier; ``example`` ends the message.
    """
    found = listed("notify", values)
    for notifier in found:
        having("notify: each", notifier, "attach", f"a notifier, such as {example}")
    return found


@runtime_checkable
class _PathLike(Protocol):
    def __fspath__(self) -> str | bytes: ...


def as_path(value: str | _PathLike, what: str = "path", example: str = "/run/value") -> str:
    """The text of a path; an attrs converter.

    :raises ConfigError: it is none; ``example`` ends the message.
    """
    # As os.fsdecode() and os.fsencode() do; a name that is not of this encoding stays what it is.
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    name = cast(object, value)
    try:
        if isinstance(name, _PathLike):
            name = name.__fspath__()
            name = name.decode(encoding, errors) if isinstance(name, bytes) else name
        if isinstance(name, str) and b"\0" not in name.encode(encoding, errors):
            return name
    except UnicodeError:
        pass
    raise ConfigError(f"{what} {value!r} is no path of a file; write it as {example!r}")


def optional_path(
    what: str, value: str | _PathLike | None, example: str = "/run/value"
) -> Path | None:
    """The path of a file, if one is given.

    :raises ConfigError: it is no path; ``example`` ends the message.
    """
    return None if value is None else Path(as_path(value, what, example))
