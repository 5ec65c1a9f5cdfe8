"""The description of a BFD session, and what its options may be."""

from __future__ import annotations

from typing import cast

import attrs

from vrrpkit.bfd.protocol.inputs import Timers
from vrrpkit.bfd.protocol.session import SessionConfig
from vrrpkit.configured import advised, from_keepalived
from vrrpkit.errors import ConfigError
from vrrpkit.host.memory.bus import MemoryInterface
from vrrpkit.validate import flag, is_number, seconds, text, whole_number
from vrrpkit.values import IPAddress, parse_address

__all__ = ["BFDSessionConfig", "BFDSettings", "timers"]

SINGLE_HOP_PORT = 3784
"""RFC 5881 section 4."""
MULTIHOP_PORT = 4784
"""RFC 5883 section 5."""

MOST_HOPS = 255
LEAST_IDLE_TX = 1.0
"""RFC 5880 section 6.8.3."""
MILLISECONDS = 10.0
"""From here on an interval looks like milliseconds: 10 is keepalived's default ``min_rx``, and BFD
with seconds between two packets is of no use."""
SMALL = 0.1
SLOWEST = 60.0
"""Seconds between two packets that make sense at most."""


def timers(who: str, min_tx: float, min_rx: float, multiplier: int) -> Timers:
    """The timers, if they are usable.

    :raises ConfigError: they are not; ``who`` begins the message.
    """
    hint = "0.1 with multiplier 5 detects in half a second; keepalived counts in ms"
    for name, value, other in (("min_tx", min_tx, min_rx), ("min_rx", min_rx, min_tx)):
        # A small part of a second for the other one shows that both are counted in seconds.
        if not is_number(other) or other >= SMALL:
            _no_milliseconds(who, name, value, MILLISECONDS)
    seconds(f"{who}: min_tx", min_tx, 0.001, SLOWEST, hint)
    seconds(f"{who}: min_rx", min_rx, 0.001, SLOWEST, hint)
    whole_number(f"{who}: multiplier", multiplier, 1, 255, "packets that may be missed")
    return Timers(min_tx=min_tx, min_rx=min_rx, multiplier=multiplier)


def _no_milliseconds(who: str, name: str, value: object, least: float) -> None:
    if is_number(value) and least <= value <= 60_000:
        raise ConfigError(
            f"{who}: {name} {value:g} looks like milliseconds, in which keepalived counts; here it "
            f"is seconds: write {name}={value / 1000:g}"
        )


def _neighbor(value: str | IPAddress) -> IPAddress:
    return parse_address(value, "BFD neighbor")


def _source(value: str | IPAddress | None) -> IPAddress | None:
    return None if value is None else parse_address(value, "BFD source")


