"""The ping checker: octets, sockets, and the kernel on loopback."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, strategies as st

from checks.attempts import NOT_ASKED, PASSED, attempt, collect, descriptors, real_sockets
from checks.privileges import unprivileged
from namespaces import Net
from strategies import quick
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.ping import IP_HEADER, PingChecker, answered, request
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError, PermissionMissing
from vrrpkit.linux.netns import Namespace

SHORT = 0.2
LOOPBACK = {4: Target(ip_address("127.0.0.1")), 6: Target(ip_address("::1"), 80)}
CONTENT = b"8 random and more"

families = pytest.mark.parametrize("family", [4, 6])


def may(kind: int) -> bool:
    try:
        socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return False
    return True


may_ping = pytest.mark.skipif(
    not may(socket.SOCK_RAW) and not may(socket.SOCK_DGRAM), reason="needs to be allowed to ping"
)


# --- the octets ---------------------------------------------------------------------------------


def reply(version: int, content: bytes = CONTENT, **changes: int) -> bytes:
    header = {"kind": 0 if version == 4 else 129, "code": 0, "sum": 7, "id": 7, "sequence": 1}
    return struct.pack("!BBHHH", *{**header, **changes}.values()) + content


@pytest.mark.parametrize(
    ("version", "octets"),
    [(4, "0800 f7fd 0001 0001 6869 21"), (6, "8000 7ffd 0001 0001 6869 21")],
)
def test_request(version: int, octets: str) -> None:
    # The checksums were computed by hand: f7fd + 0800 + 0001 + 0001 + 6869 + 2100 is 189 68.
    made = request(version, 1, b"hi!")
    assert made[:2] + made[4:] == bytes.fromhex(octets)[:2] + bytes.fromhex(octets)[4:]


@quick
@given(st.sampled_from([4, 6]), st.integers(0, 65535), st.binary(max_size=100))
def test_the_sum_of_a_request_comes_out(version: int, identifier: int, content: bytes) -> None:
    message = request(version, identifier, content)
    words = struct.unpack(f"!{len(message) // 2}H", message[: len(message) // 2 * 2])
    total = sum(words) + (message[-1] << 8 if len(message) % 2 else 0)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


@families
def test_reply(family: int) -> None:
    assert answered(family, CONTENT, reply(family))
    assert answered(family, CONTENT, reply(family, id=0xFFFF))


def test_reply_with_its_ip_header() -> None:
    for words in (5, 15):
        header = bytes([0x40 | words]) + b"\0" * (words * 4 - 1)
        assert answered(4, CONTENT, header + reply(4))
        assert not answered(4, CONTENT, header)


@families
@pytest.mark.parametrize(
    "changes", [{"kind": 8}, {"kind": 128}, {"kind": 3}, {"code": 1}, {"sequence": 2}]
)
def test_other_messages(family: int, changes: dict[str, int]) -> None:
    assert not answered(family, CONTENT, reply(family, **changes))


@families
@pytest.mark.parametrize("length", [0, 1, 7, 8, 15])
def test_messages_that_are_cut_off_before_the_token_ends(family: int, length: int) -> None:
    assert not answered(family, CONTENT, reply(family)[:length])


@families
def test_replies_to_others(family: int) -> None:
    assert not answered(family, CONTENT, reply(family, b"9" + CONTENT[1:]))


@families
def test_replies_that_have_suffered(family: int) -> None:
    with pytest.raises(CheckFailed, match=r"16 octets, expected 17"):
        answered(family, CONTENT, reply(family, CONTENT[:-1]))
    with pytest.raises(CheckFailed, match=r"18 octets, expected 17"):
        answered(family, CONTENT, reply(family, CONTENT + b"!"))
    with pytest.raises(CheckFailed, match="octets have changed"):
        answered(family, CONTENT, reply(family, CONTENT[:-1] + b"!"))


@quick
@given(st.sampled_from([4, 6]), st.binary(max_size=IP_HEADER + 30))
def test_garbage(version: int, message: bytes) -> None:
    assert not answered(version, CONTENT, message)


# --- the kernel ---------------------------------------------------------------------------------


@may_ping
@families
@pytest.mark.parametrize("size", [8, 9, 56, 2000, 60000])
@real_sockets
async def test_answers(family: int, size: int) -> None:
    checker = PingChecker(size=size)
    checker.validate(LOOPBACK[family])
    assert await attempt(checker, LOOPBACK[family]) == PASSED


@may_ping
@families
@real_sockets
async def test_many_at_once(family: int) -> None:
    attempts = [attempt(PingChecker(), LOOPBACK[family]) for _ in range(200)]
    assert await asyncio.gather(*attempts) == [PASSED] * 200


@may_ping
@real_sockets
async def test_source_and_address() -> None:
    elsewhere = Target(ip_address("192.0.2.1"))
    assert await attempt(PingChecker(address="127.0.0.1", source="127.0.0.77"), elsewhere) == PASSED


@may_ping
@real_sockets
async def test_a_source_that_is_not_here() -> None:
    checker = PingChecker(source="192.0.2.1")
    # It may come later.
    checker.validate(LOOPBACK[4])
    said = await attempt(checker, LOOPBACK[4])
    what = "asking 127.0.0.1 failed: from 192.0.2.1: Cannot assign requested address"
    assert said == f"{NOT_ASKED}{what}"


@may_ping
@real_sockets
async def test_an_interface_that_is_not_here() -> None:
    said = await attempt(PingChecker(interface="nowhere7"), LOOPBACK[4])
    assert said == f"{NOT_ASKED}asking 127.0.0.1 failed: interface 'nowhere7': No such device"


def test_families_must_agree() -> None:
    with pytest.raises(ConfigError, match="of different address families"):
        PingChecker(source="::1").validate(LOOPBACK[4])


@may_ping
@real_sockets
async def test_an_abandoned_attempt_says_nothing_and_leaves_nothing() -> None:
    outcomes: list[object] = []
    before = descriptors()
    abandons = [PingChecker().begin(LOOPBACK[4], collect(outcomes)) for _ in range(20)]
    for abandon in abandons:
        abandon()
        abandon()
    assert descriptors() == before + 1
    assert Poller.current().watched == 0
    await asyncio.sleep(0.02)
    assert outcomes == []


# --- permission ---------------------------------------------------------------------------------


@pytest.fixture
def net() -> Iterator[Net]:
    """A namespace of the test's own, where nobody may ping without a capability."""
    if not may(socket.SOCK_RAW):
        pytest.skip("needs root (network namespaces)")
    with Net() as made:
        allow(made, "1 0")
        yield made


