"""Which events are changes of state, of which only the newest matters to who is late. Pure."""

from __future__ import annotations

from collections.abc import Hashable

from vrrpkit.ipvs.model.events import QuorumDown, QuorumUp, ServerDown, ServerUp
from vrrpkit.vrrp.protocol.events import Transition
from vrrpkit.vrrp.syncgroup import GroupTransition

__all__ = ["kind_of"]


def kind_of(event: object) -> Hashable | None:
    """What newer event may take the place of this one: of the same kind; ``None`` is none."""
    match event:
        case Transition():
            return ("state", event.router)
        case GroupTransition():
            return ("state of a group", event.group)
        case ServerUp() | ServerDown():
            return ("state of a server", event.virtual_server, event.server)
        case QuorumUp() | QuorumDown():
            return ("quorum", event.virtual_server)
        case _:
            return None
