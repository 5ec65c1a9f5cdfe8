"""What is refused for its kind, its range or its unit, and what the message says to write."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from vrrpkit.errors import ConfigError
from vrrpkit.validate import (
    as_path,
    demotion,
    flag,
    flag_field,
    having,
    is_number,
    is_whole,
    link_name,
    listed,
    no_control,
    notifiers,
    of_kind,
    one_line,
    optional_path,
    seconds,
    seconds_field,
    text,
    times_field,
    whole_number,
)


@pytest.mark.parametrize("value", [0, 11, True, 1.0, "5", None])
def test_whole_numbers(value: object) -> None:
    whole_number("n", 1, 1, 10, "why")
    with pytest.raises(ConfigError, match="must be a whole number from 1 to 10: why"):
        whole_number("n", value, 1, 10, "why")


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (0, True, True),
        (-7, True, True),
        (1.0, False, True),
        (math.nan, False, True),
        (True, False, False),
        ("1", False, False),
        (None, False, False),
    ],
)
def test_kinds_of_numbers(value: object, whole: bool, number: bool) -> None:
    assert (is_whole(value), is_number(value)) == (whole, number)


@pytest.mark.parametrize("value", [0.4, 60.5, math.nan, math.inf, True, "5", None])
def test_seconds(value: object) -> None:
    seconds("interval", 0.5, 0.5, 60)
    seconds("interval", 60, 0.5, 60)
    with pytest.raises(ConfigError, match=r"^interval .* must be 0\.5 to 60 seconds$"):
        seconds("interval", value, 0.5, 60)
    with pytest.raises(ConfigError, match=r"must be 0\.5 to 60 seconds: 1 will do$"):
        seconds("interval", value, 0.5, 60, "1 will do")


@pytest.mark.parametrize("value", [0, -1, 366 * 86400, math.nan, math.inf, True, "60"])
def test_the_length_of_a_demotion(value: object) -> None:
    demotion(0.001)
    demotion(365 * 86400)
    with pytest.raises(ConfigError, match="the number of seconds, more than 0 and up to a year"):
        demotion(value)


@pytest.mark.parametrize("value", [1, 0, "no", "", None])
def test_a_flag_is_true_or_false(value: object) -> None:
    flag("accept", True)
    flag("accept", False)
    with pytest.raises(ConfigError, match=r"^accept .* must be True or False$"):
        flag("accept", value)


@attrs.frozen(kw_only=True)
class Kettle:
    whistles: bool = attrs.field(default=False, validator=flag_field)
    heating: float = attrs.field(default=1.0, validator=seconds_field(0.5))
    refills: int = attrs.field(default=1, validator=times_field(1, 3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"whistles": "no"}, "^Kettle: whistles 'no' must be True or False$"),
        ({"heating": 0.4}, r"^Kettle: heating 0\.4 must be 0\.5 to 86400 seconds$"),
        ({"refills": 0}, "^Kettle: refills 0 must be a whole number from 1 to 3: it is a number"),
        ({"refills": 4}, "^Kettle: refills 4 must be"),
    ],
)
def test_fields(fields: dict[str, Any], message: str) -> None:
    Kettle(whistles=True, heating=86400, refills=3)
    with pytest.raises(ConfigError, match=message):
        Kettle(**fields)


def test_names_of_any_letters_are_fine() -> None:
    no_control("name", 'Zürich 東京 🚀 "web"')


def test_one_line() -> None:
    assert one_line("a\r\n b\x1b[2J\ud800  c ") == "a b [2J c"
    assert one_line("two  spaces") == "two spaces"
    assert one_line(" plain ") == "plain"


def test_text() -> None:
    assert text("name", "web", "'db'") == "web"
    assert text("name", "", "'db'", empty=True) == ""
    for value in ("", 5, None, b"web"):
        with pytest.raises(ConfigError, match=r"^name .* must be text, such as 'db'$"):
            text("name", value, "'db'")
    with pytest.raises(ConfigError, match="has control characters, or a line end, in it"):
        text("name", "a\nb", "'db'")
    with pytest.raises(ConfigError, match=r"; write 'web'$"):
        text("name", "\n", "'db'")


@pytest.mark.parametrize("value", ["", "a" * 16, "é" * 8, "a\nb", "\ud800", 5, True])
def test_names_of_links(value: object) -> None:
    for good in ("eth0", "a" * 15, "é" * 7, None):
        link_name("interface", good)
    with pytest.raises(ConfigError, match=r"^interface .* 1 to 15 octets as in 'eth0'$"):
        link_name("interface", value)


def test_lists() -> None:
    assert listed("vips", ["a", "b"]) == listed("vips", iter("ab")) == ("a", "b")
    assert listed("vips", ()) == ()
    with pytest.raises(ConfigError, match=r"^vips None must be a list; an empty one is written"):
        listed("vips", None)  # type: ignore[arg-type]
    for value in ("a", b"a", 5):
        with pytest.raises(ConfigError, match=rf"^write vips as a list: vips=\[{value!r}\]$"):
            listed("vips", value)  # type: ignore[arg-type]


def test_lists_with_an_example() -> None:
    for value in (5, None, b"a"):
        with pytest.raises(ConfigError, match=r"^write servers as a list: \['10.0.0.1:80'\]$"):
            listed("servers", value, "['10.0.0.1:80']")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^write servers as a list: servers=\['lb'\]$"):
        listed("servers", "lb", "['10.0.0.1:80']")


def test_objects_of_a_class() -> None:
    of_kind("kettle", Kettle(), Kettle, "a Kettle")
    for value in (Kettle, "kettle", None):
        with pytest.raises(ConfigError, match=r"^kettle .* must be a Kettle$"):
            of_kind("kettle", value, Kettle, "a Kettle")


class Bell:
    attach_count = 0

    def attach(self) -> None:
        self.attach_count += 1


def test_objects_with_a_method() -> None:
    having("bell", Bell(), "attach", "a bell")
    for value, method in ((Bell, "attach"), (Bell(), "ring"), (Bell(), "attach_count")):
        with pytest.raises(ConfigError, match=r"^bell .* must be a bell$"):
            having("bell", value, method, "a bell")


def test_notifiers() -> None:
    bell = Bell()
    assert notifiers([bell]) == (bell,)
    with pytest.raises(
        ConfigError, match=r"notifier, such as NotifyScripts\(.*\) or NotifyFunction\("
    ):
        notifiers([print])
    with pytest.raises(ConfigError, match="must be a notifier, such as Mail"):
        notifiers([bell, Bell], "Mail(...)")
    with pytest.raises(ConfigError, match="write notify as a list"):
        notifiers(bell)  # type: ignore[arg-type]


class OctetPath:
    def __init__(self, name: str) -> None:
        self.name = name

    def __fspath__(self) -> bytes:
        return os.fsencode(self.name)


@pytest.mark.parametrize("name", ["/run/x", "relative", "", "ä", "\udcff"])
def test_paths(name: str) -> None:
    assert as_path(name) == name
    if name:
        assert as_path(Path(name)) == as_path(OctetPath(name)) == name
        assert optional_path("ca", name) == Path(name)


@pytest.mark.parametrize("value", [5, None, b"/run/x", "a\0b", "\ud800", Path("a\0b")])
def test_what_is_no_path(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^path .* is no path of a file; write it as '/run/v"):
        as_path(value)


def test_a_path_that_may_be_left_out() -> None:
    assert optional_path("ca", None) is None
    with pytest.raises(ConfigError, match=r"^ca 5 is no path .* as '/etc/ca\.pem'$"):
        optional_path("ca", 5, "/etc/ca.pem")  # type: ignore[arg-type]
