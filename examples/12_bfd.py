"""Failover in less than a second: BFD notices that the master is gone long before its adverts, one
a second, have been missed. Run it as root on both machines, with two priorities.

python examples/12_bfd.py eth0 192.0.2.10/32 250 192.0.2.2     # on 192.0.2.1
python examples/12_bfd.py eth0 192.0.2.10/32 200 192.0.2.1     # on 192.0.2.2
"""

import sys

import vrrpkit
from vrrpkit import BFDSession, VRRPInstance


async def main(interface: str, vip: str, priority: int, other: str) -> None:
    # 0.15 s to notice, and then a skew of (256 - priority) / 256 s.
    bfd = BFDSession(other, interface=interface, min_tx=0.05, min_rx=0.05, multiplier=3)
    bfd.on_transition(lambda change: print("BFD", change, flush=True))
    async with VRRPInstance(
        "web", interface, vrid=51, vips=[vip], priority=priority, bfd=bfd
    ) as web:
        async for event in web.events():
            print(event, flush=True)


if len(sys.argv) != 5:
    sys.exit(__doc__)
vrrpkit.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
