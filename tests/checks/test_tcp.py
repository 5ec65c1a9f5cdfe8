"""The TCP checker against good and hostile servers."""

from __future__ import annotations

import asyncio
import re
import socket
from ipaddress import ip_address

import pytest

from checks import hostile
from checks.attempts import NOT_ASKED, PASSED, attempt, collect, descriptors, real_sockets, until
from vrrpkit.checks.io import tcp
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.target import EPHEMERAL, Target
from vrrpkit.checks.tcp import TCPChecker
from vrrpkit.errors import ConfigError

families = pytest.mark.parametrize("family", [4, 6])
SHORT = 0.2


@families
@real_sockets
async def test_connects_and_closes(family: int) -> None:
    ended = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        ended.set()

    async with hostile.serving(behave, family=family) as server:
        assert await attempt(TCPChecker(), server.target) == PASSED
        async with asyncio.timeout(5):
            await ended.wait()


@families
@real_sockets
async def test_refused(family: int) -> None:
    target = hostile.refused(family)
    assert await attempt(TCPChecker(), target) == f"cannot connect to {target}: Connection refused"


@families
@real_sockets
async def test_no_answer_at_all(family: int) -> None:
    with hostile.unanswered(family) as target:
        before = descriptors()
        assert await attempt(TCPChecker(), target, SHORT) == "timeout"
        # The loop's poller is there to stay.
        assert descriptors() == before + 1


@real_sockets
async def test_failure_at_once_is_reported_before_begin_returns() -> None:
    outcomes: list[object] = []
    target = Target(ip_address("255.255.255.255"), 80)
    abandon = TCPChecker().begin(target, collect(outcomes))
    assert outcomes == [f"cannot connect to {target}: Network is unreachable"]
    abandon()
    assert Poller.current().watched == 0


@families
@real_sockets
async def test_source_address(family: int) -> None:
    source = {4: "127.0.0.77", 6: "::1"}[family]
    async with hostile.serving(hostile.silent, family=family) as server:
        assert await attempt(TCPChecker(source=source), server.target) == PASSED
        await until(lambda: len(server.sources) == 1)
        assert server.sources[0][0] == source


@real_sockets
async def test_source_port() -> None:
    port = hostile.refused().port
    async with hostile.serving(hostile.silent) as server:
        assert await attempt(TCPChecker(source_port=port), server.target) == PASSED
        await until(lambda: len(server.sources) == 1)
        assert server.sources[0][1] == port


@real_sockets
async def test_source_that_is_not_here() -> None:
    outcome = await attempt(TCPChecker(source="192.0.2.1"), hostile.refused())
    assert outcome.startswith(NOT_ASKED)
    assert "Cannot assign requested address" in outcome


@real_sockets
async def test_another_address_and_port() -> None:
    async with hostile.serving(hostile.silent) as server:
        elsewhere = Target(ip_address("192.0.2.1"), 9)
        checker = TCPChecker(address=server.address, port=server.port)
        assert await attempt(checker, elsewhere) == PASSED


@families
@real_sockets
async def test_connected_to_itself_is_not_healthy(family: int) -> None:
    target = hostile.refused(family)
    assert target.port is not None
    assert target.port >= EPHEMERAL
    checker = TCPChecker(source=target.address, source_port=target.port)
    outcome = await attempt(checker, target)
    assert outcome == f"cannot connect to {target}: nobody listens there"


@pytest.mark.parametrize(
    "expect", [b"+PONG", b"PONG\r\n", re.compile(rb"\A\+P[aeiO]NG"), re.compile(rb"pong", re.I)]
)
@real_sockets
async def test_expected(expect: bytes | re.Pattern[bytes]) -> None:
    async with hostile.serving(hostile.echoing(b"+")) as server:
        assert await attempt(TCPChecker(send=b"PONG\r\n", expect=expect), server.target) == PASSED
        assert server.heard == b"PONG\r\n"


@pytest.mark.parametrize("expect", [b"abcdef", re.compile(b"abcdef")])
@real_sockets
async def test_expected_in_pieces(expect: bytes | re.Pattern[bytes]) -> None:
    async with hostile.serving(hostile.drip(b"xxabcabcdef", 0.002)) as server:
        assert await attempt(TCPChecker(expect=expect), server.target) == PASSED


