"""From where, by what and to where the checkers go, as the server sees it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
import pytest

from system.lab import Host, Lab, require_root_and, wait_until
from system.services import check
from vrrpkit.checks.base import NetworkChecker
from vrrpkit.checks.dns import DNSChecker
from vrrpkit.checks.http import HTTPChecker, HTTPSChecker
from vrrpkit.checks.ping import PingChecker
from vrrpkit.checks.smtp import SMTPChecker
from vrrpkit.checks.target import Target
from vrrpkit.checks.tcp import TCPChecker
from vrrpkit.checks.udp import UDPChecker
from vrrpkit.errors import CheckFailed

pytestmark = pytest.mark.system

SERVER = {4: "203.0.113.5", 6: "2001:db8:5::5"}
OTHER = {4: "203.0.113.6", 6: "2001:db8:5::6"}
NEAR = {4: "192.0.2.1", 6: "2001:db8:1::1"}
SECOND = {4: "192.0.2.7", 6: "2001:db8:1::7"}
FAR = {4: "198.51.100.1", 6: "2001:db8:2::1"}
"""What the director is called on the link that the routes prefer, and on the other one."""
NEXT = {4: ("192.0.2.2", "198.51.100.2"), 6: ("2001:db8:1::2", "2001:db8:2::2")}
MARK = 7
PORT, ELSEWHERE, FROM = 7000, 7001, 40007

LISTENER = """
import select, socket, sys
log = open(sys.argv[1], "a", 1)
poll, sockets = select.epoll(), {}
def add(sock, *what):
    sockets[sock.fileno()] = (sock, *what)
    poll.register(sock, select.EPOLLIN)
for port in map(int, sys.argv[2:]):
    for kind, name in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
        sock = socket.socket(socket.AF_INET6, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # From the address that was asked, as servers with several addresses do.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, 49, 1)
        sock.setsockopt(socket.IPPROTO_IP, 8, 1)
        sock.bind(("::", port))
        if name == "tcp":
            sock.listen()
        add(sock, name)
add(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), "icmp", 20, 8)
add(socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6), "icmp", 0, 128)
log.write("ready\\n")
def tell(name, here, peer):
    plain = [end[0].removeprefix("::ffff:") for end in (here, peer)]
    log.write(f"{name} {plain[0]} {here[1]} {plain[1]} {peer[1]}\\n")
while True:
    for number, _ in poll.poll():
        sock, name, *rest = sockets[number]
        if name == "tcp":
            client, peer = sock.accept()
            tell(name, client.getsockname(), peer)
            client.sendall(b"hello\\r\\n")
            client.close()
        elif name == "udp":
            data, about, _, peer = sock.recvmsg(2000, 200)
            packed = about[-1][2]
            family = socket.AF_INET if about[-1][0] == socket.IPPROTO_IP else socket.AF_INET6
            octets = packed[8:12] if family == socket.AF_INET else packed[:16]
            here = (socket.inet_ntop(family, octets), sock.getsockname()[1])
            tell(name, here, peer)
            # With the identifier of a DNS query, which need not wait for another answer then.
            sock.sendmsg([data[:2] + b"hello"], about[-1:], 0, peer)
        else:
            data, peer = sock.recvfrom(2000)
            if data[rest[0]] == rest[1]:
                tell(name, ("-", 0), (peer[0], 0))
"""


class Own(NetworkChecker):
    """One that connects as a user's own does."""

    async def check(self, target: Target) -> None:
        reader, writer = await target.connect()
        try:
            if not await reader.readline():
                raise CheckFailed("said nothing")
        finally:
            writer.close()


