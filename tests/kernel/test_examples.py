"""The examples that need IPVS, as they stand."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kernel.farm import FAR, NEAR, PORT, VIP, Farm, address, endpoint, table, weights
from system.lab import Host, wait_until

pytestmark = pytest.mark.kernel

EXAMPLES = Path(os.environ.get("VRRPKIT_EXAMPLES", Path(__file__).parents[2] / "examples"))


def start(host: Host, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    return host.python("-u", str(EXAMPLES / name), *arguments, log=log(host))


def log(host: Host) -> Path:
    return host.directory / "example.log"


def said(host: Host, what: str) -> None:
    wait_until(lambda: what in log(host).read_text(), 60, f"{what!r}, in {log(host).read_text()!r}")


def test_a_virtual_server_follows_the_health_of_its_servers(farm: Farm, director: Host) -> None:
    servers = [endpoint("s1"), endpoint("s2")]
    running = start(director, "06_virtual_server.py", f"{VIP}:{PORT}", "/healthz", *servers)
    said(director, "is up")
    assert set(farm.many(4, source=FAR)) == {"s1", "s2"}
    farm.servers["s1"].kill()
    said(director, f"{endpoint('s1')} is down")
    wait_until(lambda: weights(director) == {"s2": 1}, 20, "s1 leaves the table")
    assert farm.many(4, source=FAR) == {"s2": 4}
    farm.servers["s1"].start()
    said(director, f"{endpoint('s1')} is up")
    wait_until(lambda: weights(director) == {"s1": 1, "s2": 1}, 20, "s1 is back")
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 0
    assert table(director) == []


@pytest.fixture
def pair(farm: Farm) -> Iterator[list[Host]]:
    """Two directors without addresses, which tell of every connection at once."""
    hosts = [farm.director(number) for number in (1, 2)]
    for host in hosts:
        host.sysctl({"net/ipv4/vs/sync_threshold": "1 2"})
    yield hosts
    for host in hosts:
        if host.name in farm.lab.hosts:
            farm.remove(host)
    farm.forget_neighbours()


def runs(host: Host, role: str) -> bool:
    """Whether a sync daemon runs."""
    return role in host.run(["ipvsadm", "-L", "--daemon"])


def test_a_connection_outlives_its_director(farm: Farm, pair: list[Host]) -> None:
    servers = [address("s1"), address("s2")]
    for host, priority in zip(pair, ("150", "100"), strict=True):
        start(host, "09_two_directors.py", "eth0", VIP, str(PORT), priority, *servers)
    first, second = pair
    said(first, "-> MASTER")
    wait_until(lambda: first.has(VIP), 20, "the first has the address")
    wait_until(lambda: weights(second) == {"s1": 1, "s2": 1}, 60, "the second has the table too")
    for host, role in ((first, "master"), (second, "backup")):
        wait_until(partial(runs, host, role), 60, f"the {role} daemon runs")
    held = farm.hold(source=NEAR)
    serving = f" {endpoint(held.who)}"
    wait_until(lambda: serving in second.run(["ipvsadm", "-Lnc"]), 60, "the second knows of it")
    farm.remove(first)
    wait_until(lambda: second.has(VIP), 60, "the second is master")
    held.goes_on()
