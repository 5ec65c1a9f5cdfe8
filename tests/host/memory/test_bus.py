"""Interfaces in memory: addresses, carrier, leases, pauses and crashes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from vrrpkit.errors import ConfigError, DuplicateRouter, InterfaceMissing, VRRPKitError
from vrrpkit.host.base import AddressClaim
from vrrpkit.host.memory.bus import MemoryBus, MemoryInterface
from vrrpkit.testing.virtual import run_virtual, virtual_time
from vrrpkit.transport.base import Datagram, Membership
from vrrpkit.transport.memory import Fate
from vrrpkit.values import VIP, Announcements

VIP10 = VIP("192.0.2.10/24")
GROUP = ip_address("224.0.0.18")


class Listener:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def acquired(self) -> None:
        self.heard.append("acquired")

    def refused(self, failures: Sequence[tuple[VIP, OSError]]) -> None:
        self.heard.append("refused")

    def usable(self, vip: VIP) -> None:
        pass

    def duplicate(self, vip: VIP) -> None:
        pass

    def lost(self, vip: VIP) -> None:
        self.heard.append(f"lost {vip.address}")

    def received(self, datagram: Datagram) -> None:
        self.heard.append(f"received {datagram.payload[2:].decode()}")

    def overflowed(self) -> None:
        self.heard.append("overflowed")


async def hold(
    interface: MemoryInterface, listener: Listener, lease: float | None = None
) -> AddressClaim:
    return await interface.hold([VIP10], Announcements(repeat=1, delay=0), listener, lease)


def membership(address: str) -> Membership:
    return Membership(interface="mem", ifindex=1, vrid=51, source=ip_address(address), group=GROUP)


def test_a_bus_can_be_made_and_wired_before_any_loop_runs() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")

    async def main() -> None:
        await a.open()
        addresses = await hold(a, Listener())
        addresses.acquire()
        await addresses.settled()
        assert bus.owner("192.0.2.10") == "192.0.2.1"
        await a.close()

    run_virtual(main())
    asyncio.run(main())
    assert bus.owner("192.0.2.10") is None


def test_one_address_is_one_interface() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1", "192.0.2.3/28")
    assert bus.interface("192.0.2.1") is a
    assert bus.interface("192.0.2.3") is a
    b = bus.interface("192.0.2.2", name="eth7")
    assert (a.name, b.name) == ("mem1", "eth7")
    with pytest.raises(ConfigError, match="another interface"):
        bus.interface("192.0.2.4", "192.0.2.1")
    with pytest.raises(ConfigError, match="eth7"):
        bus.interface("192.0.2.5", name="eth7")
    with pytest.raises(ConfigError, match="address"):
        bus.interface("nonsense")
    with pytest.raises(ConfigError, match="ADDRESS/PREFIX"):
        bus.interface("nonsense/24")
    with pytest.raises(InterfaceMissing):
        bus.unplug("192.0.2.9")


def test_the_link_lists_addresses_and_has_a_link_local_one() -> None:
    bus = MemoryBus()
    link = bus.interface("192.0.2.1").link
    assert link.up
    assert link.source(4) == ip_address("192.0.2.1")
    assert link.source(6) == ip_address("fe80::ff:fe00:1")
    assert len(link.mac) == 6
    given = bus.interface("fe80::1", "192.0.2.2").link
    assert given.addresses == ((ip_address("fe80::1"), 64), (ip_address("192.0.2.2"), 24))


@virtual_time()
async def test_addresses_come_and_go_in_no_time() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")
    seen: list[int] = []
    unwatch = a.watch_addresses(lambda: seen.append(len(a.manager.table)))
    await a.open()
    listener = Listener()
    addresses = await hold(a, listener)
    addresses.acquire()
    await addresses.settled()
    assert bus.owners("192.0.2.10") == ["192.0.2.1"]
    assert listener.heard == ["acquired"]
    assert [crossing.announced for crossing in bus.record] == [VIP10.address]
    addresses.release()
    await addresses.settled()
    assert (bus.owners("192.0.2.10"), seen) == ([], [3, 2])
    unwatch()
    unwatch()
    assert asyncio.get_running_loop().time() == 1000
    await a.close()


@virtual_time()
async def test_who_watches_the_link_hears_nothing_of_what_routers_do_to_it() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")
    await a.open()
    seen: list[tuple[bool, int]] = []
    a.watch(lambda: seen.append((a.link.up, len(a.link.listed))))
    before = a.link
    addresses = await hold(a, Listener())
    addresses.acquire()
    await addresses.settled()
    # One object for all that look at it.
    assert seen == [] and a.link is before
    a.add("192.0.2.77/24")
    assert ip_address("192.0.2.77") in a.link.listed
    a.set_carrier(False)
    a.set_carrier(False)
    a.set_carrier(True)
    a.delete("192.0.2.77")
    addresses.release()
    await addresses.settled()
    assert seen == [(True, 3), (False, 3), (True, 3), (True, 2)]
    assert a.link == before
    await a.close()


@virtual_time()
async def test_two_owners_are_told() -> None:
    bus = MemoryBus()
    for address in ("192.0.2.1", "192.0.2.2"):
        bus.interface(address).add("192.0.2.10/24")
    assert bus.owners("192.0.2.10") == ["192.0.2.1", "192.0.2.2"]
    with pytest.raises(VRRPKitError, match="same time"):
        bus.owner("192.0.2.10")


@virtual_time()
async def test_unplugging_is_seen_on_the_link() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1", name="eth0")
    seen: list[bool] = []
    a.watch(lambda: seen.append(a.link.up))
    bus.unplug("192.0.2.1")
    bus.plug("eth0")
    assert seen == [False, True]


@virtual_time()
async def test_adverts_travel_between_interfaces() -> None:
    bus = MemoryBus(delay=0.5)
    a, b = bus.interface("192.0.2.1"), bus.interface("192.0.2.2")
    listener = Listener()
    port = a.transport.join(membership("192.0.2.1"), Listener())
    b.transport.join(membership("192.0.2.2"), listener)
    for number in range(4):
        port.send(b"\x31\x33" + str(number).encode(), GROUP)
        await asyncio.sleep(1)
        (bus.cut, bus.heal, bus.cut, bus.heal)[number]("192.0.2.1", "192.0.2.2")
    assert listener.heard == ["received 0", "received 2"]
    assert [crossing.fates["192.0.2.2"] for crossing in bus.record] == [
        Fate.DELIVERED,
        Fate.CUT,
        Fate.DELIVERED,
        Fate.CUT,
    ]
    bus.cut("192.0.2.1", "192.0.2.2", one_way=True)
    bus.heal()
    port.send(b"\x31\x33last", GROUP)
    await asyncio.sleep(1)
    assert listener.heard[-1] == "received last"


@virtual_time()
async def test_deleting_an_address_from_outside() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")
    await a.open()
    listener = Listener()
    addresses = await hold(a, listener)
    addresses.acquire()
    await addresses.settled()
    a.delete("192.0.2.10")
    a.delete("192.0.2.10")
    assert listener.heard == ["acquired", "lost 192.0.2.10"]
    a.delete("192.0.2.1")
    assert a.link.source(4) is None
    a.add("192.0.2.1/24")
    assert a.link.source(4) == ip_address("192.0.2.1")
    await a.close()


@virtual_time()
async def test_refusals_and_slowness_can_be_ordered() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")
    await a.open()
    a.manager.failures[VIP10.address] = OSError(errno.EPERM, "Operation not permitted")
    a.manager.delay = 2
    listener = Listener()
    addresses = await hold(a, listener)
    addresses.acquire()
    await addresses.settled()
    assert listener.heard == ["refused"]
    assert asyncio.get_running_loop().time() == 1002
    await a.close()


@virtual_time()
async def test_leftovers_of_a_killed_run() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")
    a.add("192.0.2.10/24", ours=True)
    await a.open()
    await hold(a, Listener())
    assert bus.owners("192.0.2.10") == []
    await a.close()


@virtual_time()
async def test_the_last_user_closes() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")
    await a.open()
    deadlines = a.deadlines
    await a.open()
    assert a.deadlines is deadlines
    addresses = await hold(a, Listener())
    addresses.acquire()
    await addresses.settled()
    await a.close()
    assert bus.owners("192.0.2.10") == ["192.0.2.1"]
    await a.close()
    await a.close()
    assert bus.owners("192.0.2.10") == []
    with pytest.raises(VRRPKitError, match="not open"):
        await hold(a, Listener())


@virtual_time()
async def test_identities_are_claimed_once() -> None:
    a = MemoryBus().interface("192.0.2.1")
    a.claim(("vrid", 51))
    with pytest.raises(DuplicateRouter):
        a.claim(("vrid", 51))
    a.unclaim(("vrid", 51))
    a.claim(("vrid", 51))


@virtual_time()
async def test_a_virtual_interface_has_the_virtual_mac() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")
    v4, v6 = await a.virtual(51, 4, None), await a.virtual(51, 6, "vmac6")
    assert await a.virtual(51, 4, None) is v4
    assert (v4.link.mac.hex(":"), v6.link.mac.hex(":")) == (
        "00:00:5e:00:01:33",
        "00:00:5e:00:02:33",
    )
    assert (v4.name, v6.name) == ("vrrp.51", "vmac6")
    assert len({each.link.ifindex for each in (a, v4, v6)}) == 3
    await v4.open()
    listener = Listener()
    addresses = await hold(v4, listener)
    addresses.acquire()
    await addresses.settled()
    assert bus.owner("192.0.2.10") == "192.0.2.1"
    bus.unplug("192.0.2.1")
    assert not v4.link.up
    a.delete("192.0.2.10")
    assert listener.heard == ["acquired", "lost 192.0.2.10"]
    await v4.close()


@virtual_time()
async def test_a_paused_process_hears_first_and_then_wakes() -> None:
    bus = MemoryBus()
    a, b = bus.interface("192.0.2.1"), bus.interface("192.0.2.2")
    await a.open()
    listener = Listener()
    a.transport.join(membership("192.0.2.1"), listener)
    a.watch(lambda: listener.heard.append("changed"))
    deadline = a.deadlines.new(lambda: listener.heard.append("due"))
    addresses = await hold(a, listener)
    addresses.acquire()
    await addresses.settled()
    deadline.set(1001)
    listener.heard.clear()

    bus.pause("192.0.2.1")
    b.transport.join(membership("192.0.2.2"), Listener()).send(b"\x31\x33hello", GROUP)
    a.delete("192.0.2.10")
    a.delete("192.0.2.1")
    addresses.acquire()
    deadline.set(1002)
    await asyncio.sleep(5)
    assert listener.heard == []
    bus.resume("192.0.2.1")
    assert listener.heard == ["received hello", "lost 192.0.2.10", "changed"]
    await addresses.settled()
    await asyncio.sleep(0)
    assert sorted(listener.heard[3:]) == ["acquired", "due"]
    await a.close()


@virtual_time()
async def test_a_lease_runs_out_while_the_process_is_paused() -> None:
    bus = MemoryBus()
    a = bus.interface("192.0.2.1")
    await a.open()
    listener = Listener()
    addresses = await hold(a, listener, lease=3)
    addresses.acquire()
    await asyncio.sleep(10)
    assert bus.owners("192.0.2.10") == ["192.0.2.1"]
    bus.pause("192.0.2.1")
    await asyncio.sleep(3)
    assert bus.owners("192.0.2.10") == []
    assert listener.heard == ["acquired"]
    bus.resume("192.0.2.1")
    assert listener.heard == ["acquired", "lost 192.0.2.10"]
    await a.close()


@virtual_time()
async def test_a_crashed_machine_is_silent_and_can_be_left_and_restarted() -> None:
    bus = MemoryBus()
    a, b = bus.interface("192.0.2.1"), bus.interface("192.0.2.2")
    other = Listener()
    b.transport.join(membership("192.0.2.2"), other)
    await a.open()
    listener = Listener()
    port = a.transport.join(membership("192.0.2.1"), listener)
    addresses = await hold(a, listener)
    addresses.acquire()
    await addresses.settled()
    bus.crash("192.0.2.1")
    assert bus.owners("192.0.2.10") == []
    assert a.link.up
    port.send(b"\x31\x33goodbye", GROUP)
    await addresses.close()
    await a.close()
    assert asyncio.get_running_loop().time() == 1000
    assert (listener.heard, other.heard) == (["acquired"], [])

    bus.restart("192.0.2.1")
    await a.open()
    port.send(b"\x31\x33hello", GROUP)
    addresses = await hold(a, listener)
    addresses.acquire()
    await addresses.settled()
    assert (other.heard, bus.owner("192.0.2.10")) == (["received hello"], "192.0.2.1")
    await a.close()
