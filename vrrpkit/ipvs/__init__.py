"""The load balancer: pools of real servers, kept in step with the IPVS table of the kernel.

:class:`vrrpkit.VirtualServer` and what it is made of are at the top; here is what it answers with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.ipvs.base import ConnectionTimeouts as ConnectionTimeouts
    from vrrpkit.ipvs.config import (
        ConnectionSyncConfig as ConnectionSyncConfig,
        VirtualServerConfig as VirtualServerConfig,
    )
    from vrrpkit.ipvs.model.entries import (
        TrafficCounters as TrafficCounters,
        TunnelType as TunnelType,
    )
    from vrrpkit.ipvs.model.pool import ServerState as ServerState
    from vrrpkit.ipvs.status import (
        CheckValues as CheckValues,
        PoolStatus as PoolStatus,
        ServerStatus as ServerStatus,
        ServerValues as ServerValues,
        ServiceStatistics as ServiceStatistics,
        VirtualServerState as VirtualServerState,
    )
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.ipvs.base": ("ConnectionTimeouts",),
            "vrrpkit.ipvs.config": ("ConnectionSyncConfig", "VirtualServerConfig"),
            "vrrpkit.ipvs.model.entries": ("TrafficCounters", "TunnelType"),
            "vrrpkit.ipvs.model.pool": ("ServerState",),
            "vrrpkit.ipvs.status": (
                "CheckValues",
                "PoolStatus",
                "ServerStatus",
                "ServerValues",
                "ServiceStatistics",
                "VirtualServerState",
            ),
        },
    )
