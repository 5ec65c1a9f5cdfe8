"""Routes and rules that move with a virtual router."""

from __future__ import annotations

import asyncio
import errno
from typing import Any, TypeVar

import pytest

from builders import due, mastering, told
from vrrp.routers import VIP, mastering as master, router
from vrrpkit import values
from vrrpkit.errors import ConfigError
from vrrpkit.host.memory.bus import MemoryBus, MemoryInterface
from vrrpkit.routes.route import Entry, Route, Rule
from vrrpkit.testing import Lan, virtual_time
from vrrpkit.values import State
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.instance import VRRPInstance
from vrrpkit.vrrp.protocol.events import AddressesRefused, RouteLost, Transition, TransitionReason
from vrrpkit.vrrp.protocol.inputs import LostAddress, LostRoute
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy
from vrrpkit.vrrp.syncgroup import SyncGroup

DEFAULT = "default via 192.0.2.254"
SUBNET = f"10.0.0.0/8 via 192.0.2.254 src {VIP}"
RULE = "from 10.0.0.0/8 table 100 priority 1000"
OPTIONS: dict[str, Any] = {"routes": [DEFAULT, SUBNET], "rules": [RULE]}

N = TypeVar("N")

ENTRIES = [Route.of(DEFAULT), Route.of(SUBNET), Rule.of(RULE)]


