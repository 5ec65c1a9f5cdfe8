"""The DNS checker against good and hostile servers."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from checks import datagrams, hostile
from checks.attempts import NOT_ASKED, PASSED, attempt, collect, descriptors, real_sockets, until
from checks.privileges import unprivileged
from checks.protocol.test_dns_message import record, said
from vrrpkit.checks.dns import DNSChecker
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.target import Target
from vrrpkit.errors import ConfigError

families = pytest.mark.parametrize("family", [4, 6])
SHORT = 0.2
REFUSED = "nobody listens there (ICMP: port unreachable)"
TRUNCATED = 0x8380
WWW = record("A", b"\xc0\x00\x02\x0a")


def answer(*records: bytes, flags: int = 0x8180) -> Callable[[bytes], list[bytes]]:
    """A server that answers everything with the same records."""
    return lambda query: [said(query, *records, flags=flags)]


async def outcome(answers: datagrams.Answer, *args: Any, **options: Any) -> str:
    """What a checker says of a server."""
    async with datagrams.answering(answers) as server:
        return await attempt(DNSChecker(*args, **options), server.target)


@asynccontextmanager
async def both(
    by_udp: datagrams.Answer, by_tcp: hostile.Behaviour, family: int = 4
) -> AsyncIterator[tuple[datagrams.Server, hostile.Server]]:
    """A server with one port by UDP and TCP."""
    while True:
        async with hostile.serving(by_tcp, family=family) as tcp:
            try:
                async with datagrams.answering(by_udp, family=family, port=tcp.port) as udp:
                    yield udp, tcp
                    return
            except OSError as problem:
                if problem.errno != 98:
                    raise


def by_tcp(
    make: Callable[[bytes], bytes], *, pieces: int = 0, more: bytes = b""
) -> hostile.Behaviour:
    """A server that answers queries by TCP."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        message = make(await reader.readexactly(length))
        octets = struct.pack("!H", len(message)) + message + more
        if not pieces:
            writer.write(octets)
        for octet in octets if pieces else b"":
            writer.write(bytes([octet]))
            await asyncio.sleep(0)
        await reader.read()

    return behave


