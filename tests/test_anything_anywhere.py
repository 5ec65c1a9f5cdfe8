"""Every task of the package is cancelled in the turn in which it was made, and all code of users
raises whatever it likes: nothing is lost, and nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from ipaddress import ip_address

import pytest

from vrrpkit import (
    BFDSession,
    Checker,
    ConnectionSync,
    MemoryBus,
    MemoryTable,
    State,
    StaticNetwork,
    SyncGroup,
    Target,
    Tracker,
    VirtualServer,
    VRRPInstance,
)
from vrrpkit.lifecycle.leaving import ending
from vrrpkit.testing import run_virtual

VIP = ip_address("192.0.2.10")
INSIDE = ip_address("10.1.0.10")
STATIC = ip_address("192.0.2.99")
EXCEPTIONS = [ZeroDivisionError, asyncio.CancelledError, GeneratorExit, BaseException]
ENDINGS = [KeyboardInterrupt, SystemExit]


class Guests:
    """Code of users, of which one kind raises something."""

    def __init__(self, guilty: str = "", kind: type[BaseException] | None = None) -> None:
        self.guilty = guilty
        self.kind = kind
        self.called: set[str] = set()

    def called_in(self, place: str) -> None:
        self.called.add(place)
        if place == self.guilty and self.kind is not None:
            raise self.kind("somebody else's code")

    def callback(self, place: str) -> Callable[[object], None]:
        return lambda _event: self.called_in(place)


class Told:
    """A notifier."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    def attach(self, subject: object) -> Told:
        return self

    def tell(self, event: object) -> None:
        self._guests.called_in("tell")

    async def close(self) -> None:
        self._guests.called_in("close")

    def cancel(self) -> None:
        """Nothing waits."""


class Watches(Tracker):
    """A tracker that is well, unless it raises."""

    guests: Guests

    def describe(self) -> str:
        return "something"

    async def signals(self) -> AsyncIterator[bool]:
        if "signals" in self.guests.called and self.guests.kind is not None:
            # Started again; it has nothing to say yet.
            await asyncio.sleep(10_000)
        yield True
        await asyncio.sleep(5)
        self.guests.called_in("signals")
        await asyncio.sleep(10_000)


class Asks(Checker):
    """A checker that finds every server well, unless it raises."""

    async def check(self, target: Target) -> None:
        GUESTS[-1].called_in("check")


GUESTS: list[Guests] = []


class World:
    """A bit of everything, in memory."""

    def __init__(self, guests: Guests) -> None:
        self.bus, self.other, self.alone = MemoryBus(), MemoryBus(), MemoryBus()
        self.table, self.synced = MemoryTable(), MemoryTable()
        self.guests = guests
        GUESTS.append(guests)
        watches = Watches(weight=5)
        object.__setattr__(watches, "guests", guests)
        self.web = VRRPInstance(
            "web",
            self.bus.interface("192.0.2.1"),
            vrid=51,
            vips=[f"{VIP}/24"],
            notify=[Told(guests)],
            track=[watches],
        )
        self.members = [
            VRRPInstance("in", self.other.interface("10.1.0.1"), vrid=1, vips=[f"{INSIDE}/24"]),
            VRRPInstance("out", self.alone.interface("10.2.0.1"), vrid=2, vips=["10.2.0.10/24"]),
        ]
        self.group = SyncGroup("group", self.members, notify=[Told(guests)])
        self.pool = VirtualServer(
            "192.0.2.10:80/tcp",
            servers=["10.0.0.1:80"],
            check=Asks(interval=1, warmup=0, timeout=0.5),
            table=self.table,
            notify=[Told(guests)],
        )
        self.sync = ConnectionSync("eth1", follows=self.web, table=self.synced)
        self.bfd = BFDSession("192.0.2.2", interface=self.bus.interface("192.0.2.1"))
        self.static = StaticNetwork(
            [f"{STATIC}/24 dev m0"], interfaces={"m0": self.bus.interface("192.0.2.3")}
        )
        for subscribe in (
            self.web.on_transition,
            self.group.on_transition,
            self.members[0].on_transition,
            self.bfd.on_transition,
        ):
            subscribe(guests.callback("on_transition"))
        self.pool.on_server(guests.callback("on_server"))
        self.pool.on_quorum(guests.callback("on_quorum"))
        self.pool.on_result(guests.callback("on_result"))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for each in (self.web, self.group, self.bfd, self.static, self.pool, self.sync):
                await stack.enter_async_context(each)
            yield

    def held(self) -> list[bool]:
        return [
            self.bus.interface("192.0.2.1").holds(VIP),
            self.other.interface("10.1.0.1").holds(INSIDE),
            self.alone.interface("10.2.0.1").holds(ip_address("10.2.0.10")),
            self.bus.interface("192.0.2.3").holds(STATIC),
        ]

    async def serves(self) -> None:
        """Everything is in place, and goes on."""
        assert self.held() == [True] * 4
        assert (self.web.state, self.group.state) == (State.MASTER, State.MASTER)
        assert len(await self.table.read()) == 1
        assert [daemon.role.name for daemon in await self.synced.sync_daemons()] == ["MASTER"]
        sent = self.web.statistics.advertisement_sent
        results = self.pool.servers[0]
        await asyncio.sleep(10)
        assert 9 <= self.web.statistics.advertisement_sent - sent <= 11
        assert results is not None

    async def is_gone(self) -> None:
        """Nothing is left behind."""
        assert self.held() == [False] * 4
        assert not await self.table.read()
        assert list(await self.synced.sync_daemons()) == []


