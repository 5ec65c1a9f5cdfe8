"""Checks of what trackers are given. Pure."""

from __future__ import annotations

from vrrpkit.validate import whole_number

__all__ = ["rows"]


def rows(who: str, rise: object, fall: object, unit: str) -> None:
    """Refuse numbers that cannot be counted to.

    :raises ConfigError: one is no whole number from 1.
    """
    for name, value in (("rise", rise), ("fall", fall)):
        whole_number(f"{who}: {name}", value, 1, 1_000_000, f"{unit} in a row")
