"""The interfaces that a router's addresses and routes are on, besides its own; and links that count
as up, or down, after a delay."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import attrs
import pytest

from vrrp.routers import VIP as ADDRESS, adverts, mastering, router
from vrrpkit import VIP, ConfigError, MemoryBus, Route, State, SyncGroup, VRRPInstance
from vrrpkit.errors import SourceMissing
from vrrpkit.host.base import Link
from vrrpkit.host.memory.bus import MemoryInterface
from vrrpkit.routes import NextHop
from vrrpkit.testing import virtual_time

BACKUP, MASTER, FAULT = State.BACKUP, State.MASTER, State.FAULT
ELSEWHERE = "198.51.100.10"


def vanish(interface: MemoryInterface) -> None:
    """As when somebody removes it from its machine."""

    class Gone(MemoryInterface):
        @property
        def link(self) -> Link | None:  # type: ignore[override]
            return None

    interface.__class__ = Gone
    interface.set_carrier(False)


def reappear(interface: MemoryInterface) -> None:
    interface.__class__ = MemoryInterface
    interface.set_carrier(True)


def pair(bus: MemoryBus, **options: Any) -> tuple[VRRPInstance, VRRPInstance]:
    return (
        router(bus, "a", **options),
        router(bus, "b", "192.0.2.2", **(options | {"priority": 100})),
    )


ON_ANOTHER: list[dict[str, Any]] = [
    {"vips": [VIP(f"{ELSEWHERE}/32", dev="eth1")]},
    {"excluded_vips": [VIP("2001:db8::10/128", dev="eth1")]},
    {"routes": ["10.0.0.0/8 via 198.51.100.1 dev eth1"]},
    {"routes": ["10.0.0.0/8 nexthop via 198.51.100.1 dev eth1 nexthop dev eth1 weight 2"]},
]


@pytest.mark.parametrize("options", ON_ANOTHER, ids=["VIP", "excluded", "route", "nexthops"])
@virtual_time()
async def test_a_device_that_goes_down_hands_over(options: dict[str, Any]) -> None:
    bus = MemoryBus()
    a, b = pair(bus, **options)
    async with a, b:
        await mastering(a)
        device = bus.interface("192.0.2.1").device("eth1")
        device.set_carrier(False)
        assert (a.state, a.faults) == (FAULT, {"interface-down:eth1"})
        assert adverts(bus)[-1][1] == 0
        await b.wait_for(MASTER)
        await asyncio.sleep(1)
        for vip in a.config.all_vips:
            assert bus.owners(vip.address) == ["192.0.2.2"]
        device.set_carrier(True)
        await mastering(a)


@virtual_time()
async def test_a_device_that_vanishes_hands_over() -> None:
    bus = MemoryBus()
    a, b = pair(bus, vips=[VIP(ELSEWHERE, dev="eth1")])
    async with a, b:
        await mastering(a)
        device = bus.interface("192.0.2.1").device("eth1")
        vanish(device)
        assert (a.state, a.faults) == (FAULT, {"interface-missing:eth1"})
        await b.wait_for(MASTER)
        reappear(device)
        assert a.state is BACKUP


@virtual_time()
async def test_a_device_that_is_down_at_the_start_is_a_fault() -> None:
    bus = MemoryBus()
    bus.interface("192.0.2.1").device("eth1").set_carrier(False)
    async with router(bus, vips=[VIP(ELSEWHERE, dev="eth1")]) as a:
        assert (a.state, a.faults) == (FAULT, {"interface-down:eth1"})


@pytest.mark.parametrize(
    "options",
    [
        {"excluded_vips": [VIP(ELSEWHERE, dev="eth1", track=False)]},
        {"routes": ["10.0.0.0/8 dev eth1 no_track"]},
        {"routes": [Route("10.0.0.0/8", dev="eth1", track=False)]},
        {"routes": ["10.0.0.0/8 nexthop dev eth1 nexthop dev eth2"]},
        {"routes": ["10.0.0.0/8 nexthop dev eth1 nexthop via 192.0.2.254"]},
        {"routes": ["blackhole 10.0.0.0/8", "10.1.0.0/16 via 192.0.2.254"]},
    ],
    ids=["VIP", "text", "route", "another way", "by gateway", "nowhere"],
)
@virtual_time()
async def test_what_is_not_tracked_makes_no_fault(options: dict[str, Any]) -> None:
    bus = MemoryBus()
    async with router(bus, **options) as a:
        await mastering(a)
        bus.interface("192.0.2.1").device("eth1").set_carrier(False)
        await asyncio.sleep(20)
        assert a.state is MASTER


@virtual_time()
async def test_an_untracked_address_waits_for_its_interface() -> None:
    bus = MemoryBus()
    six = VIP("2001:db8::10/128", dev="eth1", track=False)
    async with router(bus, excluded_vips=[six], on_address_lost="step_down") as a:
        await mastering(a)
        device = bus.interface("192.0.2.1").device("eth1")
        # As the kernel does with IPv6 addresses.
        device.carrier = False
        device.delete("2001:db8::10")
        await asyncio.sleep(5)
        assert a.state is MASTER and not device.holds(six.address)
        device.set_carrier(True)
        await asyncio.sleep(0.1)
        assert a.state is MASTER and device.holds(six.address)
        device.delete("2001:db8::10")
        assert a.state is BACKUP


@virtual_time()
async def test_the_machine_has_the_address_where_the_router_put_it() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.1")
    async with router(bus, vips=[VIP(f"{ELSEWHERE}/32", dev="eth1")]) as a:
        await mastering(a)
        assert [str(each) for each in host.device("eth1").manager.table] == [f"{ELSEWHERE}/32"]
        assert bus.owner(ELSEWHERE) == "192.0.2.1"
        assert host.device("eth1") is host.device("eth1")
        assert host.device(host.name) is host
    assert bus.owner(ELSEWHERE) is None


@virtual_time()
async def test_with_a_virtual_mac() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.1")
    vips = [VIP(ADDRESS), VIP(ELSEWHERE, dev="eth1")]
    async with router(bus, vips=vips, virtual_mac=True) as a:
        await mastering(a)
        assert host.device("eth1").holds(vips[1].address)
        assert host.device("vrrp.51").holds(vips[0].address)
        host.device("eth1").set_carrier(False)
        assert a.faults == {"interface-down:eth1"}
    assert not host.device("eth1").manager.table


@virtual_time()
async def test_one_link_local_address_on_several_interfaces() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.1")
    local = ip_address("fe80::100")
    places = [VIP("fe80::100/64", dev=dev) for dev in (None, "eth1", "eth2")]
    async with router(bus, excluded_vips=places) as a:
        await mastering(a)
        devices = [host, host.device("eth1"), host.device("eth2")]
        assert [local in {e.ip for e in d.manager.table} for d in devices] == [True] * 3
        host.device("eth1").delete(local)
        await asyncio.sleep(0.1)
        assert a.state is MASTER and host.device("eth1").holds(local)
    assert not host.holds(local)


@virtual_time()
async def test_an_address_on_several_interfaces_is_announced_once() -> None:
    bus = MemoryBus()
    vips = [VIP("fe80::100/64", dev=dev) for dev in ("eth1", "eth2")]
    b = router(bus, "b", "192.0.2.2", vips=vips, priority=100)
    async with router(bus, vips=vips) as a, b:
        await mastering(a)
        payload = next(each.payload for each in bus.record if each.payload)
        assert payload[3] == 1 and len(payload) == 8 + 16
        assert b.state is BACKUP and not b.statistics.anomalies


@virtual_time()
async def test_the_own_interface_by_name_is_the_same_place() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.1")
    with pytest.raises(ConfigError, match="named twice: mem1 is where"):
        async with router(bus, excluded_vips=["192.0.2.11", VIP("192.0.2.11", dev=host.name)]):
            pass


class TestLinkDelays:
    @virtual_time()
    async def test_a_link_that_comes_up_does_not_count_at_once(self) -> None:
        bus = MemoryBus()
        a, b = pair(bus, link_up_delay=10)
        async with a, b:
            await mastering(a)
            bus.unplug("192.0.2.1")
            assert a.state is FAULT
            await asyncio.sleep(5)
            bus.plug("192.0.2.1")
            await asyncio.sleep(9.99)
            assert a.state is FAULT
            await asyncio.sleep(0.02)
            assert a.state is BACKUP
            await mastering(a)

    @virtual_time()
    async def test_a_short_loss_of_carrier_is_none(self) -> None:
        bus = MemoryBus()
        async with router(bus, link_down_delay=2) as a:
            await mastering(a)
            bus.unplug("192.0.2.1")
            await asyncio.sleep(1.99)
            bus.plug("192.0.2.1")
            await asyncio.sleep(10)
            assert a.state is MASTER
            bus.unplug("192.0.2.1")
            await asyncio.sleep(1.99)
            assert a.state is MASTER
            await asyncio.sleep(0.02)
            assert (a.state, a.faults) == (FAULT, {"interface-down"})

    @virtual_time()
    async def test_a_start_is_not_delayed(self) -> None:
        bus = MemoryBus()
        async with router(bus, link_up_delay=100, link_down_delay=100) as a:
            assert a.state is BACKUP
        bus.unplug("192.0.2.1")
        async with router(bus, link_up_delay=100, link_down_delay=100) as a:
            assert a.state is FAULT

    @virtual_time()
    async def test_devices_are_delayed_too(self) -> None:
        bus = MemoryBus()
        vips = [VIP(ELSEWHERE, dev="eth1")]
        async with router(bus, vips=vips, link_up_delay=3, link_down_delay=1) as a:
            await mastering(a)
            device = bus.interface("192.0.2.1").device("eth1")
            device.set_carrier(False)
            await asyncio.sleep(0.9)
            assert a.state is MASTER
            await asyncio.sleep(0.2)
            assert a.faults == {"interface-down:eth1"}
            device.set_carrier(True)
            await asyncio.sleep(2.9)
            assert a.state is FAULT
            await asyncio.sleep(0.2)
            assert a.state is BACKUP

    @virtual_time()
    async def test_addresses_that_a_short_loss_took_are_put_back(self) -> None:
        bus = MemoryBus()
        options = {"link_down_delay": 2, "on_address_lost": "step_down", "vips": [f"{ADDRESS}/32"]}
        async with router(bus, **options) as a:
            await mastering(a)
            host = bus.interface("192.0.2.1")
            host.carrier = False
            host.delete(ADDRESS)
            await asyncio.sleep(1)
            host.set_carrier(True)
            await asyncio.sleep(0.1)
            assert a.state is MASTER and bus.owner(ADDRESS) == "192.0.2.1"

    @virtual_time()
    async def test_a_router_that_has_left_is_not_woken(self) -> None:
        bus = MemoryBus()
        async with router(bus, link_up_delay=5) as a:
            bus.unplug("192.0.2.1")
            bus.plug("192.0.2.1")
        await asyncio.sleep(10)
        assert a.state is State.INIT

    @pytest.mark.parametrize("name", ["link_up_delay", "link_down_delay"])
    def test_limits(self, name: str) -> None:
        for good in (0, 1000, 0.5):
            router(MemoryBus(), **{name: good})
        for bad in (-0.1, 1000.1, "5", None):
            with pytest.raises(ConfigError, match=name):
                router(MemoryBus(), **{name: bad})


class TestSettling:
    @pytest.mark.parametrize("priority", [150, 255])
    @virtual_time()
    async def test_a_virtual_mac_that_rises_a_moment_later_is_no_fault(self, priority: int) -> None:
        bus = MemoryBus()
        base = bus.interface("192.0.2.1")
        above = await base.virtual(51, 4, None)
        above.carrier = False
        asyncio.get_running_loop().call_later(0.5, above.set_carrier, True)
        a = router(bus, virtual_mac=True, priority=priority)
        seen: list[State] = []
        a.on_transition(lambda transition: seen.append(transition.state))
        async with a:
            assert a.state is (MASTER if priority == 255 else BACKUP)
            assert seen == [a.state]

    @virtual_time()
    async def test_in_a_group(self) -> None:
        bus = MemoryBus()
        above = await bus.interface("192.0.2.1").virtual(51, 4, None)
        above.carrier = False
        asyncio.get_running_loop().call_later(0.5, above.set_carrier, True)
        one = router(bus, "one", virtual_mac=True)
        two = router(bus, "two", vrid=52, vips=["192.0.2.11/32"])
        async with SyncGroup("both", [one, two]) as both:
            assert (both.state, one.faults, two.faults) == (BACKUP, frozenset(), frozenset())

    @virtual_time()
    async def test_one_that_stays_down_is_a_fault_after_a_second(self) -> None:
        bus = MemoryBus()
        above = await bus.interface("192.0.2.1").virtual(51, 4, None)
        above.carrier = False
        before = asyncio.get_running_loop().time()
        async with router(bus, virtual_mac=True) as a:
            assert (a.state, a.faults) == (FAULT, {"interface-down"})
            assert asyncio.get_running_loop().time() - before == pytest.approx(1)

    @virtual_time()
    async def test_a_base_that_is_down_is_not_waited_for(self) -> None:
        bus = MemoryBus()
        bus.unplug(bus.interface("192.0.2.1").name)
        before = asyncio.get_running_loop().time()
        async with router(bus, virtual_mac=True) as a:
            assert a.state is FAULT and asyncio.get_running_loop().time() == before

    @virtual_time()
    async def test_a_source_under_duplicate_detection_is_waited_for(self) -> None:
        bus = MemoryBus()
        base = bus.interface("192.0.2.1")
        local = next(each for each in base.manager.table if each.ip.is_link_local)
        base.manager.remove(local)

        class Detecting(MemoryInterface):
            @property
            def link(self) -> Link:
                missing = local not in self.manager.table
                return attrs.evolve(super().link, tentative=(local.ip,) if missing else ())

        base.__class__ = Detecting
        six = {"vips": ["fe80::10/64"]}
        before = asyncio.get_running_loop().time()
        with pytest.raises(SourceMissing):
            async with router(bus, **six):
                pass
        assert asyncio.get_running_loop().time() - before == pytest.approx(3)
        asyncio.get_running_loop().call_later(1.5, base.add, str(local))
        async with router(bus, **six) as a:
            assert a.state is BACKUP


def test_no_track_is_a_word_of_routes() -> None:
    route = Route.of("10.0.0.0/8 dev eth1 no_track")
    assert route == Route("10.0.0.0/8", dev="eth1", track=False)
    assert Route.of(str(route)) == route
    ways = Route.of("10.0.0.0/8 no_track nexthop dev eth1 nexthop dev eth2")
    assert ways.nexthops == (NextHop(dev="eth1"), NextHop(dev="eth2")) and not ways.track
    assert Route.of(str(ways)) == ways


@pytest.mark.parametrize("bad", ["no", None, 1])
def test_track_is_a_flag(bad: Any) -> None:
    with pytest.raises(ConfigError, match="track"):
        VIP(ADDRESS, track=bad)
    with pytest.raises(ConfigError, match="track"):
        Route("10.0.0.0/8", dev="eth1", track=bad)
