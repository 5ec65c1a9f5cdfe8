"""The UDP checker against good and hostile servers."""

from __future__ import annotations

import asyncio
import re
import time
from ipaddress import ip_address
from typing import Any

import attrs
import pytest

from checks import datagrams
from checks.attempts import NOT_ASKED, PASSED, attempt, collect, descriptors, real_sockets, until
from checks.privileges import unprivileged
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.target import Target
from vrrpkit.checks.udp import UDPChecker
from vrrpkit.errors import ConfigError

families = pytest.mark.parametrize("family", [4, 6])
SHORT = 0.2
SOON = 0.05
REFUSED = "nobody listens there (ICMP: port unreachable)"


async def outcome(answer: bytes, /, **options: Any) -> str:
    """What a checker says of a server that replies so to everything."""
    async with datagrams.answering(datagrams.saying(answer)) as server:
        return await attempt(UDPChecker(**options), server.target)


# --- nothing need come back ---------------------------------------------------------------------


@families
@real_sockets
async def test_silence_is_healthy(family: int) -> None:
    async with datagrams.answering(datagrams.silent, family=family) as server:
        begun = time.monotonic()
        checker = UDPChecker(payload="0102 ff", patience=SOON)
        assert await attempt(checker, server.target) == PASSED
        assert time.monotonic() - begun >= SOON
        await until(lambda: server.heard == [b"\x01\x02\xff"])


@real_sockets
async def test_without_payload_an_empty_datagram_is_sent() -> None:
    async with datagrams.answering(datagrams.silent) as server:
        assert await attempt(UDPChecker(patience=SOON), server.target) == PASSED
        await until(lambda: server.heard == [b""])


@families
@real_sockets
async def test_nobody_listens(family: int) -> None:
    target = datagrams.refused(family)
    assert await attempt(UDPChecker(), target) == f"asking {target} failed: {REFUSED}"


@real_sockets
async def test_a_reply_ends_the_silence_at_once() -> None:
    assert await outcome(b"hello", patience=60, timeout=61) == PASSED


@real_sockets
async def test_half_of_a_short_timeout_is_waited_for() -> None:
    async with datagrams.answering(datagrams.silent) as server:
        assert await attempt(UDPChecker(timeout=0.1), server.target, 0.1) == PASSED


@real_sockets
async def test_there_is_no_way() -> None:
    target = Target(ip_address("255.255.255.255"), 9)
    outcomes: list[object] = []
    UDPChecker().begin(target, collect(outcomes))
    assert len(outcomes) == 1
    assert str(outcomes[0]).startswith(f"asking {target} failed: ")


# --- what comes back ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "reply"),
    [
        ("0a0b", b"\x0a\x0b"),
        ("0A 0b", b"\x0a\x0b"),
        ("0a0b", b"\x0a\x0band more"),
        ("0axx", b"\x0a\x77"),
        ("xa XB", b"\xfa\x4b"),
        ("xx", b"\x00"),
        ("1 23 4", b"\x01\x23\x04"),
        ("123", b"\x12\x03"),
        (b"PONG", b"PONG 42"),
        (b"\x00\x00", b"\x00\x00"),
    ],
)
@real_sockets
async def test_matches(pattern: str | bytes, reply: bytes) -> None:
    assert await outcome(reply, reply=pattern) == PASSED


@pytest.mark.parametrize(
    ("pattern", "reply", "says"),
    [
        ("0a0b", b"\x0a\x0c", "the reply is 0a0c, expected 0a0b"),
        ("xa", b"\xfb", "the reply is fb, expected xa"),
        ("0x xx", b"\x10\x00", "the reply is 1000, expected 0x xx"),
        ("0a0b", b"\x0a", "the reply is 0a, expected 0a0b"),
        ("xx", b"", "the reply is empty, expected xx"),
        (b"PONG", b"ping", "the reply is 70696e67, expected 504f4e47"),
        ("ff", b"\0" * 50, f"the reply is {'00' * 40}..., expected ff"),
    ],
)
@real_sockets
async def test_does_not_match(pattern: str | bytes, reply: bytes, says: str) -> None:
    assert await outcome(reply, reply=pattern) == says