def closing(data: bytes) -> hostile.Behaviour:
    """Take the query, send ``data`` and close."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        await reader.readexactly(length)
        writer.write(data)

    return behave


# --- by UDP -------------------------------------------------------------------------------------


@families
@real_sockets
async def test_answers(family: int) -> None:
    async with datagrams.answering(answer(), family=family) as server:
        assert await attempt(DNSChecker(), server.target) == PASSED
        # keepalived's query: SOA of the root, class IN, recursion desired.
        assert server.heard[0][2:] == bytes.fromhex("0100 0001 0000 0000 0000 00 0006 0001")
        for _ in range(20):
            await attempt(DNSChecker(), server.target)
        assert len({query[:2] for query in server.heard}) > 10
        assert len(set(server.sources)) > 10


@real_sockets
async def test_asks_what_it_was_told() -> None:
    async with datagrams.answering(answer()) as server:
        checker = DNSChecker("a.example.net.", "txt", recursion=False)
        assert await attempt(checker, server.target) == PASSED
        name = "0161 07 6578616d706c65 036e6574 00"
        assert server.heard[0][2:] == bytes.fromhex(f"0000 0001 0000 0000 0000 {name} 0010 0001")
        assert await attempt(DNSChecker(type="type65280"), server.target) == PASSED
        assert server.heard[1][-4:] == bytes.fromhex("ff00 0001")


@families
@real_sockets
async def test_nobody_listens(family: int) -> None:
    target = datagrams.refused(family)
    assert await attempt(DNSChecker(), target) == f"asking {target} failed: {REFUSED}"


@real_sockets
async def test_no_answer() -> None:
    async with datagrams.answering(datagrams.silent) as server:
        assert await attempt(DNSChecker(), server.target, SHORT) == "timeout"
        await until(lambda: len(server.heard) == 1)


def test_port() -> None:
    somewhere = ip_address("192.0.2.1")
    for port, given, endpoint in [
        (None, None, 53),
        (5353, None, 5353),
        (5353, 54, 54),
        (0, None, 53),
    ]:
        checker = DNSChecker(port=given)
        checker.validate(Target(somewhere, port))
        assert checker.endpoint(Target(somewhere, port)).port == endpoint


@pytest.mark.parametrize(
    ("flags", "rcode", "says"),
    [
        (0x8182, "NOERROR", "answered SERVFAIL to . SOA, expected NOERROR"),
        (0x8185, "noerror", "answered REFUSED to . SOA, expected NOERROR"),
        (0x8183, ["NOERROR", "NXDOMAIN"], PASSED),
        (0x8183, 3, PASSED),
        (0x8180, ["NXDOMAIN", 11], "answered NOERROR to . SOA, expected NXDOMAIN, 11"),
        (0x818F, "NOERROR", "answered 15 to . SOA, expected NOERROR"),
    ],
)
@real_sockets
async def test_rcode(flags: int, rcode: Any, says: str) -> None:
    assert await outcome(answer(flags=flags), rcode=rcode) == says


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ("192.0.2.10", PASSED),
        (ip_address("192.0.2.10"), PASSED),
        (["192.0.2.11", "192.0.2.10"], PASSED),
        (
            "192.0.2.12",
            "the answer to w.de A lacks '192.0.2.12', it has '192.0.2.10', '192.0.2.11'",
        ),
        (["192.0.2.10", "192.0.2.12"], "the answer to w.de A lacks '192.0.2.12', it has"),
        ([], PASSED),
        (None, PASSED),
    ],
)
@real_sockets
async def test_expected_answers(expect: Any, says: str) -> None:
    other = record("A", b"\xc0\x00\x02\x0b")
    assert (await outcome(answer(WWW, other), "w.de", "A", expect=expect)).startswith(says)


@real_sockets
async def test_no_record_of_the_type() -> None:
    alias = record("CNAME", b"\xc0\x0c")
    lacks = "the answer to w.de A lacks '192.0.2.10', it has no record of that type"
    assert await outcome(answer(alias), "w.de", "A", expect="192.0.2.10") == lacks
    assert await outcome(answer(alias, WWW), "w.de", "A", expect="192.0.2.10") == PASSED


@real_sockets
async def test_least_number_of_answers() -> None:
    assert await outcome(answer(WWW, WWW), "w.de", "A", min_answers=2) == PASSED
    few = "the answer to w.de A has 1 records of that type, expected at least 2"
    assert await outcome(answer(WWW), "w.de", "A", min_answers=2) == few
    assert await outcome(answer(WWW), ".", "ANY", min_answers=1) == PASSED


@real_sockets
async def test_answers_are_inspected_only_if_asked() -> None:
    broken = record("A", b"\1\2\3")
    assert await outcome(answer(broken), ".", "A") == PASSED
    says = "a record of type 1 has broken content"
    assert await outcome(answer(broken), ".", "A", expect="1.2.3.4") == says
    assert await outcome(answer(b"\xc0"), ".", "A") == PASSED
    assert "ends within a record" in await outcome(answer(b"\xc0"), ".", "A", min_answers=1)


@real_sockets
async def test_answers_to_other_queries_are_passed_over() -> None:
    def answers(query: bytes) -> list[bytes]:
        other = bytes([query[0] ^ 1]) + query[1:]
        return [b"", b"\xff", said(other, flags=0x8182), said(query)]

    assert await outcome(answers) == PASSED


@real_sockets
async def test_a_flood_of_them_ends_the_attempt() -> None:
    strays: datagrams.Answer = lambda query: [bytes([query[0] ^ 1]) + query[1:]] * 101  # noqa: E731
    assert await outcome(strays) == "100 datagrams came, and none of them is the answer"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda query: query, "the message that came is a query, not an answer"),
        (lambda query: query[:7], "the answer has 7 octets, its header alone has 12"),
        (lambda query: said(query, questions=0), "the answer is to another question"),
        (lambda query: query[:2] + bytes(range(128, 255)), "the answer is to another question"),
    ],
)
@real_sockets
async def test_garbage(change: Callable[[bytes], bytes], says: str) -> None:
    assert await outcome(lambda query: [change(query)]) == says


# --- by TCP -------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("pieces", [0, 1])
@real_sockets
async def test_truncated_is_asked_again_by_tcp(family: int, pieces: int) -> None:
    tcp = by_tcp(lambda query: said(query, WWW), pieces=pieces)
    async with both(answer(flags=TRUNCATED), tcp, family) as (asked, connected):
        checker = DNSChecker("www.example.net", "A", expect="192.0.2.10")
        assert await attempt(checker, asked.target) == PASSED
        assert len(asked.heard) == 1
        await until(lambda: connected.connections == 1)


@real_sockets
async def test_by_tcp_only() -> None:
    async with both(answer(flags=0x8182), by_tcp(lambda query: said(query))) as (asked, connected):
        assert await attempt(DNSChecker(tcp=True), asked.target) == PASSED
        assert asked.heard == []
        assert connected.heard[2:4] != b""


@real_sockets
async def test_the_longest_answer() -> None:
    def make(query: bytes) -> bytes:
        octets = 65535 - len(said(query)) - 12
        return said(query, record("TXT", b"\0" * octets))

    async with hostile.serving(by_tcp(make, more=b"and more")) as server:
        checker = DNSChecker(".", "TXT", tcp=True, expect="")
        assert await attempt(checker, server.target) == PASSED


@real_sockets
async def test_truncated_and_no_tcp() -> None:
    async with datagrams.answering(answer(flags=TRUNCATED)) as server:
        says = f"cannot connect to {server.target}: Connection refused"
        assert await attempt(DNSChecker(), server.target) == says


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (by_tcp(lambda query: said(query, flags=0x8182)), "answered SERVFAIL to . SOA"),
        (by_tcp(lambda query: said(b"??" + query[2:])), "the answer by TCP is to another query"),
        (by_tcp(lambda query: b""), "the answer by TCP is to another query"),
        (by_tcp(lambda query: query), "is a query, not an answer"),
        (by_tcp(lambda query: said(query)[:-1]), "the answer is to another question"),
        (closing(b""), "closed the TCP connection after 0 octets"),
        (closing(b"\0"), "closed the TCP connection after 1 octets"),
        (closing(b"\1\0garbage"), "closed the TCP connection after 9 octets"),
        (hostile.garbage(), "timeout"),
        (hostile.garbage(b"\0\2??"), "the answer by TCP is to another query"),
        (hostile.silent, "timeout"),
        (hostile.drip(b"\xff\xff"), "timeout"),
        (hostile.flood(b"\xff\xff"), "the answer by TCP is to another query"),
    ],
)
@real_sockets
async def test_hostile_by_tcp(behaviour: hostile.Behaviour, says: str) -> None:
    async with both(answer(flags=TRUNCATED), behaviour) as (asked, _):
        before = descriptors()
        limit = SHORT if says == "timeout" else 10
        assert says in await attempt(DNSChecker(), asked.target, limit)
        await until(lambda: descriptors() <= before + 2)
        assert Poller.current().watched == 0


@real_sockets
async def test_reset() -> None:
    async with both(answer(flags=TRUNCATED), hostile.reset(b"\0", wait=False)) as (asked, _):
        said = await attempt(DNSChecker(), asked.target)
        assert said == f"lost the connection to {asked.target}: Connection reset by peer"


# --- the way, and the end -----------------------------------------------------------------------


@families
@real_sockets
async def test_source(family: int) -> None:
    source = {4: "127.0.0.77", 6: "::1"}[family]
    port = datagrams.refused(family).port
    tcp = by_tcp(lambda query: said(query))
    async with both(answer(flags=TRUNCATED), tcp, family) as (asked, connected):
        checker = DNSChecker(source=source, source_port=port)
        assert await attempt(checker, asked.target) == PASSED
        assert asked.sources == connected.sources == [(source, port)]


@pytest.mark.parametrize("tcp", [False, True])
@real_sockets
async def test_a_way_that_is_barred(tcp: bool) -> None:
    target = datagrams.refused()
    with unprivileged():
        said = await attempt(DNSChecker(fwmark=7, tcp=tcp), target)
    assert said.startswith(NOT_ASKED)
    assert "CAP_NET_ADMIN is missing: fwmark=7 needs it" in said
    said = await attempt(DNSChecker(interface="nowhere7", tcp=tcp), target)
    assert said.startswith(NOT_ASKED)
    assert said.endswith("interface 'nowhere7': No such device")


@pytest.mark.parametrize("truncated", [False, True])
@real_sockets
async def test_an_abandoned_attempt_says_nothing_and_leaves_nothing(truncated: bool) -> None:
    outcomes: list[object] = []
    by_udp = answer(flags=TRUNCATED) if truncated else datagrams.silent
    async with both(by_udp, hostile.silent) as (asked, connected):
        before = descriptors()
        abandons = [DNSChecker().begin(asked.target, collect(outcomes)) for _ in range(10)]
        await until(lambda: len(asked.heard) == 10)
        await until(lambda: connected.connections == (10 if truncated else 0))
        for abandon in abandons:
            abandon()
            abandon()
        assert Poller.current().watched == 0
        await until(lambda: descriptors() <= before + 1)
        assert outcomes == []


@real_sockets
async def test_a_cancelled_check_leaves_nothing() -> None:
    async with both(answer(flags=TRUNCATED), hostile.silent) as (asked, connected):
        task = asyncio.create_task(DNSChecker().check(asked.target), name="check")
        await until(lambda: connected.connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert Poller.current().watched == 0


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "a..b"}, "DNS name 'a..b'"),
        ({"name": ""}, "DNS name ''"),
        ({"type": "BOGUS"}, "type 'BOGUS' must be one of A, NS, CNAME"),
        ({"type": "TYPE0"}, "type 'TYPE0' must be one of"),
        ({"type": "TYPE65536"}, "type 'TYPE65536' must be one of"),
        ({"type": 1}, "type 1 must be one of"),
        ({"rcode": "BOGUS"}, "rcode 'BOGUS' must be one of NOERROR"),
        ({"rcode": 16}, "rcode 16 must be one of NOERROR"),
        ({"rcode": [True]}, "rcode True must be one of NOERROR"),
        ({"rcode": []}, "rcode must name at least one"),
        ({"type": "A", "expect": "www"}, "DNSChecker: expect 'www' must be an IPv4 address"),
        ({"type": "ANY", "expect": "00"}, "RFC 8482"),
        ({"min_answers": -1}, "min_answers -1 must be"),
        ({"min_answers": 65536}, "min_answers 65536 must be"),
        ({"retry": -1}, "retry -1 must be"),
        ({"port": 0}, "port 0 must be"),
    ],
)
def test_bad_values(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        DNSChecker(**options)


def test_retries_as_keepalived_does() -> None:
    assert DNSChecker().retry == 3
    assert DNSChecker(retry=0).retry == 0


def test_is_shown_with_names() -> None:
    assert "rcode=NOERROR, NXDOMAIN" in repr(DNSChecker(rcode=[3, "noerror"]))
