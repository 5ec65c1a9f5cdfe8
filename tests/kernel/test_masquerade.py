"""NAT to real servers that answer the client straight: replies must be led back."""

from __future__ import annotations

import pytest

from kernel.farm import NEAR, PORT, VIP, Farm, table
from kernel.program import Program, one_pool
from system.lab import Host

pytestmark = pytest.mark.kernel

CONNTRACK = "/proc/sys/net/ipv4/vs/conntrack"


def test_conntrack_and_a_masquerading_rule_lead_replies_back(farm: Farm, director: Host) -> None:
    Program(director, one_pool("s1", "s2")).ready()
    # The real servers' answers go to the client, which knows nobody there.
    assert set(farm.many(1, source=NEAR)) <= {"TimeoutError", "ConnectionResetError"}
    director.run(["sh", "-c", f"echo 1 >{CONNTRACK}"])
    match = ["-m", "ipvs", "--vaddr", VIP, "--vport", str(PORT), "--vproto", "tcp"]
    rule = ["-A", "POSTROUTING", *match, "-j", "MASQUERADE"]
    director.run(["iptables-legacy", "-t", "nat", *rule])
    assert farm.many(4, source=NEAR) == {"s1": 2, "s2": 2}


def test_a_kernel_without_nftables_is_told_before_anything_is_changed(
    farm: Farm, director: Host
) -> None:
    program = Program(director, one_pool("s1", "s2", masquerade=True))
    assert program.wait() != 0
    assert "nftables" in program.said
    assert "Ready" not in program.said
    assert table(director) == []
    assert director.run(["cat", CONNTRACK]).strip() == "0"
