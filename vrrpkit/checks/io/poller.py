"""Waiting for the sockets of many short attempts at the price of one system call each.

An event loop's own ``add_reader`` and ``add_writer`` tell the kernel about a descriptor when it is
added, when the direction changes, and when it goes. Here every socket is added once, for both
directions and edge-triggered, to an epoll of our own, and leaves it by being closed. That epoll is
itself a descriptor that the running loop watches, whichever loop it is.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Iterator
from typing import TypeAlias

from vrrpkit.lifecycle.fork import ProcessOrigin, renew_epoll
from vrrpkit.runtime import Runtime

__all__ = ["Poller", "Ready"]

Ready: TypeAlias = Callable[[int], None]
"""Called with what has happened: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLERR and EPOLLHUP."""

EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

BATCH = 64
"""Sockets served in one turn of the loop; others, and the loop's own work, come in between."""

IDLE = 30.0
"""Seconds without a socket after which the epoll is closed."""


class Poller:
    """The sockets of one event loop.

    It needs no closing: it goes when nothing was watched for half a minute, or when the loop is
    closed, which holds it as the attempts do that use it.
    """

    def __init__(self) -> None:
        # A child of fork() must not take anything out of this process's epolls.
        ProcessOrigin()
        loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        renew_epoll(self)
        self._owners: dict[int, Ready] = {}
        self._used = True
        loop.add_reader(self._epoll.fileno(), self._wake)
        loop.call_later(IDLE, self._retire)

    def fileno(self) -> int:
        """See :class:`vrrpkit.lifecycle.fork.HasFileno`."""
        return self._epoll.fileno()

    @classmethod
    def current(cls, loop: asyncio.AbstractEventLoop | None = None) -> Poller:
        """The running loop's; made on first use.

        :param loop: the running loop, if the caller has it.
        :raises OSError: too many files are open.
        """
        runtime = Runtime.current(loop)
        poller = runtime.use(cls)
        if poller._epoll.closed:
            # It was idle for long, and somebody has it still.
            runtime.forget(cls)
            poller = runtime.use(cls)
        return poller

    def watch(self, descriptor: int, ready: Ready) -> None:
        """Call ``ready`` at each change of what can be done with a socket.

        Changes, not states: after EPOLLIN, read until nothing is left, or nothing more is heard.
        The socket must not be watched already; a socket whose connecting has not begun counts as
        hung up.

        :raises OSError: the kernel's limit of watched descriptors is reached.
        """
        self._epoll.register(descriptor, EDGES)
        self._owners[descriptor] = ready
        self._used = True

    def forget(self, descriptor: int) -> None:
        """The socket is about to be closed, which ends the kernel's interest in it.

        It must not have been duplicated, or the kernel goes on.
        """
        self._owners.pop(descriptor, None)

    @property
    def watched(self) -> int:
        """How many sockets there are."""
        return len(self._owners)

    def close(self) -> None:
        """Let go of the loop; attempts that still run hear no more."""
        if not self._epoll.closed:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._owners.clear()

    def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        self.close()

    def _wake(self) -> None:
        # Owners are looked up before the first is called: what that one closes and opens may get
        # the number of a socket that comes later, whose news are not for its successor.
        get = self._owners.get
        self._serve(
            iter([(number, get(number), what) for number, what in self._epoll.poll(0, BATCH)])
        )

    def _serve(self, news: Iterator[tuple[int, Ready | None, int]]) -> None:
        owners = self._owners
        try:
            for descriptor, ready, what in news:
                if ready is not None and owners.get(descriptor) is ready:
                    ready(what)
        except BaseException:
            # News come once; whoever raised must not cost the others theirs.
            asyncio.get_running_loop().call_soon(self._serve, news)
            raise

    def _retire(self) -> None:
        if self._epoll.closed:
            return
        if self._owners or self._used:
            self._used = False
            asyncio.get_running_loop().call_later(IDLE, self._retire)
        else:
            self.close()
