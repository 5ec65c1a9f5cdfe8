"""A gateway of two machines: the inside and the outside address move together, and a script decides
which machine is fit. Run it as root on both machines, with two priorities.

python examples/10_gateway_pair.py eth0 192.0.2.10/32 eth1 198.51.100.10/32 150 'pgrep -x haproxy'
"""

import sys

import vrrpkit
from vrrpkit import SyncGroup, TrackScript, VRRPInstance


async def main(
    inside: str, inside_vip: str, outside: str, outside_vip: str, priority: str, script: str
) -> None:
    fit = TrackScript(script, interval=0.5, timeout=2, fall=2)
    members = [
        VRRPInstance("inside", inside, vrid=1, vips=[inside_vip], priority=int(priority)),
        VRRPInstance("outside", outside, vrid=2, vips=[outside_vip], priority=int(priority)),
    ]
    async with SyncGroup("gateway", members, track=[fit]) as gateway:
        print(f"{gateway.state}: {gateway.why_not_master()}", flush=True)
        async for event in gateway.events():
            print(event, gateway.why_not_master() or "", flush=True)


if len(sys.argv) != 7:
    sys.exit(__doc__)
vrrpkit.run(main(*sys.argv[1:]))
