"""What the keeper does in one pass over its claims."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from vrrpkit.ipvs.claim import ServiceClaim
from vrrpkit.ipvs.model.cache import Subject
from vrrpkit.ipvs.model.entries import Operation, ServiceKey

__all__ = ["Answers", "Pass"]

Answers: TypeAlias = list[tuple[Operation, OSError | None]]
"""Operations, and how each of them ended."""


@attrs.frozen
class Pass:
    """One pass over the claims, frozen before the table is asked."""

    fresh: bool
    """The table was read right before."""
    epochs: dict[ServiceClaim, int]
    claims: dict[ServiceKey, ServiceClaim]
    """Whom an operation concerns, by its service."""
    wished: set[ServiceKey]
    """Services of which anything may have been wished since the last pass."""
    expected: set[Subject]
    """Real servers of the others that were wished otherwise."""
    operations: list[Operation]

    def foreseen(self, about: Subject) -> bool:
        """Whether a wish is why the table had to be changed there."""
        return about[0] in self.wished or about in self.expected