def allow(net: Net, groups: str) -> None:
    namespace = Namespace(net.name)
    with namespace.inside(), open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
        file.write(groups)
    namespace.close()


async def attempt_in(net: Net, checker: PingChecker, target: Target) -> str:
    """One attempt in a namespace: sockets stay where they were made."""
    outcomes: list[object] = []
    namespace = Namespace(net.name)
    with namespace.inside():
        abandon = checker.begin(target, collect(outcomes))
    namespace.close()
    try:
        async with asyncio.timeout(5):
            while not outcomes:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        return "timeout"
    finally:
        abandon()
    return str(outcomes[0])


@families
@real_sockets
async def test_with_the_capability(net: Net, family: int) -> None:
    assert await attempt_in(net, PingChecker(), LOOPBACK[family]) == PASSED


@families
@real_sockets
async def test_without_privilege(net: Net, family: int) -> None:
    allow(net, "0 4294967294")
    checker = PingChecker(size=1000)
    namespace = Namespace(net.name)
    outcomes: list[object] = []
    with namespace.inside(), unprivileged():
        checker.validate(LOOPBACK[family])
        checker.begin(LOOPBACK[family], collect(outcomes))
    namespace.close()
    async with asyncio.timeout(5):
        while not outcomes:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert outcomes == [PASSED]


