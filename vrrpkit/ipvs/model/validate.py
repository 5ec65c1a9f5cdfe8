"""Arguments of a wholly wrong type, refused by the name of the parameter. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.values import flag, no_control

__all__ = ["require_text", "several", "truth"]

T = TypeVar("T")


def require_text(name: str, value: object, example: str) -> None:
    """Refuse what is no text.

    :raises ConfigError: it is something else, where ``example`` ends the message, or has control
        characters in it.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} {value!r} is no text; write {example}")
    no_control(name, value)


def several(name: str, values: Iterable[T], example: str) -> tuple[T, ...]:
    """The elements of a list, or of anything else that can be iterated over but text.

    :raises ConfigError: it is something else; ``example`` ends the message.
    """
    given = cast(object, values)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigError(f"{name} {values!r} is no list; write {example}")
    return tuple(values)


def truth(instance: object, attribute: attrs.Attribute[bool], value: bool) -> None:
    """An attrs validator: True or False, and not what only counts as one, as ``"no"`` does.

    :raises ConfigError: it is something else.
    """
    flag(attribute.name, value)
