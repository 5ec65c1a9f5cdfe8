"""Why a router is not MASTER, in words for people. Pure."""

from __future__ import annotations

from vrrpkit.values import State
from vrrpkit.vrrp.machine import Machine

__all__ = ["waiting_for"]


def waiting_for(machine: Machine) -> str | None:
    """What a router waits for before it becomes MASTER; ``None`` while it is MASTER."""
    if machine.state is State.MASTER:
        return None
    if machine.state is State.INIT:
        return "not running"
    if machine.state is State.FAULT:
        return f"in FAULT: {', '.join(sorted(machine.faults))}"
    if machine.wanting:
        return "waits for the other members of its sync group"
    demoted = "was demoted, and " if machine.demoted else ""
    if machine.master is None:
        return f"{demoted}listens whether there is a master"
    return (
        f"{demoted}follows {machine.master}, whose priority is {machine.master_priority} (its own "
        f"is {machine.priority})"
    )
