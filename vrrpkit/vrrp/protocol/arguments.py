"""What a user wrote, checked for its kind before anything looks into it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

from vrrpkit.errors import ConfigError
from vrrpkit.values import State, is_number, no_control

__all__ = ["demotion", "having", "listed", "of_kind", "states", "text", "told"]

YEAR = 365 * 86400.0

T = TypeVar("T")


def text(what: str, value: object, example: str) -> None:
    """Refuse everything but text.

    :raises ConfigError: it is empty, has control characters in it, or is something else.
    """
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{what} {value!r} must be text, such as {example!r}")
    no_control(what, value)


def demotion(seconds: object) -> None:
    """Refuse everything but the length of a demotion, up to a year.

    :raises ConfigError: it is something else.
    """
    if not is_number(seconds) or not 0 < seconds <= YEAR:
        raise ConfigError(
            f"demote({seconds!r}): give the number of seconds, more than 0 and up to a year"
        )


def states(values: Iterable[object]) -> None:
    """Refuse everything but states.

    :raises ConfigError: one is something else, for which one would wait for ever.
    """
    for value in values:
        of_kind("the state to wait for,", value, State, "a State, such as State.MASTER")


def listed(what: str, values: Iterable[T]) -> tuple[T, ...]:
    """The values of a list.

    :raises ConfigError: it is a single value, or none.
    """
    given = cast(object, values)
    if given is None:
        raise ConfigError(f"{what} None must be a list; an empty one is written []")
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(f"write {what} as a list: {what}=[{given!r}]")
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


def told(notifiers: Iterable[T]) -> tuple[T, ...]:
    """The notifiers of a list.

    :raises ConfigError: it is no list, or one of them is no notifier.
    """
    found = listed("notify", notifiers)
    for notifier in found:
        having(
            "notify: each",
            notifier,
            "attach",
            "a notifier, such as NotifyScripts('/etc/vrrp/notify.sh') or NotifyFunction(function)",
        )
    return found
