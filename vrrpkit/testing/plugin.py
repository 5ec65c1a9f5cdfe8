"""The pytest plugin: ``@pytest.mark.virtual_time`` runs an ``async`` test under virtual time.

::

    @pytest.mark.virtual_time(seed=7)
    async def test_takeover(): ...

The marker takes the arguments of :func:`vrrpkit.testing.virtual.run_virtual`; on a class or as
``pytestmark`` in a module it serves every ``async`` test there. ``pytest --virtual-seed=N`` runs
them all with another seed.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["pytest_addoption", "pytest_configure", "pytest_pyfunc_call"]

MARKER = "virtual_time"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--virtual-seed``."""
    parser.getgroup("vrrpkit").addoption(
        "--virtual-seed",
        type=int,
        default=None,
        metavar="N",
        help="seed of the tests marked virtual_time, instead of their own",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(seed=0, start=1000.0, limit=3600.0): run this async test under virtual time",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked test; leave every other to pytest."""
    # Imported late: whoever has vrrpkit installed pays for this plugin in every run of pytest.
    from vrrpkit.testing.virtual import run_virtual

    marker = pyfuncitem.get_closest_marker(MARKER)
    if marker is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    if marker.args:
        raise pytest.UsageError(f"{MARKER} takes keyword arguments only: {pyfuncitem.nodeid}")
    options = dict(marker.kwargs)
    seed = pyfuncitem.config.getoption("--virtual-seed")
    if seed is not None:
        options["seed"] = seed
    names = inspect.signature(pyfuncitem.obj).parameters
    main: Coroutine[object, object, object] = pyfuncitem.obj(
        **{name: pyfuncitem.funcargs[name] for name in names if name in pyfuncitem.funcargs}
    )
    run_virtual(main, **options)
    return True