@attrs.frozen
class Site:
    director: Host
    server: Host
    log: Path

    def seen(self, checker: NetworkChecker, version: int) -> tuple[str, list[str]]:
        """Make an attempt: its outcome, and what the server saw of it."""
        before = len(self._lines())
        said = check(self.director, checker, SERVER[version], PORT, timeout=1)
        wait_until(lambda: len(self._lines()) > before, 5, f"{checker}: {said}")
        return said, self._lines()[-1].split()

    def _lines(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A server behind two links, the second of which is taken by marked packets only."""
    if reason := require_root_and():
        pytest.skip(reason)
    with Lab() as lab:
        director = lab.host("director", f"{NEAR[4]}/24", f"{SECOND[4]}/24", f"{NEAR[6]}/64")
        # Deprecated, so that it is taken by those only who ask for it.
        second = [f"{SECOND[6]}/64", "dev", "eth0", "nodad", "preferred_lft", "0"]
        director.ip("address", "add", *second)
        server = lab.host("server", f"{NEXT[4][0]}/24", f"{NEXT[6][0]}/64")
        outside = lab.second_switch()
        lab.second_link(director, outside, f"{FAR[4]}/24", f"{FAR[6]}/64")
        lab.second_link(server, outside, f"{NEXT[4][1]}/24", f"{NEXT[6][1]}/64")
        for version, length in ((4, 32), (6, 128)):
            family = f"-{version}"
            for address in (SERVER[version], OTHER[version]):
                nodad = ["nodad"] if version == 6 else []
                server.ip("address", "add", f"{address}/{length}", "dev", "lo", *nodad)
                near, far = (
                    [f"{address}/{length}", "via", via, "dev", dev]
                    for via, dev in zip(NEXT[version], ("eth0", "eth1"), strict=True)
                )
                director.ip(family, "route", "add", *near, "metric", "10")
                director.ip(family, "route", "add", *far, "metric", "20")
                director.ip(family, "route", "add", *far, "table", "100")
            director.ip(family, "rule", "add", "fwmark", str(MARK), "lookup", "100")
        log = server.directory / "seen"
        log.touch()
        server.python("-c", LISTENER, str(log), str(PORT), str(ELSEWHERE))
        made = Site(director, server, log)
        wait_until(lambda: "ready" in log.read_text(), 10, "the listener")
        yield made


versions = pytest.mark.parametrize("version", [4, 6])
kinds = pytest.mark.parametrize(
    ("kind", "transport"),
    [
        (TCPChecker, "tcp"),
        (HTTPChecker, "tcp"),
        (HTTPSChecker, "tcp"),
        (SMTPChecker, "tcp"),
        (Own, "tcp"),
        (UDPChecker, "udp"),
        (DNSChecker, "udp"),
    ],
)


@versions
@kinds
@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ({}, NEAR),
        ({"source": SECOND}, SECOND),
        ({"source": FAR}, FAR),
        ({"interface": "eth1"}, FAR),
        ({"fwmark": MARK}, FAR),
        ({"fwmark": MARK + 1}, NEAR),
    ],
)
def test_from_where(
    site: Site,
    kind: type[NetworkChecker],
    transport: str,
    version: int,
    endpoint: dict[str, Any],
    address: dict[int, str],
) -> None:
    given = {
        name: value[version] if name == "source" else value for name, value in endpoint.items()
    }
    _, seen = site.seen(kind(**given), version)
    assert seen[:4] == [transport, SERVER[version], str(PORT), address[version]]


@versions
@kinds
def test_from_a_port_and_to_another_server(
    site: Site, kind: type[NetworkChecker], transport: str, version: int
) -> None:
    checker = kind(
        source_port=FROM, address=ip_address(OTHER[version]), port=ELSEWHERE, source=SECOND[version]
    )
    _, seen = site.seen(checker, version)
    assert seen == [
        *(transport, OTHER[version], str(ELSEWHERE)),
        *(SECOND[version], str(FROM)),
    ]


@versions
@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ({}, NEAR),
        ({"source": SECOND}, SECOND),
        ({"interface": "eth1"}, FAR),
        ({"fwmark": MARK}, FAR),
    ],
)
def test_ping(site: Site, version: int, endpoint: dict[str, Any], address: dict[int, str]) -> None:
    given = {
        name: value[version] if name == "source" else value for name, value in endpoint.items()
    }
    said, seen = site.seen(PingChecker(**given), version)
    assert said == "passed"
    assert seen[0] == "icmp"
    assert seen[3] == address[version]


@versions
def test_they_get_their_answer(site: Site, version: int) -> None:
    for endpoint in ({}, {"source": SECOND[version]}, {"interface": "eth1"}, {"fwmark": MARK}):
        given: dict[str, Any] = dict(endpoint)
        assert site.seen(TCPChecker(expect=b"hello", **given), version)[0] == "passed"
        assert site.seen(UDPChecker(reply=b"hello", **given), version)[0] == "passed"
        assert site.seen(Own(**given), version)[0] == "passed"


def test_a_link_local_server_is_found_by_its_link(site: Site) -> None:
    address = site.server.link_local
    for checker in (TCPChecker(expect=b"hello"), UDPChecker(reply=b"hello"), PingChecker(), Own()):
        assert check(site.director, checker, f"{address}%eth0", PORT) == "passed", checker
    gone = check(site.director, TCPChecker(), f"{address}%eth7", PORT)
    assert gone == f"cannot connect to [{address}%eth7]:7000: no interface with this name"


@versions
def test_a_way_that_leads_nowhere(site: Site, version: int) -> None:
    site.director.ip(f"-{version}", "rule", "add", "fwmark", "9", "prohibit")
    barred = check(site.director, TCPChecker(fwmark=9), SERVER[version], PORT)
    # What this machine forbids says nothing about the server.
    assert barred.startswith("could not ask: cannot connect to ")
    assert barred.endswith(": Permission denied")
    none = check(site.director, TCPChecker(interface="lo"), SERVER[version], PORT, timeout=0.5)
    assert none != "passed"
