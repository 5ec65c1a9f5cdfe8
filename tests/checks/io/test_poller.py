"""The poller: news of many sockets, each once and to its owner."""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import weakref
from collections.abc import Iterator

import pytest

from checks.attempts import PASSED, attempt, descriptors, real_sockets, until
from checks.hostile import answering, serving
from vrrpkit.checks.http import HTTPChecker
from vrrpkit.checks.io import poller as module
from vrrpkit.checks.io.poller import BATCH, Poller

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@real_sockets
async def test_changes_are_told_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    heard: list[int] = []
    poller = Poller.current()
    poller.watch(ours.fileno(), heard.append)
    assert poller.watched == 1
    await until(lambda: heard == [select.EPOLLOUT])
    theirs.send(b"x")
    await until(lambda: heard[1:] == [select.EPOLLIN | select.EPOLLOUT])
    await asyncio.sleep(0.02)
    assert len(heard) == 2
    theirs.shutdown(socket.SHUT_WR)
    await until(lambda: bool(heard[-1] & select.EPOLLRDHUP))
    poller.forget(ours.fileno())
    poller.forget(ours.fileno())
    assert poller.watched == 0


@real_sockets
async def test_news_are_not_for_a_successor() -> None:
    """Whoever is called first closes the other's socket, and a new one gets its number."""
    ends = [socket.socketpair() for _ in range(2)]
    poller = Poller.current()
    called: list[str] = []
    successors: list[tuple[socket.socket, socket.socket]] = []

    def first(mine: int) -> None:
        called.append(f"first {mine}")
        other = ends[1 - mine][0]
        number = other.fileno()
        poller.forget(number)
        other.close()
        fresh = socket.socketpair()
        successors.append(fresh)
        assert number in (fresh[0].fileno(), fresh[1].fileno())
        poller.watch(number, lambda what: called.append(f"successor {what}"))

    for index, (ours, _) in enumerate(ends):
        poller.watch(ours.fileno(), lambda _what, index=index: first(index))
    await until(lambda: len(called) == 2)
    await asyncio.sleep(0.02)
    assert called[0] in ("first 0", "first 1")
    assert called[1:] == [f"successor {select.EPOLLOUT}"]
    poller.close()
    for end in [*ends, *successors]:
        end[0].close()
        end[1].close()


@real_sockets
async def test_one_that_raises_does_not_cost_the_others_theirs() -> None:
    ends = [socket.socketpair() for _ in range(BATCH * 2 + 3)]
    heard: list[int] = []
    poller = Poller.current()
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, what: problems.append(what["exception"])
    )

    def ready(number: int) -> None:
        heard.append(number)
        if number % 5 == 0:
            raise ZeroDivisionError

    for number, (ours, _) in enumerate(ends):
        poller.watch(ours.fileno(), lambda _what, number=number: ready(number))
    await until(lambda: len(heard) == len(ends))
    assert sorted(heard) == list(range(len(ends)))
    assert len(problems) == (len(ends) + 4) // 5
    poller.close()
    for a, b in ends:
        a.close()
        b.close()


@real_sockets
async def test_a_batch_leaves_the_loop_its_turn() -> None:
    ends = [socket.socketpair() for _ in range(BATCH * 2)]
    poller = Poller.current()
    turns: list[int] = []
    heard = 0

    def ready(_what: int) -> None:
        nonlocal heard
        heard += 1
        if heard == 1:
            asyncio.get_running_loop().call_soon(lambda: turns.append(heard))

    for ours, _ in ends:
        poller.watch(ours.fileno(), ready)
    await until(lambda: heard == len(ends))
    assert turns == [BATCH]
    poller.close()
    for a, b in ends:
        a.close()
        b.close()


@real_sockets
async def test_goes_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 0.02)
    before = descriptors()
    ours, theirs = socket.socketpair()
    poller = Poller.current()
    poller.watch(ours.fileno(), lambda _what: None)
    await asyncio.sleep(0.1)
    assert Poller.current() is poller
    poller.forget(ours.fileno())
    ours.close()
    theirs.close()
    await until(lambda: descriptors() == before)
    again = Poller.current()
    assert again is not poller
    again.close()
    again.close()
    await asyncio.sleep(0.05)
    assert descriptors() == before


@real_sockets
async def test_closing_an_old_one_leaves_the_new_one() -> None:
    old = Poller()
    new = Poller.current()
    old.close()
    assert Poller.current() is new


def test_goes_when_its_loop_is_closed() -> None:
    """At once, and not when the garbage is collected: a loop is in a circle of references."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        Poller.current().watch(ours.fileno(), lambda _what: None)
        await asyncio.sleep(0)
        Poller.current().forget(ours.fileno())
        ours.close()
        theirs.close()

    gc.collect()
    before = descriptors()
    gc.disable()
    try:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        assert descriptors() > before
        loop.close()
        assert descriptors() == before
    finally:
        gc.enable()


def test_each_loop_has_its_own_and_keeps_none_alive() -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    gc.collect()
    before = descriptors()

    async def main() -> int:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert Poller.current() is Poller.current()
        return id(Poller.current())

    asyncio.run(main())
    asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None, None]
    assert descriptors() == before


def test_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with serving(answering(OK)) as server:
            checker = HTTPChecker("/")
            outcomes = await asyncio.gather(*(attempt(checker, server.target) for _ in range(200)))
            assert outcomes == [PASSED] * 200

    opened: list[int] = []
    for _ in range(2):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        gc.collect()
        opened.append(descriptors())
    # The first run may leave what uvloop itself shares among loops.
    assert opened[0] == opened[1]