@real_sockets
async def test_send_without_expecting() -> None:
    async with hostile.serving(hostile.silent) as server:
        assert await attempt(TCPChecker(send=b"QUIT\r\n"), server.target) == PASSED
        await until(lambda: server.heard == b"QUIT\r\n")


@real_sockets
async def test_more_to_send_than_fits() -> None:
    octets = 20 * 2**20

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(octets)
        writer.write(b"thanks")

    async with hostile.serving(behave) as server:
        checker = TCPChecker(send=b"x" * octets, expect=b"thanks")
        assert await attempt(checker, server.target) == PASSED
        assert await attempt(TCPChecker(send=b"x" * octets), server.target) == PASSED
        await until(lambda: len(server.heard) == 2 * octets)


@real_sockets
async def test_interrupted_while_sending() -> None:
    """What is heard meanwhile does not hurt what is still to be sent."""
    octets = 20 * 2**20

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for word in (b"go", b"on"):
            writer.write(word)
            await asyncio.sleep(0.02)
        await reader.readexactly(octets)
        writer.write(b"thanks")

    async with hostile.serving(behave) as server:
        checker = TCPChecker(send=b"x" * octets, expect=b"thanks")
        assert await attempt(checker, server.target) == PASSED


@real_sockets
async def test_exactly_what_is_read_at_once() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * tcp.CHUNK)
        await asyncio.sleep(0.05)
        writer.write(b"end")

    async with hostile.serving(behave) as server:
        assert await attempt(TCPChecker(expect=b"end"), server.target) == PASSED


@real_sockets
async def test_reset_while_sending() -> None:
    async with hostile.serving(hostile.reset()) as server:
        outcome = await attempt(TCPChecker(send=b"x\n" * 10 * 2**20), server.target)
        assert outcome.startswith(f"lost the connection to {server.target}: ")


@real_sockets
async def test_what_the_server_says_while_all_is_being_sent_is_not_heard() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"stop!")
        await asyncio.sleep(0.05)
        await reader.read()

    async with hostile.serving(behave) as server:
        assert await attempt(TCPChecker(send=b"x" * 20 * 2**20), server.target) == PASSED


@real_sockets
async def test_another_answer_and_closed() -> None:
    async with hostile.serving(hostile.cut(b"-ERR", wait=False)) as server:
        outcome = await attempt(TCPChecker(expect=b"+PONG"), server.target)
        assert outcome == "closed after b'-ERR', expected b'+PONG'"


@real_sockets
async def test_closed_without_a_word() -> None:
    async with hostile.serving(hostile.cut(b"", wait=False)) as server:
        outcome = await attempt(TCPChecker(expect=re.compile(b"[0-9]")), server.target)
        assert outcome == "closed after no answer, expected b'[0-9]'"


@real_sockets
async def test_reset_in_the_middle() -> None:
    async with hostile.serving(hostile.reset(b"+PO")) as server:
        outcome = await attempt(TCPChecker(send=b"\n", expect=b"+PONG"), server.target)
        assert outcome == f"lost the connection to {server.target}: Connection reset by peer"


@pytest.mark.parametrize(
    "behaviour", [hostile.silent, hostile.drip(b"+PO"), hostile.garbage(b"\0")]
)
@real_sockets
async def test_no_verdict_in_time(behaviour: hostile.Behaviour) -> None:
    async with hostile.serving(behaviour) as server:
        before = descriptors()
        assert await attempt(TCPChecker(expect=b"+PONG"), server.target, SHORT) == "timeout"
        await until(lambda: descriptors() <= before + 2)


@pytest.mark.parametrize("expect", [b"+PONG", re.compile(rb"\+PONG")])
@real_sockets
async def test_ten_gigabytes(expect: bytes | re.Pattern[bytes]) -> None:
    async with hostile.serving(hostile.flood()) as server:
        outcome = await attempt(TCPChecker(expect=expect, limit=100_000), server.target)
        assert outcome.startswith("sent 100000 octets without the expected b'")
        assert outcome.endswith("xxx'...")
        await until(lambda: len(server.errors) == 1)


