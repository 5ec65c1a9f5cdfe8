"""Values of a wholly wrong kind: a ConfigError that names the parameter, whatever the checker."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import attrs
import pytest

import vrrpkit
from checks.scripts import Plain, Reaching
from vrrpkit import ConfigError, Target
from vrrpkit.checks import Weight
from vrrpkit.checks.protocol.http import URL
from vrrpkit.commands.command import Command


async def healthy(target: Target) -> None:
    """A function that checks."""


KINDS: dict[type[Any], tuple[object, ...]] = {
    Plain: (),
    Reaching: (),
    vrrpkit.TCPChecker: (),
    vrrpkit.HTTPChecker: (),
    vrrpkit.HTTPSChecker: (),
    URL: ("/",),
    vrrpkit.SMTPChecker: (),
    vrrpkit.DNSChecker: (),
    vrrpkit.UDPChecker: (),
    vrrpkit.PingChecker: (),
    vrrpkit.ScriptChecker: ("/bin/true",),
    vrrpkit.FileChecker: ("/run/x",),
    vrrpkit.FunctionChecker: (healthy,),
    vrrpkit.BFDChecker: (),
    Weight: (1,),
    Target: ("192.0.2.1", 80),
    Command: ("/bin/true",),
}
"""What is made of values, with what it cannot be made without."""

CALLED = {
    "urls": "path",
    "argv": "command",
    "groups": "group",
    "headers": "header",
    "value": "weight",
}
"""What a message may call one of several values, or the value of something."""

WRONG: list[object] = [
    object(),
    healthy,
    [None],
    [1.5],
    {1: 2},
    math.nan,
    1.5j,
    b"\xff\0",
    # No octets stand for it.
    "a\ud800b",
    "\0",
    re.compile("x"),
]
"""What hardly any parameter takes, and none the first of them."""


def parameters() -> Iterator[Any]:
    for kind in KINDS:
        for field in attrs.fields(kind):
            # The scheduler's to set.
            if field.init and field.alias != "via":
                yield pytest.param(kind, field.alias, id=f"{kind.__name__}-{field.alias}")


def made(kind: type[Any], name: str, value: object) -> object:
    """One of this kind, with one value set."""
    positional = [field.alias for field in attrs.fields(kind) if field.init and not field.kw_only]
    given = dict(zip(positional, KINDS[kind], strict=False))
    return kind(**{**given, name: value})


def refusal(kind: type[Any], name: str, value: object) -> str | None:
    """Why that value is refused, if it is."""
    try:
        made(kind, name, value)
    except ConfigError as problem:
        return str(problem)
    return None


@pytest.mark.parametrize(("kind", "name"), list(parameters()))
def test_each_parameter_is_named(kind: type[Any], name: str) -> None:
    called = f"{name}|{CALLED.get(name, name)}"
    with pytest.raises(ConfigError, match=called):
        made(kind, name, WRONG[0])
    for value in WRONG:
        problem = refusal(kind, name, value)
        assert problem is None or re.search(called, problem), problem


FLAGS = [
    (vrrpkit.HTTPSChecker, "verify"),
    (vrrpkit.SMTPChecker, "verify"),
    (vrrpkit.SMTPChecker, "esmtp"),
    (vrrpkit.SMTPChecker, "starttls"),
    (vrrpkit.DNSChecker, "recursion"),
    (vrrpkit.DNSChecker, "tcp"),
    (vrrpkit.UDPChecker, "require_reply"),
    (vrrpkit.ScriptChecker, "dynamic"),
    (vrrpkit.FileChecker, "reverse"),
    (vrrpkit.BFDChecker, "passive"),
    (vrrpkit.BFDChecker, "multihop"),
    (Weight, "relative"),
]


@pytest.mark.parametrize(("kind", "name"), FLAGS)
@pytest.mark.parametrize("value", [None, "no", "", 0, 1])
def test_a_switch_is_true_or_false(kind: type[Any], name: str, value: object) -> None:
    """``verify=None`` must not turn verification off, nor ``reverse="no"`` turn anything on."""
    with pytest.raises(ConfigError, match=rf"{kind.__name__}: {name} .* must be True or False"):
        made(kind, name, value)


@pytest.mark.parametrize("value", [5, True, b"\x7f\0\0\1", 2130706433])
def test_a_number_is_no_address(value: Any) -> None:
    for kind, name in (
        (Reaching, "address"),
        (Reaching, "source"),
        (vrrpkit.BFDChecker, "source"),
        (Target, "address"),
    ):
        with pytest.raises(ConfigError, match=rf"{name} .* is no IPv4 or IPv6 address"):
            made(kind, name, value)
    address = IPv4Address("192.0.2.1")
    assert Reaching(address=address).address == address
