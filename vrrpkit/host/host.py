"""What all virtual routers of one running event loop and one network namespace share."""

from __future__ import annotations

import logging
from weakref import WeakValueDictionary

from vrrpkit.host.addresses.kernel import GONE
from vrrpkit.host.addresses.leftovers import Users
from vrrpkit.host.kernel_interface import KernelInterface
from vrrpkit.host.links.monitor import Removal
from vrrpkit.host.links.records import AddressKey, to_address
from vrrpkit.host.links.requests import add_found, delete_found
from vrrpkit.host.resources import Resources
from vrrpkit.linux.netns import identity
from vrrpkit.runtime import Runtime

__all__ = ["Host"]

log = logging.getLogger(__name__)


class Host:
    """Sockets, netlink, deadlines and interfaces of one runtime and network namespace.

    It opens what it needs when its first interface is opened, and closes all of it with the last.
    """

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns
        self._interfaces: WeakValueDictionary[str, KernelInterface] = WeakValueDictionary()
        self._opened: dict[str, KernelInterface] = {}
        self._resources: Resources | None = None

    @classmethod
    def current(cls, netns: str | None = None) -> Host:
        """The Host of the running loop and of the network namespace ``netns`` (a name in
        ``/run/netns``; ``None`` is the one that the thread is in).

        :raises HostError: there is no such namespace.
        """
        return Runtime.current().use(cls, identity(netns), lambda: cls(netns))

    def interface(self, name: str) -> KernelInterface:
        """The interface ``name``, whether there is one or not: the same object for everybody."""
        interface = self._interfaces.get(name)
        if interface is None:
            interface = self._interfaces[name] = KernelInterface(self, name)
        return interface

    def acquire(self, interface: KernelInterface) -> Resources:
        """Open everything, unless it is open, on behalf of an interface.

        :raises PermissionMissing: a capability is missing.
        :raises HostError: there is no such namespace.
        """
        if self._resources is None:
            self._resources = Resources.open(self._netns, self._removed, self._detected)
        self._opened[interface.name] = interface
        return self._resources

    def release(self, interface: KernelInterface) -> None:
        """End what :meth:`acquire` began."""
        self._opened.pop(interface.name, None)
        if not self._opened:
            self.shutdown()

    def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        self._opened.clear()
        if self._resources is not None:
            resources, self._resources = self._resources, None
            resources.close()

    def held(self, name: str) -> set[AddressKey]:
        """The addresses on the interface ``name`` that any virtual router of this Host holds."""
        return {key for opened in self._opened.values() for key in opened.held(name)}

    def sweep(self) -> None:
        """Have what a killed run left behind removed, unless that was begun."""
        if self._resources is not None:
            self._resources.sweep.begin(Users(self.held, self._uses))

    def _uses(self, name: str) -> bool:
        interface = self._interfaces.get(name)
        carried = interface is not None and interface.carried
        return carried or name in self._opened or bool(self.held(name))

    def _removed(self, removals: list[Removal]) -> None:
        self._take_off([removal for removal in removals if removal.ifindex])
        self._give_back([removal for removal in removals if removal.taken_along])
        for interface in list(self._opened.values()):
            interface.removed(removals)

    def _take_off(self, strays: list[Removal]) -> None:
        """Remove what went away with an interface that was renamed: under its new name nobody would
        look for it, and it must not stay when another router takes over."""
        resources = self._resources
        if resources is None:
            return
        for stray in strays:
            name, key, ifindex = stray.name, stray.key, stray.ifindex
            record = resources.monitor.address(ifindex, key)
            if record is None or not resources.monitor.mine(record) or key not in self.held(name):
                continue
            log.warning("%s has another name now: removing %s from it", name, record)
            with resources.monitor.removing([(ifindex, key)]):
                (problem,) = resources.netlink.exchange([delete_found(record)])
            if problem is not None and problem.errno not in GONE:
                log.warning("%s stays there: %s", record, problem)

    def _give_back(self, taken: list[Removal]) -> None:
        """Put back what the kernel took along with an address that was removed here, if it is
        somebody else's; the rest is up to who holds it."""
        resources = self._resources
        taken = [removal for removal in taken if removal.key not in self.held(removal.name)]
        if resources is None or not taken:
            return
        for removal in taken:
            (problem,) = resources.netlink.exchange([add_found(removal.taken_along)])
            octets, prefix = removal.key
            what = f"{to_address(octets)}/{prefix}"
            if problem is None:
                log.info("putting back %s on %s, which went with ours", what, removal.name)
            else:
                log.warning("%s went from %s with ours: %s", what, removal.name, problem)

    def _detected(self, name: str, key: AddressKey, usable: bool) -> None:
        for interface in list(self._opened.values()):
            interface.detected(name, key, usable)
