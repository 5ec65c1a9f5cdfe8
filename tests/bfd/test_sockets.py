"""BFD sockets that the system refuses for a while."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from namespaces import Net
from vrrpkit import BFDSession, BFDState, HostError
from vrrpkit.bfd import sockets
from vrrpkit.linux.netns import Namespace

pytestmark = pytest.mark.system

A, B = "127.0.0.1", "127.0.0.2"


@pytest.fixture(autouse=True)
def up(net: Net) -> None:
    net.ip("link set lo up")


def pair(net: Net) -> tuple[BFDSession, BFDSession]:
    options: dict[str, Any] = {"netns": net.name, "min_tx": 0.05, "min_rx": 0.05}
    return BFDSession(B, source=A, **options), BFDSession(A, source=B, **options)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Refuse sockets as long as there is something in the list; how often is its length."""
    real = Namespace.socket
    refusals = [number] * 5

    def refusing(self: Namespace, *args: Any) -> Any:
        if refusals:
            problem = refusals.pop()
            raise OSError(problem, os.strerror(problem))
        return real(self, *args)

    monkeypatch.setattr(Namespace, "socket", refusing)
    return refusals


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS])
def test_a_socket_that_is_refused_for_a_while_is_opened_later(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(sockets, "RETRY", 0.05)

    async def main() -> None:
        one, other = pair(net)
        refusals = refuse(monkeypatch, number)
        async with asyncio.timeout(20), one:
            assert 0 < len(refusals) <= 3, "one to send, one to receive, and a first packet"
            assert one.state is BFDState.DOWN
            async with other:
                await one.wait_for(BFDState.UP)
                await other.wait_for(BFDState.UP)
        assert refusals == []

    asyncio.run(main())
    assert caplog.text.count("BFD cannot listen on UDP port 3784") == 1


def test_a_session_may_end_before_its_socket_is_opened(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "RETRY", 0.05)

    async def main() -> None:
        refusals = refuse(monkeypatch, errno.EMFILE)
        one, _ = pair(net)
        async with one:
            pass
        left = len(refusals)
        await asyncio.sleep(0.2)
        assert len(refusals) == left

    asyncio.run(main())


def test_what_does_not_pass_is_raised(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        one, other = pair(net)
        refuse(monkeypatch, errno.EAFNOSUPPORT)
        with pytest.raises((OSError, HostError)):
            await other.__aenter__()
        assert one.state is not BFDState.UP

    asyncio.run(main())
