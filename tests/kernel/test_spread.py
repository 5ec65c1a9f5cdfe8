"""Connections through pools of ours: they spread as the pool says, by every way to forward."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.farm import (
    ALSO_FAR,
    FAR,
    FAR6,
    GUE_PORT,
    NEAR,
    NEAR6,
    PORT,
    VIP,
    VIP6,
    Farm,
    endpoint,
    weights,
)
from kernel.program import Program, one_pool, servers
from system.lab import Host

pytestmark = pytest.mark.kernel

SERVICE6 = f"[{VIP6}]:{PORT}/tcp"


def weighted(family: int) -> list[Any]:
    """Two real servers by their addresses of a family, 3 to 1."""
    return [
        {"endpoint": endpoint(name, family), "name": name, "weight": weight}
        for name, weight in (("s1", 3), ("s2", 1))
    ]


@pytest.mark.parametrize(
    ("service", "family", "options", "vip", "source"),
    [
        pytest.param(None, 4, {"forward": "nat"}, VIP, FAR, id="nat"),
        pytest.param(None, 4, {"forward": "dr"}, VIP, NEAR, id="dr"),
        pytest.param(None, 4, {"forward": "tun"}, VIP, NEAR, id="tun"),
        pytest.param(
            None,
            4,
            {"forward": "tun", "tunnel": {"type": "gue", "port": GUE_PORT}},
            VIP,
            NEAR,
            id="gue",
        ),
        pytest.param(SERVICE6, 6, {"forward": "nat"}, VIP6, FAR6, id="nat6"),
        pytest.param(None, 6, {"forward": "tun"}, VIP, NEAR, id="4in6"),
        pytest.param(SERVICE6, 4, {"forward": "tun"}, VIP6, NEAR6, id="6in4"),
    ],
)
def test_connections_spread_as_the_weights_say(
    farm: Farm,
    director: Host,
    service: str | None,
    family: int,
    options: dict[str, Any],
    vip: str,
    source: str,
) -> None:
    pool = one_pool(scheduler="wrr", **options) | {"servers": weighted(family)}
    Program(director, pool | ({"services": service} if service else {})).ready()
    assert weights(director) == {"s1": 3, "s2": 1}
    assert farm.many(20, vip, source=source) == {"s1": 15, "s2": 5}


def test_a_weight_that_is_changed_is_heeded(farm: Farm, director: Host) -> None:
    program = Program(director, one_pool("s1", "s2", scheduler="wrr")).ready()
    program.command("set_weight", "s1", 4)
    program.waits_for(lambda: weights(director) == {"s1": 4, "s2": 1})
    assert farm.many(20, source=FAR) == {"s1": 16, "s2": 4}


def test_datagrams(farm: Farm, director: Host) -> None:
    Program(director, one_pool("s1", "s2", services=f"{VIP}:{PORT}/udp")).ready()
    assert farm.many(8, source=FAR, how="datagrams") == {"s1": 4, "s2": 4}
    assert len(connections(director)) == 8


def test_one_packet_scheduling_keeps_no_connection(farm: Farm, director: Host) -> None:
    pool = one_pool("s1", "s2", services=f"{VIP}:{PORT}/udp", one_packet=True, forward="dr")
    Program(director, pool).ready()
    assert farm.many(8, source=NEAR, how="datagrams") == {"s1": 4, "s2": 4}
    assert connections(director) == []


def test_what_carries_a_firewall_mark(farm: Farm, director: Host) -> None:
    mark = ["-j", "MARK", "--set-mark", "7"]
    rule = ["-A", "PREROUTING", "-p", "tcp", "-d", VIP, "--dport", "1000:1001"]
    director.run(["iptables-legacy", "-t", "mangle", *rule, *mark])
    Program(director, one_pool("s1", "s2", services=[], fwmark=7)).ready()
    assert farm.many(2, port=1000, source=FAR) == {"s1": 1, "s2": 1}
    assert farm.many(2, port=1001, source=FAR) == {"s1": 1, "s2": 1}
    assert farm.many(1, port=1002, source=FAR) == {"ConnectionRefusedError": 1}


def test_a_range_of_ports_over_one_pool(farm: Farm, director: Host) -> None:
    Program(director, one_pool("s1", "s2", services=f"{VIP}:1000-1002/tcp")).ready()
    for port in (1000, 1001, 1002):
        assert farm.many(2, port=port, source=FAR) == {"s1": 1, "s2": 1}


def test_persistence(farm: Farm, director: Host) -> None:
    Program(director, one_pool("s1", "s2", persistence=300)).ready()
    first = farm.many(6, source=FAR)
    second = farm.many(6, source=ALSO_FAR)
    assert sorted([first, second], key=str) == [{"s1": 6}, {"s2": 6}]


def test_thresholds(farm: Farm, director: Host) -> None:
    pool = one_pool() | {"servers": servers("s1", upper=1) + servers("s2")}
    Program(director, pool).ready()
    held = [farm.hold(source=FAR) for _ in range(2)]
    assert {one.who for one in held} == {"s1", "s2"}
    assert farm.many(4, source=FAR) == {"s2": 4}


def connections(director: Host) -> list[str]:
    """The entries of the connection table."""
    return director.run(["ipvsadm", "-Lnc"]).splitlines()[2:]