@attrs.frozen(slots=False)  # so that a checker, which has slots, can have the options too
class BFDSettings:
    """How to talk to any neighbour.

    :param source: the address to send from (keepalived: ``source_ip``); by default the kernel
        chooses.
    :param interface: send, and accept packets, through this network interface only; a link-local
        address needs it. Or an interface of a :class:`vrrpkit.MemoryBus`.
    :param min_tx: the shortest interval to send at, 0.001 to 60 seconds (``min_tx``, in
        milliseconds).
        From 10 on it is taken for milliseconds and refused, unless ``min_rx`` is below 0.1.
    :param min_rx: the shortest interval that packets may arrive at, 0.001 to 60 seconds, likewise
        (``min_rx``). The neighbour sends at the longer of its ``min_tx`` and this.
    :param idle_tx: the interval to send at while not Up, 1 to 60 seconds (``idle_tx``).
    :param multiplier: packets that the neighbour may miss before it counts this host as lost, 1 to
        255 (``multiplier``). How many may be missed here is for the neighbour to say.
    :param passive: send nothing before the neighbour does (``passive``); one of the two must be
        active.
    :param multihop: routers may lie in between (RFC 5883, UDP port 4784 instead of 3784).
    :param max_hops: how many, 0 to 255; 255 accepts any number (``max_hops``). With ``multihop``
        only, and needed there.
    :param ttl: TTL or hop limit to send with, 1 to 255 (``ttl``, ``hoplimit``). Another one than
        255 with ``multihop`` only; the neighbour is expected to use the same.
    """

    source: IPAddress | None = attrs.field(
        default=None, kw_only=True, converter=_source, metadata=from_keepalived("source_ip")
    )
    interface: str | MemoryInterface | None = attrs.field(default=None, kw_only=True)
    min_tx: float = attrs.field(default=0.1, kw_only=True)
    min_rx: float = attrs.field(default=0.1, kw_only=True)
    idle_tx: float = attrs.field(default=1.0, kw_only=True)
    multiplier: int = attrs.field(default=5, kw_only=True)
    passive: bool = attrs.field(default=False, kw_only=True)
    multihop: bool = attrs.field(default=False, kw_only=True)
    max_hops: int | None = attrs.field(default=None, kw_only=True)
    ttl: int = attrs.field(default=255, kw_only=True, metadata=from_keepalived("hoplimit"))

    @property
    def who(self) -> str:
        """What error messages begin with."""
        return "BFD"

    def __attrs_post_init__(self) -> None:
        who = self.who
        timers(who, self.min_tx, self.min_rx, self.multiplier)
        _no_milliseconds(who, "idle_tx", self.idle_tx, 1000 * LEAST_IDLE_TX)
        seconds(
            f"{who}: idle_tx",
            self.idle_tx,
            LEAST_IDLE_TX,
            SLOWEST,
            "a session that is not up must not send faster than once a second",
        )
        for name in ("passive", "multihop"):
            flag(f"{who}: {name}", getattr(self, name))
        self._check_interface(who)
        _unicast(who, "source", self.source)
        whole_number(f"{who}: ttl", self.ttl, 1, 255, "255 is what everybody sends")
        if self.multihop:
            if self.max_hops is None:
                raise ConfigError(
                    f"{who}: multihop needs max_hops=, the number of routers that may lie between "
                    "(255 accepts any)"
                )
            whole_number(f"{who}: max_hops", self.max_hops, 0, MOST_HOPS, "routers in between")
        elif self.max_hops is not None:
            raise ConfigError(
                f"{who}: a single-hop session lets no router in between; leave max_hops out, or "
                "set multihop=True"
            )
        elif self.ttl != 255:
            raise ConfigError(
                f"{who}: a single-hop session must send with TTL 255, so that the neighbour can "
                "tell it from a forged one; leave ttl out, or set multihop=True"
            )

    def _check_interface(self, who: str) -> None:
        interface = cast(object, self.interface)
        if interface is None or isinstance(interface, MemoryInterface):
            return
        if not isinstance(interface, str):
            raise ConfigError(
                f"{who}: interface {interface!r} must be the name of one, such as 'eth1'"
            )
        if not interface:
            raise ConfigError(
                f"{who}: the name of the interface is empty; leave it out, or name it"
            )

    @property
    def link(self) -> str | None:
        """The name of the interface, if there is one."""
        interface = self.interface
        return interface.name if isinstance(interface, MemoryInterface) else interface

    @property
    def memory(self) -> MemoryInterface | None:
        """The interface, if it is one in memory."""
        return self.interface if isinstance(self.interface, MemoryInterface) else None

    @property
    def port(self) -> int:
        """The UDP port that both ends listen on."""
        return MULTIHOP_PORT if self.multihop else SINGLE_HOP_PORT

    @property
    def least_ttl(self) -> int:
        """The lowest TTL or hop limit that is accepted. The neighbour is expected to send with the
        same as we do."""
        return max(self.ttl - (self.max_hops or 0), 0)


def _unicast(who: str, what: str, address: IPAddress | None) -> None:
    if address is not None and (address.is_multicast or address.is_unspecified):
        raise ConfigError(f"{who}: {what} {address} must be a unicast address")


@advised
@attrs.frozen
class BFDSessionConfig(BFDSettings):
    """The description of a :class:`vrrpkit.BFDSession`: everything about it that is a value. The
    further parameters are those of :class:`vrrpkit.bfd.config.BFDSettings`.

    Two descriptions of the same options are equal, and :func:`attrs.evolve` checks the changed one
    as a whole.

    :param neighbor: the neighbour's IPv4 or IPv6 address (keepalived: ``neighbor_ip``).
    :param name: what events and logs call it; by default the neighbour's address.
    :param netns: the name of a network namespace to run in.
    :raises ConfigError: a value, or a combination, is unusable; the message says what to do.
    """

    neighbor: IPAddress = attrs.field(
        converter=_neighbor, metadata=from_keepalived("neighbor_ip", "neighbour")
    )
    name: str = attrs.field(default="", kw_only=True)
    netns: str | None = attrs.field(
        default=None, kw_only=True, metadata=from_keepalived("net_namespace", "namespace")
    )

    @property
    def who(self) -> str:
        return f"BFD to {self.neighbor}"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        who = self.who
        text(f"{who}: name", self.name, "'leaf1'", empty=True)
        _unicast(who, "neighbor", self.neighbor)
        if self.source is not None and self.source.version != self.neighbor.version:
            raise ConfigError(
                f"{who}: source {self.source} and neighbor must be of the same address family"
            )
        if self.source == self.neighbor:
            raise ConfigError(f"{who}: source and neighbor are the same address")
        scoped = self.neighbor.version == 6 and self.neighbor.is_link_local
        if scoped and self.interface is None:
            raise ConfigError(
                f"{who}: a link-local address needs interface=, the link that it is on"
            )
        if self.netns is not None and self.memory is not None:
            raise ConfigError("netns goes with the real network; an interface in memory has none")

    @property
    def label(self) -> str:
        """What events and logs call the session."""
        return self.name or str(self.neighbor)

    def session_config(self) -> SessionConfig:
        """The part that the state machine needs."""
        return SessionConfig(
            name=self.label,
            timers=timers(self.who, self.min_tx, self.min_rx, self.multiplier),
            idle_tx=self.idle_tx,
            passive=self.passive,
        )
