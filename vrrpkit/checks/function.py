"""Any coroutine function as a checker, without a subclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs

from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.target import Target
from vrrpkit.errors import ConfigError

__all__ = ["FunctionChecker"]

Function: TypeAlias = "Callable[[Target], Awaitable[Weight | None]]"


def _bare(function: object) -> object:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name(function: object) -> str:
    bare = _bare(function)
    name: object = getattr(bare, "__name__", None)
    return name if isinstance(name, str) else type(bare).__name__


def _asynchronous(bare: object) -> bool:
    if inspect.iscoroutinefunction(bare):
        return True
    return inspect.iscoroutinefunction(inspect.getattr_static(type(bare), "__call__", None))


def _usable(instance: object, attribute: object, value: Function) -> None:
    if not _asynchronous(_bare(value)):
        raise ConfigError(
            f"FunctionChecker: {_name(value)} is no coroutine function; write it as "
            "'async def name(target: Target) -> Weight | None', and let nothing in it block"
        )
    try:
        inspect.signature(value).bind(None)
    except TypeError as problem:
        raise ConfigError(
            f"FunctionChecker: {_name(value)} cannot be called with one argument, the target: "
            f"{problem}; write it as 'async def name(target: Target)', or use functools.partial"
        ) from None


@attrs.frozen
class FunctionChecker(Checker):
    """Calls a coroutine function with the target::

        async def database(target: Target) -> None:
            reader, writer = await target.connect()
            ...

        FunctionChecker(database, interval=2)

    :param function: returns when the server is healthy (or a :class:`Weight`), and raises when it
        is not. Bound methods, ``functools.partial`` and objects with an ``async def __call__`` will
        do too.
    :raises ConfigError: it is no coroutine function, or does not take one argument.
    """

    function: Function = attrs.field(validator=_usable, repr=_name)

    async def check(self, target: Target) -> Weight | None:
        return await self.function(target)

    def __str__(self) -> str:
        return _name(self.function)
