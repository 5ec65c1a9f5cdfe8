"""What users are told, in words."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any, get_args

import pytest

from vrrpkit.values import State
from vrrpkit.vrrp.protocol import events
from vrrpkit.vrrp.protocol.events import Anomaly, Transition, TransitionReason
from vrrpkit.vrrp.protocol.packet import RejectReason

PEER = IPv4Address("192.0.2.2")
VIP = IPv4Address("192.0.2.10")
REJECTED = {"reason": RejectReason.INTERVAL_MISMATCH, "peer": PEER}
UNUSUAL = {"anomaly": Anomaly.INTERVAL, "peer": PEER}

FOREIGN: dict[str, Any] = {"address": VIP, "prefix": 24, "device": "eth0"}
SAID: list[tuple[type[Any], dict[str, Any], str]] = [
    (
        events.MasterChanged,
        {"previous": None, "master": PEER, "priority": 90},
        "follows 192.0.2.2, priority 90",
    ),
    (
        events.MasterChanged,
        {"previous": VIP, "master": PEER, "priority": 90},
        "follows 192.0.2.2, priority 90, no longer 192.0.2.10",
    ),
    (
        events.AnotherMaster,
        {"peer": PEER, "priority": 90},
        "192.0.2.2 is MASTER too, with priority 90",
    ),
    (
        events.AnotherMaster,
        {"peer": PEER, "priority": 90, "count": 3},
        "192.0.2.2 is MASTER too, with priority 90 (3 times)",
    ),
    (
        events.AdvertRejected,
        REJECTED,
        "rejected an advert from 192.0.2.2: interval-mismatch",
    ),
    (
        events.AdvertRejected,
        REJECTED | {"got": "2 s", "want": "1 s", "count": 7},
        "rejected an advert from 192.0.2.2: interval-mismatch, got 2 s, want 1 s (7 times): "
        "say interval=2, or 'advert_int 1' there",
    ),
    (
        events.AdvertAnomaly,
        UNUSUAL | {"got": "2 s", "want": "1 s"},
        "accepted an advert from 192.0.2.2: interval, got 2 s, want 1 s",
    ),
    (events.PriorityChanged, {"previous": 100, "priority": 80}, "priority 80, no longer 100"),
    (events.FaultsChanged, {"faults": frozenset({"b", "a"})}, "faults: a, b"),
    (events.FaultsChanged, {"faults": frozenset()}, "faults: none"),
    (events.Stalled, {"seconds": 1.23456}, "this process stood still for 1.23 s"),
    (events.ReceiveOverflow, {}, "the kernel dropped adverts; all deadlines start again"),
    (
        events.AddressLost,
        {"address": VIP, "action": "reinstated"},
        "somebody removed 192.0.2.10: reinstated",
    ),
    (
        events.AddressLost,
        {"address": VIP, "action": "checked again", "duplicate": True},
        "somebody else on the link has 192.0.2.10: checked again",
    ),
    (
        events.RouteLost,
        {"route": "route default via 192.0.2.2", "action": "ignored"},
        "somebody removed route default via 192.0.2.2: ignored",
    ),
    (events.AddressesInPlace, {}, "all addresses are in place"),
    (
        events.AddressesRefused,
        {"failures": ("a: no", "b: no"), "retry_in": 5.0},
        "the kernel refused a: no; b: no; tries again in 5 s",
    ),
    (
        events.ForeignAddress,
        {
            "address": VIP,
            "prefix": 24,
            "device": "eth0",
            "state": State.BACKUP,
            "action": "removed",
        },
        "192.0.2.10/24 is on eth0, where somebody else put it, and this router is BACKUP: removed",
    ),
    (
        events.ForeignAddress,
        {
            "address": VIP,
            "prefix": 24,
            "device": "eth0",
            "state": State.FAULT,
            "action": "left there",
        },
        "192.0.2.10/24 is on eth0, where somebody else put it, and this router is FAULT: left "
        "there; remove it ('ip address delete 192.0.2.10/24 dev eth0', or "
        'foreign_address="remove")',
    ),
    (
        events.SendFailed,
        {"error": "Network is down", "count": 3},
        "an advert could not be sent: Network is down (3 times)",
    ),
    (
        events.ClockSkew,
        {"peer": PEER, "seconds": -3.0},
        "the clock of 192.0.2.2 differs by -3 s: its signed adverts are soon refused",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "words"), SAID)
def test_in_words(kind: type[Any], fields: dict[str, Any], words: str) -> None:
    assert str(kind(router="web", at=1.0, **fields)) == f"web: {words}"


def test_every_event_has_words() -> None:
    assert all("__str__" in vars(kind) for kind in get_args(events.RouterEvent))


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
