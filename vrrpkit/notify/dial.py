"""Connections to a server that is given by name, without waiting for a resolver at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from ipaddress import ip_address
from typing import TypeAlias

__all__ = ["Dialler"]

Place: TypeAlias = "tuple[int, tuple[object, ...]]"
"""An address family, and an address as sockets take it."""

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Dialler:
    """Connects to one server by TCP.

    ``getaddrinfo`` cannot be interrupted, and without a network it takes half a minute to fail. In
    the threads of asyncio that would delay the end of the program, so it gets one of its own that
    nobody waits for; there is never more than one.

    :param host: name or address.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._asking: asyncio.Future[list[Place]] | None = None

    async def connect(self, within: float) -> socket.socket:
        """A connected socket, to the first address that takes a connection. A name is asked for
        anew each time.

        :param within: seconds, of which no address gets so many that there is no time for the next;
            the last one has no limit here.
        :raises OSError: there is no such name, or no address takes a connection.
        """
        places = await self._places()
        for place in places[:-1]:
            # TimeoutError is an OSError.
            with contextlib.suppress(OSError):
                async with asyncio.timeout(within / (len(places) + 1)):
                    return await _to(place)
        return await _to(places[-1])

    async def _places(self) -> list[Place]:
        with contextlib.suppress(ValueError):
            address = ip_address(self._host)
            return [(_FAMILIES[address.version], (str(address), self._port))]
        if self._asking is None:
            loop = asyncio.get_running_loop()
            asking: asyncio.Future[list[Place]] = loop.create_future()
            # Perhaps nobody waits any more when it is done.
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
            threading.Thread(
                target=self._ask, args=(loop, asking), name="vrrpkit: resolver", daemon=True
            ).start()
            # Only now: where no thread can be started, the next call tries again.
            self._asking = asking
        return await asyncio.shield(self._asking)

    def _ask(self, loop: asyncio.AbstractEventLoop, asking: asyncio.Future[list[Place]]) -> None:
        found: list[Place] = []
        problem: OSError | None = None
        try:
            answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            found = [(family, place) for family, _, _, _, place in answers]
        except (OSError, UnicodeError) as failure:
            problem = OSError(f"the name {self._host} is not found: {failure}")

        def settle() -> None:
            self._asking = None
            if problem is None:
                asking.set_result(found)
            else:
                asking.set_exception(problem)

        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)


async def _to(place: Place) -> socket.socket:
    family, address = place
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
