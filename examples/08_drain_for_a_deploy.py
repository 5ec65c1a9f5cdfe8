"""Take each server out in turn, wait until its connections are gone, deploy, put it back: nobody is
cut off. On a table in memory; leave table= out, and it is the kernel's.

python examples/08_drain_for_a_deploy.py
"""

import asyncio

import vrrpkit
from vrrpkit import MemoryTable, VirtualServer

SERVERS = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]


async def deploy(server: str) -> None:
    """Whatever you do to install a new version."""
    await asyncio.sleep(0.1)


async def main() -> None:
    table = MemoryTable()
    async with VirtualServer(
        "192.0.2.10:80/tcp", scheduler="rr", servers=SERVERS, table=table
    ) as web:
        (service,) = web.services
        clients = [table.connect(service) for _ in range(6)]  # in the kernel they are real
        for server in SERVERS:
            drained = asyncio.create_task(web.drain(server, timeout=30))
            await asyncio.sleep(0.2)
            busy = [client for client in clients if client and str(client) == server]
            for client in busy:  # these end by themselves
                table.disconnect(service, client)
            left = await drained
            await deploy(server)
            await web.add(server)
            print(f"{server}: {len(busy)} connections ended, {left} were cut, deployed")


vrrpkit.run(main())
