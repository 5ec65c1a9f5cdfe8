"""Machines that are broken on purpose, each in one way: the invariants see every one of them from
outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from vrrpkit import State
from vrrpkit.host.memory.interface import MemoryInterface
from vrrpkit.testing import Invariant, InvariantBroken, Lan, run_virtual, virtual
from vrrpkit.vrrp.driver import Driver
from vrrpkit.vrrp.protocol import backup, election, machine
from vrrpkit.vrrp.protocol.backup import BackupState
from vrrpkit.vrrp.protocol.effects import DropAddresses, SendAdvert
from vrrpkit.vrrp.protocol.inputs import AdvertReceived
from vrrpkit.vrrp.protocol.machine import AdvertTimer, Machine
from vrrpkit.vrrp.resources import HostResources

Patch: TypeAlias = Callable[[pytest.MonkeyPatch], None]
VIP = "192.0.2.100"


async def _router_run() -> None:
    """What befalls routers, one thing after the other."""
    async with Lan(delay=0.01) as lan:
        for name, priority in (("a", 150), ("b", 100), ("c", 50), ("d", 50)):
            lan.router(name, vips=[f"{VIP}/24"], priority=priority)
        lan.router("slow", vips=["192.0.2.200/24"], vrid=52, preempt_delay=5, priority=150)
        lan.router("kind", vips=["192.0.2.200/24"], vrid=52, preempt=False, priority=200)
        lan.router("lone", vips=["192.0.2.200/24"], vrid=52, down_factor=5)
        await asyncio.sleep(10)
        for act in ("crash", "start", "kill", "start", "unplug", "plug", "pause", "resume"):
            for name in ("a", "kind"):
                getattr(lan, act)(name)
            await asyncio.sleep(12)
        for name in ("a", "kind", "b"):
            await lan.stop(name)
            await asyncio.sleep(10)
        await lan.stop("slow")
        await asyncio.sleep(10)
        for name in ("b", "a", "slow", "kind"):
            lan.start(name)
            await asyncio.sleep(12)
        lan.instance("a").demote(20)
        await asyncio.sleep(5)
        lan.instance("b").set_priority(180)
        await asyncio.sleep(40)
        lan.crash("a")
        lan.crash("b")
        await asyncio.sleep(6)
        # Equals that could not hear each other, and the address decides.
        lan.cut("c", "d")
        await asyncio.sleep(6)
        lan.heal()
        await asyncio.sleep(6)
        lan.check()


def _broken() -> set[Invariant]:
    """The rules that the machines break now."""
    try:
        run_virtual(_router_run())
    except InvariantBroken as broken:
        return {violation.invariant for violation in broken.violations}
    except ExceptionGroup:
        return set()
    return set()


def _put(owner: object, name: str, value: object) -> Patch:
    return lambda patch: patch.setattr(owner, name, value)


def _without(kind: type[object], **values: object) -> Patch:
    """Effects of a kind are not carried out."""
    carry_out = Driver._carry_out

    def less(self: Driver, effect: Any, now: float) -> None:
        same = isinstance(effect, kind)
        if not (same and all(getattr(effect, name) == value for name, value in values.items())):
            carry_out(self, effect, now)

    return _put(Driver, "_carry_out", less)


def _deaf_to(states: set[State], matches: Callable[[AdvertReceived, Machine], bool]) -> Patch:
    handle = Machine.handle

    def overflowed(self: Machine, event: Any, now: float) -> Any:
        heard = isinstance(event, AdvertReceived) and self.state in states
        return [] if heard and matches(event, self) else handle(self, event, now)

    return _put(Machine, "handle", overflowed)


def _down(adverts: int) -> Patch:
    def interval(self: BackupState, priority: int) -> float:
        factor = self._config.down_factor + adverts
        return factor * self.interval + self.skew(priority)

    return _put(BackupState, "down_interval", interval)


_heard = BackupState.heard


def _accepts_lower(self: BackupState, event: AdvertReceived, priority: int, *_: object) -> bool:
    return _heard(self, event, priority, False)


def _says(priority: int) -> Patch:
    send = Driver._send
    return _put(
        Driver, "_send", lambda self, said, now: send(self, priority if said == 150 else said, now)
    )


def _interval(factor: float) -> Patch:
    def sent(self: AdvertTimer, now: float) -> float:
        self.last_sent = now
        self.due = due = now + factor * self._config.interval
        return due

    return _put(AdvertTimer, "sent", sent)


def _masters_at_once(self: Machine, reason: Any, now: float) -> None:
    self._become_master(reason, now)


def _waits_again(self: Machine, reason: Any, now: float) -> None:
    self._back_up(reason, self.down_interval, now)


def _wins(beats: Callable[..., bool]) -> Patch:
    return _put(machine, "wins", beats)


MUTANTS: dict[str, tuple[Patch, Invariant]] = {
    "a MASTER never takes its addresses": (
        _put(HostResources, "take", lambda self: None),
        Invariant.HOLDS_ADDRESSES,
    ),
    "a MASTER does not announce": (
        _put(MemoryInterface, "_announce", lambda self, vips: None),
        Invariant.ANNOUNCES,
    ),
    "addresses are never dropped": (_without(DropAddresses), Invariant.NO_STRAY_ADDRESS),
    "nobody ever preempts": (
        _put(Machine, "preempting", property(lambda self: False)),
        Invariant.BEST_MASTER,
    ),
    "everybody preempts": (
        _put(Machine, "preempting", property(lambda self: True)),
        Invariant.NOT_EARLY,
    ),
    "a lower advert restarts the timer": (
        _put(BackupState, "heard", _accepts_lower),
        Invariant.BEST_MASTER,
    ),
    "preempt_delay is not served": (
        _put(BackupState, "_delaying", lambda self, at, priority: False),
        Invariant.NOT_EARLY,
    ),
    "preempt_delay never ends": (
        _put(BackupState, "_delaying", lambda self, at, priority: self._config.preempt_delay > 0),
        Invariant.BEST_MASTER,
    ),
    "priority 0 is never said": (_without(SendAdvert, priority=0), Invariant.SAYS_GOODBYE),
    "priority 0 is not heeded": (
        _deaf_to({State.BACKUP}, lambda event, _: event.priority == 0),
        Invariant.HEEDS_GOODBYE,
    ),
    "priority 0 is taken for silence": (
        _put(BackupState, "skew", lambda self, priority: 0.0),
        Invariant.NOT_EARLY,
    ),
    "skew is 0": (_put(backup, "skew_time", lambda *_: 0.0), Invariant.NOT_EARLY),
    "skew is the same for all": (
        _put(backup, "skew_time", lambda version, priority, interval: interval / 2),
        Invariant.NOT_EARLY,
    ),
    "everybody takes over an interval early": (_down(-1), Invariant.NOT_EARLY),
    "everybody takes over an interval late": (_down(1), Invariant.A_MASTER),
    "everybody is MASTER at once": (
        _put(Machine, "_begin", _masters_at_once),
        Invariant.NOT_EARLY,
    ),
    "nobody becomes MASTER": (
        _put(Machine, "_become_master", _waits_again),
        Invariant.A_MASTER,
    ),
    "a MASTER never yields": (
        _deaf_to({State.MASTER}, lambda event, _: True),
        Invariant.ONE_MASTER,
    ),
    "a MASTER does not yield to an equal": (
        _wins(lambda priority, source, ours, primary: priority > ours),
        Invariant.ONE_MASTER,
    ),
    "a MASTER yields to anybody": (_wins(lambda *_: True), Invariant.UNBEATEN),
    "the lesser address wins": (
        _wins(
            lambda priority, source, ours, primary: (
                not election.wins(priority, source, ours, primary)
                if priority == ours
                else priority > ours
            )
        ),
        Invariant.UNBEATEN,
    ),
    "a MASTER falls silent": (
        _without(SendAdvert, priority=150),
        Invariant.ADVERTISES,
    ),
    "adverts are late": (_interval(1.5), Invariant.ADVERTISES),
    "adverts say another priority": (_says(151), Invariant.ADVERTISES),
}


def test_sound_machines_break_no_rule() -> None:
    assert _broken() == set()


@pytest.mark.parametrize(("patch", "invariant"), MUTANTS.values(), ids=MUTANTS)
def test_a_broken_machine_is_seen(
    monkeypatch: pytest.MonkeyPatch, patch: Patch, invariant: Invariant
) -> None:
    patch(monkeypatch)
    # One that never comes to rest is to be told soon.
    monkeypatch.setattr(virtual, "SPINS", 5000)
    assert invariant in _broken()
