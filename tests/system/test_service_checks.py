"""The checkers of services against real servers and a real network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from checks.attempts import NOT_ASKED, PASSED
from checks.certificates import Authority
from checks.privileges import unprivileged
from system.lab import Host, Lab, require_root_and, wait_until
from system.services import DNSMASQ, NAMED, POSTFIX, Dnsmasq, Named, Postfix, answers, check, within
from vrrpkit.checks.dns import DNSChecker
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.events import CheckResult
from vrrpkit.checks.ping import PingChecker
from vrrpkit.checks.smtp import SMTPChecker
from vrrpkit.checks.target import Target
from vrrpkit.checks.udp import UDPChecker

pytestmark = pytest.mark.system

V4, V6 = "192.0.2.2", "2001:db8::2"
GONE = "192.0.2.99"
BEHIND = "203.0.113.7"
"""Behind the server, which says that it cannot be reached."""

addresses = pytest.mark.parametrize("address", [V4, V6])


@pytest.fixture(scope="module")
def site() -> Iterator[Lab]:
    """A director and a server on one switch."""
    if reason := require_root_and("iptables"):
        pytest.skip(reason)
    with Lab() as lab:
        director = lab.host("director", "192.0.2.1/24", "2001:db8::1/64")
        server = lab.host("server", f"{V4}/24", f"{V6}/64")
        # No kind of ICMP error is held back: not more than one a second would be sent.
        server.sysctl({"net/ipv4/ip_forward": 1, "net/ipv4/icmp_ratemask": 0})
        server.ip("route", "add", "unreachable", "203.0.113.0/24")
        director.ip("route", "add", "203.0.113.0/24", "via", V4)
        # Three requests for a MAC address that nobody answers, and not a second between them.
        director.sysctl({"net/ipv4/neigh/eth0/retrans_time_ms": 50})
        yield lab


@pytest.fixture
def director(site: Lab) -> Host:
    return site.hosts["director"]


@pytest.fixture
def server(site: Lab) -> Host:
    return site.hosts["server"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def need(*programs: str) -> None:
    if reason := require_root_and(*programs):
        pytest.skip(reason)


# --- Postfix ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postfix(site: Lab, authority: Authority) -> Postfix:
    need(POSTFIX)
    files = authority.issue("mx.example.net")
    made = Postfix(site.hosts["server"], files.cert, files.key)
    made.start()
    answers(site.hosts["director"], SMTPChecker(), V4)
    return made


@addresses
def test_postfix(postfix: Postfix, director: Host, address: str) -> None:
    assert check(director, SMTPChecker(helo_name=f"for-{len(address)}.net"), address) == PASSED
    assert check(director, SMTPChecker(esmtp=False), address) == PASSED
    # What Postfix says of it: all was in order.
    client = address.replace("::2", "::1") if ":" in address else "192.0.2.1"
    for commands in ("ehlo=1 quit=1 commands=2", "helo=1 quit=1 commands=2"):
        postfix.await_log(f"disconnect from unknown[{client}] {commands}")
    assert "lost connection" not in postfix.logged()


@addresses
def test_postfix_with_starttls(
    postfix: Postfix, director: Host, authority: Authority, address: str
) -> None:
    checker = SMTPChecker(starttls=True, ca=authority.file, server_name="mx.example.net")
    assert check(director, checker, address) == PASSED
    postfix.await_log("ehlo=2 starttls=1 quit=1 commands=4")
    assert "SSL_accept error" not in postfix.logged()


def test_postfix_whose_certificate_is_not_accepted(
    postfix: Postfix, director: Host, authority: Authority
) -> None:
    wrong = check(director, SMTPChecker(starttls=True, ca=authority.file), V4)
    assert wrong == f"certificate not accepted: wrong name: it is not for '{V4}'"
    unknown = check(director, SMTPChecker(starttls=True, server_name="mx.example.net"), V4)
    assert "unknown CA" in unknown
    assert check(director, SMTPChecker(starttls=True, verify=False), V4) == PASSED


def test_postfix_that_refuses(postfix: Postfix, director: Host) -> None:
    assert check(director, SMTPChecker(), V4, 26) == PASSED
    assert check(director, SMTPChecker(starttls=True), V4, 26) == "STARTTLS is not offered"
    refused = check(director, SMTPChecker(helo_name="a.example.net"), V4, 27)
    assert refused == (
        "the answer to HELO is 554 '5.7.1 <a.example.net>: Helo command rejected: Access denied', "
        "expected 250"
    )
    closed = check(director, SMTPChecker(), V4, 29)
    assert closed == f"cannot connect to {V4}:29: Connection refused"


def test_postfix_that_is_busy(postfix: Postfix, director: Host) -> None:
    async def work() -> tuple[str, str]:
        target = Target(ip_address(V4), 28)
        reader, writer = await target.connect()
        try:
            greeting = await reader.readline()
            assert greeting.startswith(b"220")
            busy = "none"
            for _ in range(50):
                try:
                    await SMTPChecker().check(target)
                except Exception as problem:
                    busy = str(problem)
                    break
                await asyncio.sleep(0.1)
        finally:
            writer.close()
            await writer.wait_closed()
        return greeting.decode(), busy

    _, busy = within(director, work)
    assert busy.startswith("the greeting is 421 '4.7.0 mx.example.net Error: too many connections")


def test_postfix_goes_and_comes_back(
    postfix: Postfix, director: Host, authority: Authority
) -> None:
    """With the scheduler: the verdict changes with the server."""
    checker = SMTPChecker(
        interval=0.1, retry=1, delay_before_retry=0.1, warmup=0, timeout=5, rise=2, port=25
    )

    async def work() -> list[tuple[bool, str]]:
        changes: list[tuple[bool, str]] = []
        turned = asyncio.Event()

        def heard(result: CheckResult) -> None:
            if result.changed:
                changes.append((result.healthy, result.text))
                turned.set()

        async def turn(act: object) -> None:
            turned.clear()
            assert callable(act)
            await asyncio.to_thread(act)
            async with asyncio.timeout(30):
                await turned.wait()

        async with CheckScheduler() as scheduler:
            scheduler.add(checker, Target(ip_address(V4)), on_result=heard)
            await turn(postfix.stop)
            await turn(postfix.start)
        return changes

    down, up = within(director, work)
    assert down[0] is False
    assert "Connection refused" in down[1] or "closed before" in down[1] or "lost" in down[1]
    assert up == (True, "")


# --- BIND and dnsmasq ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(site: Lab) -> Named:
    need(NAMED)
    made = Named(site.hosts["server"])
    made.start()
    answers(site.hosts["director"], DNSChecker("example.net"), V4)
    return made


@addresses
@pytest.mark.parametrize(
    ("name", "kind", "expect"),
    [
        ("example.net", "SOA", "ns1.example.net hostmaster.example.net 2024 7200 3600 1209600 300"),
        ("example.net", "NS", "ns1.example.net"),
        ("EXAMPLE.net.", "MX", "10 mail.example.net"),
        ("www.example.net", "A", ["192.0.2.11", "192.0.2.10"]),
        ("www.example.net", "AAAA", "2001:db8::10"),
        ("web.example.net", "A", "192.0.2.10"),
        ("web.example.net", "CNAME", "www.example.net"),
        ("short.example.net", "TXT", "v=abcdef"),
        ("octets.example.net", "TXT", "\\xff\\xfe"),
        ("_sip._udp.example.net", "SRV", "1 2 5060 mail.example.net"),
        ("example.net", "CAA", b"\x00\x05issueca.example.net".hex()),
    ],
)
def test_named(
    named: Named, director: Host, address: str, name: str, kind: str, expect: str | list[str]
) -> None:
    assert check(director, DNSChecker(name, kind, expect=expect), address) == PASSED


@pytest.mark.parametrize(
    ("checker", "says"),
    [
        (DNSChecker("no.example.net", "A"), "answered NXDOMAIN to no.example.net A"),
        (DNSChecker("no.example.net", "A", rcode="NXDOMAIN"), PASSED),
        (DNSChecker("example.com"), "answered REFUSED to example.com SOA, expected NOERROR"),
        (DNSChecker("mail.example.net", "AAAA"), PASSED),
        (DNSChecker("mail.example.net", "AAAA", min_answers=1), "has 0 records of that type"),
        (DNSChecker("www.example.net", "A", expect="192.0.2.12"), "lacks '192.0.2.12', it has"),
        (DNSChecker("www.example.net", "ANY", min_answers=3), PASSED),
        (DNSChecker("example.net", tcp=True), PASSED),
        (DNSChecker("example.net", recursion=False), PASSED),
        (DNSChecker("example.net", port=54), "nobody listens there"),
        (DNSChecker("example.net", address=GONE), f"asking {GONE}:53 failed: the host cannot be"),
    ],
)
def test_named_and_rules(named: Named, director: Host, checker: DNSChecker, says: str) -> None:
    assert says in check(director, checker, V4)


def test_an_answer_of_named_that_needs_tcp(named: Named, director: Host, server: Host) -> None:
    checker = DNSChecker("many.example.net", "TXT", min_answers=12)
    assert check(director, checker, V4) == PASSED
    assert check(director, checker, V6) == PASSED
    rule = ["INPUT", "-p", "tcp", "--dport", "53", "-j", "REJECT", "--reject-with", "tcp-reset"]
    server.run(["iptables", "-A", *rule])
    try:
        said = check(director, checker, V4)
        assert said == f"cannot connect to {V4}:53: Connection refused"
        assert check(director, DNSChecker("example.net"), V4) == PASSED
    finally:
        server.run(["iptables", "-D", *rule])


def test_dnsmasq(director: Host, server: Host) -> None:
    need(DNSMASQ)
    Dnsmasq(server, 5353).start()
    known = DNSChecker("www.example.org", "A", expect="192.0.2.20")
    for address in (V4, V6):
        answers(director, known, address, 5353)
    txt = DNSChecker("www.example.org", "TXT", expect="hello", port=5353)
    assert check(director, txt, V4) == PASSED
    unknown = check(director, DNSChecker("www.example.com", "A"), V4, 5353)
    assert unknown == "answered REFUSED to www.example.com A, expected NOERROR"
    # The same as octets: an identifier, the flags of an answer without error, one record.
    query = "abcd 0100 0001 0000 0000 0000 0377 7777 0765 7861 6d70 6c65 036f 7267 00 0001 0001"
    udp = UDPChecker(payload=query, reply="abcd 8xx0 0001 0001", min_reply_length=40)
    assert check(director, udp, V4, 5353) == PASSED
    other = UDPChecker(payload=query, reply="abcd 8xx3", min_reply_length=40)
    assert check(director, other, V4, 5353).startswith("the reply is abcd8")


# --- UDP and the network ------------------------------------------------------------------------


@addresses
def test_udp_where_nobody_listens(director: Host, address: str) -> None:
    said = check(director, UDPChecker(payload=b"hello"), address, 9999)
    assert said.endswith("failed: nobody listens there (ICMP: port unreachable)")


@pytest.mark.parametrize("checker", [UDPChecker(port=9), PingChecker(), DNSChecker()])
@pytest.mark.parametrize("address", [GONE, BEHIND])
def test_hosts_that_cannot_be_reached(
    director: Host, checker: UDPChecker | PingChecker | DNSChecker, address: str
) -> None:
    endpoint = checker.endpoint(Target(ip_address(address)))
    assert (
        check(director, checker, address) == f"asking {endpoint} failed: the host cannot be reached"
    )


def test_udp_that_is_swallowed(director: Host, server: Host) -> None:
    rule = ["INPUT", "-p", "udp", "--dport", "9998", "-j", "DROP"]
    server.run(["iptables", "-A", *rule])
    try:
        assert check(director, UDPChecker(patience=0.2), V4, 9998) == PASSED
        assert check(director, UDPChecker(require_reply=True), V4, 9998, 0.5) == "timeout"
    finally:
        server.run(["iptables", "-D", *rule])


# --- ping ---------------------------------------------------------------------------------------


@addresses
@pytest.mark.parametrize("size", [8, 1400, 8000])
def test_ping(director: Host, address: str, size: int) -> None:
    assert check(director, PingChecker(size=size), address) == PASSED


@addresses
def test_ping_without_privileges(director: Host, address: str) -> None:
    async def work() -> None:
        with unprivileged():
            await PingChecker().check(Target(ip_address(address)))

    director.sysctl({"net/ipv4/ping_group_range": "0 4294967294"})
    try:
        within(director, work)
    finally:
        director.sysctl({"net/ipv4/ping_group_range": "1 0"})
    with pytest.raises(Exception, match=r"CAP_NET_RAW .* net\.ipv4\.ping_group_range"):
        within(director, work)


def test_ping_by_a_way(director: Host) -> None:
    checker = PingChecker(interface="eth0", source="192.0.2.1", fwmark=7)
    assert check(director, checker, V4) == PASSED
    director.ip("rule", "add", "fwmark", "8", "prohibit")
    barred = check(director, PingChecker(fwmark=8), V4)
    assert barred == f"{NOT_ASKED}asking {V4} failed: Permission denied"


def test_ping_that_is_not_answered(director: Host, server: Host) -> None:
    server.sysctl({"net/ipv4/icmp_echo_ignore_all": 1})
    try:
        assert check(director, PingChecker(), V4, timeout=0.5) == "timeout"
    finally:
        server.sysctl({"net/ipv4/icmp_echo_ignore_all": 0})


def test_ping_of_a_host_that_was_unplugged(director: Host, server: Host) -> None:
    assert check(director, PingChecker(), V4) == PASSED
    server.unplug()
    try:
        director.ip("neighbour", "flush", "all")
        said = check(director, PingChecker(), V4)
        assert said == f"asking {V4} failed: the host cannot be reached"
    finally:
        server.plug()
    wait_until(lambda: check(director, PingChecker(), V4, timeout=1) == PASSED, 10, "plugged in")
