"""What scripts and the FIFO are told, in keepalived's words. Pure."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

from vrrpkit.ipvs.entries import ServiceKey
from vrrpkit.ipvs.notices import QuorumDown, QuorumUp, ServerDown, ServerUp
from vrrpkit.ipvs.server import VirtualServer
from vrrpkit.values import State
from vrrpkit.vrrp.instance import VRRPInstance
from vrrpkit.vrrp.notices import AnotherMaster, PriorityChanged, Transition
from vrrpkit.vrrp.syncgroup import GroupTransition

__all__ = ["STATES", "Word", "words"]

STATES = frozenset({"MASTER", "BACKUP", "FAULT", "STOP", "DELETED", "UP", "DOWN"})


@attrs.frozen(kw_only=True)
class Word:
    """One thing that has happened to one object."""

    kind: str
    """``INSTANCE``, ``GROUP``, ``VS`` (a virtual server), ``RS`` (a real server)."""
    name: str
    """Of an instance or group; an endpoint such as ``[192.0.2.10]:tcp:80`` else."""
    state: str
    """``MASTER``, ``BACKUP``, ``FAULT``, ``STOP``, ``DELETED``; ``MASTER_RX_LOWER_PRI``,
    ``MASTER_PRIORITY``, ``BACKUP_PRIORITY``; ``UP``, ``DOWN``."""
    priority: int = 0
    """Of an instance; 0 else."""
    of: str = ""
    """Of a real server: its virtual server."""
    reason: str = ""
    previous: str = ""
    """The state before, of an instance or group."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """What a generic script is called with (keepalived: ``notify``)."""
        if self.kind == "RS":
            return (self.kind, self.name, self.of, self.state)
        if self.kind == "VS":
            return (self.kind, self.name, self.state)
        return (self.kind, self.name, self.state, str(self.priority))

    @property
    def line(self) -> str:
        """What goes into the FIFO, without the end of the line."""
        kind, name, *rest = self.arguments
        if self.kind in ("INSTANCE", "GROUP"):
            printable = "".join(c if c.isprintable() and c != '"' else "?" for c in name)
            name = f'"{printable}"'
        return " ".join([kind, name, *rest])

    @property
    def slot(self) -> Hashable:
        """What newer word may take the place of this one while it waits: the next state of the same
        object, or the same news of it."""
        return (self.kind, self.name, self.of, "" if self.state in STATES else self.state)


def words(event: object, subject: object) -> tuple[Word, ...]:
    """What to tell of an event of ``subject``: mostly nothing or one word; of a virtual server one
    for each of its services."""
    match event:
        case Transition():
            return (_transition(event, subject),)
        case GroupTransition():
            state = "STOP" if event.state is State.INIT else str(event.state)
            return (
                Word(kind="GROUP", name=event.group, state=state, previous=str(event.previous)),
            )
        case AnotherMaster():
            return (_about(event.router, "MASTER_RX_LOWER_PRI", event.priority),)
        case PriorityChanged() if isinstance(subject, VRRPInstance):
            if subject.state not in (State.MASTER, State.BACKUP):
                return ()
            return (_about(event.router, f"{subject.state}_PRIORITY", event.priority),)
        case QuorumUp() | QuorumDown() if isinstance(subject, VirtualServer):
            state = "UP" if isinstance(event, QuorumUp) else "DOWN"
            return tuple(
                Word(kind="VS", name=_service(key), state=state, reason=str(event))
                for key in subject.services
            )
        case ServerUp() | ServerDown() if isinstance(subject, VirtualServer):
            return _server(event, subject)
        case _:
            return ()


def _transition(event: Transition, subject: object) -> Word:
    state = str(event.state)
    if event.state is State.INIT:
        deleted = isinstance(subject, VRRPInstance) and subject.deleted
        state = "DELETED" if deleted else "STOP"
    return Word(
        kind="INSTANCE",
        name=event.router,
        state=state,
        priority=event.priority,
        reason=", ".join([str(event.reason), *sorted(event.faults)]),
        previous=str(event.previous),
    )


def _about(router: str, state: str, priority: int) -> Word:
    return Word(kind="INSTANCE", name=router, state=state, priority=priority)


def _server(event: ServerUp | ServerDown, subject: VirtualServer) -> tuple[Word, ...]:
    endpoint = {status.name: status.endpoint for status in subject.servers}.get(event.server)
    if endpoint is None:
        return ()
    host, _, port = endpoint.rpartition(":")
    state = "UP" if isinstance(event, ServerUp) else "DOWN"
    reason = event.reason if isinstance(event, ServerDown) else ""
    found: list[Word] = []
    for key in subject.services:
        protocol = "" if key.protocol is None else key.protocol.value
        # Port 0 is that of the service.
        name = f"[{host.strip('[]')}]:{protocol}:{key.port if port == '0' else port}"
        found.append(Word(kind="RS", name=name, of=_service(key), state=state, reason=reason))
    return tuple(found)


def _service(key: ServiceKey) -> str:
    if key.fwmark:
        return f"FWM {key.fwmark}"
    assert key.protocol is not None
    return f"[{key.address}]:{key.protocol.value}:{key.port}"
