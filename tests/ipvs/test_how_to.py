"""The directors of the how-to pages can be built as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vrrpkit.ipvs.model.entries import Forward

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(page: str) -> list[str]:
    """The Python of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (HOW_TO / page).read_text(), re.M | re.S)


def program(page: str, *more: int) -> SimpleNamespace:
    """What the first block of a page defines, and further blocks with it."""
    names: dict[str, Any] = {"__name__": page}
    found = blocks(page)
    for number in (0, *more):
        exec(compile(found[number], page, "exec"), names)
    return SimpleNamespace(**names)


@pytest.mark.parametrize("forward", list(Forward)[:3])
def test_the_director_of_each_way_of_forwarding(forward: Forward) -> None:
    _, web = program(f"{forward.value}.md").director(150)
    assert web.config.forward is forward
    assert len(web.config.servers) == 2 and web.config.check


def test_masquerading() -> None:
    assert program("nat.md", 1).web.config.masquerade


def test_the_tunnels() -> None:
    text = (HOW_TO / "tun.md").read_text()
    names: dict[str, Any] = {}
    exec("from vrrpkit import Tunnel\nfrom vrrpkit.ipvs import TunnelType", names)
    written = re.findall(r"`(Tunnel\([^`]*\))`", text)
    assert len(written) == 3
    assert len({eval(one, names).type for one in written}) == 3
