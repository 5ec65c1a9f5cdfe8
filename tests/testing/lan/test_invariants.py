"""The invariants, against timelines written by hand: each rule, its limit, and what excuses it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import pytest

from vrrpkit import State
from vrrpkit.testing import Invariant, InvariantBroken, Lan, Timeline, violations, virtual_time
from vrrpkit.testing.lan.timeline import (
    AddressesChanged,
    Conditioned,
    Crashed,
    Cut,
    Entry,
    Healed,
    Killed,
    LanEvent,
    Lost,
    MachineStep,
    Paused,
    Resumed,
    Started,
)
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.driver import Driver
from vrrpkit.vrrp.protocol.backup import BackupState
from vrrpkit.vrrp.protocol.effects import DropAddresses, Effect
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    AdvertsLost,
    Input,
    SetPriority,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine

VIP = ip_address("192.0.2.10")
OWN = ip_address("192.0.2.1")
SKEW = 156 / 256

MASTER, BACKUP, FAULT = State.MASTER, State.BACKUP, State.FAULT


def started(name: str, **changes: Any) -> tuple[str, LanEvent]:
    usual: dict[str, Any] = {"name": name, "interface": "eth0", "vrid": 51, "vips": [f"{VIP}/24"]}
    return name, Started(name, VRRPInstanceConfig(**(usual | changes)))


def step(name: str, state: State, event: Input | None = None, priority: int = 100) -> Any:
    return name, MachineStep(event or TimerFired(), (), state, priority)


def startup(name: str) -> tuple[str, LanEvent]:
    return step(name, BACKUP, Startup(primary=OWN))


def heard(name: str, interval: float) -> tuple[str, LanEvent]:
    event = AdvertReceived(source=OWN, priority=200, interval=interval, at=0.0)
    return step(name, BACKUP, event)


def holding(name: str, *, held: bool) -> tuple[str, LanEvent]:
    return name, AddressesChanged((), (), frozenset({VIP} if held else ()))


def broken(
    *moments: tuple[float, tuple[str | None, LanEvent]], until: float, **limits: float
) -> list[tuple[Invariant, float]]:
    """The rules that a timeline breaks, and when."""
    timeline = Timeline(Entry(at, who, what) for at, (who, what) in moments)
    return [
        (violation.invariant, round(violation.at, 3))
        for violation in violations(timeline, until, **limits)
    ]


def masters(
    *then: tuple[float, tuple[str | None, LanEvent]], a: float = 1.0, b: float = 1.0
) -> list[tuple[float, tuple[str | None, LanEvent]]]:
    """Two routers that are both MASTER from second 10 on."""
    first = [(0.0, started("a", interval=a)), (0.0, started("b", interval=b))]
    return [*first, (9.0, step("a", MASTER)), (10.0, step("b", MASTER)), *then]


class TestTwoMasters:
    def test_they_last_the_larger_interval(self) -> None:
        assert broken(*masters(), until=11.0) == []
        assert broken(*masters(), until=11.1) == [(Invariant.ONE_MASTER, 11.0)]
        assert broken(*masters(a=0.5, b=3.0), until=13.0) == []
        assert broken(*masters(a=0.5, b=3.0), until=13.1) == [(Invariant.ONE_MASTER, 13.0)]

    def test_one_of_them_yields_in_time(self) -> None:
        assert broken(*masters((11.0, step("a", BACKUP))), until=14.0) == []

    def test_it_is_reported_once(self) -> None:
        later = [(t, (None, Conditioned(0, 0))) for t in (12.0, 20.0, 30.0)]
        assert broken(*masters(*later), until=40.0) == [(Invariant.ONE_MASTER, 11.0)]

    def test_the_transit_adds_to_it(self) -> None:
        slow = (9.5, (None, Conditioned(0.0, 0.25)))
        moments = sorted([*masters(), slow], key=lambda moment: moment[0])
        assert broken(*moments, until=20.0) == [(Invariant.ONE_MASTER, 11.25)]

    def test_each_lost_advert_adds_an_interval(self) -> None:
        losses = [(10.5, ("a", Lost("b"))), (10.6, ("b", Lost("a"))), (10.7, ("b", Lost("c")))]
        assert broken(*masters(*losses), until=20.0) == [(Invariant.ONE_MASTER, 13.0)]

    @pytest.mark.parametrize(
        "excuse",
        [
            ("a", Cut("b", one_way=True)),
            ("b", Cut("a", one_way=True)),
            ("a", Cut("b", one_way=False)),
            ("a", Paused()),
            ("b", Crashed()),
            ("b", Killed()),
        ],
    )
    def test_they_do_not_hear_each_other(self, excuse: tuple[str, LanEvent]) -> None:
        assert broken(*masters((10.5, excuse)), until=12.0) == []

    def test_from_when_they_hear_each_other_again(self) -> None:
        cut, healed = (10.5, ("a", Cut("b", one_way=False))), (15.0, (None, Healed(None)))
        assert broken(*masters(cut, healed), until=20.0) == [(Invariant.ONE_MASTER, 16.0)]
        other = (15.0, ("c", Healed(None)))
        assert broken(*masters(cut, other), until=20.0) == []
        pause, resumed = (10.5, ("a", Paused())), (15.0, ("a", Resumed()))
        assert broken(*masters(pause, resumed), until=20.0) == [(Invariant.ONE_MASTER, 16.0)]

    def test_a_new_priority_begins_another_contest(self) -> None:
        change = (10.9, step("a", MASTER, SetPriority(7), priority=7))
        assert broken(*masters(change), until=11.8) == []
        assert broken(*masters(change), until=12.0) == [(Invariant.ONE_MASTER, 11.9)]

    def test_other_groups_do_not_count(self) -> None:
        for changes in ({"vrid": 52}, {"version": 2}, {"group": "224.0.0.99"}):
            moments = [
                (0.0, started("a")),
                (0.0, started("b", **changes)),
                (1.0, step("a", MASTER)),
                (1.0, step("b", MASTER)),
            ]
            assert broken(*moments, until=9.0) == []


def alone(
    *then: tuple[float, tuple[str | None, LanEvent]], **changes: Any
) -> list[tuple[float, tuple[str | None, LanEvent]]]:
    """One router that starts at second 0 and hears nobody."""
    return [(0.0, started("a", **changes)), (0.0, startup("a")), *then]


class TestNoMaster:
    @pytest.mark.parametrize(
        ("options", "limit"),
        [
            ({}, 3 + SKEW),
            ({"interval": 0.1}, 0.3 + SKEW / 10),
            ({"down_factor": 5}, 5 + SKEW),
            ({"version": 2, "interval": 2}, 6 + SKEW),
            ({"startup_delay": 4}, 7 + SKEW),
        ],
    )
    def test_it_lasts_as_long_as_the_options_say(
        self, options: dict[str, Any], limit: float
    ) -> None:
        assert broken(*alone(**options), until=limit) == []
        expected = [(Invariant.A_MASTER, round(limit, 3))]
        assert broken(*alone(**options), until=limit + 0.1) == expected

    def test_a_takeover_ends_it(self) -> None:
        assert broken(*alone((3.6, step("a", MASTER))), until=100.0) == []

    def test_a_learnt_interval_makes_it_longer(self) -> None:
        learnt = 3 * 2 + 2 * SKEW
        found = broken(*alone((1.0, heard("a", 2.0))), until=20.0)
        assert found == [(Invariant.A_MASTER, round(learnt, 3))]

    def test_the_priority_moves_it(self) -> None:
        lower = (1.0, step("a", BACKUP, SetPriority(1), priority=1))
        limit = round(3 + 255 / 256, 3)
        assert broken(*alone(lower), until=20.0) == [(Invariant.A_MASTER, limit)]
        # A priority that makes it overdue may be answered when it changes.
        late = (3.5, step("a", BACKUP, SetPriority(254), priority=254))
        assert broken(*alone(late, (3.5, step("a", MASTER))), until=20.0) == []

    def test_from_when_the_last_master_is_gone(self) -> None:
        moments = [
            *alone((1.0, started("b")), (2.0, step("b", MASTER))),
            (50.0, ("b", Crashed())),
        ]
        assert broken(*moments, until=80.0) == [(Invariant.A_MASTER, round(53 + SKEW, 3))]

    def test_a_master_that_is_not_heard_does_not_count(self) -> None:
        moments = [
            *alone((1.0, started("b")), (2.0, step("b", MASTER))),
            (50.0, ("b", Cut("a", one_way=True))),
        ]
        assert broken(*moments, until=80.0) == [(Invariant.A_MASTER, round(53 + SKEW, 3))]

    @pytest.mark.parametrize(
        "what", [step("a", FAULT), ("a", Paused()), ("a", Crashed()), ("a", Killed())]
    )
    def test_a_router_that_cannot_is_excused(self, what: tuple[str, LanEvent]) -> None:
        assert broken(*alone((1.0, what)), until=80.0) == []

    @pytest.mark.parametrize("what", [("a", Resumed()), step("a", BACKUP, AdvertsLost())])
    def test_what_makes_it_wait_afresh(self, what: tuple[str, LanEvent]) -> None:
        limit = round(5 + SKEW, 3)
        assert broken(*alone((2.0, what)), until=80.0) == [(Invariant.A_MASTER, limit)]


class TestStrayAddresses:
    def test_only_a_master_may_hold_them(self) -> None:
        moments = [
            (0.0, started("a")),
            (1.0, step("a", MASTER)),
            (1.0, holding("a", held=True)),
            (5.0, step("a", FAULT)),
        ]
        assert broken(*moments, until=5.1) == []
        assert broken(*moments, until=5.2) == [(Invariant.NO_STRAY_ADDRESS, 5.1)]
        assert broken(*moments, until=5.9, reconcile=1.0) == []
        gone = (5.05, holding("a", held=False))
        assert broken(*moments, gone, until=9.0) == []

    @pytest.mark.parametrize("what", [Crashed(), Killed(), Paused()])
    def test_whoever_cannot_take_them_off_is_excused(self, what: LanEvent) -> None:
        moments = [
            (0.0, started("a")),
            (0.0, step("a", FAULT)),
            (1.0, ("a", what)),
            (1.0, holding("a", held=True)),
        ]
        assert broken(*moments, until=5.0) == []

    def test_a_killed_run_is_repaired_by_the_next(self) -> None:
        moments = [
            (0.0, started("a")),
            (1.0, step("a", MASTER)),
            (1.0, holding("a", held=True)),
            (2.0, ("a", Killed())),
            (9.0, started("a")),
            (9.0, startup("a")),
        ]
        assert broken(*moments, until=9.2) == [(Invariant.NO_STRAY_ADDRESS, 9.1)]


class TestAgainstRealMachines:
    """The checker sees what a broken machine does."""

    @staticmethod
    async def router_run(check: Iterable[Invariant]) -> None:
        async with Lan() as lan:
            lan.router("a", vips=[f"{VIP}/24"], priority=150)
            lan.router("b", vips=[f"{VIP}/24"])
            await lan.settle()
            lan.cut("a", "b")
            await lan.settle()
            lan.heal()
            await lan.settle()
            lan.crash("a")
            await lan.settle()
            with pytest.raises(InvariantBroken) as caught:
                lan.check()
        assert {violation.invariant for violation in caught.value.violations} == set(check)
        assert "*** crash" in str(caught.value)

    def test_a_master_that_never_yields(self, monkeypatch: pytest.MonkeyPatch) -> None:
        handle = Machine.handle

        def stubborn(self: Machine, event: Input, at: float) -> list[Effect]:
            if isinstance(event, AdvertReceived) and self.state is MASTER:
                return []
            return handle(self, event, at)

        monkeypatch.setattr(Machine, "handle", stubborn)
        virtual_time()(self.router_run)([Invariant.ONE_MASTER])

    def test_a_backup_that_waits_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(BackupState, "down_interval", lambda self, priority: 4.0)
        virtual_time()(self.router_run)([Invariant.A_MASTER])

    def test_addresses_that_are_not_removed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        carry_out = Driver._carry_out

        def sticky(self: Driver, effect: Effect, at: float) -> None:
            if not isinstance(effect, DropAddresses):
                carry_out(self, effect, at)

        monkeypatch.setattr(Driver, "_carry_out", sticky)
        virtual_time()(self.router_run)([Invariant.NO_STRAY_ADDRESS])
