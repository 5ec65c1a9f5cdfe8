"""What one router hears: the short way of a repetition, and what ends it."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from builders import PRIMARY, machine_config, options
from vrrpkit.transport.base import Datagram
from vrrpkit.vrrp.protocol.events import RouterEvent
from vrrpkit.vrrp.protocol.inputs import Input, Startup
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.packet import Advertisement, RejectReason, encode
from vrrpkit.vrrp.protocol.reporting import Reporter
from vrrpkit.vrrp.protocol.statistics import RouterStatistics
from vrrpkit.vrrp.receiver import AdvertReceiver

MASTER, GROUP = IPv4Address("192.0.2.2"), IPv4Address("224.0.0.18")
PAYLOAD = encode(
    Advertisement(
        version=3,
        vrid=51,
        priority=200,
        wire_interval=100,
        addresses=(IPv4Address("192.0.2.10"),),
    ),
    MASTER,
    GROUP,
)


class Backup:
    """A BACKUP that follows a master, whose advert came at 1 second."""

    def __init__(self) -> None:
        self.machine = Machine(machine_config())
        self.machine.handle(Startup(primary=PRIMARY), 0.0)
        self.statistics = RouterStatistics()
        self.told: list[RouterEvent] = []
        self.receiver = AdvertReceiver(
            self.machine,
            options().advert_validator(),
            self.statistics,
            Reporter("r", self.statistics, self.told.append),
            None,
            feed=self.feed,
            fail=self.fail,
            now=lambda: self.now,
        )
        self.now = 1.0
        assert self.hear(1.0) is None, "looked at in full"

    def feed(self, event: Input) -> None:
        self.receiver.forget()
        self.machine.handle(event, self.now)

    def fail(self, bug: BaseException) -> None:
        raise bug

    def hear(
        self,
        at: float,
        *,
        payload: bytes = PAYLOAD,
        source: IPv4Address = MASTER,
        destination: IPv4Address = GROUP,
        ttl: int = 255,
    ) -> object:
        self.now = at
        return self.receiver.received(Datagram(payload, source, destination, ttl, at))


def test_a_repetition_is_only_noted() -> None:
    backup = Backup()
    before = backup.machine.deadline
    assert backup.hear(2.0) is backup.receiver.repeats
    assert backup.machine.deadline == before, "until somebody asks"
    assert backup.hear(3.0) is backup.receiver.repeats
    backup.receiver.catch_up()
    assert backup.machine.deadline == pytest.approx((before or 0.0) + 2.0)
    assert backup.statistics.advertisement_rcvd == 3


@pytest.mark.parametrize("ttl", [254, 1, 0])
def test_the_same_octets_that_crossed_a_router_are_dropped(ttl: int) -> None:
    """GTSM (RFC 9568 section 5.1.1.3): else a stranger far away could keep a dead master alive."""
    backup = Backup()
    assert backup.hear(2.0) is backup.receiver.repeats
    backup.receiver.catch_up()
    before = backup.machine.deadline
    assert backup.hear(3.0, ttl=ttl) is None
    backup.receiver.catch_up()
    assert backup.machine.deadline == before
    assert backup.statistics.rejected == {RejectReason.TTL: 1}
    assert backup.receiver.repeats.ttl == 255, "what a transport compares"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": IPv4Address("192.0.2.3")}, RejectReason.CHECKSUM),
        ({"destination": IPv4Address("192.0.2.1")}, RejectReason.DESTINATION),
        ({"payload": PAYLOAD[:-1]}, RejectReason.PACKET_LENGTH),
    ],
)
def test_what_else_differs_is_looked_at_in_full(
    changes: dict[str, object], reason: RejectReason
) -> None:
    backup = Backup()
    before = backup.machine.deadline
    assert backup.hear(3.0, **changes) is None  # type: ignore[arg-type]
    backup.receiver.catch_up()
    assert backup.machine.deadline == before
    assert backup.statistics.rejected == {reason: 1}


def test_an_event_ends_the_short_way() -> None:
    backup = Backup()
    repeats = backup.receiver.repeats
    assert backup.hear(2.0) is repeats
    backup.receiver.overflowed()
    assert not repeats.live
    assert backup.hear(3.0) is None, "in full again"
    assert backup.hear(4.0) is backup.receiver.repeats is not repeats
