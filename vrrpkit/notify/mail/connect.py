"""Connections to a server that is given by name, without waiting for a resolver at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import Generic, TypeAlias, TypeVar

from vrrpkit.lifecycle.real_world import needs_real_world
from vrrpkit.notify.model.mail_addresses import is_full_name

__all__ = ["Connector", "OwnName"]

T = TypeVar("T")

Place: TypeAlias = "tuple[int, tuple[object, ...]]"
"""An address family, and an address as sockets take it."""

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Asked(Generic[T]):
    """Asks the resolver one thing, never more than once at a time.

    ``getaddrinfo`` cannot be interrupted, and without a network it takes half a minute to fail. In
    the threads of asyncio that would delay the end of the program, so it gets one of its own that
    nobody waits for.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._asking: asyncio.Future[T] | None = None

    async def answer(self) -> T:
        """What the resolver says, or what it raises."""
        if self._asking is None:
            loop = asyncio.get_running_loop()
            asking: asyncio.Future[T] = loop.create_future()
            # Perhaps nobody waits any more when it is done.
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
            threading.Thread(
                target=self._run, args=(loop, asking), name="vrrpkit: resolver", daemon=True
            ).start()
            # Only now: where no thread can be started, the next call tries again.
            self._asking = asking
        return await asyncio.shield(self._asking)

    def _run(self, loop: asyncio.AbstractEventLoop, asking: asyncio.Future[T]) -> None:
        found: list[T] = []
        problem: OSError | None = None
        try:
            found = [self._ask()]
        except OSError as failure:
            problem = failure

        def settle() -> None:
            self._asking = None
            if problem is None:
                asking.set_result(found[0])
            else:
                asking.set_exception(problem)

        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)


class OwnName:
    """The full name of this host, if it has one."""

    def __init__(self) -> None:
        self._full = ""
        self._asked = _Asked(_canonical_name)

    async def full(self, within: float) -> str | None:
        """The name with its domain; ``None`` if there is none, or nobody says so in time.

        :param within: seconds to wait for the resolver.
        """
        if not self._full:
            own = socket.gethostname()
            if is_full_name(own):
                self._full = own
            else:
                # Trouble of the resolver, or none within the time, is no trouble of the mail.
                with contextlib.suppress(OSError):
                    async with asyncio.timeout(within):
                        found = await self._asked.answer()
                    self._full = found if is_full_name(found) else ""
        return self._full or None


def _canonical_name() -> str:
    try:
        answers = socket.getaddrinfo(
            socket.gethostname(), None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME
        )
    except UnicodeError as failure:
        raise OSError(f"the name of this host is not usable: {failure}") from None
    return answers[0][3]


class Connector:
    """Connects to one server by TCP.

    :param host: name or address.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._asked = _Asked(self._ask)

    async def connect(self, within: float) -> socket.socket:
        """A connected socket, to the first address that takes a connection. A name is asked for
        anew each time.

        :param within: seconds, of which no address gets so many that there is no time for the next;
            the last one has no limit here.
        :raises OSError: there is no such name, or no address takes a connection.
        :raises vrrpkit.testing.RealWorldNeeded: the event loop is one of virtual time.
        """
        places = await self._places()
        for place in places[:-1]:
            # TimeoutError is an OSError.
            with contextlib.suppress(OSError):
                async with asyncio.timeout(within / (len(places) + 1)):
                    return await _to(place)
        return await _to(places[-1])

    async def _places(self) -> list[Place]:
        needs_real_world(f"connecting to {self._host}")
        with contextlib.suppress(ValueError):
            address = ip_address(self._host)
            return [(_FAMILIES[address.version], (str(address), self._port))]
        return await self._asked.answer()

    def _ask(self) -> list[Place]:
        try:
            answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as failure:
            raise OSError(f"the name {self._host} is not found: {failure}") from None
        return [(family, place) for family, _, _, _, place in answers]


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