@real_sockets
async def test_a_reply_must_come() -> None:
    async with datagrams.answering(datagrams.silent) as server:
        for checker in (UDPChecker(require_reply=True), UDPChecker(reply="xx")):
            assert await attempt(checker, server.target, SHORT) == "timeout"
    assert await outcome(b"", require_reply=True) == PASSED


@pytest.mark.parametrize("required", [True, False])
@real_sockets
async def test_length(required: bool) -> None:
    limits = {"min_reply_length": 2, "max_reply_length": 4, "require_reply": required}
    assert await outcome(b"ab", **limits) == PASSED
    assert await outcome(b"abcd", **limits) == PASSED
    assert await outcome(b"a", **limits) == "the reply has 1 octets, expected at least 2: 61"
    long = "the reply has more than 4 octets: 6162636465"
    assert await outcome(b"abcde", **limits) == long
    assert await outcome(b"abcde" * 1000, **limits) == long


@real_sockets
async def test_usual_length() -> None:
    assert await outcome(b"x" * 255) == PASSED
    assert (await outcome(b"x" * 256)).startswith("the reply has more than 255 octets: ")


@real_sockets
async def test_the_largest_datagrams() -> None:
    async with datagrams.answering(lambda data: [data]) as server:
        checker = UDPChecker(payload=b"x" * 65507, reply=b"xxx", max_reply_length=65507)
        assert await attempt(checker, server.target) == PASSED
    target = datagrams.refused(6)
    # Twenty octets fewer fit into a packet of IPv6, but for jumbograms.
    assert REFUSED in await attempt(UDPChecker(payload=b"x" * 65487), target)


@real_sockets
async def test_replies_from_elsewhere_are_not_heard() -> None:
    async with datagrams.answering(datagrams.silent) as server:
        task = asyncio.create_task(
            attempt(UDPChecker(require_reply=True), server.target), name="attempt"
        )
        await until(lambda: len(server.sources) == 1)
        loop = asyncio.get_running_loop()
        stranger, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        stranger.sendto(b"me! me!", server.sources[0])
        done, _pending = await asyncio.wait({task}, timeout=SHORT)
        assert not done
        task.cancel()
        await asyncio.wait({task})
        stranger.close()
        await asyncio.sleep(0)


# --- the way ------------------------------------------------------------------------------------


@families
@real_sockets
async def test_source(family: int) -> None:
    source = {4: "127.0.0.77", 6: "::1"}[family]
    port = datagrams.refused(family).port
    async with datagrams.answering(lambda data: [data], family=family) as server:
        checker = UDPChecker(source=source, source_port=port, require_reply=True)
        assert await attempt(checker, server.target) == PASSED
        assert server.sources == [(source, port)]


@real_sockets
async def test_another_address_and_port() -> None:
    async with datagrams.answering(lambda data: [data]) as server:
        checker = UDPChecker(address=server.address, port=server.port, require_reply=True)
        assert await attempt(checker, Target(ip_address("192.0.2.1"))) == PASSED


@families
@real_sockets
async def test_its_own_question_is_no_answer(family: int) -> None:
    """Where nobody listens, the kernel may pick the very port that is asked for our end."""
    target = datagrams.refused(family)
    for checker in (UDPChecker(require_reply=True, payload=b"x"), UDPChecker()):
        checker = attrs.evolve(checker, source=target.address, source_port=target.port)
        assert await attempt(checker, target) == f"asking {target} failed: nobody listens there"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": "192.0.2.1"}, "from 192.0.2.1: Cannot assign requested address"),
        ({"source": "192.0.2.1", "source_port": 50009}, "from 192.0.2.1:50009: Cannot assign"),
        ({"interface": "nowhere7"}, "interface 'nowhere7': No such device"),
        ({"fwmark": 7}, "CAP_NET_ADMIN is missing: fwmark=7 needs it"),
    ],
)
@real_sockets
async def test_a_way_that_is_barred(options: dict[str, Any], says: str) -> None:
    target = datagrams.refused()
    with unprivileged():
        said = await attempt(UDPChecker(**options), target)
    assert said.startswith(f"{NOT_ASKED}asking {target} failed: {says}")


