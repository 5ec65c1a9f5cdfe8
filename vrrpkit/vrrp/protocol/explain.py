"""Why a router is not MASTER, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Callable

from vrrpkit.values import State
from vrrpkit.vrrp.protocol.machine import Machine

__all__ = ["GROUP_FAULT", "waiting_for"]

GROUP_FAULT = "sync-group"
"""The fault of a member that has none itself, while another member of its sync group has one."""


def waiting_for(machine: Machine, group: Callable[[], str | None] | None = None) -> str | None:
    """What a router waits for before it becomes MASTER; ``None`` while it is MASTER.

    :param group: what its sync group waits for.
    """
    if machine.state is State.MASTER:
        return None
    if machine.state is State.INIT:
        return "not running"
    if machine.state is State.FAULT:
        if group is not None and machine.faults == frozenset({GROUP_FAULT}):
            return f"with its sync group {group()}"
        return f"in FAULT: {', '.join(sorted(machine.faults))}"
    if machine.eligible:
        others = "waits for the other members of its sync group"
        return others if group is None else f"{others}: {group()}"
    if machine.backup.held:
        return "waits for the end of startup_delay"
    demoted = "was demoted, and " if machine.demoted else ""
    return demoted + (_unled(machine) if machine.master is None else _led(machine))


def _unled(machine: Machine) -> str:
    if machine.backup.leaving:
        return "heard the master leave, and takes over unless a better router does first"
    if machine.backup.replacing:
        return "hears a master of lower priority, and takes over when its timer ends"
    return "listens whether there is a master"


def _led(machine: Machine) -> str:
    backup, own, other = machine.backup, machine.priority, machine.master_priority
    master = f"follows {machine.master}, whose priority is {other} (its own is {own})"
    if backup.leaving:
        return f"{master} and who is leaving: takes over unless it hears from it or a better one"
    if other == own:
        return f"{master}; equals do not preempt each other"
    if machine.suspended:
        causes = "; ".join(sorted(machine.causes))
        return (
            f"{master}; a takeover failed ({causes}), so it is left in place until a link, an "
            "address or a route of this host changes"
        )
    if other > own or machine.demoted:
        return master
    if not machine.preempting:
        return f"{master}; preempt=False leaves it in place"
    if backup.delaying:
        return f"{master}, until preempt_delay has passed"
    return f"{master}, and takes over when its timer ends"
