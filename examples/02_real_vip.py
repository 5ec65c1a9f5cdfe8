"""Own a real virtual IP address. Run it as root on two machines of one link, with two priorities.

python examples/02_real_vip.py eth0 192.0.2.10/32 150
"""

import sys

import vrrpkit
from vrrpkit import VRRPInstance


async def main(interface: str, vip: str, priority: int) -> None:
    async with VRRPInstance("web", interface, vrid=51, vips=[vip], priority=priority) as web:
        print(f"{web.name} speaks as {web.source}, {web.state}", flush=True)
        async for event in web.events():
            print(event, flush=True)


if len(sys.argv) != 4:
    sys.exit(__doc__)
vrrpkit.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
