"""A master that cannot be reached any more, said by something quicker than adverts."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from builders import advert, machine_config, run, started
from vrrp.routers import free, router
from vrrpkit import ConfigError, MemoryBus, State
from vrrpkit.errors import HostError
from vrrpkit.testing import virtual_time
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.group import Group
from vrrpkit.vrrp.protocol.inputs import GroupReleased, MasterUnreachable, Startup, TimerFired
from vrrpkit.vrrp.protocol.machine import Machine

SKEW = 0.609375
DOWN = 3 + SKEW
MASTER = ip_address("192.0.2.2")
GONE = MasterUnreachable(MASTER)


def backup() -> Machine:
    machine = started()
    run(machine, (1.0, advert(150, 1.0)))
    assert (machine.master, machine.deadline) == (MASTER, 1.0 + DOWN)
    return machine


def test_only_the_skew_is_waited_for() -> None:
    machine = backup()
    assert run(machine, (1.5, GONE)) == []
    assert machine.deadline == 1.5 + SKEW
    assert run(machine, (1.5 + SKEW, TimerFired())) == [
        (1.5 + SKEW, ["advert 100", "take", "BACKUP -> MASTER: unreachable"])
    ]


def test_it_is_never_put_off_by_that() -> None:
    machine = backup()
    machine.handle(GONE, 1.0 + DOWN - 0.1)
    assert machine.deadline == 1.0 + DOWN


def test_an_advert_proves_the_contrary() -> None:
    machine = backup()
    machine.handle(GONE, 1.5)
    # Its repetition is looked at in full, for it changes more than the deadline.
    assert not machine.refreshable
    machine.handle(advert(150, 2.0), 2.0)
    assert machine.refreshable
    assert machine.deadline == 2.0 + DOWN
    assert run(machine, (2.0 + DOWN, TimerFired()))[-1][1][-1] == "BACKUP -> MASTER: no-response"


def test_another_neighbour_does_not_matter() -> None:
    machine = backup()
    assert run(machine, (1.5, MasterUnreachable(ip_address("192.0.2.3")))) == []
    assert machine.deadline == 1.0 + DOWN


@pytest.mark.parametrize("faults", [(), ("link",)])
def test_nor_does_it_without_a_master(faults: tuple[str, ...]) -> None:
    machine = started(faults=faults)
    deadline = machine.deadline
    assert machine.handle(GONE, 1.0) == []
    assert machine.deadline == deadline


def test_the_members_of_a_group_go_together() -> None:
    machines = {name: Machine(machine_config(router=name, grouped=True)) for name in "ab"}
    group = Group(machines)
    for name in "ab":
        group.handle(name, Startup(primary=ip_address("192.0.2.1")), 0.0)
        group.handle(name, advert(150, 1.0), 1.0)
    steps = group.handle("a", GONE, 1.5)
    assert [(step.member, step.event) for step in steps] == [("a", GONE), ("b", GroupReleased())]
    assert {machine.deadline for machine in machines.values()} == {1.5 + SKEW}
    for name in "ab":
        group.handle(name, TimerFired(), 1.5 + SKEW)
    assert group.state is State.MASTER
    # The neighbour of one is nobody to a group that is MASTER.
    assert [step.member for step in group.handle("a", GONE, 3.0)] == ["a"]


# --- as users give it


class Watch:
    """A :class:`vrrpkit.vrrp.protocol.reachability.Reachability` by hand."""

    def __init__(self, neighbor: str, fails: bool = False) -> None:
        self._neighbor = ip_address(neighbor)
        self._fails = fails
        self.users = 0
        self.callbacks: list[Callable[[], None]] = []

    @property
    def neighbor(self) -> IPAddress:
        return self._neighbor

    def open(self) -> None:
        if self._fails:
            raise HostError("not here")
        self.users += 1

    def close(self) -> None:
        self.users -= 1

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)


@virtual_time()
async def test_it_is_watched_as_long_as_the_router_runs() -> None:
    bus = MemoryBus()
    watch = Watch("192.0.2.2")
    async with router(bus, bfd=watch, priority=100) as a, router(bus, "b", "192.0.2.2") as b:
        await b.wait_for(State.MASTER)
        assert (watch.users, len(watch.callbacks)) == (1, 1)
        bus.crash("192.0.2.2")
        watch.callbacks[0]()
        await a.wait_for(State.MASTER)
        assert a.last_transition is not None
        assert a.last_transition.reason == "unreachable"
        bus.restart("192.0.2.2")
    assert (watch.users, watch.callbacks) == (0, [])


@virtual_time()
async def test_what_cannot_be_watched_stops_the_start() -> None:
    bus = MemoryBus()
    watch = Watch("192.0.2.2", fails=True)
    with pytest.raises(HostError, match="not here"):
        await router(bus, bfd=watch).__aenter__()
    assert (watch.users, watch.callbacks) == (0, [])
    assert free(bus.interface("192.0.2.1"))


def test_a_neighbour_of_the_other_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="a: bfd watches fe80::2, but adverts come from an IPv4"):
        router(MemoryBus(), bfd=Watch("fe80::2"))
