"""Constructors that are derived from a description, so that each option is written once.

A class that users make by keyword, such as :class:`vrrpkit.VRRPInstance`, has a public frozen attrs
class that describes it. :func:`configured_by` gives its ``__init__`` the parameters of that class:
type checkers see them through a ``ParamSpec``, and ``help()``, :func:`inspect.signature`, an editor
and Sphinx through ``__signature__``, ``__annotations__`` and ``__doc__``.

A field may name the keepalived keyword that it stands for in its metadata, under
:data:`KEEPALIVED`. Whoever writes that keyword in Python is told the parameter's name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import attrs

__all__ = ["KEEPALIVED", "configured_by", "from_keepalived"]

KEEPALIVED = "keepalived"
"""The key in a field's metadata of the keepalived keywords that it stands for."""

P = ParamSpec("P")
C = TypeVar("C")
S = TypeVar("S")


def from_keepalived(*keywords: str) -> dict[str, tuple[str, ...]]:
    """The metadata of a field that stands for these keepalived keywords."""
    return {KEEPALIVED: keywords}


def configured_by(
    config: Callable[P, C],
) -> Callable[[Callable[[S, C], None]], Callable[Concatenate[S, P], None]]:
    """Derive an ``__init__`` from ``config``, an attrs class: it takes the parameters of ``config``
    and calls the decorated function with an instance of it.

    A wrong call raises TypeError in the name of the class that is being made. What ``config``
    itself raises about a value passes through.
    """

    def derive(init: Callable[[S, C], None]) -> Callable[Concatenate[S, P], None]:
        @functools.wraps(init)
        def construct(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
            try:
                described = config(*args, **kwargs)
            except TypeError:
                _require_call(type(self).__name__, config, args, kwargs)
                raise
            init(self, described)

        _describe(construct, config)
        return construct

    return derive


def _describe(function: Callable[..., None], config: Callable[..., object]) -> None:
    """Make a function look as if the parameters of ``config`` were written in it."""
    signature = inspect.signature(config)
    instance = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [instance, *signature.parameters.values()]
    annotations = {
        parameter.name: parameter.annotation
        for parameter in signature.parameters.values()
        if parameter.annotation is not inspect.Parameter.empty
    }
    # Without __wrapped__, which would lead inspect and Sphinx to the one parameter "config".
    vars(function).pop("__wrapped__", None)
    vars(function)["__signature__"] = signature.replace(
        parameters=parameters, return_annotation=None
    )
    function.__annotations__ = {**annotations, "return": None}
    function.__doc__ = config.__doc__


def _require_call(
    name: str, config: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """Raise TypeError, with advice, when these arguments do not fit ``config``."""
    signature = inspect.signature(config)
    for given in kwargs:
        if given not in signature.parameters:
            raise TypeError(f"{name}() has no parameter {given!r}{_advice(config, given)}")
    try:
        signature.bind(*args, **kwargs)
    except TypeError as problem:
        raise TypeError(f"{name}(): {problem}") from None


def _advice(config: Callable[..., object], given: str) -> str:
    if not isinstance(config, type) or not attrs.has(config):
        return ""
    fields = attrs.fields(config)
    for field in fields:
        if given in field.metadata.get(KEEPALIVED, ()):
            return f"; keepalived's {given} is {field.alias}= here"
    # An import that only a mistake pays for.
    import difflib

    near = difflib.get_close_matches(given, [field.alias for field in fields], 1)
    return f"; did you mean {near[0]}=?" if near else ""
