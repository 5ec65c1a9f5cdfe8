"""vrrpkit: keep an IP address alive on a group of machines (VRRP), and balance connections over
healthy servers behind it (IPVS), from asyncio.

What most programs need is here. All other public names have one home each: ``vrrpkit.events`` the
events of all rooms, ``vrrpkit.errors`` and ``vrrpkit.values`` what they define, and each room the
rest: ``vrrpkit.vrrp``, ``vrrpkit.ipvs``, ``vrrpkit.checks``, ``vrrpkit.bfd``, ``vrrpkit.notify``,
``vrrpkit.host``, ``vrrpkit.routes`` and ``vrrpkit.transport``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.bfd.protocol.packet import BFDState as BFDState
    from vrrpkit.bfd.session import BFDSession as BFDSession
    from vrrpkit.checks.base import Checker as Checker
    from vrrpkit.checks.bfd import BFDChecker as BFDChecker
    from vrrpkit.checks.dns import DNSChecker as DNSChecker
    from vrrpkit.checks.file import FileChecker as FileChecker
    from vrrpkit.checks.function import FunctionChecker as FunctionChecker
    from vrrpkit.checks.http import (
        HTTPChecker as HTTPChecker,
        HTTPSChecker as HTTPSChecker,
    )
    from vrrpkit.checks.ping import PingChecker as PingChecker
    from vrrpkit.checks.script import ScriptChecker as ScriptChecker
    from vrrpkit.checks.smtp import SMTPChecker as SMTPChecker
    from vrrpkit.checks.target import Target as Target
    from vrrpkit.checks.tcp import TCPChecker as TCPChecker
    from vrrpkit.checks.udp import UDPChecker as UDPChecker
    from vrrpkit.errors import (
        CheckFailed as CheckFailed,
        Closed as Closed,
        ConfigError as ConfigError,
        HostError as HostError,
        PermissionMissing as PermissionMissing,
        VRRPKitError as VRRPKitError,
    )
    from vrrpkit.host.memory.bus import MemoryBus as MemoryBus
    from vrrpkit.host.static import StaticNetwork as StaticNetwork
    from vrrpkit.ipvs.kernel.table import KernelTable as KernelTable
    from vrrpkit.ipvs.memory.table import MemoryTable as MemoryTable
    from vrrpkit.ipvs.model.entries import Tunnel as Tunnel
    from vrrpkit.ipvs.server import (
        RealServer as RealServer,
        VirtualServer as VirtualServer,
    )
    from vrrpkit.ipvs.sync import ConnectionSync as ConnectionSync
    from vrrpkit.notify.fifo import NotifyFIFO as NotifyFIFO
    from vrrpkit.notify.function import NotifyFunction as NotifyFunction
    from vrrpkit.notify.mail.notifier import Mail as Mail
    from vrrpkit.notify.scripts import NotifyScripts as NotifyScripts
    from vrrpkit.publishing import Notifier as Notifier
    from vrrpkit.routes.route import (
        Route as Route,
        Rule as Rule,
    )
    from vrrpkit.runner import run as run
    from vrrpkit.trackers.bfd import TrackBFD as TrackBFD
    from vrrpkit.trackers.checker import TrackChecker as TrackChecker
    from vrrpkit.trackers.file import TrackFile as TrackFile
    from vrrpkit.trackers.function import TrackFunction as TrackFunction
    from vrrpkit.trackers.interface import TrackInterface as TrackInterface
    from vrrpkit.trackers.process import TrackProcess as TrackProcess
    from vrrpkit.trackers.script import TrackScript as TrackScript
    from vrrpkit.tracking.tracker import Tracker as Tracker
    from vrrpkit.values import (
        VIP as VIP,
        Announcements as Announcements,
        Peer as Peer,
        State as State,
    )
    from vrrpkit.version import __version__ as __version__
    from vrrpkit.vrrp.instance import VRRPInstance as VRRPInstance
    from vrrpkit.vrrp.keyfile import read_key as read_key
    from vrrpkit.vrrp.protocol.auth import (
        HMACAuth as HMACAuth,
        PasswordAuth as PasswordAuth,
    )
    from vrrpkit.vrrp.protocol.events import Transition as Transition
    from vrrpkit.vrrp.protocol.profile import Profile as Profile
    from vrrpkit.vrrp.syncgroup import (
        GroupTransition as GroupTransition,
        SyncGroup as SyncGroup,
    )
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.bfd.protocol.packet": ("BFDState",),
            "vrrpkit.bfd.session": ("BFDSession",),
            "vrrpkit.checks.base": ("Checker",),
            "vrrpkit.checks.bfd": ("BFDChecker",),
            "vrrpkit.checks.dns": ("DNSChecker",),
            "vrrpkit.checks.file": ("FileChecker",),
            "vrrpkit.checks.function": ("FunctionChecker",),
            "vrrpkit.checks.http": ("HTTPChecker", "HTTPSChecker"),
            "vrrpkit.checks.ping": ("PingChecker",),
            "vrrpkit.checks.script": ("ScriptChecker",),
            "vrrpkit.checks.smtp": ("SMTPChecker",),
            "vrrpkit.checks.target": ("Target",),
            "vrrpkit.checks.tcp": ("TCPChecker",),
            "vrrpkit.checks.udp": ("UDPChecker",),
            "vrrpkit.errors": (
                "CheckFailed",
                "Closed",
                "ConfigError",
                "HostError",
                "PermissionMissing",
                "VRRPKitError",
            ),
            "vrrpkit.host.memory.bus": ("MemoryBus",),
            "vrrpkit.host.static": ("StaticNetwork",),
            "vrrpkit.ipvs.kernel.table": ("KernelTable",),
            "vrrpkit.ipvs.memory.table": ("MemoryTable",),
            "vrrpkit.ipvs.model.entries": ("Tunnel",),
            "vrrpkit.ipvs.server": ("RealServer", "VirtualServer"),
            "vrrpkit.ipvs.sync": ("ConnectionSync",),
            "vrrpkit.notify.fifo": ("NotifyFIFO",),
            "vrrpkit.notify.function": ("NotifyFunction",),
            "vrrpkit.notify.mail.notifier": ("Mail",),
            "vrrpkit.notify.scripts": ("NotifyScripts",),
            "vrrpkit.publishing": ("Notifier",),
            "vrrpkit.routes.route": ("Route", "Rule"),
            "vrrpkit.runner": ("run",),
            "vrrpkit.trackers.bfd": ("TrackBFD",),
            "vrrpkit.trackers.checker": ("TrackChecker",),
            "vrrpkit.trackers.file": ("TrackFile",),
            "vrrpkit.trackers.function": ("TrackFunction",),
            "vrrpkit.trackers.interface": ("TrackInterface",),
            "vrrpkit.trackers.process": ("TrackProcess",),
            "vrrpkit.trackers.script": ("TrackScript",),
            "vrrpkit.tracking.tracker": ("Tracker",),
            "vrrpkit.values": ("Announcements", "Peer", "State", "VIP"),
            "vrrpkit.version": ("__version__",),
            "vrrpkit.vrrp.instance": ("VRRPInstance",),
            "vrrpkit.vrrp.keyfile": ("read_key",),
            "vrrpkit.vrrp.protocol.auth": ("HMACAuth", "PasswordAuth"),
            "vrrpkit.vrrp.protocol.events": ("Transition",),
            "vrrpkit.vrrp.protocol.profile": ("Profile",),
            "vrrpkit.vrrp.syncgroup": ("GroupTransition", "SyncGroup"),
        },
    )
