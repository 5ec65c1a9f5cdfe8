"""A program around VRRPInstance, for the tests: options come as JSON, events go out as lines.

    python router.py '{"name": "web", "interface": "eth0", "vrid": 51, "vips": ["192.0.2.10/24"]}'

``routers`` may hold a list of such objects, to run many in one process, and ``group`` the options
of a sync group of all of them. ``notifiers`` has notifiers by name, which ``notify`` of routers and
the group lists. Trackers and notifiers are objects with the ``kind``, such as ``TrackScript``, its
``args``, and its options, see :func:`make`. ``control`` names a FIFO of commands: lines of JSON,
see :class:`Control`. SIGUSR1 freezes the event loop for ``freeze`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any

import attrs

import vrrpkit
from vrrpkit import (
    VIP,
    Announcements,
    HMACAuth,
    Mail,
    PasswordAuth,
    Peer,
    SyncGroup,
    TrackProcess,
    VRRPInstance,
)
from vrrpkit.publishing import Notifier


def make(value: Any) -> Any:
    """An object of vrrpkit from JSON, recursively: ``{"kind": "TrackFile", "args": ["/x"]}``."""
    if not (isinstance(value, dict) and "kind" in value):
        return value
    options = {name: make(each) for name, each in value.items()}
    args = [make(each) for each in options.pop("args", ())]
    return getattr(vrrpkit, options.pop("kind"))(*args, **options)


def vip(value: str | dict[str, Any]) -> VIP:
    """A VIP from JSON: text, or its options and ``address``."""
    if isinstance(value, str):
        return VIP(value)
    options = dict(value)
    return VIP(options.pop("address"), **options)


def around(options: dict[str, Any], notifiers: dict[str, Notifier]) -> dict[str, Any]:
    """The options with their trackers and notifiers made."""
    options = dict(options)
    options["track"] = [make(each) for each in options.get("track", ())]
    options["notify"] = [notifiers[name] for name in options.get("notify", ())]
    return options


def instance(options: dict[str, Any], notifiers: dict[str, Notifier]) -> VRRPInstance:
    """A VRRPInstance from JSON."""
    options = around(options, notifiers)
    if "password" in options:
        options["auth"] = PasswordAuth(options.pop("password"))
    if "hmac" in options:
        options["auth"] = HMACAuth({1: options.pop("hmac")}, active=1)
    if "announcements" in options:
        options["announcements"] = Announcements(**options.pop("announcements"))
    if "peers" in options:
        options["peers"] = [Peer(p) if isinstance(p, str) else Peer(**p) for p in options["peers"]]
    for name in ("vips", "excluded_vips"):
        options[name] = [vip(value) for value in options.get(name, ())]
    return VRRPInstance(**options)


def say(**fields: object) -> None:
    """One line of JSON."""
    print(json.dumps({"time": time.monotonic(), **fields}, default=_plain), flush=True)


def _plain(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, frozenset) else str(value)


class Control:
    """Carries out commands: ``{"do": "announce"}``, ``{"do": "demote", "seconds": 1}``, ..."""

    def __init__(self, path: str, routers: list[VRRPInstance], group: SyncGroup | None) -> None:
        self._group = group
        self._routers = {router.name: router for router in routers}
        self._first = routers[0]
        self._pending = b""
        self._body = asyncio.get_running_loop().create_future()
        self._task = asyncio.current_task()
        self._announcing: set[asyncio.Task[None]] = set()
        # Also open for writing: a writer that comes and goes is no end of file.
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._fifo, self._read)

    async def body(self) -> None:
        """What the routers run around: until told to end, or to fail."""
        await self._body

    def close(self) -> None:
        """Take no further commands."""
        asyncio.get_running_loop().remove_reader(self._fifo)
        os.close(self._fifo)

    def _read(self) -> None:
        self._pending += os.read(self._fifo, 65536)
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            self._carry_out(json.loads(line))

    def _carry_out(self, command: dict[str, Any]) -> None:
        router = self._routers.get(command.get("router", ""), self._first)
        match command["do"]:
            case "end":
                self._body.set_result(None)
            case "raise":
                self._body.set_exception(RuntimeError("the body failed"))
            case "cancel":
                assert self._task is not None
                self._task.cancel()
            case "announce":
                task = asyncio.create_task(router.announce(command.get("repeat")))
                self._announcing.add(task)
                task.add_done_callback(self._announcing.discard)
            case "demote":
                router.demote(command["seconds"])
            case "priority":
                router.set_priority(command["priority"])
            case "statistics":
                statistics = router.statistics
                say(
                    router=router.name,
                    statistics=attrs.asdict(statistics, recurse=False)
                    | {
                        "rejected": {str(k): n for k, n in statistics.rejected.items()},
                        "anomalies": {str(k): n for k, n in statistics.anomalies.items()},
                        "peers": {
                            str(peer): {
                                "accepted": counts.accepted,
                                "rejected": {str(k): n for k, n in counts.rejected.items()},
                            }
                            for peer, counts in statistics.peers.items()
                        },
                    },
                    master=router.master,
                    source=router.source,
                    faults=router.faults,
                    priority=router.priority,
                    signals=router.signals if self._group is None else self._group.signals,
                    why=None if self._group is None else self._group.why_not_master(),
                    told=TrackProcess.told(),
                )


async def main(options: dict[str, Any]) -> None:
    """Run the routers until a signal, or a command, ends them."""
    freeze = float(options.pop("freeze", 0))
    path = options.pop("control", None)
    notifiers = {name: make(each) for name, each in options.pop("notifiers", {}).items()}
    grouped = options.pop("group", None)
    listed = options.pop("routers", [options] if options else [])
    routers = [instance(each, notifiers) for each in listed]
    group = None
    if grouped is not None:
        group = SyncGroup(instances=routers, **around(grouped, notifiers))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, time.sleep, freeze)
    control = Control(path, routers, group) if path else None
    async with asyncio.TaskGroup() as telling, contextlib.AsyncExitStack() as stack:
        if control is not None:
            stack.callback(control.close)
        for notifier in notifiers.values():
            if isinstance(notifier, Mail):
                await stack.enter_async_context(notifier)
        for router in routers:
            router.on_transition(
                lambda change: say(
                    router=change.router,
                    state=change.state.value,
                    previous=change.previous.value,
                    reason=change.reason.value,
                    faults=change.faults,
                )
            )
            telling.create_task(tell(router))
            if group is None:
                await stack.enter_async_context(router)
                say(router=router.name, state=router.state.value, entered=True)
        if group is not None:
            group.on_transition(lambda change: say(router=change.group, state=change.state.value))
            await stack.enter_async_context(group)
            for router in routers:
                say(router=router.name, state=router.state.value, entered=True)
        await (asyncio.Event().wait() if control is None else control.body())


async def tell(router: VRRPInstance) -> None:
    """Print the events of a router until it ends."""
    async for event in router.events():
        if not isinstance(event, vrrpkit.Transition):
            fields = attrs.asdict(event, recurse=False)
            say(**fields, event=type(event).__name__)


if __name__ == "__main__":
    vrrpkit.run(main(json.loads(sys.argv[1])))
