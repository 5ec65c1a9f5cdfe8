"""What all objects of one running event loop share: one scheduler, one poller, one netlink a
network namespace.

A :class:`Runtime` knows none of them. It finds the one object of a kind and a key for all who ask,
and ends those that are left when it ends itself.

* **Who uses it holds it.** A runtime holds what it shares weakly, so that neither it nor the list
  of runtimes keeps an event loop alive, also one that ended without cleaning up.
* **Users are counted where they are known.** A shared class has its listeners, slots or claims
  anyway: it opens with the first and closes with the last of them.
* **A child of fork() ends nothing.** What its copy of a runtime lists is the parent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Protocol, TypeVar, cast
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from vrrpkit.errors import Closed
from vrrpkit.lifecycle.callbacks import contain
from vrrpkit.lifecycle.fork import ProcessOrigin

__all__ = ["Runtime", "Shared"]

log = logging.getLogger(__name__)


class Shared(Protocol):
    """What a runtime shares."""

    def shutdown(self) -> Awaitable[None] | None:
        """The runtime ends: close what is open, whoever uses it still. Where nothing is open,
        nothing happens."""
        ...


S = TypeVar("S", bound=Shared)

_entered: ContextVar[Runtime | None] = ContextVar("vrrpkit runtime", default=None)

# A runtime refers to what it shares, and to its loop, only weakly.
_defaults: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()


class Runtime:
    """Shares objects among all who run on one event loop; made on it.

    Without more, there is one for each loop. A program or a test that wants its own enters it::

        async with Runtime():
            ...

    and whatever begins in that block, also in tasks that are started there, uses this one. What is
    open at the end of the block is closed, the last that was made first.
    """

    def __init__(self) -> None:
        self._loop = ref(asyncio.get_running_loop())
        self._origin = ProcessOrigin()
        self._shared: WeakValueDictionary[tuple[type[Shared], object], Shared] = (
            WeakValueDictionary()
        )
        self._token: Token[Runtime | None] | None = None
        self._ended = False

    @classmethod
    def current(cls, loop: asyncio.AbstractEventLoop | None = None) -> Runtime:
        """The runtime that was entered here, or that of the running loop.

        :param loop: the running loop, if the caller has it.
        """
        if loop is None:
            loop = asyncio.get_running_loop()
        # A context outlives the block that changed it, and goes to other threads with their loops.
        entered = _entered.get()
        if entered is not None and not entered._ended and entered._loop() is loop:
            return entered
        default = _defaults.get(loop)
        if default is None:
            default = _defaults[loop] = cls()
        return default

    def use(self, kind: type[S], key: object = None, make: Callable[[], S] | None = None) -> S:
        """The object of this kind that all share who give the same key, while any of them holds
        it.

        :param key: what there is one object for: a network namespace, a table, an interface. It is
            compared like the key of a dictionary.
        :param make: makes it if there is none; else ``kind()`` does.
        :raises Closed: the runtime has ended.
        """
        if self._ended:
            raise Closed("this runtime has ended; 'async with Runtime()' makes another one")
        # Asked in each attempt of a check: no call that can be spared.
        found = self._shared.get((kind, key))
        if found is None:
            made = kind() if make is None else make()
            self._shared[kind, key] = made
            return made
        return cast("S", found)

    def find(self, kind: type[S], key: object = None) -> S | None:
        """As :meth:`use`, or ``None`` where nobody has it."""
        return cast("S | None", self._shared.get((kind, key)))

    def forget(self, kind: type[Shared], key: object = None) -> None:
        """Share the object of this kind and key no more: who asks from now on gets another. Where
        there is none, nothing happens."""
        self._shared.pop((kind, key), None)

    async def close(self) -> None:
        """Close everything that is open, the last that was made first; again does nothing."""
        if self._ended:
            return
        self._ended = True
        if self._origin.elsewhere:
            return
        # All of them, also when this is cancelled meanwhile.
        async with contextlib.AsyncExitStack() as stack:
            for shared in list(self._shared.values()):
                stack.push_async_callback(_shut_down, shared)

    async def __aenter__(self) -> Runtime:
        self._token = _entered.set(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            # Left in another context than it was entered in: that one ends by itself.
            with contextlib.suppress(ValueError):
                _entered.reset(token)
        await self.close()


async def _shut_down(shared: Shared) -> None:
    try:
        ending = shared.shutdown()
        if ending is not None:
            await ending
    except Exception as problem:
        contain(problem, log, "%s failed to close", type(shared).__name__)