@families
@real_sockets
async def test_nobody_may_ping(net: Net, family: int) -> None:
    outcomes: list[object] = []
    namespace = Namespace(net.name)
    with namespace.inside(), unprivileged():
        with pytest.raises(PermissionMissing, match=r"net\.ipv4\.ping_group_range") as caught:
            PingChecker().validate(LOOPBACK[family])
        PingChecker().begin(LOOPBACK[family], collect(outcomes))
    namespace.close()
    assert caught.value.capability == "CAP_NET_RAW"
    endpoint = PingChecker().endpoint(LOOPBACK[family])
    assert outcomes == [f"asking {endpoint} failed: {caught.value}"]


@pytest.mark.parametrize("groups", ["1 0", "0 4294967294"])
@real_sockets
async def test_a_mark_needs_a_capability_of_its_own(net: Net, groups: str) -> None:
    allow(net, groups)
    namespace = Namespace(net.name)
    with namespace.inside(), unprivileged(), pytest.raises(PermissionMissing) as caught:
        PingChecker(fwmark=7).validate(LOOPBACK[4])
    namespace.close()
    assert caught.value.capability == ("CAP_NET_RAW" if groups == "1 0" else "CAP_NET_ADMIN")
    assert await attempt_in(net, PingChecker(fwmark=7), LOOPBACK[4]) == PASSED


@real_sockets
async def test_a_mark_on_a_raw_socket(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionMissing("CAP_NET_ADMIN", "fwmark=7")

    monkeypatch.setattr("vrrpkit.checks.target._mark", refuse)
    said = await attempt_in(net, PingChecker(fwmark=7), LOOPBACK[4])
    assert "CAP_NET_ADMIN is missing: fwmark=7" in said


@pytest.mark.parametrize("groups", ["1 0", "0 4294967294"])
@families
@real_sockets
async def test_unreachable_is_seen_at_once(net: Net, groups: str, family: int) -> None:
    allow(net, groups)
    # Routes that answer every packet with an ICMP error, as a router would.
    net.ip("route add unreachable 192.0.2.0/24")
    net.ip("-6 route add unreachable 2001:db8::/64")
    target = Target(ip_address({4: "192.0.2.1", 6: "2001:db8::1"}[family]))
    said = await attempt_in(net, PingChecker(), target)
    assert said == f"asking {target} failed: the host cannot be reached"


@pytest.mark.parametrize("groups", ["1 0", "0 4294967294"])
@real_sockets
async def test_a_neighbour_that_is_gone(net: Net, groups: str) -> None:
    allow(net, groups)
    net.set("ipv4/neigh/eth0/retrans_time_ms", 10)
    said = await attempt_in(net, PingChecker(), Target(ip_address("198.51.100.99")))
    assert said == "asking 198.51.100.99 failed: the host cannot be reached"


@pytest.mark.parametrize("groups", ["1 0", "0 4294967294"])
@real_sockets
async def test_replies_to_others_are_no_replies(net: Net, groups: str) -> None:
    """The server answers somebody else's requests all the time, and ours never."""
    allow(net, groups)
    net.set("ipv4/icmp_echo_ignore_all", 1)
    namespace = Namespace(net.name)
    forger = namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    namespace.close()
    with forger:
        task = asyncio.create_task(
            attempt_in(net, PingChecker(timeout=1), LOOPBACK[4]), name="attempt"
        )
        for _ in range(20):
            await asyncio.sleep(0.005)
            forger.sendto(reply(4, b"not the token, not the token"), ("127.0.0.1", 0))
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 7}, "size 7 must be a whole number from 8 to 65507"),
        ({"size": 65508}, "size 65508 must be"),
        ({"size": "56"}, "size '56' must be"),
        ({"port": 80}, "there are no ports in ICMP; leave port out"),
        ({"source_port": 80}, "there are no ports in ICMP; leave source_port out"),
    ],
)
def test_bad_values(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        PingChecker(**options)


def test_has_no_port() -> None:
    assert str(PingChecker().endpoint(LOOPBACK[6])) == "[::1]"
