"""Health checkers, and the scheduler that runs them.

The checkers themselves are at the top, ``vrrpkit.HTTPChecker`` and so on; here is what a checker of
your own needs, and what runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.checks.base import (
        NetworkChecker as NetworkChecker,
        Weight as Weight,
    )
    from vrrpkit.checks.engine.check import Check as Check
    from vrrpkit.checks.engine.scheduler import CheckScheduler as CheckScheduler
    from vrrpkit.checks.protocol.http import URL as URL
    from vrrpkit.local_errors import own_trouble as own_trouble
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.checks.base": ("NetworkChecker", "Weight"),
            "vrrpkit.checks.engine.check": ("Check",),
            "vrrpkit.checks.engine.scheduler": ("CheckScheduler",),
            "vrrpkit.checks.protocol.http": ("URL",),
            "vrrpkit.local_errors": ("own_trouble",),
        },
    )
