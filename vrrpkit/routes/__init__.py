"""Routes and rules as users write them: values and their syntax. Pure.

:class:`vrrpkit.Route` and :class:`vrrpkit.Rule` are at the top; here is what they consist of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.routes.route import NextHop as NextHop
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.routes.route": ("NextHop",),
        },
    )
