"""Everything is counted; one event a second of each kind."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from vrrpkit import HMACAuth, MemoryBus, State, VRRPInstance
from vrrpkit.errors import DecodeError
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.notices import AdvertRejected, ClockSkew, Notice, SendFailed
from vrrpkit.vrrp.options import Options
from vrrpkit.vrrp.packet import RejectReason
from vrrpkit.vrrp.receive import Inspector
from vrrpkit.vrrp.reporter import Reporter
from vrrpkit.vrrp.statistics import Statistics

PEER = ip_address("192.0.2.2")
AUTH = HMACAuth({1: bytes(range(32))}, active=1)


def test_one_event_a_second_says_how_many() -> None:
    told: list[Notice] = []
    statistics = Statistics()
    reporter = Reporter("web", statistics, told.append)
    problem = DecodeError(RejectReason.TTL, 3, 255)
    for at in (0.0, 0.2, 0.4, 1.1):
        reporter.rejected(problem, PEER, at)
    shared = {"router": "web", "reason": RejectReason.TTL, "peer": PEER, "got": "3", "want": "255"}
    assert told == [AdvertRejected(at=0.0, **shared), AdvertRejected(at=1.1, count=3, **shared)]
    assert statistics.rejected[RejectReason.TTL] == 4


def test_a_clock_that_differs() -> None:
    told: list[Notice] = []
    reporter = Reporter("web", Statistics(), told.append)
    reporter.skewed(PEER, 3.5, 10.0)
    reporter.skewed(PEER, 3.6, 10.5)
    assert told == [ClockSkew(router="web", at=10.0, peer=PEER, seconds=3.5)]


def test_sending_fails() -> None:
    told: list[Notice] = []
    statistics = Statistics()
    reporter = Reporter("web", statistics, told.append)
    for at in (0.0, 0.5):
        reporter.send_failed(OSError("no buffer space"), at)
    assert told == [SendFailed(router="web", at=0.0, error="no buffer space")]
    assert statistics.send_errors == 2


def test_who_signs_is_verified() -> None:
    signed = Options(name="web", vrid=1, vips=["192.0.2.10"], auth=AUTH)
    assert Inspector.of(signed).verifier is not None
    assert Inspector.of(Options(name="web", vrid=1, vips=["192.0.2.10"])).verifier is None


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
