"""The table that pools make, as ``ipvsadm -Sn`` prints it."""

from __future__ import annotations

import pytest

from kernel.farm import GUE_PORT, PORT, VIP, VIP6, Farm, endpoint, table
from kernel.program import Program, one_pool, servers
from system.lab import Host

pytestmark = pytest.mark.kernel


def test_the_table_is_what_ipvsadm_prints(farm: Farm, director: Host) -> None:
    checked = {"check": {"kind": "tcp", "port": PORT}}
    pools = [
        one_pool(scheduler="wrr", persistence=360, granularity=24, **checked)
        | {"servers": servers("s1", weight=5, upper=100, lower=20) + servers("s2")},
        one_pool(
            "s1",
            services=f"{VIP}:{PORT}/udp",
            scheduler="sh",
            scheduler_flags=["sh-port", "sh-fallback"],
            forward="dr",
            weight=7,
        ),
        one_pool("s1", services=f"{VIP}:5060/udp", scheduler="rr", one_packet=True, **checked),
        one_pool("s1", services=[], fwmark=3, scheduler="mh", scheduler_flags=["mh-port"]),
        one_pool(
            "s2",
            services=f"{VIP}:81/tcp",
            scheduler="lblcr",
            forward="tun",
            tunnel={"type": "gue", "port": GUE_PORT},
            **checked,
        )
        | {"servers": [f"{endpoint('s2').partition(':')[0]}:81"]},
        one_pool(services=f"[{VIP6}]:{PORT}/tcp", scheduler="wlc", persistence=300, granularity=64)
        | {"servers": [endpoint("s1", 6)]},
    ]
    Program(director, *pools).ready()
    s1, s2, s1_6 = endpoint("s1"), endpoint("s2"), endpoint("s1", 6)
    assert table(director) == sorted(
        [
            f"-A -t {VIP}:{PORT} -s wrr -p 360 -M 255.255.255.0",
            f"-a -t {VIP}:{PORT} -r {s1} -m -w 5",
            f"-a -t {VIP}:{PORT} -r {s2} -m -w 1",
            f"-A -u {VIP}:{PORT} -s sh -b sh-fallback,sh-port",
            f"-a -u {VIP}:{PORT} -r {s1} -g -w 7",
            f"-A -u {VIP}:5060 -s rr -o",
            f"-a -u {VIP}:5060 -r {s1} -m -w 1",
            "-A -f 3 -s mh -b mh-port",
            f"-a -f 3 -r {s1} -m -w 1",
            f"-A -t {VIP}:81 -s lblcr",
            f"-a -t {VIP}:81 -r 10.0.0.12:81 -i -w 1 --tun-type gue"
            f" --tun-port {GUE_PORT} --tun-nocsum",
            f"-A -t [{VIP6}]:{PORT} -s wlc -p 300 -M 64",
            f"-a -t [{VIP6}]:{PORT} -r {s1_6} -m -w 1",
        ]
    )
    # -S leaves them out.
    limits = director.run(["ipvsadm", "-Ln", "--thresholds", "-t", f"{VIP}:{PORT}"]).splitlines()
    assert [line.split()[1:4] for line in limits if s1 in line] == [[s1, "100", "20"]]
