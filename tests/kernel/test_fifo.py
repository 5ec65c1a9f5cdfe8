"""The FIFO's lines about servers and quorums beside those of keepalived's checkers: both look at
the same servers over the same life, each from a director of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import chain
from subprocess import Popen
from typing import Any

import attrs
import pytest

from kernel.farm import PORT, VIP, VIP6, Farm, address, endpoint
from kernel.program import WAIT, Program
from system.lab import Host, wait_until

pytestmark = pytest.mark.kernel

ONE, TWO = "s1", "s2"


@attrs.frozen(kw_only=True)
class Pool:
    """A virtual server in both languages, and what is to be told of it."""

    head: str
    """What keepalived calls it."""
    called: str
    """What the lines call it."""
    ours: dict[str, Any]
    """Options of VirtualServer."""
    theirs: str = "protocol TCP"
    """Lines of ``virtual_server``."""
    server: str = ""
    """Lines of each ``real_server``."""
    protocol: str = "tcp"
    family: int = 4
    names: tuple[str, ...] = (ONE, TWO)
    alpha: bool = False
    omega: bool = False
    quorum: int = 1

    def told(self) -> list[list[str]]:
        """The lines of each part of the life: the start; ONE is killed, TWO too; TWO comes back,
        then ONE; the end."""
        up: dict[str, bool] = dict.fromkeys(self.names, not self.alpha)
        has, parts = False, []

        def settle() -> list[str]:
            nonlocal has
            before, has = has, sum(up.values()) >= self.quorum
            return [] if has is before else [f"VS {self.called} {'UP' if has else 'DOWN'}"]

        def turn(name: str, state: bool) -> list[str]:
            if up.get(name, state) is state:
                return []
            up[name] = state
            real = f"[{address(name, self.family)}]:{self.protocol}:{PORT}"
            return [f"RS {real} {self.called} {'UP' if state else 'DOWN'}", *settle()]

        parts.append(settle())
        for name in up:
            parts[0] += turn(name, True)
        for name, state in ((ONE, False), (TWO, False), (TWO, True), (ONE, True)):
            parts.append(turn(name, state))
        end = [line for name in up for line in turn(name, False) if line.startswith("RS")]
        parts.append([*end, f"VS {self.called} DOWN"] if self.omega else [])
        return parts

    def configuration(self) -> str:
        """The ``virtual_server`` block."""
        lines = [f"virtual_server {self.head} {{", "delay_loop 0.5", "lvs_sched rr", self.theirs]
        for name in self.names:
            lines += [
                f"real_server {address(name, self.family)} {PORT} {{",
                self.server,
                "TCP_CHECK {\nconnect_timeout 5\nretry 0\nwarmup 0\n}\n}",
            ]
        return "\n".join([*lines, "}", ""])

    def options(self, fifo: str) -> dict[str, Any]:
        """What ``director.py`` makes of it."""
        servers = [endpoint(name, self.family) for name in self.names]
        check = {"kind": "tcp", "interval": 0.5, "timeout": 5.0}
        return {"servers": servers, "scheduler": "rr", "check": check, "fifo": fifo, **self.ours}


POOLS = [
    Pool(
        head=f"{VIP} 8080",
        called=f"[{VIP}]:tcp:8080",
        ours={"services": f"{VIP}:8080/tcp"},
    ),
    Pool(
        head=f"{VIP} 8081",
        called=f"[{VIP}]:tcp:8081",
        ours={"services": f"{VIP}:8081/tcp", "quorum": 2, "sorry": endpoint("sorry")},
        theirs=f"protocol TCP\nquorum 2\nsorry_server {address('sorry')} {PORT}",
        quorum=2,
    ),
    # Of one server, for with more it is chance which answers first.
    Pool(
        head=f"{VIP} 8082",
        called=f"[{VIP}]:tcp:8082",
        ours={"services": f"{VIP}:8082/tcp", "alpha": True, "omega": True},
        theirs="protocol TCP\nalpha\nomega",
        names=(ONE,),
        alpha=True,
        omega=True,
    ),
    Pool(
        head=f"{VIP} 8083",
        called=f"[{VIP}]:tcp:8083",
        ours={"services": f"{VIP}:8083/tcp", "inhibit_on_failure": True, "omega": True},
        theirs="protocol TCP\nomega",
        server="inhibit_on_failure",
        omega=True,
    ),
    Pool(
        head=f"{VIP} 53",
        called=f"[{VIP}]:udp:53",
        ours={"services": f"{VIP}:53/udp"},
        theirs="protocol UDP",
        protocol="udp",
    ),
    Pool(
        head=f"{VIP6} 8080",
        called=f"[{VIP6}]:tcp:8080",
        ours={"services": f"[{VIP6}]:8080/tcp"},
        family=6,
    ),
    Pool(
        head="fwmark 7",
        called="FWM 7",
        ours={"fwmark": 7},
        theirs="",
        protocol="none",
    ),
    Pool(
        head="group web",
        called="[web]:0",
        ours={"services": [f"{VIP}:8084/tcp", f"{VIP}:8085/tcp"], "name": "web"},
    ),
]

GROUP = f"virtual_server_group web {{\n{VIP} 8084\n{VIP} 8085\n}}\n"


class Side:
    """One of the two, with ``cat`` at the other end of its FIFO."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.fifo = host.directory / "fifo"
        os.mkfifo(self.fifo)
        self._lines = host.directory / "lines"
        host.popen(["cat", str(self.fifo)], log=self._lines)

    def lines(self) -> list[str]:
        """All lines so far; some versions of keepalived end each with a NUL besides."""
        return self._lines.read_text().replace("\0", "").splitlines()

    def of(self, pool: Pool) -> list[str]:
        """The lines about one pool."""
        return [line for line in self.lines() if pool.called in line]


