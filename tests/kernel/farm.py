"""A server farm in namespaces: a client, directors and real servers on one switch.

The client is on 203.0.113.0/24, the real servers on 10.0.0.0/24, the directors on both. A real
server carries the VIPs on ``lo``, where it does not answer for them (DR and TUN), and has two ways
back: to :data:`FAR` and :data:`ALSO_FAR` by the gateway address that a director holds (NAT needs
that), to :data:`NEAR` straight.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from system.lab import Host, Lab, wait_until

VIP = "203.0.113.10"
VIP6 = "2001:db8:1::10"
FAR, FAR6 = "203.0.113.100", "2001:db8:1::100"
ALSO_FAR = "203.0.113.101"
NEAR, NEAR6 = "203.0.113.200", "2001:db8:1::200"
GATEWAY, GATEWAY6 = "10.0.0.254", "fd00::fe"
PORT = 8080
SERVERS = {"s1": 11, "s2": 12, "s3": 13, "sorry": 99}
GUE_PORT = 6080
PROGRAMS = Path(__file__).parent

# Encapsulated packets arrive on the fallback device that each kind of tunnel has.
SETUP = f"""
for i in all {{dev}}; do
    echo 1 >/proc/sys/net/ipv4/conf/$i/arp_ignore
    echo 2 >/proc/sys/net/ipv4/conf/$i/arp_announce
done
# A director on the same wire tells IPv6 hosts that the client is there too; NAT needs it between.
echo 0 >/proc/sys/net/ipv6/conf/{{dev}}/accept_redirects
ip -batch - <<END
address add {VIP} dev lo
address add {VIP6} dev lo
route add {FAR} via {GATEWAY} dev {{dev}}
route add {ALSO_FAR} via {GATEWAY} dev {{dev}}
route add {NEAR} dev {{dev}}
route add {FAR6} via {GATEWAY6} dev {{dev}}
route add {NEAR6} dev {{dev}}
link set tunl0 up
link set gre0 up
link set sit0 up
link set ip6tnl0 up
tunnel change ip6tnl0 mode any
fou add port {GUE_PORT} gue
END
"""
MODULES = ("ipip", "ip6_tunnel", "sit", "ip_gre", "fou")

_numbers = itertools.count(1)


def address(server: str, family: int = 4) -> str:
    """The address of a real server."""
    return f"10.0.0.{SERVERS[server]}" if family == 4 else f"fd00::{SERVERS[server]}"


def endpoint(server: str, family: int = 4) -> str:
    """The address and port of a real server."""
    host = address(server, family)
    return f"{host}:{PORT}" if family == 4 else f"[{host}]:{PORT}"


class RealServer:
    """A host that runs ``server.py``."""

    def __init__(self, lab: Lab, name: str) -> None:
        number = SERVERS[name]
        self.name = name
        self.host = lab.host(name, f"10.0.0.{number}/24", f"fd00::{number}/64")
        self.host.run(["sh", "-ec", SETUP.format(dev=self.host.dev)])
        self._log = self.host.directory / "server.log"
        self._process: Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server; without effect if it runs."""
        if self._process is None:
            self._log.write_bytes(b"")
            argv = [str(PROGRAMS / "server.py"), self.name, str(PORT), VIP, VIP6]
            self._process = self.host.python(*argv, log=self._log)

    def wait(self) -> None:
        """Wait until the server answers."""
        wait_until(lambda: b"ready" in self._log.read_bytes(), 30, f"{self.name} serves")

    def kill(self) -> None:
        """SIGKILL: connections are reset, new ones refused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


class Client:
    """A run of ``client.py`` that goes on until it is closed; ``lines`` is what it has said."""

    def __init__(self, host: Host, argv: Sequence[str]) -> None:
        self._log = host.directory / f"client-{next(_numbers)}.log"
        self._process = host.python(str(PROGRAMS / "client.py"), *argv, log=self._log)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The whole lines so far, decoded."""
        whole = self._log.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    @property
    def who(self) -> str:
        """Which server serves the connection that is held."""
        return str(self.lines[-1]["who"])

    def goes_on(self, timeout: float = 30) -> None:
        """Wait for three more lines, none of them an error."""
        seen = len(self.lines)
        wait_until(lambda: len(self.lines) >= seen + 3 or self.broken, timeout, "client goes on")
        assert not self.broken, self.lines[-1]

    @property
    def broken(self) -> bool:
        """Whether the connection that was held has failed, or the program has."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End the program, and with it its connections."""
        self._process.kill()
        self._process.wait(10)


