"""Balance connections over the servers that answer, as root on a kernel with IPVS.

python examples/06_virtual_server.py 192.0.2.10:80 /healthz 10.0.0.1:8080 10.0.0.2:8080
"""

import sys

import vrrpkit
from vrrpkit import HTTPChecker, VirtualServer


async def main(service: str, path: str, servers: list[str]) -> None:
    async with VirtualServer(
        service,
        scheduler="wlc",
        forward="nat",
        servers=servers,
        check=HTTPChecker(path, status=200, interval=1, timeout=1, fall=2, rise=2),
    ) as web:
        await web.wait_for_quorum(checked=True)
        print(f"{web.name} is {web.state}", flush=True)
        async for event in web.events():
            print(event, flush=True)


if len(sys.argv) < 4:
    sys.exit(__doc__)
vrrpkit.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
