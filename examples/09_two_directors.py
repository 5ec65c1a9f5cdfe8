"""Two directors: the master of the virtual address balances its connections and tells the other one
of them, which carries them on after a failover. As root on both, on kernels with IPVS.

python examples/09_two_directors.py eth0 192.0.2.10 80 150 10.0.0.1 10.0.0.2
"""

import sys

import vrrpkit
from vrrpkit import ConnectionSync, RealServer, TCPChecker, VirtualServer, VRRPInstance


async def main(interface: str, vip: str, port: int, priority: int, servers: list[str]) -> None:
    router = VRRPInstance("director", interface, vrid=51, vips=[f"{vip}/32"], priority=priority)
    pool = VirtualServer(
        f"{vip}:{port}/tcp",
        scheduler="rr",
        forward="dr",
        servers=[RealServer(f"{server}:{port}") for server in servers],
        check=TCPChecker(interval=1, timeout=1),
        follows=router,
    )
    async with pool, router, ConnectionSync(interface, follows=router):
        async for event in router.events():
            print(event, flush=True)


if len(sys.argv) < 6:
    sys.exit(__doc__)
vrrpkit.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]))