class Farm:
    """The laboratory: ``client`` and ``servers``; directors are made and removed by the tests."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        subprocess.run(["modprobe", "-a", *MODULES], check=True)
        addresses = [f"{one}/24" for one in (FAR, ALSO_FAR, NEAR)]
        self.client = lab.host("client", *addresses, f"{FAR6}/64", f"{NEAR6}/64")
        self.servers = {name: RealServer(lab, name) for name in SERVERS}
        self._clients: list[Client] = []
        self._serve()

    def director(self, number: int = 1) -> Host:
        """A new director, 1 to 9; it forwards, and has no VIP and no gateway address yet."""
        networks = (f"203.0.113.{number}/24", f"10.0.0.{number}/24")
        networks6 = (f"2001:db8:1::{number}/64", f"fd00::{number}/64")
        host = self.lab.host(f"director-{next(_numbers)}", *networks, *networks6)
        interfaces = ("all", host.dev)
        host.sysctl(
            {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}
            | {f"net/ipv4/conf/{i}/send_redirects": 0 for i in interfaces}
        )
        return host

    def remove(self, director: Host) -> None:
        """Remove a director with all that runs there."""
        self.lab.remove(director)

    def forget_neighbours(self) -> None:
        """Empty the neighbour caches: the next director has another MAC address for the VIPs."""
        for host in (self.client, *(server.host for server in self.servers.values())):
            host.ip("neighbour", "flush", "dev", host.dev)

    def many(
        self, count: int, vip: str = VIP, port: int = PORT, *, source: str, how: str = "many"
    ) -> dict[str, int]:
        """Make connections in turn; how many each server, or error, got."""
        script = str(PROGRAMS / "client.py")
        argv = [sys.executable, script, how, vip, str(port), source, str(count)]
        counts: dict[str, int] = json.loads(self.client.run(argv, timeout=120))
        return counts

    def steady(self, vip: str = VIP, port: int = PORT, *, source: str) -> Client:
        """One connection after the other, until the test ends."""
        return self._start("steady", vip, port, source)

    def hold(self, vip: str = VIP, port: int = PORT, *, source: str) -> Client:
        """A connection that stays, until the test ends; it is established."""
        client = self._start("hold", vip, port, source)
        client.goes_on()
        return client

    def _start(self, what: str, vip: str, port: int, source: str) -> Client:
        client = Client(self.client, [what, vip, str(port), source])
        self._clients.append(client)
        return client

    def reset(self) -> None:
        """End the clients, and start the servers that were killed."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._serve()

    def _serve(self) -> None:
        for server in self.servers.values():
            server.start()
        for server in self.servers.values():
            server.wait()


def give_addresses(director: Host) -> None:
    """Make a director the only one: it gets the VIPs and the gateway addresses."""
    commands = [f"address add {one} dev {director.dev}" for one in (VIP, GATEWAY)]
    commands += [f"address add {one} dev {director.dev} nodad" for one in (VIP6, GATEWAY6)]
    director.ip_batch(*commands)


def table(director: Host) -> list[str]:
    """The lines of ``ipvsadm -Sn``, sorted."""
    return sorted(director.run(["ipvsadm", "-Sn"]).splitlines())


def weights(director: Host) -> dict[str, int]:
    """Which real servers the table holds, by name (or address), with their weights."""
    names = {endpoint(name, family): name for name in SERVERS for family in (4, 6)}
    rows = [line.split() for line in table(director)]
    found = [(row[row.index("-r") + 1], row[row.index("-w") + 1]) for row in rows if row[0] == "-a"]
    return {names.get(server, server): int(weight) for server, weight in found}


def farms() -> Iterator[Farm]:
    """One farm, for a fixture."""
    with Lab() as lab:
        yield Farm(lab)
