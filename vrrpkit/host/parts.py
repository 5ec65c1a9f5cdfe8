"""The open resources of a :class:`vrrpkit.host.host.Host`, from its first user to its last."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import attrs

from vrrpkit.errors import PermissionMissing
from vrrpkit.host import capabilities
from vrrpkit.host.deadlines import Deadlines
from vrrpkit.host.firewall import Firewall
from vrrpkit.host.guard import Guard
from vrrpkit.host.leftovers import Liveness
from vrrpkit.host.monitor import LinkMonitor, Removal
from vrrpkit.host.netlink import Netlink
from vrrpkit.host.netns import Namespace
from vrrpkit.host.notices import AddressKey
from vrrpkit.host.routing import Routing
from vrrpkit.host.sweep import Sweep
from vrrpkit.host.sysctl import Sysctls
from vrrpkit.host.timerfd import TimerfdAlarm
from vrrpkit.transport.raw import RawTransport

__all__ = ["Parts"]

NEEDED = {
    "CAP_NET_ADMIN": "changing addresses and interfaces",
    "CAP_NET_RAW": "sending adverts and announcing addresses",
}


@attrs.frozen(eq=False)
class Parts:
    """Made by :meth:`open`; everything in it is closed by :meth:`close`."""

    namespace: Namespace
    liveness: Liveness
    netlink: Netlink
    monitor: LinkMonitor
    sysctls: Sysctls
    deadlines: Deadlines
    transport: RawTransport
    routing: Routing
    guard: Guard
    sweep: Sweep
    resources: contextlib.ExitStack

    @classmethod
    def open(
        cls,
        netns: str | None,
        removed: Callable[[list[Removal]], None],
        detected: Callable[[str, AddressKey, bool], None],
    ) -> Parts:
        """Open everything on the running event loop.

        :raises PermissionMissing: a capability is missing; nothing has been changed.
        :raises HostError: there is no such namespace.
        """
        capabilities.require(NEEDED)
        with contextlib.ExitStack() as stack:
            namespace = Namespace(netns)
            stack.callback(namespace.close)
            _try_packet_socket(namespace)
            liveness = Liveness(namespace)
            stack.callback(liveness.close)
            netlink = Netlink(namespace)
            stack.callback(netlink.close)
            monitor = LinkMonitor(namespace, netlink, removed, detected)
            stack.callback(monitor.close)
            monitor.start()
            deadlines = Deadlines(TimerfdAlarm(), herds=True)
            stack.callback(deadlines.close)
            transport = RawTransport(now=deadlines.now, sockets=namespace.socket)
            stack.callback(transport.close)
            sysctls = Sysctls(namespace)
            routing = Routing(namespace, netlink, monitor, deadlines, liveness)
            stack.callback(routing.close)
            # Links before adverts: that an interface is down explains a silence.
            deadlines.drains[monitor] = monitor.drain
            deadlines.drains[transport] = transport.drain
            return cls(
                namespace=namespace,
                liveness=liveness,
                netlink=netlink,
                monitor=monitor,
                sysctls=sysctls,
                deadlines=deadlines,
                transport=transport,
                routing=routing,
                guard=Guard(Firewall.current(netns)),
                sweep=Sweep(netlink, monitor, sysctls, deadlines, liveness),
                resources=stack.pop_all(),
            )
        raise AssertionError("an exit stack swallows nothing")

    def close(self) -> None:
        """Close everything; calling it twice is harmless."""
        self.resources.close()


def _try_packet_socket(namespace: Namespace) -> None:
    # In a user namespace a thread may have the capability and yet not for this network.
    try:
        namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionMissing:
        raise
    except PermissionError:
        raise PermissionMissing("CAP_NET_RAW", NEEDED["CAP_NET_RAW"]) from None
