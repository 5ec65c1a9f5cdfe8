"""vrrpkit: keep an IP address alive on a group of machines (VRRP), and balance connections over
healthy servers behind it (IPVS), from asyncio.

The public names load on first use (PEP 562), so that importing the package costs nothing that the
program does not need: a router in memory never loads netlink.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vrrpkit.bfd.notices import BFDRejected, BFDSendFailed, BFDTimersAgreed, BFDTransition
    from vrrpkit.bfd.packet import BFDDiagnostic, BFDRejectReason, BFDState
    from vrrpkit.bfd.peer import BFDSession
    from vrrpkit.bfd.statistics import BFDStatistics
    from vrrpkit.checks.base import Checker, NetworkChecker, Weight
    from vrrpkit.checks.bfd import BFDChecker
    from vrrpkit.checks.dns import DNSChecker
    from vrrpkit.checks.file import FileChecker
    from vrrpkit.checks.function import FunctionChecker
    from vrrpkit.checks.http import HTTPChecker, HTTPSChecker
    from vrrpkit.checks.http_rules import URL
    from vrrpkit.checks.notices import CheckNotMade, CheckResult, CheckStuck
    from vrrpkit.checks.ping import PingChecker
    from vrrpkit.checks.scheduler import Scheduler
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
        Untrusted,
        VRRPKitError,
    )
    from vrrpkit.events import Attachment, EventsLost, Notifier
    from vrrpkit.host.memory import MemoryBus
    from vrrpkit.host.routes import NextHop, Route, Rule
    from vrrpkit.host.static import StaticAddresses
    from vrrpkit.ipvs.entries import TrafficCounters, Tunnel, TunnelType
    from vrrpkit.ipvs.kernel import KernelTable
    from vrrpkit.ipvs.memory import MemoryTable
    from vrrpkit.ipvs.notices import (
        QuorumDown,
        QuorumUp,
        ServerDown,
        ServerDrained,
        ServerUp,
        TableRefused,
        TableRepaired,
    )
    from vrrpkit.ipvs.pool import ServerState
    from vrrpkit.ipvs.server import RealServer, VirtualServer
    from vrrpkit.ipvs.status import PoolStatus, ServerStatus, VirtualServerState
    from vrrpkit.ipvs.sync import ConnectionSync
    from vrrpkit.ipvs.table import ConnectionTimeouts
    from vrrpkit.notify.fifo import NotifyFIFO
    from vrrpkit.notify.hooks import Hook
    from vrrpkit.notify.mail import Mail
    from vrrpkit.notify.scripts import NotifyScripts
    from vrrpkit.runner import run
    from vrrpkit.tracking.bfd import TrackBFD
    from vrrpkit.tracking.checker import TrackChecker
    from vrrpkit.tracking.file import TrackFile
    from vrrpkit.tracking.function import TrackFunction
    from vrrpkit.tracking.interface import TrackInterface
    from vrrpkit.tracking.process import TrackProcess
    from vrrpkit.tracking.script import TrackScript
    from vrrpkit.transport.base import Datagram, Membership, Port, Receiver, Transport
    from vrrpkit.trouble import own_trouble
    from vrrpkit.values import VIP, Announcements, IPAddress, Peer, State
    from vrrpkit.vrrp.auth import HMACAuth, PasswordAuth
    from vrrpkit.vrrp.instance import VRRPInstance
    from vrrpkit.vrrp.keyfile import read_key
    from vrrpkit.vrrp.notices import (
        AddressesInPlace,
        AddressesRefused,
        AddressLost,
        AdvertAnomaly,
        AdvertRejected,
        Anomaly,
        AnotherMaster,
        ClockSkew,
        Deaf,
        FaultsChanged,
        ForeignAddress,
        MasterChanged,
        PriorityChanged,
        RouteLost,
        SendFailed,
        Stalled,
        Transition,
        TransitionReason,
        WeightTooSmall,
    )
    from vrrpkit.vrrp.packet import ChecksumForm, RejectReason
    from vrrpkit.vrrp.profile import LostPolicy, Profile
    from vrrpkit.vrrp.statistics import Statistics
    from vrrpkit.vrrp.status import GroupStatus, RouterStatus
    from vrrpkit.vrrp.syncgroup import GroupTransition, SyncGroup
    from vrrpkit.vrrp.tracker import Tracker

_HOMES = {
    "vrrpkit.bfd.notices": ("BFDRejected", "BFDSendFailed", "BFDTimersAgreed", "BFDTransition"),
    "vrrpkit.bfd.packet": ("BFDDiagnostic", "BFDRejectReason", "BFDState"),
    "vrrpkit.bfd.peer": ("BFDSession",),
    "vrrpkit.bfd.statistics": ("BFDStatistics",),
    "vrrpkit.checks.base": ("Checker", "NetworkChecker", "Weight"),
    "vrrpkit.checks.bfd": ("BFDChecker",),
    "vrrpkit.checks.dns": ("DNSChecker",),
    "vrrpkit.checks.file": ("FileChecker",),
    "vrrpkit.checks.function": ("FunctionChecker",),
    "vrrpkit.checks.http": ("HTTPChecker", "HTTPSChecker"),
    "vrrpkit.checks.http_rules": ("URL",),
    "vrrpkit.checks.notices": ("CheckNotMade", "CheckResult", "CheckStuck"),
    "vrrpkit.checks.ping": ("PingChecker",),
    "vrrpkit.checks.scheduler": ("Scheduler",),
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
        "Untrusted",
        "VRRPKitError",
    ),
    "vrrpkit.events": ("Attachment", "EventsLost", "Notifier"),
    "vrrpkit.host.memory": ("MemoryBus",),
    "vrrpkit.host.routes": ("NextHop", "Route", "Rule"),
    "vrrpkit.host.static": ("StaticAddresses",),
    "vrrpkit.ipvs.entries": ("TrafficCounters", "Tunnel", "TunnelType"),
    "vrrpkit.ipvs.kernel": ("KernelTable",),
    "vrrpkit.ipvs.memory": ("MemoryTable",),
    "vrrpkit.ipvs.notices": (
        "QuorumDown",
        "QuorumUp",
        "ServerDown",
        "ServerDrained",
        "ServerUp",
        "TableRefused",
        "TableRepaired",
    ),
    "vrrpkit.ipvs.pool": ("ServerState",),
    "vrrpkit.ipvs.server": ("RealServer", "VirtualServer"),
    "vrrpkit.ipvs.status": ("PoolStatus", "ServerStatus", "VirtualServerState"),
    "vrrpkit.ipvs.sync": ("ConnectionSync",),
    "vrrpkit.ipvs.table": ("ConnectionTimeouts",),
    "vrrpkit.notify.fifo": ("NotifyFIFO",),
    "vrrpkit.notify.hooks": ("Hook",),
    "vrrpkit.notify.mail": ("Mail",),
    "vrrpkit.notify.scripts": ("NotifyScripts",),
    "vrrpkit.runner": ("run",),
    "vrrpkit.tracking.bfd": ("TrackBFD",),
    "vrrpkit.tracking.checker": ("TrackChecker",),
    "vrrpkit.tracking.file": ("TrackFile",),
    "vrrpkit.tracking.function": ("TrackFunction",),
    "vrrpkit.tracking.interface": ("TrackInterface",),
    "vrrpkit.tracking.process": ("TrackProcess",),
    "vrrpkit.tracking.script": ("TrackScript",),
    "vrrpkit.transport.base": ("Datagram", "Membership", "Port", "Receiver", "Transport"),
    "vrrpkit.trouble": ("own_trouble",),
    "vrrpkit.values": ("Announcements", "IPAddress", "Peer", "State", "VIP"),
    "vrrpkit.vrrp.auth": ("HMACAuth", "PasswordAuth"),
    "vrrpkit.vrrp.instance": ("VRRPInstance",),
    "vrrpkit.vrrp.keyfile": ("read_key",),
    "vrrpkit.vrrp.notices": (
        "AddressLost",
        "AddressesInPlace",
        "AddressesRefused",
        "AdvertAnomaly",
        "AdvertRejected",
        "Anomaly",
        "AnotherMaster",
        "ClockSkew",
        "Deaf",
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
    "vrrpkit.vrrp.packet": ("ChecksumForm", "RejectReason"),
    "vrrpkit.vrrp.profile": ("LostPolicy", "Profile"),
    "vrrpkit.vrrp.statistics": ("Statistics",),
    "vrrpkit.vrrp.status": ("GroupStatus", "RouterStatus"),
    "vrrpkit.vrrp.syncgroup": ("GroupTransition", "SyncGroup"),
    "vrrpkit.vrrp.tracker": ("Tracker",),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "URL",
    "VIP",
    "AddressLost",
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
    "BFDState",
    "BFDStatistics",
    "BFDTimersAgreed",
    "BFDTransition",
    "CheckFailed",
    "CheckNotMade",
    "CheckResult",
    "CheckStuck",
    "Checker",
    "ChecksumForm",
    "ClockSkew",
    "Closed",
    "ConfigError",
    "ConnectionSync",
    "ConnectionTimeouts",
    "CouldNotAsk",
    "DNSChecker",
    "Datagram",
    "Deaf",
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
    "Hook",
    "HostError",
    "IPAddress",
    "InterfaceMissing",
    "KernelRefused",
    "KernelTable",
    "LostPolicy",
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
    "NotifyScripts",
    "PasswordAuth",
    "Peer",
    "PermissionMissing",
    "PingChecker",
    "PoolStatus",
    "Port",
    "PriorityChanged",
    "Profile",
    "QuorumDown",
    "QuorumUp",
    "RealServer",
    "Receiver",
    "RejectReason",
    "Route",
    "RouteLost",
    "RouterStatus",
    "Rule",
    "SMTPChecker",
    "Scheduler",
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
    "StaticAddresses",
    "Statistics",
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
    "Tunnel",
    "TunnelType",
    "UDPChecker",
    "Untrusted",
    "VRRPInstance",
    "VRRPKitError",
    "VirtualServer",
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
