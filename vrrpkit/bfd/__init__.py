"""Bidirectional Forwarding Detection: whether a neighbour can be reached, known in milliseconds.

:class:`vrrpkit.BFDSession` and :class:`vrrpkit.BFDState` are at the top; here is what they answer
with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.bfd.config import (
        BFDSessionConfig as BFDSessionConfig,
        BFDSettings as BFDSettings,
    )
    from vrrpkit.bfd.protocol.packet import (
        BFDDiagnostic as BFDDiagnostic,
        BFDRejectReason as BFDRejectReason,
    )
    from vrrpkit.bfd.protocol.statistics import BFDStatistics as BFDStatistics
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.bfd.config": ("BFDSessionConfig", "BFDSettings"),
            "vrrpkit.bfd.protocol.packet": ("BFDDiagnostic", "BFDRejectReason"),
            "vrrpkit.bfd.protocol.statistics": ("BFDStatistics",),
        },
    )
