"""Constructors that are derived from a description."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import attrs
import pytest

from vrrpkit.configured import configured_by, from_keepalived


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
    priority: int = attrs.field(default=100, validator=_positive, kw_only=True)
    interval: float = attrs.field(default=1.0, kw_only=True, metadata=from_keepalived("advert_int"))


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
        ({"advert_int": 1}, "Special() has no parameter 'advert_int'; keepalived's advert_int is "
                            "interval= here"),
        ({"priorty": 1}, "Special() has no parameter 'priorty'; did you mean priority=?"),
        ({"zzz": 1}, "Special() has no parameter 'zzz'"),
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
    with pytest.raises(TypeError, match=r"^Sized\(\) has no parameter 'length'$"):
        Sized(length=3)  # type: ignore[call-arg]