def keepalived(side: Side) -> Popen[bytes]:
    """Start keepalived's checkers alone."""
    files = {name: side.host.directory / name for name in ("keepalived.conf", "pid", "checkers")}
    pools = "".join(pool.configuration() for pool in POOLS)
    head = f"global_defs {{\nlvs_notify_fifo {side.fifo}\n}}\n"
    files["keepalived.conf"].write_text(head + GROUP + pools)
    argv = ["keepalived", "--dont-fork", "--log-console", "--no-syslog", "--check"]
    argv += [f"--use-file={files['keepalived.conf']}", f"--pid={files['pid']}"]
    argv += [f"--checkers_pid={files['checkers']}"]
    log = side.host.directory / "log"
    return side.host.popen(argv, log=log, env={"TMPDIR": str(side.host.directory)})


@pytest.fixture
def sides(farm: Farm) -> Iterator[tuple[Side, Side]]:
    """Two directors without VIPs: nobody connects, they only check."""
    hosts = farm.director(1), farm.director(2)
    yield Side(hosts[0]), Side(hosts[1])
    for host in hosts:
        farm.remove(host)
    farm.forget_neighbours()


def test_servers_and_quorums_are_told_as_keepalived_tells_them(
    farm: Farm, sides: tuple[Side, Side]
) -> None:
    ours, theirs = sides
    told = [pool.told() for pool in POOLS]
    # Of its own, vrrpkit tells the first state too where that is DOWN.
    first = [[f"VS {pool.called} DOWN"] if pool.alpha else [] for pool in POOLS]

    def same_after(parts: int, what: str) -> None:
        wanted = [list(chain(*lists[:parts])) for lists in told]

        def found() -> tuple[list[list[str]], list[list[str]]]:
            return [ours.of(pool) for pool in POOLS], [theirs.of(pool) for pool in POOLS]

        def same() -> bool:
            return found() == ([a + b for a, b in zip(first, wanted, strict=True)], wanted)

        try:
            wait_until(same, WAIT, what)
        except TimeoutError:
            mine, reference = found()
            assert reference == wanted, what
            assert mine == [a + b for a, b in zip(first, reference, strict=True)], what

    daemon = keepalived(theirs)
    program = Program(ours.host, *(pool.options(str(ours.fifo)) for pool in POOLS)).ready()
    same_after(1, "the start")
    servers = farm.servers
    life: list[tuple[str, Callable[[], object]]] = [
        ("one is killed", servers[ONE].kill),
        ("the other is killed", servers[TWO].kill),
        ("the other is back", servers[TWO].start),
        ("one is back", servers[ONE].start),
    ]
    for parts, (what, happens) in enumerate(life, 2):
        happens()
        same_after(parts, what)
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(WAIT)
    assert program.stop() == 0
    same_after(6, "the end")
