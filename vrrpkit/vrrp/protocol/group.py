"""Several virtual routers that change state together: the sync group as one reducer over their
machines (keepalived: ``vrrp_sync_group``). Pure.

A member that could be MASTER only says so; once every member says so, all become MASTER in one
step. One that stops being MASTER, or is unfit, takes the others with it in the same step. So
outside of :meth:`Group.handle` the members that run are always in one state.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from vrrpkit.values import State
from vrrpkit.vrrp.protocol.effects import Announce, Effect, Publish, SendAdvert
from vrrpkit.vrrp.protocol.events import Transition, TransitionReason
from vrrpkit.vrrp.protocol.explain import GROUP_FAULT, waiting_for
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    AnnounceAgain,
    FaultsNow,
    Granted,
    GroupReleased,
    Input,
    MasterUnreachable,
    Promote,
    Shutdown,
    Startup,
    Withdrawn,
)
from vrrpkit.vrrp.protocol.machine import Machine

__all__ = ["GROUP_FAULT", "Group", "GroupStep"]


@attrs.frozen
class GroupStep:
    """One member took one event in."""

    member: str
    event: Input
    effects: list[Effect]


class Group:
    """The reducer: every event of a member goes through :meth:`handle`.

    :param machines: the members by name; all of them are ``grouped``.
    """

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self._machines = dict(machines)
        self._yield_until = 0.0

    @property
    def state(self) -> State:
        """The state that the members share; while they start and end, that of the first that
        runs."""
        for machine in self._running.values():
            return machine.state
        return State.INIT

    @property
    def _running(self) -> dict[str, Machine]:
        machines = self._machines
        return {name: m for name, m in machines.items() if m.state is not State.INIT}

    @property
    def _unanimous(self) -> bool:
        return all(machine.eligible for machine in self._machines.values())

    def handle(self, member: str, event: Input, now: float) -> list[GroupStep]:
        """Take one event of ``member`` in at ``now``; every step that follows from it, in order."""
        steps: list[GroupStep] = []
        if isinstance(event, Promote):
            self._yield_until = now

        def take(name: str, what: Input) -> None:
            steps.append(GroupStep(name, what, self._machines[name].handle(what, now)))

        take(member, self._merged(member, event))
        for name, what in self._companions(member, event, steps[0].effects):
            take(name, what)
        while agreed := self._agree(steps, now):
            for name, what in agreed:
                take(name, what)
        return steps

    def why_not_master(self) -> str | None:
        """What the group waits for, in words; ``None`` while it is MASTER."""
        if self.state is State.MASTER:
            return None
        running = self._running
        if len(running) < len(self._machines):
            missing = ", ".join(sorted(self._machines.keys() - running.keys()))
            return f"not running: {missing}"
        faulty = {name: self._own_faults(m) for name, m in running.items()}
        if any(faulty.values()):
            return "in FAULT: " + "; ".join(
                f"{name} ({', '.join(sorted(faults))})" for name, faults in faulty.items() if faults
            )
        if self._unanimous:
            return "it lost a tie, and lets the other group begin"
        return "; ".join(
            f"{name} {waiting_for(machine)}"
            for name, machine in running.items()
            if not machine.eligible
        )

    def _own_faults(self, machine: Machine) -> frozenset[str]:
        return machine.faults - {GROUP_FAULT}

    def _merged(self, member: str, event: Input) -> Input:
        """Let a member that has become fit see what the others have, lest it be BACKUP for a
        moment."""
        others = (m for name, m in self._running.items() if name != member)
        if isinstance(event, FaultsNow | Startup) and any(map(self._own_faults, others)):
            return attrs.evolve(event, faults=event.faults | {GROUP_FAULT})
        return event

    def _companions(
        self, member: str, event: Input, effects: list[Effect]
    ) -> list[tuple[str, Input]]:
        others = [name for name in self._running if name != member]
        if isinstance(event, Shutdown):
            return [(name, Shutdown()) for name in others]
        machine = self._machines[member]
        released = isinstance(event, AdvertReceived) and event.priority == 0
        lost = isinstance(event, MasterUnreachable) and event.neighbor == machine.master
        if (released or lost) and machine.state is State.BACKUP:
            return [(name, GroupReleased()) for name in others]
        if any(isinstance(effect, Announce) for effect in effects):
            # Who claimed the addresses of one member has claimed those of all.
            return [(name, AnnounceAgain()) for name in others]
        return []

    def _yield_after(self, steps: list[GroupStep], now: float) -> None:
        """Of two groups of one priority each may win on one link. Both would give up and try again
        at the same time, for ever: so the one that lost on its first link lets the other one
        begin."""
        first, machine = next(iter(self._machines.items()))
        for step in steps:
            if step.member == first and any(map(_lost_a_tie, step.effects)):
                self._yield_until = now + machine.down_interval + machine.config.interval

    def _agree(self, steps: list[GroupStep], now: float) -> list[tuple[str, Input]]:
        """What must happen next for the members to agree."""
        running = self._running
        faulty = [name for name, machine in running.items() if self._own_faults(machine)]
        for name, machine in running.items():
            theirs = any(other != name for other in faulty)
            if theirs is not (GROUP_FAULT in machine.faults):
                return [(name, FaultsNow(faults=machine.faults ^ {GROUP_FAULT}))]
        if self._unanimous and now >= self._yield_until:
            return [(name, Granted()) for name in running]
        masters = [name for name, m in running.items() if m.state is State.MASTER]
        if masters and len(masters) < len(running):
            resign = any(SendAdvert(0) in step.effects for step in steps)
            self._yield_after(steps, now)
            return [(name, Withdrawn(resign)) for name in masters]
        return []


def _lost_a_tie(effect: Effect) -> bool:
    match effect:
        case Publish(Transition(reason=TransitionReason.TIE)):
            return True
        case _:
            return False
