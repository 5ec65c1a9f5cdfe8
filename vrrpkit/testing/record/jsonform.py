"""The JSON form of what goes into a state machine and what comes out of it, and the way back.

Values keep their types on the round trip: addresses, enums, sets, tuples, and every event, effect
and notice, each under its class name.
"""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias, Union, cast, get_args, get_origin, get_type_hints

import attrs

from vrrpkit.values import State
from vrrpkit.vrrp.protocol.effects import Effect
from vrrpkit.vrrp.protocol.events import RouterEvent
from vrrpkit.vrrp.protocol.inputs import Input
from vrrpkit.vrrp.protocol.machine import Machine, MachineConfig

__all__ = [
    "JSON",
    "JSONObject",
    "config_from_json",
    "effect_from_json",
    "event_from_json",
    "machine_state",
    "notice_from_json",
    "restore_machine",
    "to_json",
]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
JSONObject: TypeAlias = "dict[str, JSON]"

TYPE = "type"
"""The key under which an object names its class."""

_TAGGED = {
    cls.__name__: cls for cls in (*get_args(Input), *get_args(Effect), *get_args(RouterEvent))
}


def to_json(value: object) -> JSON:
    """The JSON form of an event, an effect, a notice, a machine's configuration, or a part of one.

    :raises TypeError: there is none.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # JSON has no infinity.
        return value if math.isfinite(value) else str(value)
    if isinstance(value, enum.Enum):
        return cast("str", value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, IPv4Address | IPv6Address):
        return str(value)
    if isinstance(value, frozenset):
        return [to_json(item) for item in sorted(cast("frozenset[str]", value))]
    if isinstance(value, tuple):
        return [to_json(item) for item in cast("tuple[object, ...]", value)]
    if attrs.has(type(value)):
        return _object(value)
    raise TypeError(f"{value!r} has no JSON form")


def _object(value: object) -> JSONObject:
    name = type(value).__name__
    form: JSONObject = {TYPE: name} if name in _TAGGED else {}
    for field in _hints(cast("type", type(value))):
        form[field] = to_json(getattr(value, field))
    return form


def event_from_json(data: JSON) -> Input:
    """The event that has this JSON form.

    :raises ValueError: none has.
    """
    return cast(Input, _member(get_args(Input), data))


def effect_from_json(data: JSON) -> Effect:
    """The effect that has this JSON form.

    :raises ValueError: none has.
    """
    return cast(Effect, _member(get_args(Effect), data))


def notice_from_json(data: JSON) -> RouterEvent:
    """The notice that has this JSON form.

    :raises ValueError: none has.
    """
    return cast(RouterEvent, _member(get_args(RouterEvent), data))


def config_from_json(data: JSON) -> MachineConfig:
    """The configuration of a machine that has this JSON form.

    :raises ValueError: none has.
    """
    return cast(MachineConfig, _value(MachineConfig, data))


def _value(kind: object, data: JSON) -> object:
    origin = get_origin(kind)
    if origin in (types.UnionType, Union):
        return _member(get_args(kind), data)
    if origin in (frozenset, tuple):
        if not isinstance(data, list):
            raise ValueError(f"{data!r} must be a list")
        items = [_value(get_args(kind)[0], item) for item in data]
        return frozenset(items) if origin is frozenset else tuple(items)
    if kind is IPv4Address or kind is IPv6Address:
        return ip_address(_text(data))
    if kind is float:
        if isinstance(data, bool) or not isinstance(data, int | float | str):
            raise ValueError(f"{data!r} must be a number")
        return float(data)
    if isinstance(kind, type):
        return _plain(cast("type[object]", kind), data)
    raise ValueError(f"{data!r} is not of the type {kind}")


def _plain(kind: type[object], data: JSON) -> object:
    if issubclass(kind, enum.Enum):
        return kind(data)
    if attrs.has(kind):
        return _instance(kind, data)
    if type(data) is kind:
        return data
    raise ValueError(f"{data!r} must be of the type {kind.__name__}")


def _member(kinds: tuple[object, ...], data: JSON) -> object:
    if data is None and type(None) in kinds:
        return None
    if isinstance(data, dict):
        found = _TAGGED.get(str(data.get(TYPE)))
        if found not in kinds:
            raise ValueError(f"the type {data.get(TYPE)!r} is not known here")
        return _value(found, data)
    plain = {kind for kind in kinds if kind not in (type(None), IPv6Address, *_TAGGED.values())}
    if len(plain) != 1:
        raise ValueError(f"{data!r} must be an object that names its type")
    return _value(plain.pop(), data)


def _text(data: JSON) -> str:
    if not isinstance(data, str):
        raise ValueError(f"{data!r} must be text")
    return data


def _instance(kind: type, data: JSON) -> object:
    if not isinstance(data, dict):
        raise ValueError(f"{data!r} must be an object with the fields of {kind.__name__}")
    hints = _hints(kind)
    if set(data) - {TYPE} != set(hints):
        raise ValueError(
            f"{kind.__name__} has the fields {', '.join(hints)}, not {', '.join(data)}"
        )
    return kind(**{field: _value(hint, data[field]) for field, hint in hints.items()})


@cache
def _hints(kind: type) -> Mapping[str, object]:
    hints = get_type_hints(kind)
    # What is set after construction, as the wall time of an event, is no part of a recording.
    return {field.name: hints[field.name] for field in attrs.fields(kind) if field.init}


# --- the state of a machine ----------------------------------------------------------------------


_APART = {"config", "_config", "_effects"}
"""What is recorded by itself, or does not outlast an event."""


def machine_state(machine: Machine) -> JSONObject:
    """Everything that a machine remembers besides its configuration, in JSON form.

    :raises TypeError: it remembers something that has no such form.
    """
    return _memory(machine)


def restore_machine(config: MachineConfig, state: JSONObject) -> Machine:
    """The machine of which :func:`machine_state` made ``state``.

    :raises ValueError: ``state`` does not come from this version of the state machine.
    """
    machine = Machine(config)
    _restore(machine, state)
    return machine


def _memory(thing: object) -> JSONObject:
    return {name: _tagged(value) for name, value in vars(thing).items() if name not in _APART}


def _restore(thing: object, state: JSONObject) -> None:
    if set(state) != set(vars(thing)) - _APART:
        raise ValueError(
            f"this state of a {type(thing).__name__} was recorded by another version: it has "
            f"{', '.join(state)}"
        )
    for name, form in state.items():
        match form:
            case {"part": dict() as memory}:
                _restore(getattr(thing, name), memory)
            case _:
                setattr(thing, name, _untagged(form))


def _tagged(value: object) -> JSON:
    """A form that tells the type by itself: no annotation says it for these."""
    match value:
        case State() | IPv4Address() | IPv6Address():
            return {type(value).__name__: to_json(value)}
        case frozenset():
            return {"frozenset": to_json(cast("frozenset[str]", value))}
        case float() if not math.isfinite(value):
            return {"float": str(value)}
        case tuple():
            return {"tuple": [_tagged(item) for item in cast("tuple[object, ...]", value)]}
        case None | bool() | int() | float() | str():
            return value
        case _:
            return {"part": _memory(value)}


def _untagged(form: JSON) -> object:
    match form:
        case {"IPv4Address": str() as address} | {"IPv6Address": str() as address}:
            return ip_address(address)
        case {"State": str() as state}:
            return State(state)
        case {"frozenset": list() as items}:
            return frozenset(_text(item) for item in items)
        case {"tuple": list() as items}:
            return tuple(_untagged(item) for item in items)
        case {"float": str() as number}:
            return float(number)
        case dict() | list():
            raise ValueError(f"{form!r} is no recorded state")
        case _:
            return form
