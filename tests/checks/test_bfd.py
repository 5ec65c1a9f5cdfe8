"""BFDChecker in memory, under virtual time."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from bfd.ends import A, B, end
from checks.scripts import elapsed
from vrrpkit import ConfigError, MemoryBus, Target
from vrrpkit.bfd.protocol.packet import BFDState
from vrrpkit.checks.bfd import BFDChecker
from vrrpkit.checks.engine.scheduler import Check, CheckScheduler
from vrrpkit.checks.events import CheckResult
from vrrpkit.testing import virtual_time

SERVER = Target(ip_address(B), 80, "web")


class Notes:
    """What checks told, and when."""

    def __init__(self) -> None:
        self.results: list[tuple[float, CheckResult]] = []

    def add(self, scheduler: CheckScheduler, checker: BFDChecker, target: Target) -> Check:
        return scheduler.add(
            checker, target, on_result=lambda result: self.results.append((elapsed(), result))
        )

    @property
    def times(self) -> list[float]:
        return [round(at, 3) for at, _result in self.results]

    @property
    def texts(self) -> list[str]:
        return [result.text for _at, result in self.results]


def checker(bus: MemoryBus, **options: Any) -> BFDChecker:
    return BFDChecker(interface=bus.interface(A), warmup=0, **options)


@virtual_time()
async def test_a_server_is_healthy_while_its_session_is_up() -> None:
    bus = MemoryBus()
    notes = Notes()
    async with CheckScheduler() as scheduler, end(bus, B, A) as server:
        check = notes.add(scheduler, checker(bus, interval=30), SERVER)
        await server.wait_for(BFDState.UP)
        await asyncio.sleep(1)
        assert (check.healthy, notes.texts[0]) == (True, "")
        # Nothing waits for the interval.
        before = asyncio.get_running_loop().time()
        bus.cut(A, B)
        await asyncio.sleep(0.51)
        assert not check.healthy
        assert notes.texts[-1] == "the BFD session is Down: control detection time expired"
        assert asyncio.get_running_loop().time() - before < 0.6
        bus.heal()
        await server.wait_for(BFDState.UP)
        await asyncio.sleep(0.1)
        assert check.healthy
        server.admin_down()
        await asyncio.sleep(0.1)
        assert notes.texts[-1] == "the BFD session is Down: administratively down"
    # The session ends with the check.
    await asyncio.sleep(0)


@virtual_time()
async def test_a_new_session_is_waited_for_and_a_silent_server_is_not_for_ever() -> None:
    bus = MemoryBus()
    bus.interface(B)
    notes = Notes()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, checker(bus, interval=1, timeout=2), SERVER)
        await asyncio.sleep(3.5)
        assert notes.times == [2, 3]
        assert notes.texts == [
            "no answer within 2 s",
            "the BFD session is Down, and was never Up",
        ]


@virtual_time()
async def test_servers_of_one_address_share_a_session() -> None:
    bus = MemoryBus()
    notes = Notes()
    async with CheckScheduler() as scheduler, end(bus, B, A) as server:
        one = notes.add(scheduler, checker(bus, interval=1), SERVER)
        two = notes.add(scheduler, checker(bus, interval=2), Target(ip_address(B), 443, "tls"))
        await server.wait_for(BFDState.UP)
        await asyncio.sleep(1)
        assert (one.healthy, two.healthy) == (True, True)
        await one.stop()
        await asyncio.sleep(5)
        assert (server.state, two.healthy) == (BFDState.UP, True)
        await two.stop()
        await asyncio.sleep(0.1)
        assert server.state is BFDState.DOWN


@virtual_time()
async def test_what_keeps_the_session_from_running_is_a_result_and_is_tried_again() -> None:
    bus = MemoryBus()
    notes = Notes()
    own = end(bus, name="of the program")
    async with CheckScheduler() as scheduler, end(bus, B, A):
        async with own:
            check = notes.add(scheduler, checker(bus, interval=1), SERVER)
            await asyncio.sleep(0.1)
            assert "runs here already, as 'of the program'" in notes.texts[0]
        await asyncio.sleep(3)
        assert check.healthy


@virtual_time()
async def test_a_single_attempt_needs_no_scheduler() -> None:
    bus = MemoryBus()
    async with end(bus, B, A):
        await checker(bus).check(SERVER)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await checker(bus).check(SERVER)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_tx": 0}, "BFDChecker: min_tx 0 must be"),
        ({"multihop": True}, "multihop needs max_hops="),
        ({"source": "nowhere"}, "BFD source 'nowhere'"),
        ({"retry": -1}, "retry"),
    ],
)
def test_bad_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BFDChecker(**options)


def test_a_target_that_cannot_have_a_session_is_refused() -> None:
    with pytest.raises(ConfigError, match="of the same address family"):
        BFDChecker(source="2001:db8::1").validate(SERVER)
    assert BFDChecker().retry == 0