class Saboteur:
    """Cancels each task in the turn in which it was made; the first one of each name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def factory(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[object, object, object],
        **rest: object,
    ) -> asyncio.Task[object]:
        names = self.names

        class Doomed(asyncio.Task[object]):
            def set_name(self, name: object) -> None:
                super().set_name(name)
                if str(name) not in names:
                    names.append(str(name))
                    self.cancel()

        return Doomed(work, loop=loop, **rest)  # type: ignore[arg-type]


def test_every_task_is_cancelled_in_the_turn_in_which_it_was_made() -> None:
    saboteur = Saboteur()

    async def main() -> None:
        world = World(Guests())
        asyncio.get_running_loop().set_task_factory(saboteur.factory)  # type: ignore[arg-type]
        async with world.running():
            await asyncio.sleep(30)
            await world.serves()
            world.web.demote(5)
            await asyncio.sleep(30)
            await world.serves()
        await world.is_gone()
        assert ending() == set()

    run_virtual(main())
    found = " ".join(saboteur.names)
    for wanted in (
        "vrrpkit addresses",
        "vrrpkit IPVS table",
        "connection sync",
        "tracks",
        "check of",
        "gives its addresses back",
        "leaves its members",
        "leaves the table",
        "notifier",
        "static addresses",
    ):
        assert wanted in found


@pytest.mark.parametrize("after", [0.0, 0.001, 1.0, 3.4, 7.0])
def test_all_tasks_are_cancelled_again_and_again(after: float) -> None:
    async def main() -> None:
        world = World(Guests())
        me = asyncio.current_task()
        async with world.running():
            for _ in range(5):
                await asyncio.sleep(after)
                world.web.demote(1)
                for task in asyncio.all_tasks() - {me}:
                    task.cancel()
            await asyncio.sleep(30)
            await world.serves()
        await world.is_gone()

    run_virtual(main())


@pytest.mark.parametrize("after", [0.0, 1.0, 3.61, 7.0])
def test_a_program_that_ends_by_cancelling_all_leaves_nothing(after: float) -> None:
    worlds: list[World] = []

    async def router() -> None:
        world = World(Guests())
        worlds.append(world)
        async with world.running():
            await asyncio.sleep(1000)

    async def main() -> None:
        task = asyncio.create_task(router())
        await asyncio.sleep(after)
        for _ in range(3):
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for world in worlds:
            await world.is_gone()

    run_virtual(main())


PLACES = [
    "on_transition",
    "tell",
    "close",
    "signals",
    "check",
    "on_server",
    "on_quorum",
    "on_result",
]


@pytest.mark.parametrize("kind", EXCEPTIONS)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_somebody_elses_code_raises(
    place: str, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    guests = Guests(place, kind)

    async def main() -> None:
        world = World(guests)
        async with world.running():
            await asyncio.sleep(30)
            await world.serves()
            if place == "signals":
                assert world.web.signals["something"] is False
            if place == "check":
                assert world.pool.servers[0].state.name == "DOWN"
        await world.is_gone()

    run_virtual(main())
    if place not in ("on_server", "on_quorum"):
        assert place in guests.called


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("place", PLACES)
def test_the_end_of_the_program_comes_when_all_is_done(
    place: str, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    guests = Guests(place, kind)
    worlds: list[World] = []

    async def main() -> None:
        world = World(guests)
        worlds.append(world)
        async with world.running():
            await asyncio.sleep(30)

    # The server is well from the beginning, so nobody is told that it goes up or down.
    with contextlib.suppress(kind) if place == "on_server" else pytest.raises(kind):
        run_virtual(main())
    (world,) = worlds
    asyncio.run(world.is_gone())
