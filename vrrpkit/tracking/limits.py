"""Checks of what trackers are given. Pure."""

from __future__ import annotations

from vrrpkit.errors import ConfigError
from vrrpkit.values import whole_number

__all__ = ["rows", "seconds"]


def seconds(what: str, value: object, low: float, high: float) -> None:
    """Refuse everything but a number from ``low`` to ``high``.

    :raises ConfigError: it is something else; ``what`` begins the message.
    """
    # Not a number is not between the limits either.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{what} {value!r} must be {low:g} to {high:g} seconds")


def rows(who: str, rise: object, fall: object, unit: str) -> None:
    """Refuse numbers that cannot be counted to.

    :raises ConfigError: one is no whole number from 1.
    """
    for name, value in (("rise", rise), ("fall", fall)):
        whole_number(f"{who}: {name}", value, 1, 1_000_000, f"{unit} in a row")
