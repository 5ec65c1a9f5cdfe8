"""Tracks a network interface (keepalived: ``track_interface``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import cast

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.host.base import Interface
from vrrpkit.host.links.delay import LinkDelay
from vrrpkit.host.local import on_this_host
from vrrpkit.tracking.runner import Reasons
from vrrpkit.tracking.tracker import Signal, Tracker
from vrrpkit.validate import no_control, seconds
from vrrpkit.values import IPAddress, parse_address

__all__ = ["TrackInterface"]


def _address(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "address")


@attrs.frozen
class TrackInterface(Tracker):
    """Good while an interface is there, is administratively up and has carrier.

    :param interface: its name, or an interface of a :class:`vrrpkit.MemoryBus`.
    :param address: besides, this address must be on the interface, and usable.
    :param netns: the network namespace that the interface is in.
    :param link_up_delay: seconds that the link must have been up before it counts as up, 0 to 1000
        (keepalived: ``interface_up_down_delays``).
    :param link_down_delay: seconds that it must have been down before it counts as down, 0 to 1000.
        An interface that is missing is bad at once.
    :raises ConfigError: a value is unusable.
    """

    interface: str | Interface
    address: IPAddress | None = attrs.field(default=None, converter=_address, kw_only=True)
    netns: str | None = attrs.field(default=None, kw_only=True)
    link_up_delay: float = attrs.field(default=0.0, kw_only=True)
    link_down_delay: float = attrs.field(default=0.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        interface, netns = cast(object, self.interface), cast(object, self.netns)
        if interface == "":
            raise ConfigError("TrackInterface: the name of the interface is empty")
        if not isinstance(interface, str | Interface):
            raise ConfigError(
                f"TrackInterface: interface {interface!r} must be the name of one, such as 'eth1'"
            )
        if isinstance(interface, str):
            no_control("TrackInterface: interface", interface)
        if netns is not None and not isinstance(interface, str):
            raise ConfigError("netns goes with the name of an interface; leave it out here")
        if netns is not None and not isinstance(netns, str):
            raise ConfigError(f"TrackInterface: netns {netns!r} must be the name of one")
        if netns is not None:
            no_control("TrackInterface: netns", netns)
        seconds("TrackInterface: link_up_delay", self.link_up_delay, 0, 1000)
        seconds("TrackInterface: link_down_delay", self.link_down_delay, 0, 1000)

    def describe(self) -> str:
        name = self.interface if isinstance(self.interface, str) else self.interface.name
        return f"interface {name}"

    async def signals(self) -> AsyncGenerator[Signal, None]:
        reasons = Reasons(self.label)
        interface = await on_this_host(self.interface, self.netns)
        await interface.open()
        try:
            changed = asyncio.Event()
            unwatch = interface.watch(changed.set)
            delay = LinkDelay(self.link_up_delay, self.link_down_delay)
            delayed = interface.deadlines.new(changed.set)
            try:
                while True:
                    good = reasons.look(self._fault(interface, delay))
                    delayed.set(delay.due)
                    yield good
                    await changed.wait()
                    changed.clear()
            finally:
                delayed.set(None)
                unwatch()
        finally:
            await interface.close()

    def _fault(self, interface: Interface, delay: LinkDelay) -> str:
        """Why the signal is bad; empty while it is good."""
        link = interface.link
        up = link is not None and link.up
        counts = delay.see(up, interface.deadlines.now(), gone=link is None)
        if link is None:
            return "it is missing"
        if not counts:
            return (
                "it is down, or has no carrier" if not up else "it is up, but not for long enough"
            )
        # A link that is down and does not count as such has taken its IPv6 addresses along.
        if not up or self.address is None or self.address in link.listed:
            return ""
        return f"it has no usable address {self.address}"
