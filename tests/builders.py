"""Short ways to make what the tests of the protocol need, and to read what a machine answers."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from vrrpkit.values import VIP
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.protocol.effects import (
    Announce,
    DropAddresses,
    Effect,
    Publish,
    SendAdvert,
    TakeAddresses,
)
from vrrpkit.vrrp.protocol.election import MachineConfig
from vrrpkit.vrrp.protocol.events import Transition
from vrrpkit.vrrp.protocol.inputs import AdvertReceived, FaultsNow, Input, Startup, TimerFired
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.profile import Profile
from vrrpkit.vrrp.protocol.validation import AdvertValidator

PRIMARY = ip_address("192.0.2.1")


def options(**changes: Any) -> VRRPInstanceConfig:
    """The options of an ordinary router, with changes."""
    usual: dict[str, Any] = {
        "name": "r",
        "interface": "eth0",
        "vrid": 51,
        "vips": ["192.0.2.10/24"],
    }
    return VRRPInstanceConfig(**({"name": "r", "interface": "eth0"} | usual | changes))


def machine_config(*, profile: str = "default", **changes: Any) -> MachineConfig:
    """The configuration of an ordinary machine, with changes."""
    chosen = Profile.of(profile)
    usual: dict[str, Any] = {
        "router": "r",
        "version": 3,
        "priority": 100,
        "interval": 1.0,
        "preempt": True,
        "preempt_delay": 0.0,
        "down_factor": 3,
        "startup_delay": 0.0,
        "address_lost": chosen.address_lost,
        "profile": chosen,
        "repeat": 5,
    }
    return MachineConfig(**(usual | changes))


def started(*, faults: Iterable[str] = (), **changes: Any) -> Machine:
    """A machine that was started at 0 seconds."""
    machine = Machine(machine_config(**changes))
    machine.handle(Startup(primary=PRIMARY, faults=frozenset(faults)), 0.0)
    return machine


def mastering(**changes: Any) -> Machine:
    """A machine that became MASTER at 10 seconds, its last advert just sent."""
    machine = started(**changes)
    while machine.state.value != "MASTER":
        assert machine.deadline is not None
        machine.handle(TimerFired(), machine.deadline)
    machine.handle(TimerFired(), machine.deadline or 0.0)
    return machine


def advert(
    priority: int, at: float, *, source: str = "192.0.2.2", interval: float = 1.0
) -> AdvertReceived:
    """An advert that reached this host at ``at`` seconds."""
    return AdvertReceived(source=ip_address(source), priority=priority, interval=interval, at=at)


def faults(*names: str) -> FaultsNow:
    """Everything that is wrong now."""
    return FaultsNow(faults=frozenset(names))


def due(machine: Machine) -> float:
    """The deadline of a machine that has one."""
    assert machine.deadline is not None
    return machine.deadline


def losing(start: float, end: float) -> list[tuple[float, Input]]:
    """A master of lower priority: one advert a second."""
    count = int(end - start) + 1
    return [(start + n, advert(50, start + n)) for n in range(count)]


def told(effects: Iterable[Effect]) -> list[str]:
    """Effects in words: ``advert 100``, ``take``, ``drop``, ``announce 5``, ``BACKUP -> MASTER:
    no-response``, or the name of another notice."""
    return [_word(effect) for effect in effects]


def _word(effect: Effect) -> str:
    match effect:
        case SendAdvert():
            return f"advert {effect.priority}"
        case TakeAddresses():
            return "take"
        case DropAddresses():
            return "drop"
        case Announce():
            return f"announce {effect.repeat}"
        case Publish(notice=Transition() as change):
            return f"{change.previous} -> {change.state}: {change.reason}"
        case Publish():
            return type(effect.notice).__name__


def run(machine: Machine, *steps: tuple[float, Input]) -> list[tuple[float, list[str]]]:
    """Feed events, and the timer at every deadline before each; what was answered, and when."""
    answers: list[tuple[float, list[str]]] = []
    for now, event in steps:
        while machine.deadline is not None and machine.deadline < now:
            due = machine.deadline
            answers.append((due, told(machine.handle(TimerFired(), due))))
        answers.append((now, told(machine.handle(event, now))))
    return [(now, effects) for now, effects in answers if effects]


def validator(**changes: Any) -> AdvertValidator:
    """An ordinary receiver: version 3, VRID 51, 1 s, one address, the IPv4 group."""
    usual: dict[str, Any] = {
        "version": 3,
        "vrid": 51,
        "wire_interval": 100,
        "addresses": frozenset({VIP.of("192.0.2.10").address}),
        "group": ip_address("224.0.0.18"),
        "peers": {},
        "auth": None,
        "insist": None,
        "drop_address_list": False,
        "deaf_owner": False,
        "owner": False,
    }
    return AdvertValidator(**(usual | changes))
