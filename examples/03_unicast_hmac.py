"""Two routers that only know each other: unicast adverts, signed. For clouds and routed networks.

python -c 'import secrets; print("hex:" + secrets.token_hex(32))' >vrrp.key; chmod 600 vrrp.key
python examples/03_unicast_hmac.py eth0 203.0.113.5/32 198.51.100.1 198.51.100.2 vrrp.key 150
"""

import sys

import vrrpkit
from vrrpkit import HMACAuth, Peer, VRRPInstance, read_key


async def main(
    interface: str, vip: str, source: str, peer: str, key_file: str, priority: str
) -> None:
    router = VRRPInstance(
        "db",
        interface,
        vrid=7,
        vips=[vip],
        source=source,
        peers=[Peer(peer, min_ttl=254)],  # at most one router in between
        interval=0.5,
        priority=int(priority),
        auth=HMACAuth({1: read_key(key_file)}, active=1),
    )
    async with router:
        print(f"{router.name} speaks as {router.source}, {router.state}", flush=True)
        async for event in router.events():
            print(event, flush=True)


if len(sys.argv) != 7:
    sys.exit(__doc__)
vrrpkit.run(main(*sys.argv[1:]))
