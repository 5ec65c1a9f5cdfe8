"""Make before break, also where the kernel refuses to make. Pure.

A real server that replaces others may be refused: the sorry server, say, for an address that the
kernel does not take. So what takes servers away waits for the answers to what replaces them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from vrrpkit.ipvs.entries import (
    AddDestination,
    DeleteDestination,
    EditDestination,
    Operation,
    ServiceKey,
)
from vrrpkit.ipvs.mirror import subject

__all__ = ["breaks", "held_back", "makes", "stages"]


def makes(operation: Operation) -> bool:
    """Whether it lets a real server serve."""
    replaces = isinstance(operation, AddDestination | EditDestination)
    return replaces and operation.destination.weight > 0


def breaks(operation: Operation) -> bool:
    """Whether it keeps a real server from serving."""
    if isinstance(operation, EditDestination):
        return not operation.destination.weight
    return isinstance(operation, DeleteDestination)


def stages(operations: Sequence[Operation]) -> tuple[Sequence[Operation], Sequence[Operation]]:
    """What is to be carried out first, and what depends on the answers to that: whatever breaks in
    a service where something is made."""
    breaking = {subject(operation)[0] for operation in operations if breaks(operation)}
    making = breaking and _made_in(operations)
    both = breaking & making
    if not both:
        return operations, ()
    first: list[Operation] = []
    then: list[Operation] = []
    for operation in operations:
        waits = breaks(operation) and subject(operation)[0] in both
        (then if waits else first).append(operation)
    return first, then


def held_back() -> OSError:
    """The answer to what was not even asked for."""
    return OSError(errno.EBUSY, "it serves on until what replaces it is accepted")


def _made_in(operations: Iterable[Operation]) -> set[ServiceKey]:
    return {subject(operation)[0] for operation in operations if makes(operation)}
