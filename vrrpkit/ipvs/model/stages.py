"""Make before break, also where the kernel refuses to make. Pure.

A real server that replaces others may be refused: the sorry server, say, for an address that the
kernel does not take. So what takes servers away waits for the answers to what replaces them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from vrrpkit.ipvs.model.cache import subject
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    DeleteDestination,
    EditDestination,
    Operation,
    ServiceKey,
)

__all__ = ["held_back", "makes", "stages"]


def makes(operation: Operation) -> bool:
    """Whether an operation lets a real server serve."""
    if isinstance(operation, AddDestination | EditDestination):
        return operation.destination.weight > 0
    return False


def _breaks(operation: Operation) -> bool:
    """Whether an operation ends the service of a real server."""
    if isinstance(operation, EditDestination):
        return not operation.destination.weight
    return isinstance(operation, DeleteDestination)


def stages(
    operations: Sequence[Operation], served: Callable[[ServiceKey], bool]
) -> tuple[Sequence[Operation], Sequence[Operation]]:
    """What is to be carried out first, and what depends on the answers to that: whatever breaks in
    a service that has no other server than one that is made.

    :param served: whether a service has a server already that serves before and after.
    """
    breaking = {subject(operation)[0] for operation in operations if _breaks(operation)}
    making = breaking and {subject(operation)[0] for operation in operations if makes(operation)}
    both = {service for service in breaking & making if not served(service)}
    if not both:
        return operations, ()
    first: list[Operation] = []
    then: list[Operation] = []
    for operation in operations:
        waits = _breaks(operation) and subject(operation)[0] in both
        (then if waits else first).append(operation)
    return first, then


def held_back() -> OSError:
    """The answer for an operation that the table was not asked for."""
    return OSError(errno.EBUSY, "it serves on until what replaces it is accepted")
