"""Fixtures for tests against the kernel."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from host.kernel import Net


@pytest.fixture
def net() -> Iterator[Net]:
    """A namespace of the test's own; nothing may stay open in this process afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root (network namespaces)")
    with Net() as made:
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        yield made
        assert len(os.listdir("/proc/self/fd")) <= before, "a descriptor was left open"
