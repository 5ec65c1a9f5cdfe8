"""Fixtures for tests in network namespaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from system.lab import Lab, require_root_and
from system.scenario import Bench, bench_in
from system.wire import Sniffer


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty laboratory; skips without root or iproute2."""
    if reason := require_root_and("ping"):
        pytest.skip(reason)
    with Lab() as laboratory:
        yield laboratory


@pytest.fixture
def wire(lab: Lab) -> Iterator[Sniffer]:
    """Everything that the laboratory's switch forwards."""
    with Sniffer(lab.switch) as sniffer:
        yield sniffer


@pytest.fixture
def bench(lab: Lab, wire: Sniffer) -> Bench:
    """Hosts for two routers and a watcher."""
    return bench_in(lab, wire)
