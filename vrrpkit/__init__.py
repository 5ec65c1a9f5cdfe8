"""vrrpkit: keep an IP address alive on a group of machines (VRRP), from asyncio.

The public names load on first use (PEP 562), so that importing the package costs nothing that the
program does not need: a router in memory never loads netlink.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vrrpkit.checks.base import Checker, Weight
    from vrrpkit.checks.function import FunctionChecker
    from vrrpkit.checks.notices import CheckResult, CheckStuck
    from vrrpkit.checks.target import Target
    from vrrpkit.errors import (
        CheckFailed,
        Closed,
        ConfigError,
        DecodeError,
        DuplicateRouter,
        HostError,
        InterfaceMissing,
        KernelRefused,
        NotEligible,
        PermissionMissing,
        SourceMissing,
        VRRPKitError,
    )
    from vrrpkit.events import EventsLost
    from vrrpkit.host.memory import MemoryBus
    from vrrpkit.run import run
    from vrrpkit.transport.base import Datagram, Membership, Port, Receiver, Transport
    from vrrpkit.values import VIP, Announcements, IPAddress, Peer, State
    from vrrpkit.vrrp.auth import HMACAuth, PasswordAuth
    from vrrpkit.vrrp.instance import VRRPInstance
    from vrrpkit.vrrp.keyfile import read_key
    from vrrpkit.vrrp.notices import (
        AddressesRefused,
        AddressLost,
        AdvertAnomaly,
        AdvertRejected,
        Anomaly,
        AnotherMaster,
        ClockSkew,
        Deaf,
        FaultsChanged,
        MasterChanged,
        PriorityChanged,
        SendFailed,
        Stalled,
        Transition,
        TransitionReason,
    )
    from vrrpkit.vrrp.packet import ChecksumForm, RejectReason
    from vrrpkit.vrrp.profile import LostPolicy, Profile
    from vrrpkit.vrrp.statistics import Statistics

_HOMES = {
    "vrrpkit.checks.base": ("Checker", "Weight"),
    "vrrpkit.checks.function": ("FunctionChecker",),
    "vrrpkit.checks.notices": ("CheckResult", "CheckStuck"),
    "vrrpkit.checks.target": ("Target",),
    "vrrpkit.errors": (
        "CheckFailed",
        "Closed",
        "ConfigError",
        "DecodeError",
        "DuplicateRouter",
        "HostError",
        "InterfaceMissing",
        "KernelRefused",
        "NotEligible",
        "PermissionMissing",
        "SourceMissing",
        "VRRPKitError",
    ),
    "vrrpkit.events": ("EventsLost",),
    "vrrpkit.host.memory": ("MemoryBus",),
    "vrrpkit.run": ("run",),
    "vrrpkit.transport.base": ("Datagram", "Membership", "Port", "Receiver", "Transport"),
    "vrrpkit.values": ("VIP", "Announcements", "IPAddress", "Peer", "State"),
    "vrrpkit.vrrp.auth": ("HMACAuth", "PasswordAuth"),
    "vrrpkit.vrrp.instance": ("VRRPInstance",),
    "vrrpkit.vrrp.keyfile": ("read_key",),
    "vrrpkit.vrrp.notices": (
        "AddressLost",
        "AddressesRefused",
        "AdvertAnomaly",
        "AdvertRejected",
        "Anomaly",
        "AnotherMaster",
        "ClockSkew",
        "Deaf",
        "FaultsChanged",
        "MasterChanged",
        "PriorityChanged",
        "SendFailed",
        "Stalled",
        "Transition",
        "TransitionReason",
    ),
    "vrrpkit.vrrp.packet": ("ChecksumForm", "RejectReason"),
    "vrrpkit.vrrp.profile": ("LostPolicy", "Profile"),
    "vrrpkit.vrrp.statistics": ("Statistics",),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "VIP",
    "AddressLost",
    "AddressesRefused",
    "AdvertAnomaly",
    "AdvertRejected",
    "Announcements",
    "Anomaly",
    "AnotherMaster",
    "CheckFailed",
    "CheckResult",
    "CheckStuck",
    "Checker",
    "ChecksumForm",
    "ClockSkew",
    "Closed",
    "ConfigError",
    "Datagram",
    "Deaf",
    "DecodeError",
    "DuplicateRouter",
    "EventsLost",
    "FaultsChanged",
    "FunctionChecker",
    "HMACAuth",
    "HostError",
    "IPAddress",
    "InterfaceMissing",
    "KernelRefused",
    "LostPolicy",
    "MasterChanged",
    "Membership",
    "MemoryBus",
    "NotEligible",
    "PasswordAuth",
    "Peer",
    "PermissionMissing",
    "Port",
    "PriorityChanged",
    "Profile",
    "Receiver",
    "RejectReason",
    "SendFailed",
    "SourceMissing",
    "Stalled",
    "State",
    "Statistics",
    "Target",
    "Transition",
    "TransitionReason",
    "Transport",
    "VRRPInstance",
    "VRRPKitError",
    "Weight",
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
