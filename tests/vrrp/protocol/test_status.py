"""What a router and a group say of themselves, as JSON."""

from __future__ import annotations

import asyncio
import json
import time
from ipaddress import ip_address

from vrrpkit import MemoryBus, State, SyncGroup, TrackFunction, VRRPInstance
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.protocol.events import Anomaly, Transition, TransitionReason
from vrrpkit.vrrp.protocol.packet import ChecksumForm, RejectReason
from vrrpkit.vrrp.protocol.statistics import RouterStatistics
from vrrpkit.vrrp.protocol.status import statistics_of, text_of, transition_of


def test_counters_keep_their_names_and_reasons_are_text() -> None:
    counted = RouterStatistics(advertisement_sent=3)
    peer = ip_address("192.0.2.2")
    counted.note_rejected(RejectReason.VERSION, peer)
    counted.note_anomaly(Anomaly.INTERVAL, peer)
    counted.peer(peer).checksum = ChecksumForm.PSEUDO_HEADER
    for number in range(40):
        counted.note_rejected(RejectReason.TTL, ip_address(f"198.51.100.{number}"))
    status = json.loads(json.dumps(statistics_of(counted)))
    assert status["counters"]["advertisement_sent"] == 3
    assert status["counters"]["version_errors"] == 1
    assert status["rejected"] == {"version": 1, "ttl": 40}
    assert status["anomalies"] == {"interval": 1}
    assert status["peers"]["others"]["rejected"] == {"version": 1, "ttl": 8}
    assert status["peers"]["198.51.100.39"] == {
        "accepted": 0,
        "rejected": {"ttl": 1},
        "anomalies": {},
        "checksum": None,
    }
    fresh = RouterStatistics()
    fresh.peer(peer).checksum = ChecksumForm.PSEUDO_HEADER
    assert statistics_of(fresh)["peers"]["192.0.2.2"]["checksum"] == "pseudo-header"


def test_what_is_not_there_is_none() -> None:
    assert text_of(None) is None and transition_of(None) is None
    assert text_of(ip_address("2001:db8::1")) == "2001:db8::1"
    event = Transition(
        router="web",
        at=1.0,
        previous=State.MASTER,
        state=State.FAULT,
        reason=TransitionReason.FAULT,
        priority=100,
        faults=frozenset({"b", "a"}),
    )
    assert transition_of(event) == {
        "time": 0.0,
        "at": 1.0,
        "previous": "MASTER",
        "state": "FAULT",
        "reason": "fault",
        "priority": 100,
        "faults": ["a", "b"],
    }


@virtual_time()
async def test_a_router_from_before_its_start_to_after_its_end() -> None:
    bus = MemoryBus()

    async def good() -> bool:
        return True

    one = VRRPInstance(
        "web",
        bus.interface("192.0.2.1"),
        vrid=51,
        vips=["192.0.2.10/24"],
        track=[TrackFunction(good, weight=20)],
    )
    before = one.status()
    assert (before["state"], before["priority"], before["source"]) == ("INIT", 100, None)
    assert before["last_transition"] is None
    started = time.time()
    async with one:
        await one.wait_for(State.MASTER)
        status = json.loads(json.dumps(one.status()))
        last = status.pop("last_transition")
        counters = status.pop("statistics")["counters"]
        assert status == {
            "name": "web",
            "state": "MASTER",
            "why_not_master": None,
            "contested": None,
            "vrid": 51,
            "version": 3,
            "priority": 120,
            "configured_priority": 100,
            "virtual_addresses": ["192.0.2.10/24"],
            "source": "192.0.2.1",
            "master": "192.0.2.1",
            "master_priority": 120,
            "faults": [],
            "foreign_addresses": [],
            "signals": {"good": True},
        }
        assert (last["state"], last["reason"]) == ("MASTER", "no-response")
        assert started - 1 <= last["time"] <= time.time()
        assert counters["master_transitions"] == 1
        bus.unplug("192.0.2.1")
        await one.wait_for(State.FAULT)
        assert one.status()["faults"] == ["interface-down"]
    assert (one.status()["state"], one.status()["why_not_master"]) == ("INIT", "has ended")


@virtual_time()
async def test_a_group_has_its_members_in_it() -> None:
    bus = MemoryBus()
    members = [
        VRRPInstance(
            f"r{number}",
            bus.interface(f"192.0.2.{number}"),
            vrid=number,
            vips=[f"192.0.2.{number}0/24"],
        )
        for number in (1, 2)
    ]
    async with SyncGroup("gateway", members) as gateway:
        await gateway.wait_for(State.MASTER)
        await asyncio.sleep(1)
        status = json.loads(json.dumps(gateway.status()))
    assert (status["name"], status["state"], status["why_not_master"]) == (
        "gateway",
        "MASTER",
        None,
    )
    assert [(member["name"], member["state"]) for member in status["members"]] == [
        ("r1", "MASTER"),
        ("r2", "MASTER"),
    ]
