"""The VRRP stack: pure protocol (packet, auth, receive, machine) and the driver that runs it
(instance).

:class:`vrrpkit.VRRPInstance` and :class:`vrrpkit.SyncGroup` are at the top; here is what they
answer with, and the three profiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.vrrp.config import (
        SyncGroupConfig as SyncGroupConfig,
        VRRPInstanceConfig as VRRPInstanceConfig,
    )
    from vrrpkit.vrrp.protocol.packet import (
        ChecksumForm as ChecksumForm,
        RejectReason as RejectReason,
    )
    from vrrpkit.vrrp.protocol.profile import (
        DEFAULT as DEFAULT,
        KEEPALIVED as KEEPALIVED,
        STRICT as STRICT,
        AddressLostPolicy as AddressLostPolicy,
    )
    from vrrpkit.vrrp.protocol.statistics import (
        PeerCounters as PeerCounters,
        RouterStatistics as RouterStatistics,
    )
    from vrrpkit.vrrp.protocol.status import (
        GroupStatus as GroupStatus,
        PeerStatus as PeerStatus,
        RouterCounters as RouterCounters,
        RouterStatus as RouterStatus,
        TransitionStatus as TransitionStatus,
    )
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.vrrp.config": ("SyncGroupConfig", "VRRPInstanceConfig"),
            "vrrpkit.vrrp.protocol.packet": ("ChecksumForm", "RejectReason"),
            "vrrpkit.vrrp.protocol.profile": (
                "AddressLostPolicy",
                "DEFAULT",
                "KEEPALIVED",
                "STRICT",
            ),
            "vrrpkit.vrrp.protocol.statistics": ("PeerCounters", "RouterStatistics"),
            "vrrpkit.vrrp.protocol.status": (
                "GroupStatus",
                "PeerStatus",
                "RouterCounters",
                "RouterStatus",
                "TransitionStatus",
            ),
        },
    )
