"""What mail says, in the words that keepalived's readers know. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from vrrpkit.ipvs.model.events import QuorumDown, QuorumUp, ServerDown, ServerUp
from vrrpkit.ipvs.server import VirtualServer
from vrrpkit.notify.model.keepalived import Notification, notification_of
from vrrpkit.validate import one_line
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.events import Transition
from vrrpkit.vrrp.syncgroup import GroupTransition

__all__ = ["BODY", "FIELDS", "SUBJECT", "Fields", "fields_of"]

SUBJECT = "[{router_id}] {kind} {name} - {event}"
BODY = """{text}

router: {router_id}
{kind}: {name}
event: {event}
reason: {reason}
time: {time}
"""
FIELDS = (
    "router_id",
    "kind",
    "name",
    "event",
    "state",
    "reason",
    "priority",
    "text",
    "time",
)
"""What a template may use."""

Fields: TypeAlias = dict[str, str]
"""A text for each of :data:`FIELDS`."""

_STATES = {
    State.MASTER: "It owns the virtual addresses now.",
    State.BACKUP: "It does not own the virtual addresses any more, or not yet.",
    State.FAULT: "It takes no part in the election until every fault has cleared.",
    State.INIT: "It has ended.",
}


def fields_of(event: object, subject: object, router_id: str, at: float) -> Fields | None:
    """What to say of an event of ``subject``; ``None`` if there is no mail about such a thing."""
    match event:
        case Transition():
            reason = str(event.reason)
            if event.faults:
                reason += f" ({', '.join(sorted(event.faults))})"
            found = _state("VRRP Instance", event.router, event.state, reason)
            found["priority"] = str(event.priority)
        case GroupTransition():
            found = _state("VRRP Group", event.group, event.state, "its members")
        case ServerUp() | ServerDown() | QuorumUp() | QuorumDown() if isinstance(
            subject, VirtualServer
        ):
            told = notification_of(event, subject)
            if told is None:
                return None
            found = _serving(event, told)
        case _:
            return None
    time = datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    return {"priority": ""} | found | {"router_id": one_line(router_id), "time": time}


def _state(kind: str, name: str, state: State, reason: str) -> Fields:
    return {
        "kind": kind,
        "name": one_line(name),
        "state": "STOP" if state is State.INIT else str(state),
        "event": "Stopping" if state is State.INIT else f"Entering {state} state",
        "reason": one_line(reason),
        "text": f"{kind} {one_line(name)}: {_STATES[state]}",
    }


def _serving(event: ServerUp | ServerDown | QuorumUp | QuorumDown, told: Notification) -> Fields:
    real = told.kind == "RS"
    reason = event.reason if isinstance(event, ServerDown) else ""
    if isinstance(event, QuorumUp | QuorumDown):
        reason = f"weight {event.weight}"
    if isinstance(event, QuorumDown) and event.sorry:
        reason += f", {event.sorry} stands in"
    return {
        "kind": "Realserver" if real else "Virtualserver",
        "name": one_line(f"{told.name} of virtual server {told.of}" if real else told.name),
        "state": told.state,
        "event": told.state,
        "reason": one_line(reason or "its checks pass"),
        "text": one_line(str(event)),
    }
