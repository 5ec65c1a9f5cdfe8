"""The farm itself, with ``ipvsadm``: what the kernel does with no part of ours.

If these fail, the farm is at fault, or this kernel lacks something.
"""

from __future__ import annotations

import pytest

from kernel.farm import FAR, FAR6, GUE_PORT, NEAR, NEAR6, PORT, VIP, VIP6, Farm, endpoint
from system.lab import Host

pytestmark = pytest.mark.kernel


WAYS = {
    "nat": (VIP, 4, "-m", FAR),
    "dr": (VIP, 4, "-g", NEAR),
    "ipip": (VIP, 4, "-i", NEAR),
    "gue": (VIP, 4, f"-i --tun-type gue --tun-port {GUE_PORT}", NEAR),
    "gre": (VIP, 4, "-i --tun-type gre", NEAR),
    "nat, IPv6": (VIP6, 6, "-m", FAR6),
    "dr, IPv6": (VIP6, 6, "-g", NEAR6),
    "ipip, IPv6": (VIP6, 6, "-i", NEAR6),
    "IPv4 in IPv6": (VIP, 6, "-i", NEAR),
    "IPv6 in IPv4": (VIP6, 4, "-i", NEAR6),
}


def test_connections_pass(farm: Farm, director: Host) -> None:
    answers = {}
    for way, (vip, family, flags, source) in WAYS.items():
        service = f"[{vip}]:{PORT}" if ":" in vip else f"{vip}:{PORT}"
        lines = ["-C", f"-A -t {service} -s rr"]
        lines += [f"-a -t {service} -r {endpoint(name, family)} {flags}" for name in ("s1", "s2")]
        director.run(["ipvsadm", "-R"], stdin="\n".join(lines) + "\n")
        answers[way] = farm.many(4, vip, source=source)
    assert answers == {way: {"s1": 2, "s2": 2} for way in WAYS}


def test_without_a_service_nobody_answers(farm: Farm, director: Host) -> None:
    assert farm.many(1, source=FAR) == {"ConnectionRefusedError": 1}


def test_a_killed_server_refuses(farm: Farm, director: Host) -> None:
    lines = [f"-A -t {VIP}:{PORT} -s rr", f"-a -t {VIP}:{PORT} -r {endpoint('s1')} -m"]
    director.run(["ipvsadm", "-R"], stdin="\n".join(lines) + "\n")
    held = farm.hold(source=FAR)
    assert held.who == "s1"
    farm.servers["s1"].kill()
    assert farm.many(2, source=FAR) == {"ConnectionRefusedError": 2}
