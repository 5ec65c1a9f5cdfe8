"""Random lives of a pool under virtual time, from the verdicts of its checks to the table.

What must hold is looked at after each thing that happens, and at each request to the table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs
from hypothesis import HealthCheck, given, note, settings, strategies as st

from vrrpkit import VRRPKitError
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.endpoints import service_keys
from vrrpkit.ipvs.model.entries import AddDestination, DeleteDestination, Operation
from vrrpkit.ipvs.server import RealServer, VirtualServer
from vrrpkit.ipvs.status import VirtualServerState
from vrrpkit.testing import ScriptedChecker, run_virtual

SERVERS = [f"10.0.0.{number}:80" for number in (1, 2, 3, 4)]
SORRY = "10.0.0.9:80"
(WEB,) = service_keys("192.0.2.10:80")
QUIET = 1.6
"""Seconds in which every server was checked once more, and the table has followed."""
TAKES = 0.3
"""Seconds that a check takes."""

Action: TypeAlias = tuple[str, int, float]
"""What is done, to which server, and a number."""

UP, DOWN = VirtualServerState.UP, VirtualServerState.DOWN


@attrs.frozen(kw_only=True)
class Scenario:
    weights: tuple[int, ...]
    quorum: int
    hysteresis: int
    sorry: bool
    inhibit: bool
    alpha: bool
    actions: tuple[Action, ...]


class WatchedTable(MemoryTable):
    """Says when a server is cut that still drains, and what changes before a check has spoken."""

    def __init__(self) -> None:
        super().__init__()
        self.draining: dict[str, float] = {}
        """Until when each may take."""
        self.faults: list[str] = []
        self.frozen = False
        """Nothing may change."""

    async def apply(self, operations: Sequence[Operation]) -> list[OSError | None]:
        before = await self.read_service(WEB)
        answers = await super().apply(operations)
        now = asyncio.get_running_loop().time()
        for operation in operations:
            # A server that is not there yet comes at once.
            if self.frozen and not isinstance(operation, AddDestination):
                self.faults.append(f"{operation} before any check has spoken")
            if isinstance(operation, DeleteDestination) and before is not None:
                name = str(operation.key)
                entry = before.destinations.get(operation.key)
                if entry is not None and entry.active and now < self.draining.get(name, 0.0):
                    self.faults.append(f"{name} is cut with {entry.active} connections")
        return answers


def _serving(entry: Any) -> list[str]:
    return [str(key) for key, each in entry.destinations.items() if each.destination.weight]


class Life:
    """One pool through its runs."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.table = WatchedTable()
        self.checker = ScriptedChecker(interval=1.0, retry=0, after=TAKES, jitter=0.0)
        self.drains: dict[str, asyncio.Task[int | None]] = {}
        self.web = self._pool()
        self.quorate: bool | None = None
        self.disabled: set[str] = set()
        self.failing: set[str] = set()

    def _pool(self) -> VirtualServer:
        told = self.scenario
        return VirtualServer(
            "192.0.2.10:80",
            name="web",
            servers=[
                RealServer(server, weight=weight)
                for server, weight in zip(SERVERS, told.weights, strict=False)
            ],
            check=self.checker,
            quorum=told.quorum,
            hysteresis=told.hysteresis,
            sorry=SORRY if told.sorry else None,
            inhibit_on_failure=told.inhibit,
            alpha=told.alpha,
            at_exit="keep",
            table=self.table,
        )

    async def act(self, what: str, server: str, number: float) -> None:
        match what:
            case "fails":
                self.failing.add(server)
                self.checker.fails(server)
            case "passes":
                self.failing.discard(server)
                self.checker.passes(server)
            case "connect":
                for _ in range(1 + round(3 * number)):
                    self.table.connect(WEB)
            case "ends":
                entry = await self.table.read_service(WEB)
                for key in () if entry is None else entry.destinations:
                    if str(key) == server:
                        self.table.set_connections(WEB, key, active=0, inactive=0)
            case "disable" if server not in self.drains:
                await self.web.disable(server)
                self.disabled.add(server)
            case "enable" if server not in self.drains:
                await self.web.enable(server)
                self.disabled.discard(server)
            case "drain" if server not in self.drains:
                self.drain(server, 1 + 20 * number)
            case "restart" if not self.drains:
                await self.restart()
            case _:
                pass

    def drain(self, server: str, seconds: float) -> None:
        self.table.draining[server] = asyncio.get_running_loop().time() + seconds

        async def drained() -> int | None:
            try:
                return await self.web.drain(server, timeout=seconds)
            except VRRPKitError as refused:
                note(f"drain {server}: {refused}")
                return None
            finally:
                self.table.draining.pop(server, None)

        self.drains[server] = asyncio.create_task(drained(), name=f"drain {server}")

    async def restart(self) -> None:
        """End and begin again: nothing changes until a check has spoken."""
        await self.web.__aexit__(None, None, None)
        before = await self.table.read_service(WEB)
        self.web = self._pool()
        self.disabled.clear()
        self.table.frozen = before is not None and bool(_serving(before))
        await self.web.__aenter__()
        await asyncio.sleep(TAKES / 2)
        self.table.frozen = False
        self.quorate = None

    async def check(self) -> None:
        """What must hold when nothing has happened for a while."""
        assert not self.table.faults
        self.drains = {name: task for name, task in self.drains.items() if not task.done()}
        entry = await self.table.read_service(WEB)
        assert entry is not None
        states = {each.name: each for each in self.web.servers}
        serving = _serving(entry)
        note(f"{self.web.state} {serving} failing {sorted(self.failing)} {self.table.draining}")
        for server in self.drains:
            there = [str(key) for key in entry.destinations]
            assert server in there, f"{server} drains and is gone"
            assert server not in serving
        healthy = {
            name
            for name in states
            if name not in self.failing | self.disabled | set(self.drains) and name != SORRY
        }
        weight = sum(
            weight
            for server, weight in zip(SERVERS, self.scenario.weights, strict=False)
            if server in healthy
        )
        told = self.scenario
        if weight >= told.quorum + told.hysteresis:
            assert self.web.state is UP
        elif weight < told.quorum - told.hysteresis:
            assert self.web.state is DOWN
        elif self.quorate is not None:
            # In between it stays as it was.
            assert (self.web.state is UP) is self.quorate
        self.quorate = self.web.state is UP
        if self.quorate:
            assert set(serving) == healthy, "who is healthy serves, and nobody else"
        elif told.sorry:
            assert SORRY in serving


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    weights = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    quorum = draw(st.integers(1, sum(weights)))
    action = st.tuples(
        st.sampled_from(
            [
                *(("fails", "passes") * 3),
                *(("connect", "drain") * 2),
                *("ends", "disable", "enable", "restart"),
            ]
        ),
        st.integers(0, len(weights) - 1),
        st.floats(0, 1),
    )
    return Scenario(
        weights=weights,
        quorum=quorum,
        hysteresis=draw(st.integers(0, quorum - 1)),
        sorry=draw(st.booleans()),
        inhibit=draw(st.booleans()),
        alpha=draw(st.booleans()),
        actions=tuple(draw(st.lists(action, max_size=14))),
    )


async def _live(scenario: Scenario) -> None:
    life = Life(scenario)
    await life.web.__aenter__()
    try:
        await asyncio.sleep(QUIET)
        await life.check()
        for what, number, how in scenario.actions:
            server = SERVERS[number]
            known = {each.name for each in life.web.servers}
            if server in known:
                await life.act(what, server, how)
            await asyncio.sleep(QUIET)
            await life.check()
    finally:
        for task in life.drains.values():
            task.cancel()
        await asyncio.gather(*life.drains.values(), return_exceptions=True)
        await life.web.__aexit__(None, None, None)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(scenario=scenarios())
def test_a_pool_holds_what_it_promises_whatever_happens(scenario: Scenario) -> None:
    run_virtual(_live(scenario))