@real_sockets
async def test_a_port_is_needed() -> None:
    with pytest.raises(ConfigError, match="there is no port to connect to"):
        UDPChecker().validate(Target(ip_address("192.0.2.1")))


# --- ends ---------------------------------------------------------------------------------------


@real_sockets
async def test_an_abandoned_attempt_says_nothing_and_leaves_nothing() -> None:
    outcomes: list[object] = []
    async with datagrams.answering(datagrams.silent) as server:
        before = descriptors()
        checkers = [UDPChecker(patience=SOON), UDPChecker(require_reply=True)] * 10
        abandons = [checker.begin(server.target, collect(outcomes)) for checker in checkers]
        assert descriptors() == before + 21
        for abandon in abandons:
            abandon()
            abandon()
        # The loop's poller is there to stay.
        assert descriptors() == before + 1
        assert Poller.current().watched == 0
        await asyncio.sleep(3 * SOON)
        assert outcomes == []


@real_sockets
async def test_a_cancelled_check_leaves_nothing() -> None:
    async with datagrams.answering(datagrams.silent) as server:
        task = asyncio.create_task(UDPChecker().check(server.target), name="check")
        await until(lambda: len(server.heard) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert Poller.current().watched == 0


@real_sockets
async def test_a_flood_is_one_reply() -> None:
    outcomes: list[object] = []
    async with datagrams.answering(datagrams.saying(*[b"x"] * 100)) as server:
        UDPChecker(require_reply=True).begin(server.target, collect(outcomes))
        await until(lambda: len(outcomes) == 1)
        await asyncio.sleep(SOON)
        assert outcomes == [PASSED]


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"payload": "0g"}, "payload must be octets or hexadecimal digits"),
        ({"payload": "xx"}, "payload must be octets or hexadecimal digits"),
        ({"payload": 7}, "payload must be octets or hexadecimal digits"),
        ({"payload": b"x" * 65508}, "payload has 65508 octets; a datagram carries at most 65507"),
        ({"reply": "0g"}, "reply '0g' must be octets, or hexadecimal digits with x"),
        ({"reply": ""}, "reply '' must be octets, or hexadecimal digits with x"),
        ({"reply": b""}, "reply b'' must be octets, or hexadecimal digits with x"),
        ({"reply": 7}, "reply 7 must be octets, or hexadecimal digits with x"),
        ({"reply": "aabb", "max_reply_length": 1}, "reply has 2 octets, max_reply_length is 1"),
        ({"min_reply_length": -1}, "min_reply_length -1 must be"),
        ({"min_reply_length": 256}, "min_reply_length 256 is above max_reply_length 255"),
        ({"max_reply_length": 65508}, "max_reply_length 65508 must be"),
        ({"max_reply_length": True}, "max_reply_length True must be"),
        ({"patience": 0}, "patience 0 must be"),
        ({"patience": 3}, "patience 3 must be less than timeout 3"),
        ({"port": 0}, "port 0 must be"),
    ],
)
def test_bad_values(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        UDPChecker(**options)


@pytest.mark.parametrize(
    ("written", "octets"),
    [
        ("", b""),
        (b"raw", b"raw"),
        # keepalived's own example.
        ("Ab12f 3 456 546443123", bytes.fromhex("ab120f03450654644312 03")),
    ],
)
def test_payload(written: str | bytes, octets: bytes) -> None:
    assert UDPChecker(payload=written).payload == octets
