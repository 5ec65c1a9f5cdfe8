"""A director's program: pools, and where asked a VRRP instance and a connection sync daemon.

    python director.py '{"pools": [{"services": ..., "servers": [...], "check": {...}}]}'

Options are those of the public classes, as JSON: ``check`` is ``{"kind": "tcp", ...}``,
``{"kind": "http", ...}`` or ``{"kind": "stuck"}``, which does not end; a server is a text or a dict
of options with ``endpoint``. Events are printed as lines of JSON. ``control`` names a FIFO of
commands, ``{"do": "drain", "args": [...]}`` calls that method of the first pool and prints the
result.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

import vrrpkit
from vrrpkit import VRRPInstance
from vrrpkit.checks.base import Checker
from vrrpkit.checks.function import FunctionChecker
from vrrpkit.checks.http import HTTPChecker
from vrrpkit.checks.target import Target
from vrrpkit.checks.tcp import TCPChecker
from vrrpkit.ipvs.kernel.table import KernelTable
from vrrpkit.ipvs.model.entries import Tunnel, TunnelType
from vrrpkit.ipvs.server import RealServer, VirtualServer
from vrrpkit.ipvs.sync import ConnectionSync
from vrrpkit.notify.fifo import NotifyFIFO


def say(**fields: object) -> None:
    """One line of JSON."""
    print(json.dumps({"time": time.monotonic(), **fields}, default=str), flush=True)


async def stuck(target: Target) -> None:
    """Swallows every cancellation."""
    say(asked=str(target))
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


def checker(options: dict[str, Any]) -> Checker:
    """A checker from JSON; quick unless told otherwise."""
    options = {"interval": 0.2, "timeout": 2.0, "retry": 0, "warmup": 0.0, **options}
    kind = options.pop("kind")
    if kind == "stuck":
        return FunctionChecker(stuck, **options)
    return HTTPChecker("/", **options) if kind == "http" else TCPChecker(**options)


def common(options: dict[str, Any]) -> dict[str, Any]:
    """What pools and real servers share."""
    options = dict(options)
    if "check" in options:
        options["check"] = checker(options["check"])
    if "tunnel" in options:
        tunnel = dict(options["tunnel"])
        options["tunnel"] = Tunnel(type=TunnelType(tunnel.pop("type")), **tunnel)
    return options


def server(options: str | dict[str, Any]) -> str | RealServer:
    """A real server from JSON."""
    if isinstance(options, str):
        return options
    options = common(options)
    return RealServer(options.pop("endpoint"), **options)


def pool(options: dict[str, Any], instance: VRRPInstance | None) -> VirtualServer:
    """A pool from JSON; ``follows`` is true or false, ``fifo`` a path that it is told of by."""
    options = common(options)
    if "fifo" in options:
        options["notify"] = [NotifyFIFO(options.pop("fifo"))]
    options["servers"] = [server(one) for one in options["servers"]]
    if "sorry" in options:
        options["sorry"] = server(options["sorry"])
    if options.pop("follows", False):
        options["follows"] = instance
    return VirtualServer(options.pop("services", ()), **options)


async def tell(source: VirtualServer | VRRPInstance) -> None:
    """Print the events of a pool or an instance."""
    async for event in source.events():
        say(event=type(event).__name__, text=str(event))


async def obey(path: str, pools: list[VirtualServer], tasks: asyncio.TaskGroup) -> None:
    """Carry out the commands that are written to a FIFO."""

    async def carry_out(command: dict[str, Any]) -> None:
        name = command["do"]
        result = getattr(pools[0], name)(*command.get("args", ()))
        if asyncio.iscoroutine(result):
            result = await result
        say(did=name, result=result)

    reader = asyncio.StreamReader()
    # Opened for writing too, so that it does not end with the first writer.
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), file
    )
    async for line in reader:
        tasks.create_task(carry_out(json.loads(line)), name=f"command {line!r}")


async def main() -> None:
    options = json.loads(sys.argv[1])
    async with contextlib.AsyncExitStack() as stack:
        instance: VRRPInstance | None = None
        if "instance" in options:
            instance = VRRPInstance(**options["instance"])
        pools = [pool(one, instance) for one in options["pools"]]
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for one in pools:
            await stack.enter_async_context(one)
            tasks.create_task(tell(one), name="events of a pool")
        if instance is not None:
            if "sync" in options:
                sync = ConnectionSync(follows=instance, **options["sync"])
                await stack.enter_async_context(sync)
            await stack.enter_async_context(instance)
            tasks.create_task(tell(instance), name="events of the instance")
        if "timeouts" in options:
            await KernelTable.current().set_timeouts(**options["timeouts"])
        if "control" in options:
            tasks.create_task(obey(options["control"], pools, tasks), name="commands")
        say(event="Ready")
        await asyncio.Event().wait()


vrrpkit.run(main())
