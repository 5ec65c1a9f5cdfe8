"""Who runs, who hears whom and who holds what, after each entry of a timeline. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from vrrpkit.testing.lan.timeline import (
    AddressesChanged,
    Conditioned,
    Crashed,
    Cut,
    Entry,
    Healed,
    Killed,
    MachineStep,
    Paused,
    Plugged,
    Resumed,
    Started,
    Unplugged,
)
from vrrpkit.values import IPAddress, State
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    AdvertsLost,
    Demote,
    EverythingInPlace,
    KernelRefusedAddresses,
    LostAddress,
    LostRoute,
    Promote,
    Startup,
)
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy

__all__ = ["HostModel", "LanModel", "RouterModel", "understands"]


@attrs.define
class HostModel:
    """One machine with one interface."""

    name: str
    powered: bool = True
    plugged: bool = True
    paused: bool = False
    killed: bool = False
    """Its process was killed, and nobody has cleaned up yet."""
    held: frozenset[IPAddress] = frozenset()
    """Addresses that virtual routers have put there."""
    foreign: frozenset[IPAddress] = frozenset()
    """Addresses that somebody else has put there."""
    seen: bool = False
    """Whether the timeline tells of its addresses."""
    epoch: int = 0
    """Counts pauses."""

    @property
    def awake(self) -> bool:
        """Whether its process can act."""
        return self.powered and not self.paused and not self.killed


@attrs.define
class RouterModel:
    """One virtual router."""

    name: str
    host: HostModel
    config: VRRPInstanceConfig
    priority: int
    state: State = State.INIT
    ready_at: float = 0.0
    """When startup_delay ends: until then it hears nothing and is no master."""
    heard: float = 0.0
    """The longest interval that it heard of since it is BACKUP."""
    epoch: int = 0
    """Counts what makes it wait afresh."""
    moved: float = 0.0
    """When its priority changed."""
    demoted_until: float = 0.0
    """When its latest demotion ends."""
    bereft: bool = False
    """Whether an address was taken away that it leaves gone, or refused by the kernel."""
    hindered: bool = False
    """Whether what belongs to it was refused or taken away, so that it may leave a MASTER alone
    that can serve."""

    @property
    def able(self) -> bool:
        """Whether it takes part in the election now."""
        return self.host.awake and self.host.plugged and self.state in (State.BACKUP, State.MASTER)

    @property
    def master(self) -> bool:
        """Whether it is a MASTER that others can hear."""
        return self.able and self.state is State.MASTER

    @property
    def patience(self) -> float:
        """Seconds without a MASTER after which it must be one itself."""
        return self.down(max(self.config.interval, self.heard))

    def skew(self, priority: int, interval: float | None = None) -> float:
        """Skew_Time in seconds, for the interval of a master, by default the router's own (RFC 9568
        section 6.1; in RFC 3768 a part of a second)."""
        config = self.config
        unit = 1.0 if config.version == 2 else config.interval if interval is None else interval
        return (256 - priority) / 256 * unit

    def down(self, interval: float) -> float:
        """Active_Down_Interval in seconds, for the interval of a master."""
        return self.config.down_factor * interval + self.skew(self.priority, interval)

    def preempts(self, at: float) -> bool:
        """Whether it replaces a MASTER of lower priority at this time."""
        return self.config.owner or (self.config.preempt and at >= self.demoted_until)

    def step(self, step: MachineStep, at: float) -> None:
        """Follow what its machine did."""
        if step.state is not self.state or isinstance(step.event, AdvertsLost):
            self.epoch += 1
        if step.state is not self.state:
            self.bereft = False
        if isinstance(step.event, Startup):
            self.ready_at = at + self.config.startup_delay
            self.demoted_until = 0.0
            self.hindered = False
        elif isinstance(step.event, Demote):
            self.demoted_until = at + step.event.seconds
        elif isinstance(step.event, Promote):
            self.demoted_until = 0.0
        elif isinstance(step.event, KernelRefusedAddresses):
            self.hindered = self.bereft = True
        elif isinstance(step.event, LostAddress | LostRoute):
            self.hindered = True
            policy = self.config.on_address_lost or self.config.profile.address_lost
            self.bereft = self.bereft or policy is AddressLostPolicy.IGNORE
        elif isinstance(step.event, EverythingInPlace):
            self.hindered = self.bereft = False
        if step.priority != self.priority:
            self.moved = at
        self.state, self.priority = step.state, step.priority
        if step.state is not State.BACKUP:
            self.heard = 0.0
        elif isinstance(step.event, AdvertReceived):
            self.heard = max(self.heard, step.event.interval)


class LanModel:
    """All hosts and routers on one link."""

    def __init__(self) -> None:
        self.hosts: dict[str, HostModel] = {}
        self.routers: dict[str, RouterModel] = {}
        self.transit = 0.0
        """The most seconds that a message may have taken so far."""
        self._cuts: set[tuple[str, str]] = set()

    def apply(self, entry: Entry) -> None:
        """Follow one more entry."""
        what, who = entry.what, entry.who
        match what:
            case Started():
                self._start(what)
            case MachineStep() if who in self.routers:
                self.routers[who].step(what, entry.at)
            case Conditioned():
                self.transit = max(self.transit, what.transit)
            case Healed():
                self._heal(who, what.other)
            case Cut() if who is not None:
                self._cuts |= {(who, what.to)} if what.one_way else {(who, what.to), (what.to, who)}
            case _ if who in self.hosts:
                self._host(self.hosts[who], entry)
            case _:
                pass

    def _start(self, started: Started) -> None:
        config = started.config
        host = self.hosts.setdefault(started.host, HostModel(started.host))
        host.powered, host.killed = True, False
        self.routers[config.name] = RouterModel(config.name, host, config, config.priority)

    def _host(self, host: HostModel, entry: Entry) -> None:
        match entry.what:
            case Crashed():
                host.powered = host.paused = False
                self._end(host)
            case Killed():
                host.killed, host.paused = True, False
                self._end(host)
            case Paused():
                host.paused = True
            case Resumed():
                host.paused = False
                host.epoch += 1
                for router in self.on(host):
                    router.epoch += 1
            case Unplugged():
                host.plugged = False
            case Plugged():
                host.plugged = True
            case AddressesChanged():
                host.held, host.foreign = entry.what.held, entry.what.foreign
                host.seen = True
            case _:
                pass

    def _end(self, host: HostModel) -> None:
        for router in self.on(host):
            router.state = State.INIT
            router.epoch += 1

    def _heal(self, a: str | None, b: str | None) -> None:
        self._cuts = {
            pair
            for pair in self._cuts
            if (a is not None and a not in pair) or (b is not None and b not in pair)
        }

    def on(self, host: HostModel) -> Iterator[RouterModel]:
        """The routers of a host."""
        return (router for router in self.routers.values() if router.host is host)

    def hears(self, listener: RouterModel, speaker: RouterModel) -> bool:
        """Whether the adverts of one reach the other and count there."""
        return (
            listener.able
            and speaker.able
            and (speaker.host.name, listener.host.name) not in self._cuts
            and understands(listener.config, speaker.config)
        )


def understands(ours: VRRPInstanceConfig, theirs: VRRPInstanceConfig) -> bool:
    """Whether a router accepts the adverts of another one."""
    if (ours.version, ours.vrid, ours.family, ours.destination, ours.auth) != (
        theirs.version,
        theirs.vrid,
        theirs.family,
        theirs.destination,
        theirs.auth,
    ):
        return False
    if ours.version == 2 and ours.interval != theirs.interval:
        return False
    if ours.owner and ours.profile.owner_deaf:
        return False
    same_list = {vip.address for vip in ours.vips} == {vip.address for vip in theirs.vips}
    return same_list or not ours.profile.drop_address_list
