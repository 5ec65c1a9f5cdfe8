"""The names of the package itself."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import vrrpkit


@pytest.mark.parametrize("name", vrrpkit.__all__)
def test_no_module_takes_a_public_name(name: str) -> None:
    """Importing a module binds its name in the package, in place of what was there."""
    assert find_spec(f"vrrpkit.{name}") is None


def test_lists_agree() -> None:
    assert dir(vrrpkit) == sorted(vrrpkit.__all__)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'VRRPInstanze'"):
        vrrpkit.__getattr__("VRRPInstanze")
