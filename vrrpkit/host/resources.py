"""The open resources of a :class:`vrrpkit.host.host.Host`, from its first user to its last."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import attrs

from vrrpkit.errors import PermissionMissing
from vrrpkit.host.addresses.leftovers import Sweep
from vrrpkit.host.firewall.filters import PacketFilter
from vrrpkit.host.firewall.nftables import Firewall
from vrrpkit.host.links.monitor import LinkMonitor, Removal
from vrrpkit.host.links.records import AddressKey
from vrrpkit.host.liveness import Liveness
from vrrpkit.host.routing.reconciler import Routing
from vrrpkit.linux import capabilities
from vrrpkit.linux.netlink import Netlink
from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.sysctl import Sysctls
from vrrpkit.linux.timerfd import TimerfdAlarm
from vrrpkit.timers import Deadlines
from vrrpkit.transport.raw import RawTransport

__all__ = ["Resources"]

NEEDED = {
    "CAP_NET_ADMIN": "changing addresses and interfaces",
    "CAP_NET_RAW": "sending adverts and announcing addresses",
}


@attrs.frozen(eq=False)
class Resources:
    """Made by :meth:`open`; everything in it is closed by :meth:`close`."""

    namespace: Namespace
    liveness: Liveness
    netlink: Netlink
    monitor: LinkMonitor
    sysctls: Sysctls
    deadlines: Deadlines
    transport: RawTransport
    routing: Routing
    packet_filter: PacketFilter
    sweep: Sweep
    resources: contextlib.ExitStack

    @classmethod
    def open(
        cls,
        netns: str | None,
        removed: Callable[[list[Removal]], None],
        detected: Callable[[str, AddressKey, bool], None],
    ) -> Resources:
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
                packet_filter=PacketFilter(Firewall.current(netns)),
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
