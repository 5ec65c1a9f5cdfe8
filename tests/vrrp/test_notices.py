"""What users are told, in words."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any, get_args

import pytest

from vrrpkit.values import State
from vrrpkit.vrrp import notices
from vrrpkit.vrrp.notices import Anomaly, Transition, TransitionReason
from vrrpkit.vrrp.packet import RejectReason

PEER = IPv4Address("192.0.2.2")
VIP = IPv4Address("192.0.2.10")
REJECTED = {"reason": RejectReason.INTERVAL_MISMATCH, "peer": PEER}
UNUSUAL = {"anomaly": Anomaly.INTERVAL, "peer": PEER}

FOREIGN: dict[str, Any] = {"address": VIP, "prefix": 24, "device": "eth0"}
SAID: list[tuple[type[Any], dict[str, Any], str]] = [
    (
        notices.MasterChanged,
        {"previous": None, "master": PEER, "priority": 90},
        "follows 192.0.2.2, priority 90",
    ),
    (
        notices.MasterChanged,
        {"previous": VIP, "master": PEER, "priority": 90},
        "follows 192.0.2.2, priority 90, no longer 192.0.2.10",
    ),
    (
        notices.AnotherMaster,
        {"peer": PEER, "priority": 90},
        "192.0.2.2 is MASTER too, with priority 90",
    ),
    (
        notices.AnotherMaster,
        {"peer": PEER, "priority": 90, "count": 3},
        "192.0.2.2 is MASTER too, with priority 90 (3 times)",
    ),
    (
        notices.AdvertRejected,
        REJECTED,
        "rejected an advert from 192.0.2.2: interval-mismatch",
    ),
    (
        notices.AdvertRejected,
        REJECTED | {"got": "2 s", "want": "1 s", "count": 7},
        "rejected an advert from 192.0.2.2: interval-mismatch, got 2 s, want 1 s (7 times): "
        "say interval=2, or 'advert_int 1' there",
    ),
    (
        notices.AdvertAnomaly,
        UNUSUAL | {"got": "2 s", "want": "1 s"},
        "accepted an advert from 192.0.2.2: interval, got 2 s, want 1 s",
    ),
    (notices.PriorityChanged, {"previous": 100, "priority": 80}, "priority 80, no longer 100"),
    (notices.FaultsChanged, {"faults": frozenset({"b", "a"})}, "faults: a, b"),
    (notices.FaultsChanged, {"faults": frozenset()}, "faults: none"),
    (notices.Stalled, {"seconds": 1.23456}, "this process stood still for 1.23 s"),
    (notices.Deaf, {}, "the kernel dropped adverts; all deadlines start again"),
    (
        notices.AddressLost,
        {"address": VIP, "action": "reinstated"},
        "somebody removed 192.0.2.10: reinstated",
    ),
    (
        notices.AddressLost,
        {"address": VIP, "action": "checked again", "duplicate": True},
        "somebody else on the link has 192.0.2.10: checked again",
    ),
    (
        notices.RouteLost,
        {"route": "route default via 192.0.2.2", "action": "ignored"},
        "somebody removed route default via 192.0.2.2: ignored",
    ),
    (notices.AddressesInPlace, {}, "all addresses are in place"),
    (
        notices.AddressesRefused,
        {"failures": ("a: no", "b: no"), "retry_in": 5.0},
        "the kernel refused a: no; b: no; tries again in 5 s",
    ),
    (
        notices.ForeignAddress,
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
        notices.ForeignAddress,
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
        notices.SendFailed,
        {"error": "Network is down", "count": 3},
        "an advert could not be sent: Network is down (3 times)",
    ),
    (
        notices.ClockSkew,
        {"peer": PEER, "seconds": -3.0},
        "the clock of 192.0.2.2 differs by -3 s: its signed adverts are soon refused",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "words"), SAID)
def test_in_words(kind: type[Any], fields: dict[str, Any], words: str) -> None:
    assert str(kind(router="web", at=1.0, **fields)) == f"web: {words}"


def test_every_event_has_words() -> None:
    assert all("__str__" in vars(kind) for kind in get_args(notices.Notice))


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
