"""The counters of one virtual router, under the names of RFC 8347 (ietf-vrrp), plus reasons per
peer. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict

import attrs

from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.events import Anomaly
from vrrpkit.vrrp.protocol.packet import ChecksumForm, RejectReason

__all__ = ["PeerCounters", "RateLimit", "RouterStatistics"]

PEER_LIMIT = 32
"""Peers that are counted one by one; the least recently heard ones share the entry ``None``."""


@attrs.define
class PeerCounters:
    """What came from one peer."""

    accepted: int = 0
    rejected: Counter[RejectReason] = attrs.field(factory=Counter[RejectReason])
    anomalies: Counter[Anomaly] = attrs.field(factory=Counter[Anomaly])
    checksum: ChecksumForm | None = None
    """The form of checksum that this peer was last accepted with."""


@attrs.define
class RouterStatistics:
    """Counts since the router was entered. Names follow RFC 8347 section 4 where it has one."""

    master_transitions: int = 0
    advertisement_rcvd: int = 0
    advertisement_sent: int = 0
    interval_errors: int = 0
    priority_zero_pkts_rcvd: int = 0
    priority_zero_pkts_sent: int = 0
    invalid_type_pkts_rcvd: int = 0
    address_list_errors: int = 0
    packet_length_errors: int = 0
    checksum_errors: int = 0
    version_errors: int = 0
    vrid_errors: int = 0
    ip_ttl_errors: int = 0
    send_errors: int = 0
    rejected: Counter[RejectReason] = attrs.field(factory=Counter[RejectReason])
    anomalies: Counter[Anomaly] = attrs.field(factory=Counter[Anomaly])
    peers: OrderedDict[IPAddress | None, PeerCounters] = attrs.field(
        factory=OrderedDict[IPAddress | None, PeerCounters]
    )

    def peer(self, source: IPAddress) -> PeerCounters:
        """The counts of one peer, made at need; at most :data:`PEER_LIMIT` are told apart."""
        counts = self.peers.get(source)
        if counts is None:
            if len(self.peers) >= PEER_LIMIT:
                self._merge_oldest()
            counts = self.peers[source] = PeerCounters()
        self.peers.move_to_end(source)
        return counts

    def _merge_oldest(self) -> None:
        oldest = next(source for source in self.peers if source is not None)
        gone = self.peers.pop(oldest)
        others = self.peers.setdefault(None, PeerCounters())
        others.accepted += gone.accepted
        others.rejected.update(gone.rejected)
        others.anomalies.update(gone.anomalies)

    def note_rejected(self, reason: RejectReason, source: IPAddress) -> None:
        """Count a dropped advert."""
        self.rejected[reason] += 1
        self.peer(source).rejected[reason] += 1
        name = _RFC8347.get(reason)
        if name is not None:
            setattr(self, name, getattr(self, name) + 1)

    def note_anomaly(self, anomaly: Anomaly, source: IPAddress) -> None:
        """Count something wrong with an accepted advert."""
        self.anomalies[anomaly] += 1
        self.peer(source).anomalies[anomaly] += 1
        if anomaly is Anomaly.INTERVAL:
            self.interval_errors += 1
        elif anomaly is Anomaly.ADDRESS_LIST:
            self.address_list_errors += 1


_RFC8347 = {
    RejectReason.PACKET_LENGTH: "packet_length_errors",
    RejectReason.TTL: "ip_ttl_errors",
    RejectReason.VERSION: "version_errors",
    RejectReason.TYPE: "invalid_type_pkts_rcvd",
    RejectReason.VRID: "vrid_errors",
    RejectReason.CHECKSUM: "checksum_errors",
    RejectReason.INTERVAL_ZERO: "interval_errors",
    RejectReason.INTERVAL_MISMATCH: "interval_errors",
    RejectReason.ADDRESS_LIST: "address_list_errors",
}


_FURTHER = object()


class RateLimit:
    """Lets one report a second through for each key, with the number that it stands for.

    What a peer can trigger must not become a flood of events: when more than ``limit`` keys are
    busy, the further ones share one report a second.
    """

    def __init__(self, period: float = 1.0, limit: int = 4 * PEER_LIMIT) -> None:
        self._period = period
        self._limit = limit
        self._seen: OrderedDict[object, tuple[float, int]] = OrderedDict()

    def report(self, key: object, now: float) -> int:
        """Count one more of ``key``; the number to report now, or 0 while it is too early."""
        if key not in self._seen and len(self._seen) >= self._limit:
            oldest = next(iter(self._seen))
            if now - self._seen[oldest][0] < self._period:
                key = _FURTHER
            else:
                del self._seen[oldest]
        last, count = self._seen.get(key, (float("-inf"), 0))
        if now - last < self._period:
            self._seen[key] = (last, count + 1)
            return 0
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        return count + 1
