"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from namespaces import Net

# How long an example takes depends on who else uses the machine; a test that hangs is ended anyway.
settings.register_profile("vrrpkit", deadline=None)
settings.load_profile("vrrpkit")


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
