"""What a router finds and changes on its machine: interfaces, addresses, announcements.

:class:`vrrpkit.MemoryBus` and :class:`vrrpkit.StaticNetwork` are at the top; here is what they
answer with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.host.memory.interface import MemoryInterface as MemoryInterface
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.host.memory.interface": ("MemoryInterface",),
        },
    )
