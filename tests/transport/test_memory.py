"""The link in memory: what crosses, when, and what becomes of the rest."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import attrs
import pytest

from vrrpkit.errors import ConfigError
from vrrpkit.testing.virtual import run_virtual, virtual_time
from vrrpkit.transport.base import Datagram, Membership, TransportLink
from vrrpkit.transport.memory import Conditions, Fate, Segment
from vrrpkit.values import IPAddress, Peer

GROUP = ip_address("224.0.0.18")
VRID = 51


def message(text: str = "", vrid: int = VRID) -> bytes:
    return bytes([0x31, vrid]) + text.encode()


@attrs.define(eq=False)
class Router:
    """Someone on the segment."""

    name: str
    port: TransportLink
    source: IPAddress
    heard: list[Datagram]

    @property
    def texts(self) -> list[str]:
        return [datagram.payload[2:].decode() for datagram in self.heard]

    @property
    def times(self) -> list[float]:
        return [round(datagram.received - 1000, 9) for datagram in self.heard]


class Receiver:
    def __init__(self) -> None:
        self.heard: list[Datagram] = []

    def received(self, datagram: Datagram) -> None:
        self.heard.append(datagram)

    def overflowed(self) -> None:
        raise AssertionError("memory loses nothing on this host")


def router(
    segment: Segment,
    name: str,
    *,
    vrid: int = VRID,
    group: IPAddress | None = GROUP,
    peers: tuple[str, ...] = (),
) -> Router:
    receiver = Receiver()
    source = ip_address(f"192.0.2.{ord(name) - 96}")
    membership = Membership(
        interface=name,
        ifindex=1,
        vrid=vrid,
        source=source,
        group=None if peers else group,
        peers=tuple(Peer(peer) for peer in peers),
    )
    port = segment.station(name).join(membership, receiver)
    return Router(name, port, source, receiver.heard)


def fates(segment: Segment) -> list[dict[str, Fate]]:
    return [crossing.fates for crossing in segment.record]


@virtual_time()
async def test_multicast_reaches_everybody_else_in_the_next_turn() -> None:
    segment = Segment()
    a, b, c = (router(segment, name) for name in "abc")
    a.port.send(message("hello"), GROUP)
    assert b.heard == []
    await asyncio.sleep(0)
    expected = [Datagram(message("hello"), a.source, GROUP, 255, 1000.0)]
    assert (a.heard, b.heard, c.heard) == ([], expected, expected)


@virtual_time()
async def test_the_order_is_kept() -> None:
    segment = Segment(conditions=Conditions(delay=1, jitter=10))
    a, b = router(segment, "a"), router(segment, "b")
    sent = [str(number) for number in range(100)]
    for text in sent:
        a.port.send(message(text), GROUP)
    await asyncio.sleep(20)
    assert b.texts == sent
    assert b.times[0] >= 1
    assert b.times[-1] <= 11


@virtual_time()
async def test_delay_is_exact() -> None:
    segment = Segment(conditions=Conditions(delay=0.25))
    a, b = router(segment, "a"), router(segment, "b")
    a.port.send(message(), GROUP)
    await asyncio.sleep(1)
    a.port.send(message(), GROUP)
    await asyncio.sleep(1)
    assert b.times == [0.25, 1.25]


@virtual_time()
async def test_other_groups_and_vrids_are_not_heard() -> None:
    segment = Segment()
    a = router(segment, "a")
    b = router(segment, "b", group=ip_address("224.0.0.99"))
    c = router(segment, "c", vrid=7)
    a.port.send(message(), GROUP)
    segment.station("a").send(b"\x31", a.source, GROUP)
    await asyncio.sleep(0)
    assert (b.heard, c.heard) == ([], [])
    assert fates(segment) == [{"b": Fate.IGNORED, "c": Fate.IGNORED}] * 2


@virtual_time()
async def test_unicast_reaches_the_peer_only() -> None:
    segment = Segment()
    a = router(segment, "a", peers=("192.0.2.2", "192.0.2.3"))
    b = router(segment, "b", peers=("192.0.2.1",))
    c = router(segment, "c", peers=("192.0.2.1",))
    a.port.send(message("one"), b.source)
    await asyncio.sleep(0)
    assert (b.texts, c.texts) == (["one"], [])
    assert b.heard[0].destination == b.source
    b.port.send(message("two"), a.source)
    a.port.send(message("three"), ip_address("192.0.2.99"))
    await asyncio.sleep(0)
    assert a.texts == ["two"]
    assert fates(segment) == [{"b": Fate.DELIVERED}, {"a": Fate.DELIVERED}, {}]


@virtual_time()
async def test_a_router_on_multicast_hears_no_unicast() -> None:
    segment = Segment()
    a, b = router(segment, "a", peers=("192.0.2.2",)), router(segment, "b")
    a.port.send(message(), b.source)
    await asyncio.sleep(0)
    assert b.heard == []


@virtual_time()
async def test_hops_lower_the_ttl() -> None:
    segment = Segment()
    a, b = router(segment, "a"), router(segment, "b")
    segment.between("a", "b", Conditions(hops=3), one_way=True)
    a.port.send(message(), GROUP)
    b.port.send(message(), GROUP)
    segment.station("a").send(message(), a.source, GROUP, 1)
    await asyncio.sleep(0)
    assert [datagram.ttl for datagram in (*b.heard, *a.heard)] == [252, 0, 255]


@virtual_time()
async def test_cut_and_heal() -> None:
    segment = Segment()
    a, b, c = (router(segment, name) for name in "abc")
    segment.cut("a", "b")
    segment.cut("c", "a", one_way=True)
    for each in (a, b, c):
        each.port.send(message(each.name), GROUP)
    await asyncio.sleep(0)
    assert (a.texts, b.texts, c.texts) == ([], ["c"], ["a", "b"])
    assert fates(segment)[0] == {"b": Fate.CUT, "c": Fate.DELIVERED}
    segment.heal("a", "b")
    for each in (a, b, c):
        each.port.send(message(each.name), GROUP)
    await asyncio.sleep(0)
    assert (a.texts, b.texts[1:]) == (["b"], ["a", "c"])
    segment.heal("a")
    c.port.send(message("c"), GROUP)
    await asyncio.sleep(0)
    assert a.texts == ["b", "c"]


@virtual_time()
async def test_healing_everything() -> None:
    segment = Segment()
    a, b = router(segment, "a"), router(segment, "b")
    segment.cut("a", "b")
    segment.heal()
    a.port.send(message(), GROUP)
    await asyncio.sleep(0)
    assert len(b.heard) == 1


@virtual_time()
async def test_unplugging_either_end() -> None:
    segment = Segment()
    a, b, c = (router(segment, name) for name in "abc")
    segment.unplug("b")
    a.port.send(message(), GROUP)
    b.port.send(message(), GROUP)
    await asyncio.sleep(0)
    assert (a.heard, b.heard, len(c.heard)) == ([], [], 1)
    assert fates(segment)[1] == {"a": Fate.UNPLUGGED, "c": Fate.UNPLUGGED}
    segment.plug("b")
    a.port.send(message(), GROUP)
    await asyncio.sleep(0)
    assert len(b.heard) == 1


@virtual_time()
async def test_what_is_under_way_when_the_cable_goes_is_gone() -> None:
    segment = Segment(conditions=Conditions(delay=1))
    a, b = router(segment, "a"), router(segment, "b")
    a.port.send(message(), GROUP)
    assert fates(segment) == [{"b": Fate.UNDER_WAY}]
    await asyncio.sleep(0.5)
    segment.unplug("a")
    await asyncio.sleep(1)
    assert b.heard == []
    assert fates(segment) == [{"b": Fate.UNPLUGGED}]


@virtual_time()
async def test_loss_follows_its_probability() -> None:
    segment = Segment(seed=1, conditions=Conditions(loss=0.3))
    a, b = router(segment, "a"), router(segment, "b")
    for _ in range(2000):
        a.port.send(message(), GROUP)
    await asyncio.sleep(0)
    assert 0.65 < len(b.heard) / 2000 < 0.75
    assert [fate["b"] for fate in fates(segment)].count(Fate.LOST) == 2000 - len(b.heard)


@virtual_time()
async def test_duplicates_and_overtaking() -> None:
    segment = Segment(seed=1, conditions=Conditions(duplication=0.2, reordering=0.2))
    a, b = router(segment, "a"), router(segment, "b")
    for number in range(100):
        a.port.send(message(str(number)), GROUP)
        await asyncio.sleep(0.001)
    await asyncio.sleep(1)
    assert 105 < len(b.heard) < 135
    assert {int(text) for text in b.texts} == set(range(100))
    assert b.texts != sorted(b.texts, key=int)
    assert Fate.DUPLICATED in {fate["b"] for fate in fates(segment)}


def test_equal_seeds_give_equal_runs() -> None:
    async def main(seed: int) -> list[Datagram]:
        rough = Conditions(loss=0.3, delay=0.1, jitter=0.2, duplication=0.1, reordering=0.2)
        segment = Segment(seed=seed, conditions=rough)
        a, b = router(segment, "a"), router(segment, "b")
        for number in range(200):
            a.port.send(message(str(number)), GROUP)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        return b.heard

    assert run_virtual(main(1)) == run_virtual(main(1)) != run_virtual(main(2))


@virtual_time()
async def test_pairs_may_fare_differently() -> None:
    segment = Segment()
    a, b, c = (router(segment, name) for name in "abc")
    segment.between("a", "b", Conditions(delay=1))
    a.port.send(message(), GROUP)
    b.port.send(message(), GROUP)
    await asyncio.sleep(2)
    assert (a.times, b.times, c.times) == ([1], [1], [0, 0])
    segment.between("a", "b", None)
    a.port.send(message(), GROUP)
    await asyncio.sleep(0)
    assert b.times == [1, 2]


@virtual_time()
async def test_a_closed_port_hears_nothing() -> None:
    segment = Segment()
    a, b = router(segment, "a"), router(segment, "b")
    a.port.send(message(), GROUP)
    b.port.close()
    b.port.close()
    await asyncio.sleep(0)
    assert b.heard == []
    assert fates(segment) == [{"b": Fate.IGNORED}]


@virtual_time()
async def test_a_receiver_may_close_another() -> None:
    segment = Segment()
    a, b, other = router(segment, "a"), router(segment, "b"), router(segment, "b")

    class Closing(Receiver):
        def received(self, datagram: Datagram) -> None:
            other.port.close()

    b.port.close()
    other.port.close()
    membership = Membership(interface="b", ifindex=1, vrid=VRID, source=b.source, group=GROUP)
    segment.station("b").join(membership, Closing())
    other = router(segment, "b")
    a.port.send(message(), GROUP)
    await asyncio.sleep(0)
    assert other.heard == []


@virtual_time()
async def test_draining_delivers_what_has_arrived() -> None:
    segment = Segment()
    a, b, c = (router(segment, name) for name in "abc")
    a.port.send(message(), GROUP)
    b.port.drain()
    assert (len(b.heard), len(c.heard)) == (1, 0)
    await asyncio.sleep(0)
    b.port.drain()
    assert (len(b.heard), len(c.heard)) == (1, 1)


@virtual_time()
async def test_a_frozen_station_keeps_what_arrives() -> None:
    segment = Segment()
    a, b = router(segment, "a"), router(segment, "b")
    station = segment.station("b")
    station.frozen = True
    a.port.send(message("1"), GROUP)
    await asyncio.sleep(5)
    a.port.send(message("2"), GROUP)
    await asyncio.sleep(5)
    assert b.heard == []
    station.frozen = False
    station.drain()
    assert (b.texts, b.times) == (["1", "2"], [10, 10])


@virtual_time()
async def test_announcements_are_on_record() -> None:
    segment = Segment()
    router(segment, "a")
    router(segment, "b")
    vip = ip_address("192.0.2.10")
    segment.station("a").announce([vip])
    await asyncio.sleep(0)
    (crossing,) = segment.record
    assert (crossing.sender, crossing.announced, crossing.time) == ("a", vip, 1000)
    assert crossing.fates == {"b": Fate.DELIVERED}


@virtual_time()
async def test_the_record_is_bounded() -> None:
    segment = Segment(record=3)
    a = router(segment, "a")
    for number in range(10):
        a.port.send(message(str(number)), GROUP)
    assert [crossing.payload for crossing in segment.record] == [message(t) for t in "789"]


def test_a_segment_outlives_a_loop() -> None:
    segment = Segment(conditions=Conditions(delay=1))
    heard: list[list[str]] = []

    async def main(text: str) -> None:
        a, b = router(segment, "a"), router(segment, "b")
        a.port.send(message(text), GROUP)
        await asyncio.sleep(1.5)
        a.port.send(message("lost with the loop"), GROUP)
        heard.append(b.texts)
        a.port.close()
        b.port.close()

    run_virtual(main("first"))
    run_virtual(main("second"))
    assert heard == [["first"], ["second"]]


@pytest.mark.parametrize(
    "wrong",
    [{"loss": 1.1}, {"loss": -0.1}, {"duplication": 2}, {"reordering": 2}, {"delay": -1}],
)
def test_impossible_conditions_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Conditions(**wrong)  # type: ignore[arg-type]
