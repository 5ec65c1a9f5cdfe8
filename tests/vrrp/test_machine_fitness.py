"""Faults, the startup delay, and addresses that others remove or the kernel refuses."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from builders import advert, due, faults, machine_config, mastering, run, started, told
from vrrpkit.values import State
from vrrpkit.vrrp.protocol.inputs import (
    AdvertsLost,
    EverythingInPlace,
    KernelRefusedAddresses,
    LostAddress,
    SetPriority,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy

SKEW = 0.609375
DOWN = 3 + SKEW
VIP = ip_address("192.0.2.10")


# --- FAULT


def test_starting_unfit() -> None:
    machine = started(faults=["link"])
    assert (machine.state, machine.deadline) == (State.FAULT, None)
    assert run(machine, (1.0, advert(0, 1.0)), (2.0, TimerFired())) == []
    assert run(machine, (5.0, faults())) == [
        (5.0, ["FaultsChanged", "FAULT -> BACKUP: fault-cleared"])
    ]
    assert due(machine) == 5.0 + DOWN


def test_an_owner_recovers_at_once() -> None:
    machine = started(faults=["link"], priority=255)
    assert run(machine, (5.0, faults())) == [
        (5.0, ["FaultsChanged", "advert 255", "take", "FAULT -> MASTER: owner"])
    ]


def test_a_backup_falls_ill() -> None:
    machine = started()
    machine.handle(advert(150, 1.0, interval=9.0), 1.0)
    assert run(machine, (2.0, faults("link"))) == [
        (2.0, ["FaultsChanged", "BACKUP -> FAULT: fault"])
    ]
    assert (machine.deadline, machine.master, machine.master_interval) == (None, None, 1.0)


def test_a_master_falls_ill() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    answer = ["FaultsChanged", "advert 0", "drop", "MASTER -> FAULT: fault"]
    assert told(machine.handle(faults("link"), now)) == answer
    assert machine.handle(faults("link"), now) == []
    assert told(machine.handle(faults("link", "source"), now)) == ["FaultsChanged"]
    assert told(machine.handle(faults("source"), now)) == ["FaultsChanged"]
    assert machine.state is State.FAULT
    back = ["FaultsChanged", "FAULT -> BACKUP: fault-cleared"]
    assert told(machine.handle(faults(), now)) == back


def test_nothing_happens_before_the_start() -> None:
    machine = Machine(machine_config())
    assert machine.handle(faults("link"), 0.0) == []
    assert machine.state is State.INIT


# --- startup delay


@pytest.mark.parametrize(("priority", "after"), [(100, 20 + DOWN), (255, 20.0)])
def test_startup_delay(priority: int, after: float) -> None:
    machine = started(startup_delay=20.0, priority=priority)
    assert (machine.state, due(machine)) == (State.BACKUP, 20.0)
    steps = [(1.0, advert(0, 1.0)), (2.0, advert(200, 2.0)), (3.0, AdvertsLost())]
    assert run(machine, *steps) == []
    assert machine.master is None
    assert not machine.refreshable
    machine.handle(SetPriority(priority), 4.0)
    answers = run(machine, (30.0, TimerFired()))
    assert answers[0][0] == after
    assert answers[0][1][:2] == [f"advert {priority}", "take"]


def test_a_priority_that_changes_during_the_startup_delay() -> None:
    machine = started(startup_delay=20.0)
    machine.handle(SetPriority(150), 1.0)
    assert due(machine) == 20.0
    machine.handle(TimerFired(), 20.0)
    assert due(machine) == 20.0 + 3.4140625


def test_a_fault_does_not_end_the_startup_delay() -> None:
    machine = started(startup_delay=20.0, faults=["link"])
    machine.handle(faults(), 5.0)
    assert (machine.state, due(machine)) == (State.BACKUP, 20.0)
    machine.handle(faults("link"), 6.0)
    machine.handle(faults(), 25.0)
    assert due(machine) == 25.0 + DOWN


# --- addresses that others remove, and that the kernel refuses


def test_a_lost_address_is_put_back() -> None:
    machine = mastering()
    now = due(machine) - 0.9
    for n in range(3):
        at = now + n / 5
        assert told(machine.handle(LostAddress(VIP), at)) == ["take", "AddressLost"]
    answer = ["AddressLost", "advert 0", "drop", "MASTER -> BACKUP: address-lost"]
    assert told(machine.handle(LostAddress(VIP), now + 0.8)) == answer
    assert due(machine) == now + 0.8 + DOWN
    assert machine.handle(LostAddress(VIP), now + 0.8) == []


def test_stepping_down_as_keepalived() -> None:
    machine = mastering(profile="keepalived")
    now = due(machine) - 0.5
    answer = ["AddressLost", "advert 0", "drop", "MASTER -> BACKUP: address-lost"]
    assert told(machine.handle(LostAddress(VIP), now)) == answer
    assert due(machine) == now + SKEW


def test_a_lost_address_may_be_ignored() -> None:
    machine = mastering(address_lost=AddressLostPolicy.IGNORE)
    now = due(machine) - 0.5
    assert told(machine.handle(LostAddress(VIP), now)) == ["AddressLost"]
    assert machine.state is State.MASTER


def test_a_kernel_that_refuses() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    refusal = KernelRefusedAddresses(("192.0.2.10/24: no",))
    fault = ["FaultsChanged", "advert 0", "drop", "MASTER -> FAULT: fault"]
    assert told(machine.handle(refusal, now)) == ["AddressesRefused", *fault]
    assert machine.faults == {"addresses"}
    assert due(machine) == now + 5.0
    # Another fault comes and goes: that of the addresses stays until its time.
    assert told(machine.handle(faults("link"), now + 1)) == ["FaultsChanged"]
    assert machine.faults == {"addresses", "link"}
    machine.handle(faults(), now + 2)
    assert machine.faults == {"addresses"}
    assert machine.handle(refusal, now + 3) == []
    retry = ["FaultsChanged", "FAULT -> BACKUP: fault-cleared"]
    assert told(machine.handle(TimerFired(), now + 5)) == retry
    assert due(machine) == now + 5 + DOWN


def test_each_refusal_waits_longer_until_it_works() -> None:
    machine = mastering()
    waits = []
    assert not machine.refused
    for success in (False, False, True, False):
        if success:
            assert machine.refused
            assert machine.handle(EverythingInPlace(), due(machine) - 0.5) == []
            assert not machine.refused
        start = due(machine) - 0.5
        machine.handle(KernelRefusedAddresses(("no",)), start)
        waits.append(due(machine) - start)
        while machine.state is not State.MASTER:
            machine.handle(TimerFired(), due(machine))
    assert waits == [5.0, 10.0, 5.0, 10.0]


def test_a_retry_while_something_else_is_wrong() -> None:
    machine = mastering()
    now = due(machine) - 0.5
    machine.handle(KernelRefusedAddresses(("no",)), now)
    machine.handle(faults("link"), now + 1)
    assert told(machine.handle(TimerFired(), now + 5)) == ["FaultsChanged"]
    assert (machine.state, machine.faults, machine.deadline) == (State.FAULT, {"link"}, None)
