"""What all virtual routers of one running event loop and one network namespace share."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary, WeakValueDictionary

from vrrpkit.host.interface import KernelInterface
from vrrpkit.host.monitor import Removal
from vrrpkit.host.netns import Identity, identity
from vrrpkit.host.notices import AddressKey
from vrrpkit.host.parts import Parts

__all__ = ["Host"]

# Hosts are held by their interfaces, never from here: a Host in use knows its loop, and would keep
# it alive for ever.
_hosts: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[Identity, Host]] = (
    WeakKeyDictionary()
)


class Host:
    """Sockets, netlink, deadlines and interfaces of one (running loop, network namespace).

    It opens what it needs when its first interface is opened, and closes all of it with the last.
    """

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns
        self._interfaces: WeakValueDictionary[str, KernelInterface] = WeakValueDictionary()
        self._opened: dict[str, KernelInterface] = {}
        self._parts: Parts | None = None

    @classmethod
    def current(cls, netns: str | None = None) -> Host:
        """The Host of the running loop and of the network namespace ``netns`` (a name in
        ``/run/netns``; ``None`` is the one that the thread is in).

        :raises HostError: there is no such namespace.
        """
        hosts = _hosts.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        key = identity(netns)
        host = hosts.get(key)
        if host is None:
            host = hosts[key] = cls(netns)
        return host

    def interface(self, name: str) -> KernelInterface:
        """The interface ``name``, whether there is one or not: the same object for everybody."""
        interface = self._interfaces.get(name)
        if interface is None:
            interface = self._interfaces[name] = KernelInterface(self, name)
        return interface

    def acquire(self, interface: KernelInterface) -> Parts:
        """Open everything, unless it is open, on behalf of an interface.

        :raises PermissionMissing: a capability is missing.
        :raises HostError: there is no such namespace.
        """
        if self._parts is None:
            self._parts = Parts.open(self._netns, self._removed, self._usable)
        self._opened[interface.name] = interface
        return self._parts

    def release(self, interface: KernelInterface) -> None:
        """End what :meth:`acquire` began."""
        del self._opened[interface.name]
        if not self._opened and self._parts is not None:
            parts, self._parts = self._parts, None
            parts.close()

    def held(self, name: str) -> set[AddressKey]:
        """The addresses on the interface ``name`` that any virtual router of this Host holds."""
        return {key for opened in self._opened.values() for key in opened.held(name)}

    def _removed(self, removals: list[Removal]) -> None:
        for interface in list(self._opened.values()):
            interface.removed(removals)

    def _usable(self, name: str, key: AddressKey) -> None:
        for interface in list(self._opened.values()):
            interface.usable(name, key)
