"""Tell the operator by mail, and run a script, on every transition. Nothing of it can hold the
router up. In memory, so that it can be tried anywhere.

python examples/11_mail_and_scripts.py smtp.example.net ops@example.net 'logger vrrp'
"""

import sys

import vrrpkit
from vrrpkit import Mail, MemoryBus, NotifyFunction, NotifyScripts, State, VRRPInstance


async def claim(event: object) -> None:
    """Whatever your program must do when the address moves."""
    print(event, flush=True)


async def main(server: str, operator: str, script: str) -> None:
    host, _, port = server.partition(":")
    bus = MemoryBus()
    async with (
        Mail(host, port=int(port or 25), to=operator, states=["MASTER", "FAULT"]) as mail,
        VRRPInstance(
            "web",
            bus.interface("192.0.2.1"),
            vrid=51,
            vips=["192.0.2.10/32"],
            interval=0.1,
            notify=[mail, NotifyScripts(script), NotifyFunction(claim)],
        ) as web,
    ):
        await web.wait_for(State.MASTER)
        bus.unplug("192.0.2.1")
        await web.wait_for(State.FAULT)


if len(sys.argv) != 4:
    sys.exit(__doc__)
vrrpkit.run(main(*sys.argv[1:]))
