"""How adverts travel: a small protocol, raw sockets for the wire, and a segment in memory.

Here is what a transport of your own needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.transport.base import (
        Datagram as Datagram,
        Membership as Membership,
        Receiver as Receiver,
        Repeats as Repeats,
        Transport as Transport,
        TransportLink as TransportLink,
    )
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.transport.base": (
                "Datagram",
                "Membership",
                "Receiver",
                "Repeats",
                "Transport",
                "TransportLink",
            ),
        },
    )