class Journal:
    """What became of addresses, routes and rules on an interface, in order."""

    def __init__(self, interface: MemoryInterface) -> None:
        self.lines: list[str] = []
        self._interface = interface
        self._shown: list[str] = []
        manager, routing = interface.manager, interface.routing
        for thing, name in (
            (manager, "put"),
            (manager, "remove"),
            (routing, "acquire"),
            (routing, "release"),
        ):
            setattr(thing, name, self._watching(getattr(thing, name)))
        self._watching(lambda: None)()
        self.lines.clear()

    def _watching(self, function: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            now = [str(address.ip) for address in self._interface.manager.table]
            now += map(str, self._interface.routing.table)
            self.lines += [f"-{gone}" for gone in reversed(self._shown) if gone not in now]
            self.lines += [f"+{come}" for come in now if come not in self._shown]
            self._shown = now
            return result

        return watched


class Heard:
    """The events of an instance, kept."""

    def __init__(self, instance: VRRPInstance) -> None:
        self._events = instance.events()
        self._seen: list[object] = []

    async def of(self, kind: type[N]) -> list[N]:
        """Those of one kind so far."""
        while True:
            try:
                async with asyncio.timeout(0.001):
                    self._seen.append(await anext(self._events))
            except (TimeoutError, StopAsyncIteration):
                return [event for event in self._seen if isinstance(event, kind)]


# --- the order


@virtual_time()
async def test_routes_come_after_the_addresses_and_go_before_them() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    journal = Journal(interface)
    async with router(bus, **OPTIONS) as instance:
        assert interface.routes == [] and interface.rules == []
        await master(instance)
        assert journal.lines == [f"+{VIP}", *(f"+{entry}" for entry in ENTRIES)]
        assert interface.routes == ENTRIES[:2] and interface.rules == ENTRIES[2:]
        journal.lines.clear()
        instance.demote(60)
        # At once, when priority 0 has left; the addresses follow in the next turn of the loop.
        assert journal.lines == [f"-{entry}" for entry in reversed(ENTRIES)]
        await asyncio.sleep(0.01)
        assert journal.lines[-1] == f"-{VIP}"
        await instance.wait_for(State.MASTER)
        await asyncio.sleep(0.01)
        journal.lines.clear()
    assert journal.lines == [*(f"-{entry}" for entry in reversed(ENTRIES)), f"-{VIP}"]


@virtual_time()
async def test_routes_are_there_before_the_addresses_are_announced() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    seen: list[list[Route]] = []
    announce = interface.station.announce

    def watched(addresses: Any) -> None:
        seen.append(interface.routes)
        announce(addresses)

    interface.station.announce = watched  # type: ignore[method-assign]
    async with router(bus, **OPTIONS) as instance:
        await master(instance)
        assert seen and seen[0] == ENTRIES[:2]


@virtual_time()
async def test_a_takeover_moves_them() -> None:
    async with Lan() as lan:
        for name, priority in (("a", 150), ("b", 100)):
            lan.router(name, vrid=51, vips=[VIP], priority=priority, **OPTIONS)
        first, second = lan.interface("a"), lan.interface("b")
        await asyncio.sleep(10)
        assert (len(first.routing.table), len(second.routing.table)) == (3, 0)
        first.delete_route(DEFAULT)
        assert f"lost route {DEFAULT}, reinstated" in str(lan)
        lan.crash("a")
        await asyncio.sleep(10)
        assert (len(first.routing.table), len(second.routing.table)) == (0, 3)
        lan.start("a")
        await asyncio.sleep(10)
        assert (len(first.routing.table), len(second.routing.table)) == (3, 0)
        lan.kill("a")
        await asyncio.sleep(10)
        # What a killed process leaves behind is there until the next one starts.
        assert (len(first.routing.table), len(second.routing.table)) == (3, 3)
        lan.start("a")
        await asyncio.sleep(0.01)
        assert (len(first.routing.table), len(second.routing.table)) == (0, 3)


@virtual_time()
async def test_the_members_of_a_sync_group_may_share_routes() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    members = [
        router(bus, name, vrid=vrid, vips=[vip], routes=[DEFAULT])
        for name, vrid, vip in (("in", 51, VIP), ("out", 52, "192.0.2.11"))
    ]
    async with SyncGroup("pair", members) as group:
        await group.wait_for(State.MASTER)
        await asyncio.sleep(0.01)
        assert interface.routes == ENTRIES[:1]
        interface.routing.failures[ENTRIES[0]] = OSError(errno.EPERM, "no")
        interface.delete_route(DEFAULT)
        await asyncio.sleep(0.01)
        assert {member.state for member in members} == {State.FAULT}
    assert interface.routes == []


# --- losses


def lost(machine: Any, at: float) -> list[str]:
    return told(machine.handle(LostRoute(f"route {DEFAULT}"), at))


def test_the_policy_for_a_lost_route_is_that_for_an_address() -> None:
    machine = mastering()
    now = due(machine) - 0.9
    assert lost(machine, now) == ["take", "RouteLost"]
    assert lost(machine, now + 0.2) == ["take", "RouteLost"]
    # Counted together.
    assert told(machine.handle(LostAddress(machine.primary), now + 0.4)) == ["take", "AddressLost"]
    answer = ["RouteLost", "advert 0", "drop", "MASTER -> BACKUP: route-lost"]
    assert lost(machine, now + 0.6) == answer
    assert lost(machine, now + 0.6) == []

    machine = mastering(profile="keepalived")
    now = due(machine) - 0.5
    assert lost(machine, now) == answer
    assert due(machine) == now + 0.609375

    machine = mastering(address_lost=AddressLostPolicy.IGNORE)
    assert lost(machine, due(machine) - 0.5) == ["RouteLost"]
    assert machine.state is State.MASTER


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
@virtual_time()
async def test_a_lost_route_or_rule_comes_back(entry: Entry) -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    async with router(bus, **OPTIONS) as instance:
        await master(instance)
        events = Heard(instance)
        interface.delete_route(entry)
        interface.delete_route(Route.of("default via 192.0.2.9"))
        await asyncio.sleep(0.01)
        assert set(interface.routing.table) == set(ENTRIES)
        (loss,) = await events.of(RouteLost)
        word = "rule" if isinstance(entry, Rule) else "route"
        assert (loss.route, loss.action) == (f"{word} {entry}", "reinstated")
        assert not await events.of(Transition)


@virtual_time()
async def test_a_lost_route_with_other_policies() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    async with router(bus, on_address_lost="step_down", **OPTIONS) as instance:
        await master(instance)
        events = Heard(instance)
        interface.delete_route(DEFAULT)
        assert interface.routes == [] and interface.rules == []
        (change,) = await events.of(Transition)
        assert change.reason is TransitionReason.ROUTE_LOST
        await master(instance)
        assert interface.routes == ENTRIES[:2]
        # Nobody wants it in BACKUP.
    async with router(bus, on_address_lost="ignore", **OPTIONS) as instance:
        await master(instance)
        events = Heard(instance)
        interface.delete_route(DEFAULT)
        await asyncio.sleep(5)
        assert interface.routes == ENTRIES[1:2] and instance.state is State.MASTER
        assert [loss.action for loss in await events.of(RouteLost)] == ["ignored"]


@virtual_time()
async def test_a_stopped_process_hears_later() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    async with router(bus, **OPTIONS) as instance:
        await master(instance)
        bus.pause("192.0.2.1")
        interface.delete_route(DEFAULT)
        await asyncio.sleep(0.5)
        assert interface.routes == ENTRIES[1:2]
        bus.resume("192.0.2.1")
        await asyncio.sleep(0.01)
        assert len(interface.routes) == 2


# --- refusals and bugs


@virtual_time()
async def test_a_refused_route_is_a_fault_until_the_next_try() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    interface.routing.failures[ENTRIES[1]] = OSError(errno.ENETUNREACH, "Network is unreachable")
    async with router(bus, **OPTIONS) as instance:
        events = Heard(instance)
        await instance.wait_for(State.FAULT)
        await asyncio.sleep(0.01)
        (refused,) = await events.of(AddressesRefused)
        assert refused.failures == (f"route {SUBNET}: Network is unreachable",)
        assert (refused.retry_in, instance.faults) == (5.0, {"addresses"})
        # Neither routes nor addresses stay.
        assert interface.routing.table == {} and bus.owner(VIP) is None
        await instance.wait_for(State.MASTER)
        await instance.wait_for(State.FAULT)
        # The addresses alone do not end the back-off.
        await asyncio.sleep(0.01)
        assert (await events.of(AddressesRefused))[-1].retry_in == 10.0
        interface.routing.failures.clear()
        await master(instance)
        assert interface.routes == ENTRIES[:2]
        interface.routing.failures[ENTRIES[2]] = OSError(errno.EPERM)
        interface.delete_route(ENTRIES[2])
        await asyncio.sleep(0.01)
        assert (await events.of(AddressesRefused))[-1].retry_in == 5.0


@virtual_time()
async def test_a_bug_while_routes_are_put_in_place_ends_the_run() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")

    def broken(entries: object) -> list[tuple[Entry, OSError]]:
        raise RuntimeError("a bug")

    interface.routing.acquire = broken  # type: ignore[method-assign]

    async def body() -> None:
        async with router(bus, **OPTIONS):
            await asyncio.sleep(3600)

    with pytest.raises(RuntimeError, match="a bug"):
        await body()
    assert bus.owner(VIP) is None


@virtual_time()
async def test_a_bug_while_routes_are_removed_leaves_no_address_behind() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")

    def broken(entries: object) -> None:
        raise RuntimeError("a bug")

    async def body() -> None:
        async with router(bus, **OPTIONS) as one:
            await one.wait_for(State.MASTER)
            interface.routing.release = broken  # type: ignore[method-assign]

    # Another router keeps the interface open.
    async with VRRPInstance("other", interface, vrid=52, vips=["192.0.2.20/24"]):
        with pytest.raises(RuntimeError, match="a bug"):
            await body()
        assert bus.owner(VIP) is None


@virtual_time()
async def test_routes_that_were_there_stay() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    interface.routing.table[ENTRIES[0]] = False
    async with router(bus, **OPTIONS) as instance:
        await master(instance)
        assert set(interface.routing.table) == set(ENTRIES)
    assert interface.routes == ENTRIES[:1]
    bus.crash("192.0.2.1")
    assert interface.routes == ENTRIES[:1]


# --- options


def options(**more: Any) -> VRRPInstanceConfig:
    return VRRPInstanceConfig(
        **({"name": "x", "interface": "eth0", "vrid": 51, "vips": [VIP]} | more)
    )


def test_options() -> None:
    assert options().routes == options().rules == ()
    both = options(**OPTIONS)
    assert [*both.routes, *both.rules] == ENTRIES
    with pytest.raises(ConfigError, match="write routes as a list"):
        options(routes=DEFAULT)
    with pytest.raises(ConfigError, match="write rules as a list"):
        options(rules=RULE)
    with pytest.raises(ConfigError, match="where to"):
        options(routes=["10.0.0.0/8"])


def test_a_source_under_duplicate_address_detection() -> None:
    six = "2001:db8::10"
    route = f"2001:db8:1::/48 via 2001:db8::1 src {six}"
    assert options(vips=[six], routes=[route]).routes[0].src is not None
    with pytest.raises(ConfigError, match=f"{six} cannot be a source while .* leave nodad on"):
        options(vips=[values.VIP(six, nodad=False)], routes=[route])
