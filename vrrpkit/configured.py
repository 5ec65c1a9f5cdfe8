"""Constructors that are derived from a description, so that each option is written once.

A class that users make by keyword, such as :class:`vrrpkit.VRRPInstance`, has a public frozen attrs
class that describes it. :func:`configured_by` gives its ``__init__`` the parameters of that class:
type checkers see them through a ``ParamSpec``, and ``help()``, :func:`inspect.signature`, an editor
and Sphinx through ``__signature__``, ``__annotations__`` and ``__doc__``.

A field names in its metadata the keepalived keywords that it stands for, see
:func:`from_keepalived`. A call with such a keyword is answered with the parameter's name.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import attrs

__all__ = [
    "KEEPALIVED",
    "Keywords",
    "advised",
    "configured_by",
    "described",
    "from_keepalived",
    "values_of",
]

KEEPALIVED = "keepalived"
"""The key in a field's metadata of its :class:`Keywords`."""

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


@attrs.frozen
class Keywords:
    """The keywords of keepalived, and of other programs, that users write for a field."""

    names: tuple[str, ...]
    """Those that mean the same as the field."""
    unit: str
    """What the field counts in, where keepalived's manual leaves room for a mistake."""
    instead: Mapping[str, str]
    """What to write instead of the others; ``"nothing: REASON"`` for one that is not needed."""


def from_keepalived(*names: str, unit: str = "", **instead: str) -> dict[str, Keywords]:
    """The metadata of a field that stands for keywords of keepalived.

    ::

        from_keepalived("advert_int", unit="seconds")
        from_keepalived(nopreempt="preempt=False")
        from_keepalived(state="nothing: a router begins as BACKUP")

    :param names: keywords that mean the same as the field.
    :param unit: what the field counts in.
    :param instead: for each other keyword, what to write.
    """
    return {KEEPALIVED: Keywords(names, unit, instead)}


def configured_by(
    config: Callable[P, C],
) -> Callable[[Callable[[S, C], R]], Callable[Concatenate[S, P], R]]:
    """Derive an ``__init__``, or another method, from ``config``, an attrs class: it takes the
    parameters of ``config`` and calls the decorated function with an instance of it.

    A wrong call raises TypeError in the name of the class that is being made, or of the method.
    What ``config`` itself raises about a value passes through.
    """

    def derive(method: Callable[[S, C], R]) -> Callable[Concatenate[S, P], R]:
        suffix = "" if method.__name__ == "__init__" else f".{method.__name__}"

        @functools.wraps(method)
        def construct(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                described = config(*args, **kwargs)
            except TypeError:
                _require_call(f"{type(self).__name__}{suffix}", config, args, kwargs)
                raise
            return method(self, described)

        _describe(construct, config)
        return construct

    return derive


def _describe(function: Callable[..., object], config: Callable[..., object]) -> None:
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
    returned = function.__annotations__.get("return")
    vars(function)["__signature__"] = signature.replace(
        parameters=parameters, return_annotation=returned
    )
    function.__annotations__ = {**annotations, "return": returned}
    own = inspect.cleandoc(function.__doc__ or "")
    text = _text_of(config, list(signature.parameters))
    function.__doc__ = f"{own}\n\n{text}" if own else text


def _text_of(config: Callable[..., object], parameters: list[str]) -> str | None:
    """The docstring of ``config``, with what the classes say that it is derived from of parameters
    and errors; the parameters come in their order."""
    texts = [
        inspect.cleandoc(each.__doc__)
        for each in (reversed(config.__mro__) if isinstance(config, type) else ())
        if attrs.has(each) and each.__doc__
    ]
    if len(texts) < 2:
        return config.__doc__
    blocks: dict[str, str] = {}
    for text in texts:
        for block in re.split(r"\n(?=:)", text)[1:]:
            blocks[block.split(":")[1]] = block.rstrip()
    order = [f"param {name}" for name in parameters]
    order += [key for key in blocks if not key.startswith("param ")]
    opening = re.split(r"\n(?=:)", texts[-1])[0].rstrip()
    return "\n".join([opening, "", *(blocks[key] for key in order if key in blocks)])


def advised(cls: type[T]) -> type[T]:
    """Have an attrs class answer a wrong call as :func:`configured_by` does. It stands above
    ``attrs.frozen``."""
    init: Callable[..., None] = cls.__init__

    @functools.wraps(init)
    def construct(self: T, /, *args: object, **kwargs: object) -> None:
        try:
            init(self, *args, **kwargs)
        except TypeError:
            _require_call(type(self).__name__, type(self), args, kwargs)
            raise

    setattr(cls, "__init__", construct)  # noqa: B010 - what the class has is replaced
    return cls


def values_of(
    config: attrs.AttrsInstance, kind: type[attrs.AttrsInstance] | None = None
) -> dict[str, Any]:
    """The arguments that make ``config`` again.

    :param kind: one of the classes that ``config`` is derived from: only the arguments of that.
    """
    return {
        field.alias: getattr(config, field.name)
        for field in attrs.fields(kind or type(config))
        if field.init
    }


def described(config: Callable[..., C], arguments: attrs.AttrsInstance, **replaced: object) -> C:
    """The description in the arguments of a constructor.

    :param config: the class of the description.
    :param arguments: an instance of a class that is derived from it, with fields added for objects
        that no description can have.
    :param replaced: the values of fields that are such objects in ``arguments``.
    """
    values = values_of(arguments)
    own = inspect.signature(config).parameters
    return config(**{name: values[name] for name in own if name not in replaced}, **replaced)


def _require_call(
    name: str, config: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """Raise TypeError, with advice, when these arguments do not fit ``config``."""
    signature = inspect.signature(config)
    for given in kwargs:
        if given not in signature.parameters:
            raise TypeError(_advice(name, config, given, list(signature.parameters)))
    try:
        signature.bind(*args, **kwargs)
    except TypeError as problem:
        raise TypeError(f"{name}(): {problem}") from None


def _advice(name: str, config: Callable[..., object], given: str, known: list[str]) -> str:
    fields = attrs.fields(config) if isinstance(config, type) and attrs.has(config) else ()
    for field in fields:
        keywords = field.metadata.get(KEEPALIVED)
        if keywords is None:
            continue
        if given in keywords.names:
            unit = f" ({keywords.unit})" if keywords.unit else ""
            return f"{name}: {given}= is called {field.alias}= here{unit}"
        if given in keywords.instead:
            nothing, _, reason = keywords.instead[given].partition("nothing: ")
            if reason and not nothing:
                return f"{name}: {given}= is not needed: {reason}"
            return f"{name}: instead of {given}= write {keywords.instead[given]}"
    # An import that only a mistake pays for.
    import difflib

    near = difflib.get_close_matches(given, known, 1)
    hint = f"did you mean {near[0]}=?" if near else f"it knows {', '.join(known)}"
    return f"{name} has no option {given}=; {hint}"
