"""vrrpkit: keep an IP address alive on a group of machines (VRRP), and balance connections over
healthy servers behind it (IPVS), from asyncio.

The public names load on first use (PEP 562), so that importing the package costs nothing that the
program does not need: a router in memory never loads netlink.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vrrpkit.bfd.config import BFDSessionConfig
    from vrrpkit.bfd.protocol.events import (
        BFDRejected,
        BFDSendFailed,
        BFDTimersAgreed,
        BFDTransition,
    )
    from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDRejectReason, BFDState
    from vrrpkit.bfd.protocol.statistics import BFDStatistics
    from vrrpkit.bfd.session import BFDSession
    from vrrpkit.checks.base import Checker, NetworkChecker, Weight
    from vrrpkit.checks.bfd import BFDChecker
    from vrrpkit.checks.dns import DNSChecker
    from vrrpkit.checks.engine.scheduler import CheckScheduler
    from vrrpkit.checks.events import CheckNotMade, CheckResult, CheckStuck
    from vrrpkit.checks.file import FileChecker
    from vrrpkit.checks.function import FunctionChecker
    from vrrpkit.checks.http import HTTPChecker, HTTPSChecker
    from vrrpkit.checks.ping import PingChecker
    from vrrpkit.checks.protocol.http import URL
    from vrrpkit.checks.script import ScriptChecker
    from vrrpkit.checks.smtp import SMTPChecker
    from vrrpkit.checks.target import Target
    from vrrpkit.checks.tcp import TCPChecker
    from vrrpkit.checks.udp import UDPChecker
    from vrrpkit.errors import (
        CheckFailed,
        Closed,
        ConfigError,
        CouldNotAsk,
        DecodeError,
        DuplicateRouter,
        DuplicateService,
        HostError,
        InterfaceMissing,
        KernelRefused,
        ModuleMissing,
        NotEligible,
        PermissionMissing,
        SourceMissing,
        UntrustedCommand,
        VRRPKitError,
    )
    from vrrpkit.host.memory.bus import MemoryBus
    from vrrpkit.host.static import StaticNetwork
    from vrrpkit.ipvs.base import ConnectionTimeouts
    from vrrpkit.ipvs.config import ConnectionSyncConfig, VirtualServerConfig
    from vrrpkit.ipvs.kernel.table import KernelTable
    from vrrpkit.ipvs.memory.table import MemoryTable
    from vrrpkit.ipvs.model.entries import TrafficCounters, Tunnel, TunnelType
    from vrrpkit.ipvs.model.events import (
        QuorumDown,
        QuorumUp,
        ServerDown,
        ServerDrained,
        ServerUp,
        TableRefused,
        TableRepaired,
    )
    from vrrpkit.ipvs.model.pool import ServerState
    from vrrpkit.ipvs.server import RealServer, VirtualServer
    from vrrpkit.ipvs.status import PoolStatus, ServerStatus, VirtualServerState
    from vrrpkit.ipvs.sync import ConnectionSync
    from vrrpkit.local_errors import own_trouble
    from vrrpkit.notify.fifo import NotifyFIFO
    from vrrpkit.notify.function import NotifyFunction
    from vrrpkit.notify.mail.notifier import Mail
    from vrrpkit.notify.scripts import NotifyScripts
    from vrrpkit.publishing import Attachment, EventsLost, Notifier
    from vrrpkit.routes.route import NextHop, Route, Rule
    from vrrpkit.runner import run
    from vrrpkit.trackers.bfd import TrackBFD
    from vrrpkit.trackers.checker import TrackChecker
    from vrrpkit.trackers.file import TrackFile
    from vrrpkit.trackers.function import TrackFunction
    from vrrpkit.trackers.interface import TrackInterface
    from vrrpkit.trackers.process import TrackProcess
    from vrrpkit.trackers.script import TrackScript
    from vrrpkit.tracking.tracker import Tracker
    from vrrpkit.transport.base import Datagram, Membership, Receiver, Transport, TransportLink
    from vrrpkit.values import VIP, Announcements, IPAddress, Peer, State
    from vrrpkit.vrrp.instance import VRRPInstance
    from vrrpkit.vrrp.keyfile import read_key
    from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth
    from vrrpkit.vrrp.protocol.events import (
        AddressesInPlace,
        AddressesRefused,
        AddressLost,
        AdvertAnomaly,
        AdvertRejected,
        Anomaly,
        AnotherMaster,
        ClockSkew,
        FaultsChanged,
        ForeignAddress,
        MasterChanged,
        PriorityChanged,
        ReceiveOverflow,
        RouteLost,
        SendFailed,
        Stalled,
        Transition,
        TransitionReason,
        WeightTooSmall,
    )
    from vrrpkit.vrrp.protocol.packet import ChecksumForm, RejectReason
    from vrrpkit.vrrp.protocol.profile import AddressLostPolicy, Profile
    from vrrpkit.vrrp.protocol.statistics import RouterStatistics
    from vrrpkit.vrrp.protocol.status import GroupStatus, RouterStatus
    from vrrpkit.vrrp.syncgroup import GroupTransition, SyncGroup

_HOMES = {
    "vrrpkit.bfd.config": ("BFDSessionConfig",),
    "vrrpkit.bfd.protocol.events": (
        "BFDRejected",
        "BFDSendFailed",
        "BFDTimersAgreed",
        "BFDTransition",
    ),
    "vrrpkit.bfd.protocol.packet": ("BFDDiagnostic", "BFDRejectReason", "BFDState"),
    "vrrpkit.bfd.session": ("BFDSession",),
    "vrrpkit.bfd.protocol.statistics": ("BFDStatistics",),
    "vrrpkit.checks.base": ("Checker", "NetworkChecker", "Weight"),
    "vrrpkit.checks.bfd": ("BFDChecker",),
    "vrrpkit.checks.dns": ("DNSChecker",),
    "vrrpkit.checks.file": ("FileChecker",),
    "vrrpkit.checks.function": ("FunctionChecker",),
    "vrrpkit.checks.http": ("HTTPChecker", "HTTPSChecker"),
    "vrrpkit.checks.protocol.http": ("URL",),
    "vrrpkit.checks.events": ("CheckNotMade", "CheckResult", "CheckStuck"),
    "vrrpkit.checks.ping": ("PingChecker",),
    "vrrpkit.checks.engine.scheduler": ("CheckScheduler",),
    "vrrpkit.checks.script": ("ScriptChecker",),
    "vrrpkit.checks.smtp": ("SMTPChecker",),
    "vrrpkit.checks.target": ("Target",),
    "vrrpkit.checks.tcp": ("TCPChecker",),
    "vrrpkit.checks.udp": ("UDPChecker",),
    "vrrpkit.errors": (
        "CheckFailed",
        "Closed",
        "ConfigError",
        "CouldNotAsk",
        "DecodeError",
        "DuplicateRouter",
        "DuplicateService",
        "HostError",
        "InterfaceMissing",
        "KernelRefused",
        "ModuleMissing",
        "NotEligible",
        "PermissionMissing",
        "SourceMissing",
        "UntrustedCommand",
        "VRRPKitError",
    ),
    "vrrpkit.publishing": ("Attachment", "EventsLost", "Notifier"),
    "vrrpkit.host.memory.bus": ("MemoryBus",),
    "vrrpkit.routes.route": ("NextHop", "Route", "Rule"),
    "vrrpkit.host.static": ("StaticNetwork",),
    "vrrpkit.ipvs.model.entries": ("TrafficCounters", "Tunnel", "TunnelType"),
    "vrrpkit.ipvs.config": ("ConnectionSyncConfig", "VirtualServerConfig"),
    "vrrpkit.ipvs.kernel.table": ("KernelTable",),
    "vrrpkit.ipvs.memory.table": ("MemoryTable",),
    "vrrpkit.ipvs.model.events": (
        "QuorumDown",
        "QuorumUp",
        "ServerDown",
        "ServerDrained",
        "ServerUp",
        "TableRefused",
        "TableRepaired",
    ),
    "vrrpkit.ipvs.model.pool": ("ServerState",),
    "vrrpkit.ipvs.server": ("RealServer", "VirtualServer"),
    "vrrpkit.ipvs.status": ("PoolStatus", "ServerStatus", "VirtualServerState"),
    "vrrpkit.ipvs.sync": ("ConnectionSync",),
    "vrrpkit.ipvs.base": ("ConnectionTimeouts",),
    "vrrpkit.notify.fifo": ("NotifyFIFO",),
    "vrrpkit.notify.function": ("NotifyFunction",),
    "vrrpkit.notify.mail.notifier": ("Mail",),
    "vrrpkit.notify.scripts": ("NotifyScripts",),
    "vrrpkit.runner": ("run",),
    "vrrpkit.trackers.bfd": ("TrackBFD",),
    "vrrpkit.trackers.checker": ("TrackChecker",),
    "vrrpkit.trackers.file": ("TrackFile",),
    "vrrpkit.trackers.function": ("TrackFunction",),
    "vrrpkit.trackers.interface": ("TrackInterface",),
    "vrrpkit.trackers.process": ("TrackProcess",),
    "vrrpkit.trackers.script": ("TrackScript",),
    "vrrpkit.transport.base": ("Datagram", "Membership", "TransportLink", "Receiver", "Transport"),
    "vrrpkit.local_errors": ("own_trouble",),
    "vrrpkit.values": ("Announcements", "IPAddress", "Peer", "State", "VIP"),
    "vrrpkit.vrrp.protocol.auth": ("HMACAuth", "PasswordAuth"),
    "vrrpkit.vrrp.instance": ("VRRPInstance",),
    "vrrpkit.vrrp.keyfile": ("read_key",),
    "vrrpkit.vrrp.protocol.events": (
        "AddressLost",
        "AddressesInPlace",
        "AddressesRefused",
        "AdvertAnomaly",
        "AdvertRejected",
        "Anomaly",
        "AnotherMaster",
        "ClockSkew",
        "ReceiveOverflow",
        "FaultsChanged",
        "ForeignAddress",
        "MasterChanged",
        "PriorityChanged",
        "RouteLost",
        "SendFailed",
        "Stalled",
        "Transition",
        "TransitionReason",
        "WeightTooSmall",
    ),
    "vrrpkit.vrrp.protocol.packet": ("ChecksumForm", "RejectReason"),
    "vrrpkit.vrrp.protocol.profile": ("AddressLostPolicy", "Profile"),
    "vrrpkit.vrrp.protocol.statistics": ("RouterStatistics",),
    "vrrpkit.vrrp.protocol.status": ("GroupStatus", "RouterStatus"),
    "vrrpkit.vrrp.syncgroup": ("GroupTransition", "SyncGroup"),
    "vrrpkit.tracking.tracker": ("Tracker",),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "URL",
    "VIP",
    "AddressLost",
    "AddressLostPolicy",
    "AddressesInPlace",
    "AddressesRefused",
    "AdvertAnomaly",
    "AdvertRejected",
    "Announcements",
    "Anomaly",
    "AnotherMaster",
    "Attachment",
    "BFDChecker",
    "BFDDiagnostic",
    "BFDRejectReason",
    "BFDRejected",
    "BFDSendFailed",
    "BFDSession",
    "BFDSessionConfig",
    "BFDState",
    "BFDStatistics",
    "BFDTimersAgreed",
    "BFDTransition",
    "CheckFailed",
    "CheckNotMade",
    "CheckResult",
    "CheckScheduler",
    "CheckStuck",
    "Checker",
    "ChecksumForm",
    "ClockSkew",
    "Closed",
    "ConfigError",
    "ConnectionSync",
    "ConnectionSyncConfig",
    "ConnectionTimeouts",
    "CouldNotAsk",
    "DNSChecker",
    "Datagram",
    "DecodeError",
    "DuplicateRouter",
    "DuplicateService",
    "EventsLost",
    "FaultsChanged",
    "FileChecker",
    "ForeignAddress",
    "FunctionChecker",
    "GroupStatus",
    "GroupTransition",
    "HMACAuth",
    "HTTPChecker",
    "HTTPSChecker",
    "HostError",
    "IPAddress",
    "InterfaceMissing",
    "KernelRefused",
    "KernelTable",
    "Mail",
    "MasterChanged",
    "Membership",
    "MemoryBus",
    "MemoryTable",
    "ModuleMissing",
    "NetworkChecker",
    "NextHop",
    "NotEligible",
    "Notifier",
    "NotifyFIFO",
    "NotifyFunction",
    "NotifyScripts",
    "PasswordAuth",
    "Peer",
    "PermissionMissing",
    "PingChecker",
    "PoolStatus",
    "PriorityChanged",
    "Profile",
    "QuorumDown",
    "QuorumUp",
    "RealServer",
    "ReceiveOverflow",
    "Receiver",
    "RejectReason",
    "Route",
    "RouteLost",
    "RouterStatistics",
    "RouterStatus",
    "Rule",
    "SMTPChecker",
    "ScriptChecker",
    "SendFailed",
    "ServerDown",
    "ServerDrained",
    "ServerState",
    "ServerStatus",
    "ServerUp",
    "SourceMissing",
    "Stalled",
    "State",
    "StaticNetwork",
    "SyncGroup",
    "TCPChecker",
    "TableRefused",
    "TableRepaired",
    "Target",
    "TrackBFD",
    "TrackChecker",
    "TrackFile",
    "TrackFunction",
    "TrackInterface",
    "TrackProcess",
    "TrackScript",
    "Tracker",
    "TrafficCounters",
    "Transition",
    "TransitionReason",
    "Transport",
    "TransportLink",
    "Tunnel",
    "TunnelType",
    "UDPChecker",
    "UntrustedCommand",
    "VRRPInstance",
    "VRRPKitError",
    "VirtualServer",
    "VirtualServerConfig",
    "VirtualServerState",
    "Weight",
    "WeightTooSmall",
    "own_trouble",
    "read_key",
    "run",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'vrrpkit' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
