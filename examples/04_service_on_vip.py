"""A service that runs only on the machine that has the virtual address. As root:

python examples/04_service_on_vip.py eth0 192.0.2.10/32 8080 150
"""

import asyncio
import sys

import vrrpkit
from vrrpkit import State, VRRPInstance


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nserved from behind the virtual address\n")
    await writer.drain()
    writer.close()


async def main(interface: str, vip: str, port: int, priority: int) -> None:
    async with VRRPInstance("web", interface, vrid=51, vips=[vip], priority=priority) as web:
        while True:
            await web.wait_for(State.MASTER)
            # The address is there now, so that the service can be bound to it, and to nothing else.
            server = await asyncio.start_server(answer, vip.partition("/")[0], port)
            print("serving", flush=True)
            async with server:
                await web.wait_for(State.BACKUP, State.FAULT)
            print(f"not serving: {web.state}", flush=True)


if len(sys.argv) != 5:
    sys.exit(__doc__)
vrrpkit.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
