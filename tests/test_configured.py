"""Constructors that are derived from a description."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import attrs
import pytest

from vrrpkit.configured import advised, configured_by, described, from_keepalived, values_of


def _several(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def _positive(_config: object, _field: object, value: int) -> None:
    if value <= 0:
        raise ValueError(f"priority {value} must be positive")


@attrs.frozen
class Config:
    """A router.

    :param name: what logs call it.
    """

    name: str
    vips: tuple[str, ...] = attrs.field(converter=_several, kw_only=True)
    priority: int = attrs.field(
        default=100,
        validator=_positive,
        kw_only=True,
        metadata=from_keepalived(
            nopreempt="priority=100", state="nothing: a router begins as BACKUP"
        ),
    )
    interval: float = attrs.field(
        default=1.0, kw_only=True, metadata=from_keepalived("advert_int", unit="seconds")
    )


class Router:
    @configured_by(Config)
    def __init__(self, config: Config) -> None:
        self.config = config


class Special(Router):
    """A subclass keeps the constructor."""


def test_it_is_made_from_the_description() -> None:
    router = Router("web", vips=["192.0.2.10"], interval=2.0)
    assert router.config == Config("web", vips=["192.0.2.10"], interval=2.0)


def test_signature_annotations_and_text_are_those_of_the_description() -> None:
    signature = inspect.signature(Router)
    assert list(signature.parameters) == ["name", "vips", "priority", "interval"]
    assert signature.parameters["priority"].default == 100
    assert signature.parameters["vips"].annotation == "Iterable[str]"
    assert Router.__init__.__annotations__["priority"] == "int"
    assert Router.__init__.__doc__ == Config.__doc__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"advert_int": 1}, "Special: advert_int= is called interval= here (seconds)"),
        ({"nopreempt": True}, "Special: instead of nopreempt= write priority=100"),
        ({"state": "MASTER"}, "Special: state= is not needed: a router begins as BACKUP"),
        ({"priorty": 1}, "Special has no option priorty=; did you mean priority=?"),
        ({"zzz": 1}, "Special has no option zzz=; it knows name, vips, priority, interval"),
        ({}, "Special(): missing a required argument: 'name'"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_answered_in_the_name_of_the_class(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(TypeError) as caught:
        Special(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_what_a_value_raises_passes_through() -> None:
    with pytest.raises(ValueError, match="priority 0 must be positive"):
        Router("web", vips=[], priority=0)


def test_a_type_error_about_a_value_passes_through() -> None:
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        Router("web", vips=3)  # type: ignore[arg-type]


def test_a_function_may_describe_too() -> None:
    def describe(*, size: int) -> Config:
        return Config(str(size), vips=[])

    class Sized:
        @configured_by(describe)
        def __init__(self, config: Config) -> None:
            self.name = config.name

    assert Sized(size=3).name == "3"
    with pytest.raises(TypeError, match=r"^Sized has no option length=; it knows size$"):
        Sized(length=3)  # type: ignore[call-arg]


@advised
@attrs.frozen
class Described:
    """A class that is its own description."""

    size: int = attrs.field(metadata=from_keepalived("length"))
    unit: str = ""


def test_a_description_answers_for_itself() -> None:
    assert Described(3) == Described(size=3)
    with pytest.raises(TypeError, match=r"^Described: length= is called size= here$"):
        Described(length=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^Described\(\): missing a required argument: 'size'$"):
        Described()  # type: ignore[call-arg]


def test_another_type_error_of_a_description_passes_through() -> None:
    def refused(_value: int) -> int:
        raise TypeError("not today")

    @advised
    @attrs.frozen
    class Refusing:
        size: int = attrs.field(converter=refused)

    with pytest.raises(TypeError, match=r"^not today$"):
        Refusing(3)


@attrs.frozen
class Arguments(Config):
    """A router's description, with what no description can have.

    :param clock: what it reads the time from.
    """

    clock: object = attrs.field(default=None, kw_only=True, eq=False, repr=False)


def test_the_description_in_the_arguments_of_a_constructor() -> None:
    config = Config("web", vips=["192.0.2.10"], priority=7)
    assert Config(**values_of(config)) == config
    arguments = Arguments(**values_of(config), clock=object())
    assert described(Config, arguments) == config
    assert described(Config, arguments, priority=8) == attrs.evolve(config, priority=8)


def test_the_text_of_a_derived_class_has_the_fields_of_both() -> None:
    class Clocked:
        @configured_by(Arguments)
        def __init__(self, arguments: Arguments) -> None:
            self.clock = arguments.clock

    text = Clocked.__init__.__doc__ or ""
    assert text.splitlines() == [
        "A router's description, with what no description can have.",
        "",
        ":param name: what logs call it.",
        ":param clock: what it reads the time from.",
    ]
    assert list(inspect.signature(Clocked).parameters)[-1] == "clock"
