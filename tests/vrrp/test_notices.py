"""What users are told, in words."""

from __future__ import annotations

from vrrpkit.values import State
from vrrpkit.vrrp.notices import Transition, TransitionReason


def test_a_transition_in_words() -> None:
    change = Transition(
        router="web",
        at=1.0,
        previous=State.MASTER,
        state=State.FAULT,
        reason=TransitionReason.FAULT,
        priority=100,
        faults=frozenset({"link", "carrier"}),
    )
    assert str(change) == "web: MASTER -> FAULT: fault (carrier, link)"


def test_without_faults() -> None:
    change = Transition(
        router="web",
        at=1.0,
        previous=State.BACKUP,
        state=State.MASTER,
        reason=TransitionReason.NO_RESPONSE,
        priority=100,
    )
    assert str(change) == "web: BACKUP -> MASTER: no-response"
