"""Every event that a user can receive, of all rooms: of routers and sync groups, of virtual servers
and connection sync, of BFD sessions and of checks.

Each is a frozen value that reads as a line. Each is imported when it is first used; nothing inside
the package imports this module. :class:`vrrpkit.Transition` and :class:`vrrpkit.GroupTransition`,
which nearly every program asks for, are at the top too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.bfd.protocol.events import (
        BFDEvent as BFDEvent,
        BFDRejected as BFDRejected,
        BFDSendFailed as BFDSendFailed,
        BFDTimersAgreed as BFDTimersAgreed,
        BFDTransition as BFDTransition,
    )
    from vrrpkit.checks.events import (
        CheckNotMade as CheckNotMade,
        CheckResult as CheckResult,
        CheckStuck as CheckStuck,
    )
    from vrrpkit.ipvs.model.events import (
        CheckOverdue as CheckOverdue,
        CheckPostponed as CheckPostponed,
        ForeignServices as ForeignServices,
        QuorumDown as QuorumDown,
        QuorumUnreachable as QuorumUnreachable,
        QuorumUp as QuorumUp,
        ServerAdded as ServerAdded,
        ServerDisabled as ServerDisabled,
        ServerDown as ServerDown,
        ServerDrained as ServerDrained,
        ServerDraining as ServerDraining,
        ServerEnabled as ServerEnabled,
        ServerRemoved as ServerRemoved,
        ServerUp as ServerUp,
        ServicesAdopted as ServicesAdopted,
        StaleServices as StaleServices,
        TableFollows as TableFollows,
        TableRefused as TableRefused,
        TableRepaired as TableRepaired,
        VirtualServerEvent as VirtualServerEvent,
        WeightChanged as WeightChanged,
    )
    from vrrpkit.ipvs.sync import (
        SyncEvent as SyncEvent,
        SyncRefused as SyncRefused,
        SyncSwitched as SyncSwitched,
    )
    from vrrpkit.publishing import EventsLost as EventsLost
    from vrrpkit.vrrp.protocol.events import (
        AddressesInPlace as AddressesInPlace,
        AddressesRefused as AddressesRefused,
        AddressLost as AddressLost,
        AdvertAnomaly as AdvertAnomaly,
        AdvertRejected as AdvertRejected,
        Anomaly as Anomaly,
        AnotherMaster as AnotherMaster,
        ClockSkew as ClockSkew,
        FaultsChanged as FaultsChanged,
        ForeignAddress as ForeignAddress,
        MasterChanged as MasterChanged,
        PriorityChanged as PriorityChanged,
        ReceiveOverflow as ReceiveOverflow,
        RouteLost as RouteLost,
        RouterEvent as RouterEvent,
        SendFailed as SendFailed,
        Stalled as Stalled,
        Transition as Transition,
        TransitionReason as TransitionReason,
        WeightTooSmall as WeightTooSmall,
    )
    from vrrpkit.vrrp.syncgroup import GroupTransition as GroupTransition
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.bfd.protocol.events": (
                "BFDEvent",
                "BFDRejected",
                "BFDSendFailed",
                "BFDTimersAgreed",
                "BFDTransition",
            ),
            "vrrpkit.checks.events": ("CheckNotMade", "CheckResult", "CheckStuck"),
            "vrrpkit.ipvs.model.events": (
                "CheckOverdue",
                "CheckPostponed",
                "ForeignServices",
                "QuorumDown",
                "QuorumUnreachable",
                "QuorumUp",
                "ServerAdded",
                "ServerDisabled",
                "ServerDown",
                "ServerDrained",
                "ServerDraining",
                "ServerEnabled",
                "ServerRemoved",
                "ServerUp",
                "ServicesAdopted",
                "StaleServices",
                "TableFollows",
                "TableRefused",
                "TableRepaired",
                "VirtualServerEvent",
                "WeightChanged",
            ),
            "vrrpkit.ipvs.sync": ("SyncEvent", "SyncRefused", "SyncSwitched"),
            "vrrpkit.publishing": ("EventsLost",),
            "vrrpkit.vrrp.protocol.events": (
                "AddressLost",
                "AddressesInPlace",
                "AddressesRefused",
                "AdvertAnomaly",
                "AdvertRejected",
                "Anomaly",
                "AnotherMaster",
                "ClockSkew",
                "FaultsChanged",
                "ForeignAddress",
                "MasterChanged",
                "PriorityChanged",
                "ReceiveOverflow",
                "RouteLost",
                "RouterEvent",
                "SendFailed",
                "Stalled",
                "Transition",
                "TransitionReason",
                "WeightTooSmall",
            ),
            "vrrpkit.vrrp.syncgroup": ("GroupTransition",),
        },
    )
