"""What scripts and the FIFO are told, in keepalived's words. Pure."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

from vrrpkit.ipvs.model.events import QuorumDown, QuorumUp, ServerDown, ServerUp
from vrrpkit.ipvs.server import VirtualServer
from vrrpkit.values import State
from vrrpkit.vrrp.instance import VRRPInstance
from vrrpkit.vrrp.protocol.events import AnotherMaster, PriorityChanged, Transition
from vrrpkit.vrrp.syncgroup import GroupTransition

__all__ = ["STATES", "Notification", "notification_of"]

QUOTE = '"'

LONGEST = 1000
"""Characters of a name in a line, so that the whole line fits into PIPE_BUF octets."""

STATES = frozenset({"MASTER", "BACKUP", "FAULT", "STOP", "DELETED", "UP", "DOWN"})


@attrs.frozen(kw_only=True)
class Notification:
    """One thing that has happened to one object."""

    kind: str
    """``INSTANCE``, ``GROUP``, ``VS`` (a virtual server), ``RS`` (a real server)."""
    name: str
    """Of an instance or group; else an endpoint such as ``[192.0.2.10]:tcp:80``, ``FWM 7`` of a
    firewall mark, or ``[web]:0`` of a virtual server of several services."""
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
        if self.kind in ("INSTANCE", "GROUP"):
            return f'{self.kind} "{_shown(self.name, QUOTE)}" {self.state} {self.priority}'
        return " ".join([self.kind, *map(_field, filter(None, (self.name, self.of))), self.state])

    @property
    def slot(self) -> Hashable:
        """What newer word may take the place of this one while it waits: the next state of the same
        object, or the same news of it."""
        return (self.kind, self.name, self.of, "" if self.state in STATES else self.state)


def _shown(text: str, but: str) -> str:
    return "".join(c if c.isprintable() and c not in but else "?" for c in text[:LONGEST])


def _field(name: str) -> str:
    # Fields are told apart by the space between them; keepalived's word for a mark has one inside.
    return name if name.startswith("FWM ") else _shown(name, ' "')


def notification_of(event: object, subject: object) -> Notification | None:
    """What to tell of an event of ``subject``; ``None`` is nothing."""
    match event:
        case Transition():
            return _transition(event, subject)
        case GroupTransition():
            state = "STOP" if event.state is State.INIT else str(event.state)
            return Notification(
                kind="GROUP", name=event.group, state=state, previous=str(event.previous)
            )
        case AnotherMaster():
            return _about(event.router, "MASTER_RX_LOWER_PRI", event.priority)
        case PriorityChanged() if isinstance(subject, VRRPInstance):
            if subject.state not in (State.MASTER, State.BACKUP):
                return None
            return _about(event.router, f"{subject.state}_PRIORITY", event.priority)
        case QuorumUp() | QuorumDown() if isinstance(subject, VirtualServer):
            state = "UP" if isinstance(event, QuorumUp) else "DOWN"
            return Notification(kind="VS", name=_virtual(subject), state=state, reason=str(event))
        case ServerUp() | ServerDown() if isinstance(subject, VirtualServer):
            return _server(event, subject)
        case _:
            return None


def _transition(event: Transition, subject: object) -> Notification:
    state = str(event.state)
    if event.state is State.INIT:
        deleted = isinstance(subject, VRRPInstance) and subject.deleted
        state = "DELETED" if deleted else "STOP"
    return Notification(
        kind="INSTANCE",
        name=event.router,
        state=state,
        priority=event.priority,
        reason=", ".join([str(event.reason), *sorted(event.faults)]),
        previous=str(event.previous),
    )


def _about(router: str, state: str, priority: int) -> Notification:
    return Notification(kind="INSTANCE", name=router, state=state, priority=priority)


def _server(event: ServerUp | ServerDown, subject: VirtualServer) -> Notification | None:
    endpoint = subject.endpoint_of(event.server)
    if endpoint is None:
        return None
    host, _, port = endpoint.rpartition(":")
    services = subject.services
    if port == "0" and len(services) == 1:
        # It is that of the service.
        port = str(services[0].port)
    protocol = next((key.protocol.value for key in services if key.protocol is not None), "none")
    return Notification(
        kind="RS",
        name=f"[{host.strip('[]')}]:{protocol}:{port}",
        of=_virtual(subject),
        state="UP" if isinstance(event, ServerUp) else "DOWN",
        reason=event.reason if isinstance(event, ServerDown) else "",
    )


def _virtual(subject: VirtualServer) -> str:
    """How a virtual server is called: by its service, or if it has several by its name, as
    keepalived calls a ``virtual_server_group``."""
    key, *others = subject.services
    if others:
        return f"[{subject.name}]:0"
    if key.protocol is None:
        return f"FWM {key.fwmark}"
    return f"[{key.address}]:{key.protocol.value}:{key.port}"
