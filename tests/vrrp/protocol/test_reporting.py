"""Everything is counted; one event a second of each kind."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address

from vrrpkit import HMACAuth, MemoryBus, State, VRRPInstance
from vrrpkit.errors import DecodeError
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.protocol.events import (
    AdvertAnomaly,
    AdvertRejected,
    Anomaly,
    AnotherMaster,
    ClockSkew,
    MasterChanged,
    ReceiveOverflow,
    RouterEvent,
    SendFailed,
    Stalled,
)
from vrrpkit.vrrp.protocol.packet import RejectReason
from vrrpkit.vrrp.protocol.reporting import Reporter
from vrrpkit.vrrp.protocol.statistics import RouterStatistics

PEER = ip_address("192.0.2.2")
AUTH = HMACAuth({1: bytes(range(32))}, active=1)


def test_one_event_a_second_says_how_many() -> None:
    told: list[RouterEvent] = []
    statistics = RouterStatistics()
    reporter = Reporter("web", statistics, told.append)
    problem = DecodeError(RejectReason.TTL, 3, 255)
    for at in (0.0, 0.2, 0.4, 1.1):
        reporter.rejected(problem, PEER, at)
    shared = {"router": "web", "reason": RejectReason.TTL, "peer": PEER, "got": "3", "want": "255"}
    assert told == [AdvertRejected(at=0.0, **shared), AdvertRejected(at=1.1, count=3, **shared)]
    assert statistics.rejected[RejectReason.TTL] == 4


def test_what_a_peer_can_make_the_machine_say_has_a_bounded_rate() -> None:
    told: list[RouterEvent] = []
    statistics = RouterStatistics()
    reporter = Reporter("web", statistics, told.append)
    for step in range(1000):
        at = step / 1000
        reporter.tell(AnotherMaster(router="web", at=at, peer=PEER, priority=50))
        reporter.tell(ReceiveOverflow(router="web", at=at))
        echo = Anomaly.DUPLICATE_ADDRESS
        reporter.tell(AdvertAnomaly(router="web", at=at, anomaly=echo, peer=PEER))
        peer = ip_address(f"192.0.2.{step % 200}")
        reporter.tell(MasterChanged(router="web", at=at, previous=PEER, master=peer, priority=9))
    kinds = Counter(type(notice) for notice in told)
    assert kinds == {AnotherMaster: 1, ReceiveOverflow: 1, AdvertAnomaly: 1, MasterChanged: 10}
    assert statistics.anomalies == {Anomaly.DUPLICATE_ADDRESS: 1000}
    told.clear()
    reporter.tell(AnotherMaster(router="web", at=1.0, peer=PEER, priority=50))
    reporter.tell(MasterChanged(router="web", at=1.0, previous=PEER, master=PEER, priority=9))
    reporter.tell(Stalled(router="web", at=1.0, seconds=4.0))
    assert [type(notice) for notice in told] == [AnotherMaster, MasterChanged, Stalled]
    assert told[0] == AnotherMaster(router="web", at=1.0, peer=PEER, priority=50, count=1000)


def test_who_else_claims_to_be_master() -> None:
    reporter = Reporter("web", RouterStatistics(), lambda _notice: None)
    assert reporter.contested(0.0, 5.0) is None
    reporter.rejected(DecodeError(RejectReason.VERSION, 2, 3), PEER, 1.0)
    reporter.rejected(DecodeError(RejectReason.OWN_SOURCE, PEER), ip_address("192.0.2.1"), 1.0)
    said = "192.0.2.2 claims it too: its adverts are rejected (version: got 2, want 3)"
    assert reporter.contested(6.0, 5.0) == said
    assert reporter.contested(6.1, 5.0) is None
    other = ip_address("192.0.2.3")
    reporter.tell(AnotherMaster(router="web", at=7.0, peer=other, priority=50))
    reporter.rejected(DecodeError(RejectReason.AUTH_FAILURE), PEER, 7.0)
    assert reporter.contested(7.0, 5.0) == (
        "192.0.2.3 claims it too, with priority 50; "
        "192.0.2.2 claims it too: its adverts are rejected (auth-failure)"
    )
    for number in range(100):
        source = ip_address(f"192.0.2.{100 + number}")
        reporter.rejected(DecodeError(RejectReason.TTL, 1, 255), source, 8.0)
    assert (reporter.contested(8.0, 5.0) or "").endswith("; and 28 more")


def test_a_clock_that_differs() -> None:
    told: list[RouterEvent] = []
    reporter = Reporter("web", RouterStatistics(), told.append)
    reporter.skewed(PEER, 3.5, 10.0)
    reporter.skewed(PEER, 3.6, 10.5)
    assert told == [ClockSkew(router="web", at=10.0, peer=PEER, seconds=3.5)]


def test_sending_fails() -> None:
    told: list[RouterEvent] = []
    statistics = RouterStatistics()
    reporter = Reporter("web", statistics, told.append)
    for at in (0.0, 0.5):
        reporter.send_failed(OSError("no buffer space"), at)
    assert told == [SendFailed(router="web", at=0.0, error="no buffer space")]
    assert statistics.send_errors == 2


def test_who_signs_is_verified() -> None:
    signed = VRRPInstanceConfig("web", "eth0", vrid=1, vips=["192.0.2.10"], auth=AUTH)
    assert signed.advert_validator().verifier is not None
    assert (
        VRRPInstanceConfig("web", "eth0", vrid=1, vips=["192.0.2.10"]).advert_validator().verifier
        is None
    )


@virtual_time()
async def test_signed_adverts_carry_a_failover() -> None:
    bus = MemoryBus()

    def router(name: str, address: str, priority: int, auth: HMACAuth | None) -> VRRPInstance:
        return VRRPInstance(
            name, bus.interface(address), vrid=1, vips=["192.0.2.10"], priority=priority, auth=auth
        )

    async with router("b", "192.0.2.2", 100, AUTH) as b:
        async with router("a", "192.0.2.1", 150, AUTH) as a:
            await a.wait_for(State.MASTER)
            await asyncio.sleep(4.5)
            assert (b.state, b.master) == (State.BACKUP, ip_address("192.0.2.1"))
            assert b.statistics.advertisement_rcvd == 5
            assert not b.statistics.rejected
        await b.wait_for(State.MASTER)
        async with router("stranger", "192.0.2.3", 200, None) as stranger:
            await stranger.wait_for(State.MASTER)
            await asyncio.sleep(1.5)
            # A master that cannot prove who it is takes nothing away, and both are told.
            assert b.state is State.MASTER
            assert b.statistics.rejected == {RejectReason.HMAC_MISSING: 2}
            assert stranger.statistics.rejected[RejectReason.PACKET_LENGTH] > 0
