"""One datagram and what comes back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from checks import datagrams
from checks.attempts import PASSED, collect, descriptors, real_sockets, until
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.io.udp import BATCH, ask
from vrrpkit.checks.target import Endpoint


@pytest.mark.parametrize("number", [1, 3, BATCH])
@pytest.mark.parametrize("verdict", [True, False])
@real_sockets
async def test_abandoned_by_who_hears(number: int, verdict: bool) -> None:
    outcomes: list[object] = []
    heard: list[bytes] = []
    abandon: list[Callable[[], None]] = []

    def hear(data: bytes) -> bool:
        heard.append(data)
        if len(heard) < number:
            return False
        abandon[0]()
        return verdict

    async with datagrams.answering(datagrams.saying(*[b"x"] * 40)) as server:
        endpoint = Endpoint(server.target.address, server.target.port)
        abandon.append(ask(endpoint, b"", hear, collect(outcomes), limit=9))
        await until(lambda: len(heard) == number)
        for _ in range(3):
            await asyncio.sleep(0)
        assert (len(heard), outcomes) == (number, [])
        assert Poller.current().watched == 0


@real_sockets
async def test_many_datagrams_and_the_last_is_the_answer() -> None:
    outcomes: list[object] = []
    answers = [*[b"x"] * (3 * BATCH), b"answer, and more"]
    async with datagrams.answering(datagrams.saying(*answers)) as server:
        endpoint = Endpoint(server.target.address, server.target.port)
        ask(endpoint, b"", lambda data: data == b"answer", collect(outcomes), limit=6)
        await until(lambda: outcomes == [PASSED])


@real_sockets
async def test_a_bug_in_who_hears_ends_the_attempt() -> None:
    outcomes: list[object] = []

    def hear(data: bytes) -> bool:
        raise ZeroDivisionError("broken")

    async with datagrams.answering(datagrams.saying(b"x", b"y")) as server:
        endpoint = Endpoint(server.target.address, server.target.port)
        ask(endpoint, b"", hear, collect(outcomes), limit=9)
        await until(lambda: outcomes == ["broken"])


@real_sockets
async def test_no_more_files() -> None:
    def refuse(_: Endpoint) -> socket.socket:
        raise OSError(24, "Too many open files")

    outcomes: list[object] = []
    endpoint = Endpoint(ip_address("127.0.0.1"), 9)
    before = descriptors()
    ask(endpoint, b"", lambda _: True, collect(outcomes), limit=9, opened=refuse, silence=0.001)
    assert outcomes == ["asking 127.0.0.1:9 failed: Too many open files"]
    # The loop's poller is there to stay.
    assert descriptors() == before + 1


@real_sockets
async def test_a_socket_that_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    outcomes: list[object] = []
    monkeypatch.setattr(Poller, "watch", refuse)
    ask(Endpoint(ip_address("127.0.0.1"), 9), b"", lambda _: True, collect(outcomes), limit=9)
    assert outcomes == ["asking 127.0.0.1:9 failed: No space left on device"]
