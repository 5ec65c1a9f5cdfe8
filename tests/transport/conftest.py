"""Fixtures for transports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from system.lab import Host, Lab, require_root_and


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts on one switch; skips without root or iproute2."""
    if reason := require_root_and():
        pytest.skip(reason)
    with Lab() as lab:
        yield lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
