"""An interface of this machine by its name, for what takes a name or an interface in memory."""

from __future__ import annotations

from vrrpkit.host.base import Interface
from vrrpkit.lifecycle.loading import load

__all__ = ["on_this_host"]

KERNEL_ROOMS = (
    "vrrpkit.host.host",
    "pyroute2.netlink.rtnl.ifaddrmsg",
    "pyroute2.netlink.rtnl.ifinfmsg",
    "pyroute2.netlink.rtnl.rtmsg",
    "pyroute2.netlink.rtnl.fibmsg",
    "dpkt",
)
"""What a real interface needs and one in memory does not."""


async def on_this_host(interface: str | Interface, netns: str | None = None) -> Interface:
    """An interface that is given by name, in a network namespace of this machine, or itself.

    :raises HostError: there is no such namespace.
    """
    if isinstance(interface, Interface):
        return interface
    # Loaded at need: a program that stays in memory never loads netlink.
    await load(*KERNEL_ROOMS)
    from vrrpkit.host.host import Host

    return Host.current(netns).interface(interface)