@real_sockets
async def test_limit_is_exact() -> None:
    async with hostile.serving(hostile.saying(b"0123456789")) as server:
        assert await attempt(TCPChecker(expect=b"9", limit=10), server.target) == PASSED
        outcome = await attempt(TCPChecker(expect=b"9", limit=9), server.target)
        assert outcome == "sent 9 octets without the expected b'9': b'012345678'"


@real_sockets
async def test_an_abandoned_attempt_says_nothing_and_leaves_nothing() -> None:
    outcomes: list[object] = []
    async with hostile.serving(hostile.silent) as server:
        checker = TCPChecker(expect=b"never")
        before = descriptors()
        abandons = [checker.begin(server.target, collect(outcomes)) for _ in range(20)]
        await until(lambda: server.connections == 20)
        for abandon in abandons:
            abandon()
            abandon()
        assert Poller.current().watched == 0
        await until(lambda: descriptors() <= before + 1)
        assert outcomes == []


@real_sockets
async def test_abandoned_while_there_is_more_to_read() -> None:
    outcomes: list[object] = []
    async with hostile.serving(hostile.flood()) as server:
        abandon = TCPChecker(expect=b"+", limit=2**24).begin(server.target, collect(outcomes))
        await until(lambda: server.connections == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        abandon()
        await until(lambda: len(server.errors) == 1)
        assert outcomes == []


@real_sockets
async def test_a_cancelled_check_leaves_nothing() -> None:
    async with hostile.serving(hostile.silent) as server:
        task = asyncio.create_task(TCPChecker(expect=b"x").check(server.target), name="check")
        await until(lambda: server.connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert Poller.current().watched == 0


@real_sockets
async def test_an_error_in_a_conversation_ends_the_attempt() -> None:
    class Broken:
        passed = False
        farewell = b""
        forgiving = False

        def opened(self) -> bytes:
            raise ZeroDivisionError("broken")

        def received(self, data: bytes) -> bytes:
            return b""

    class Undecided(Broken):
        def opened(self) -> bytes:
            return b""

    outcomes: list[object] = []
    async with hostile.serving(hostile.cut(b"something", wait=False)) as server:
        endpoint = TCPChecker().endpoint(server.target)
        tcp.connect(endpoint, Broken(), collect(outcomes))
        await until(lambda: len(outcomes) == 1)
        tcp.connect(endpoint, Undecided(), collect(outcomes))
        await until(lambda: len(outcomes) == 2)
        assert outcomes == ["broken", f"{server.target} closed the connection"]


@real_sockets
async def test_no_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    outcomes: list[object] = []
    monkeypatch.setattr("vrrpkit.checks.target.Endpoint.socket", refuse)
    TCPChecker().begin(Target(ip_address("127.0.0.1"), 9), collect(outcomes))
    assert outcomes == ["cannot connect to 127.0.0.1:9: Too many open files"]


@real_sockets
async def test_a_socket_that_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    outcomes: list[object] = []
    monkeypatch.setattr(Poller, "watch", refuse)
    async with hostile.serving(hostile.silent) as server:
        TCPChecker().begin(server.target, collect(outcomes))
        assert outcomes == [f"cannot connect to {server.target}: No space left on device"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"send": "PING"}, "write b'PING"),
        ({"send": b""}, "write b'PING"),
        ({"expect": "PONG"}, "write b'+PONG'"),
        ({"expect": b""}, "write b'+PONG'"),
        ({"expect": re.compile("PONG")}, "write b'+PONG'"),
        ({"expect": b"x", "limit": 0}, "limit 0"),
        ({"expect": b"x", "limit": 2**24 + 1}, "limit 16777217"),
        ({"port": 0}, "port 0"),
    ],
)
def test_bad_values(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        TCPChecker(**options)  # type: ignore[arg-type]


def test_a_target_without_port() -> None:
    with pytest.raises(ConfigError, match="there is no port"):
        TCPChecker().validate(Target(ip_address("192.0.2.1")))
    TCPChecker(port=80).validate(Target(ip_address("192.0.2.1")))
