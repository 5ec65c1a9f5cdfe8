"""What may tell a BACKUP that its master is gone before the adverts do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vrrpkit.errors import ConfigError
from vrrpkit.values import IPAddress

__all__ = ["Reachability", "check_family"]


class Reachability(Protocol):
    """Watches one neighbour more closely than adverts do: a
    :class:`vrrpkit.bfd.session.BFDSession`, or anything like it."""

    @property
    def neighbor(self) -> IPAddress:
        """The neighbour, by the address that its adverts come from."""
        ...

    def open(self) -> None:
        """Begin to watch, or go on; each call is followed by one of :meth:`close`."""
        ...

    def close(self) -> None:
        """End one use."""
        ...

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` when the neighbour could be reached and cannot any more; returns what
        ends it."""
        ...


def check_family(reach: Reachability, family: int, who: str) -> None:
    """Refuse a neighbour that can never be the master.

    :raises ConfigError: its address is of another family than the adverts.
    """
    if reach.neighbor.version != family:
        raise ConfigError(
            f"{who}: bfd watches {reach.neighbor}, but adverts come from an IPv{family} address; "
            "watch the one that the other router's adverts come from"
        )
