"""Counters under the names of RFC 8347, per reason and peer, and reports that cannot flood."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
import pytest

from vrrpkit.vrrp.protocol.events import Anomaly
from vrrpkit.vrrp.protocol.packet import RejectReason
from vrrpkit.vrrp.protocol.statistics import PEER_LIMIT, RateLimit, RouterStatistics

PEER = ip_address("192.0.2.2")

RFC8347 = {
    "master_transitions",
    "advertisement_rcvd",
    "advertisement_sent",
    "interval_errors",
    "priority_zero_pkts_rcvd",
    "priority_zero_pkts_sent",
    "invalid_type_pkts_rcvd",
    "address_list_errors",
    "packet_length_errors",
    "checksum_errors",
    "version_errors",
    "vrid_errors",
    "ip_ttl_errors",
}


def test_the_names_of_rfc_8347() -> None:
    assert set(attrs.fields_dict(RouterStatistics)) >= RFC8347


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (RejectReason.PACKET_LENGTH, "packet_length_errors"),
        (RejectReason.TTL, "ip_ttl_errors"),
        (RejectReason.VERSION, "version_errors"),
        (RejectReason.TYPE, "invalid_type_pkts_rcvd"),
        (RejectReason.VRID, "vrid_errors"),
        (RejectReason.CHECKSUM, "checksum_errors"),
        (RejectReason.INTERVAL_ZERO, "interval_errors"),
        (RejectReason.INTERVAL_MISMATCH, "interval_errors"),
        (RejectReason.ADDRESS_LIST, "address_list_errors"),
        (RejectReason.OWNER, None),
    ],
)
def test_rejections(reason: RejectReason, name: str | None) -> None:
    statistics = RouterStatistics()
    statistics.note_rejected(reason, PEER)
    counted = {field for field in RFC8347 if getattr(statistics, field)}
    assert counted == ({name} if name else set())
    assert statistics.rejected == statistics.peers[PEER].rejected == {reason: 1}


@pytest.mark.parametrize(
    ("anomaly", "name"),
    [
        (Anomaly.INTERVAL, "interval_errors"),
        (Anomaly.ADDRESS_LIST, "address_list_errors"),
        (Anomaly.ANOTHER_OWNER, None),
    ],
)
def test_anomalies(anomaly: Anomaly, name: str | None) -> None:
    statistics = RouterStatistics()
    statistics.note_anomaly(anomaly, PEER)
    counted = {field for field in RFC8347 if getattr(statistics, field)}
    assert counted == ({name} if name else set())
    assert statistics.anomalies == statistics.peers[PEER].anomalies == {anomaly: 1}


def test_peers_are_limited() -> None:
    statistics = RouterStatistics()
    peers = [PEER + n for n in range(PEER_LIMIT + 3)]
    for peer in peers[:PEER_LIMIT]:
        statistics.peer(peer).accepted += 1
        statistics.note_rejected(RejectReason.TTL, peer)
    statistics.peer(peers[0]).accepted += 1
    assert None not in statistics.peers
    for peer in peers[PEER_LIMIT:]:
        statistics.note_anomaly(Anomaly.INTERVAL, peer)
    others = statistics.peers[None]
    assert others.accepted == 3
    assert others.rejected == {RejectReason.TTL: 3}
    assert len(statistics.peers) == PEER_LIMIT + 1
    assert statistics.peers[peers[0]].accepted == 2
    assert not set(peers[1:4]) & set(statistics.peers)


def test_a_tally_reports_once_a_second() -> None:
    tally = RateLimit()
    assert [tally.report("a", now / 4) for now in range(10)] == [1, 0, 0, 0, 4, 0, 0, 0, 4, 0]
    assert tally.report("b", 2.25) == 1


def test_a_tally_forgets_the_oldest_key() -> None:
    tally = RateLimit(limit=2)
    assert [tally.report(key, 0.0) for key in ("a", "b")] == [1, 1]
    assert tally.report("c", 1.0) == 1
    assert tally.report("b", 1.5) == 1


def test_keys_that_a_stranger_makes_up_are_no_way_to_flood() -> None:
    tally = RateLimit(limit=4)
    reports = [tally.report(key, 5.0 + key / 1000) for key in range(1000)]
    assert sum(1 for count in reports if count) == 5
    assert tally.report("another", 6.5) == 1
