"""What a BFD session is given, checked. Pure."""

from __future__ import annotations

from typing import cast

import attrs

from vrrpkit.bfd.protocol.inputs import Timers
from vrrpkit.bfd.protocol.session import SessionConfig
from vrrpkit.errors import ConfigError
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
        # Whoever gives the other one as a small part of a second does count in seconds.
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


@attrs.frozen(kw_only=True)
class BFDSettings:
    """How to talk to any neighbour. :class:`vrrpkit.bfd.session.BFDSession` documents the
    parameters; ``interface`` is a name here."""

    source: IPAddress | None = attrs.field(converter=_source)
    interface: str | None
    min_tx: float
    min_rx: float
    idle_tx: float
    multiplier: int
    passive: bool
    multihop: bool
    max_hops: int | None
    ttl: int

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
        if self.interface is not None and not isinstance(cast(object, self.interface), str):
            raise ConfigError(
                f"{who}: interface {self.interface!r} must be the name of one, such as 'eth1'"
            )
        if self.interface == "":
            raise ConfigError(
                f"{who}: the name of the interface is empty; leave it out, or name it"
            )
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


@attrs.frozen(kw_only=True)
class BFDSessionConfig(BFDSettings):
    """How to talk to one neighbour."""

    neighbor: IPAddress = attrs.field(converter=_neighbor)
    name: str = ""

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
