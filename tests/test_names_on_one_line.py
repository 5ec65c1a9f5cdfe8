"""Names stand in lines of logs and mail: none may have control characters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vrrpkit import (
    ConfigError,
    Target,
    TrackFile,
    TrackFunction,
    TrackInterface,
    TrackProcess,
    TrackScript,
)
from vrrpkit.errors import InterfaceMissing

NAMED: dict[str, Callable[[str], object]] = {
    "Target": lambda name: Target("192.0.2.1", 80, name),
    "TrackInterface": lambda name: TrackInterface(name),
    "TrackInterface netns": lambda name: TrackInterface("eth1", netns=name),
    "TrackInterface name": lambda name: TrackInterface("eth1", name=name),
    "TrackFile": lambda name: TrackFile(f"/run/{name}"),
    "TrackFunction": lambda name: TrackFunction(lambda: True, name=name),  # type: ignore[arg-type, return-value]
    "TrackProcess": lambda name: TrackProcess(name),
    "TrackScript": lambda name: TrackScript(["/bin/true"], name=name),
}


@pytest.mark.parametrize("where", NAMED)
@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[31m", "a\u2028b", "a\x00"])
def test_a_name_with_control_characters_is_refused(where: str, name: str) -> None:
    with pytest.raises(ConfigError, match=r"has control characters|is no path") as refusal:
        NAMED[where](name)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("where", NAMED)
def test_any_other_name_is_taken(where: str) -> None:
    NAMED[where]("größe 1")


def test_a_missing_interface_is_named_on_one_line() -> None:
    assert str(InterfaceMissing("eth\n0\x1b[31m")).isprintable()
