"""Random scenarios of two to five routers, against the invariants, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
from hypothesis import HealthCheck, given, note, settings, strategies as st

from vrrpkit import HMACAuth, State
from vrrpkit.errors import NotEligible
from vrrpkit.testing import Lan, run_virtual

VIP = "192.0.2.100"

Action: TypeAlias = tuple[float, str, int, int, float]
"""Seconds before it, what is done, to which router, with which other one, and a number."""


@attrs.frozen
class Scenario:
    """Routers on a link, and what befalls them, with the pauses in between."""

    routers: tuple[dict[str, Any], ...]
    delay: float
    jitter: float
    duplication: float
    reordering: float
    actions: tuple[Action, ...]

    @property
    def names(self) -> str:
        return "abcde"[: len(self.routers)]


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    version = draw(st.sampled_from([3, 3, 3, 2]))
    interval = (
        draw(st.sampled_from([1.0, 1.0, 2.0]))
        if version == 2
        else draw(st.sampled_from([1.0, 1.0, 0.1, 0.25, 3.0]))
    )
    factor = draw(st.sampled_from([3, 3, 3, 1, 5]))
    many = draw(st.integers(2, 5))
    signed = draw(st.sampled_from([None, None, None, "time", "monotonic"]))
    owner = draw(st.integers(0, 3 * many))
    routers = tuple(
        draw(_options(version, interval, factor, owner == number)) for number in range(many)
    )
    for options in routers if signed is not None else ():
        options["auth"] = HMACAuth({1: bytes(range(32))}, active=1, anti_replay=signed)
    actions = draw(
        st.lists(
            st.tuples(
                st.floats(0, 6).map(lambda gap: round(gap * max(interval, 0.5), 3)),
                st.sampled_from(sorted(ACTIONS)),
                st.integers(0, many - 1),
                st.integers(0, many - 1),
                st.floats(0, 1),
            ),
            max_size=12,
        )
    )
    return Scenario(
        routers,
        delay=draw(st.sampled_from([0.0, 0.0, 0.001, 0.03])),
        jitter=draw(st.sampled_from([0.0, 0.0, 0.002])),
        duplication=draw(st.sampled_from([0.0, 0.0, 0.2])),
        reordering=draw(st.sampled_from([0.0, 0.0, 0.1])),
        actions=tuple(actions),
    )


@st.composite
def _options(
    draw: st.DrawFn, version: int, interval: float, factor: int, owner: bool
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "version": version,
        "interval": interval,
        "down_factor": factor,
        "priority": 255 if owner else draw(st.sampled_from([1, 50, 100, 100, 150, 200, 254])),
        "profile": draw(st.sampled_from(["default", "default", "keepalived"])),
        "startup_delay": draw(st.sampled_from([0.0, 0.0, 0.0, 2.5])),
    }
    if not owner:
        options["preempt"] = draw(st.sampled_from([True, True, False]))
        options["preempt_delay"] = draw(st.sampled_from([0.0, 0.0, 0.7, 5.0]))
    if version == 3 and draw(st.integers(0, 2)) == 0:
        options["interval"] = draw(st.sampled_from([0.1, 0.25, 0.5, 1.5, 3.0]))
    if draw(st.integers(0, 5)) == 0:
        options["vip_lease"] = 3
    return options


def _start(lan: Lan, a: str, b: str, x: float) -> None:
    if lan.instance(a).state is State.INIT:
        lan.start(a)


def _set_priority(lan: Lan, a: str, b: str, x: float) -> None:
    instance = lan.instance(a)
    if instance.state is not State.INIT and not instance.config.owner:
        instance.set_priority(1 + round(253 * x))


def _demote(lan: Lan, a: str, b: str, x: float) -> None:
    if lan.instance(a).state is not State.INIT:
        lan.instance(a).demote(0.5 + 10 * x)


def _promote(lan: Lan, a: str, b: str, x: float) -> None:
    if lan.instance(a).state is not State.INIT:
        try:
            lan.instance(a).promote()
        except NotEligible as reason:
            note(str(reason))


def _delete(lan: Lan, a: str, b: str, x: float) -> None:
    # An owner whose own address is deleted has none left to send from, and stays in FAULT.
    if not lan.instance(a).config.owner:
        lan.interface(a).delete(VIP)


ACTIONS: dict[str, Callable[[Lan, str, str, float], None]] = {
    "crash": lambda lan, a, b, x: lan.crash(a),
    "cut": lambda lan, a, b, x: lan.cut(a, b) if a != b else None,
    "cut one way": lambda lan, a, b, x: lan.cut(a, b, one_way=True) if a != b else None,
    "delete": _delete,
    "demote": _demote,
    "heal": lambda lan, a, b, x: lan.heal(),
    "kill": lambda lan, a, b, x: lan.kill(a),
    "lossy": lambda lan, a, b, x: lan.lossy(round(x / 2, 2)),
    "pause": lambda lan, a, b, x: lan.pause(a),
    "plug": lambda lan, a, b, x: lan.plug(a),
    "promote": _promote,
    "reliable": lambda lan, a, b, x: lan.lossy(0),
    "resume": lambda lan, a, b, x: lan.resume(a),
    "set priority": _set_priority,
    "start": _start,
    "unplug": lambda lan, a, b, x: lan.unplug(a),
}


async def _live(scenario: Scenario) -> None:
    async with Lan(
        delay=scenario.delay,
        jitter=scenario.jitter,
        duplication=scenario.duplication,
        reordering=scenario.reordering,
    ) as lan:
        for name, options in zip(scenario.names, scenario.routers, strict=True):
            lan.router(name, vips=[f"{VIP}/24"], **options)
        for gap, what, first, second, number in scenario.actions:
            await asyncio.sleep(gap)
            ACTIONS[what](lan, scenario.names[first], scenario.names[second], number)
        await asyncio.sleep(1)
        lan.check()
        await _recover(lan, scenario.names)
        note(str(lan))
        lan.check()
        (master,) = lan.masters()
        assert master in lan.owners(VIP)
        for name in scenario.names:
            options = lan.instance(name).config
            rival = options.preempt or options.owner
            assert not rival or lan.instance(name).priority <= lan.instance(master).priority


async def _recover(lan: Lan, names: str) -> None:
    """When everything is well again there is one MASTER, whatever was before."""
    lan.heal()
    lan.lossy(0)
    for name in names:
        lan.plug(name)
        lan.resume(name)
        if lan.instance(name).state is State.INIT:
            lan.start(name)
    # Demotions end, and so do the faults that they may hide.
    await asyncio.sleep(11)
    await lan.settle()


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(scenario=scenarios(), seed=st.integers(0, 2**16))
def test_invariants_hold_whatever_happens(scenario: Scenario, seed: int) -> None:
    run_virtual(_live(scenario), seed=seed)
