"""Runs the tests marked ``kernel`` inside the IPVS kernel, and reports them here.

Outside, the first of them boots the kernel, which runs pytest on all that were selected; each then
waits for its own reports and passes them on as if it had run here. ``kernel(outside=True)`` is for
tests of the machine itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

import pytest

from kernel.farm import Farm, farms, give_addresses
from kernel.uml import INSIDE, Machine, inside, missing
from system.lab import Host

REPORTS = "reports"
LIMIT = 600
"""Seconds that all tests together may take inside."""


class Run:
    """The one run inside, as seen from outside."""

    def __init__(self, session: pytest.Session) -> None:
        self._config = session.config
        self._started = time.monotonic()
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._read = 0
        self._stack = contextlib.ExitStack()
        chosen = [item.nodeid for item in session.items if _belongs_inside(item)]
        root = session.config.rootpath
        arguments = [f"--rootdir={root}", "-p", "no:cacheprovider", "-q", *chosen]
        self._machine = Machine(
            [sys.executable, "-m", "pytest", *arguments],
            directory=root,
        )
        self._stack.enter_context(self._machine)
        self._path = self._machine.scratch / REPORTS

    def close(self) -> None:
        """End the kernel."""
        self._stack.close()

    def reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Wait for the reports of one test; of a test that never ended, that it failed."""
        while not self._complete(item):
            ended = not self._machine.running
            self._collect()
            if self._complete(item):
                break
            if ended:
                return [_failure(item, f"the run inside ended\n{self._machine.told()}")]
            if time.monotonic() - self._started > LIMIT:
                self.close()
                return [_failure(item, f"the tests took more than {LIMIT} s")]
            time.sleep(0.05)
        return self._reports[item.nodeid]

    def _complete(self, item: pytest.Item) -> bool:
        return any(report.when == "teardown" for report in self._reports.get(item.nodeid, ()))

    def _collect(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.splitlines():
            report = self._config.hook.pytest_report_from_serializable(
                config=self._config, data=json.loads(line)
            )
            if isinstance(report.longrepr, list):  # of a skip; JSON knows no tuples
                report.longrepr = tuple(report.longrepr)
            self._reports.setdefault(report.nodeid, []).append(report)


RUN: pytest.StashKey[Run] = pytest.StashKey()


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Outside: report what happened inside."""
    if inside() or not _belongs_inside(item):
        return None
    if reason := missing():
        item.add_marker(pytest.mark.skip(reason=reason))
        return None
    session = item.session
    if RUN not in session.stash:
        session.stash[RUN] = Run(session)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in session.stash[RUN].reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the kernel, whatever happened."""
    run = session.stash.get(RUN, None)
    if run is not None:
        run.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Inside: write each report to the file that the outside reads."""
    report = yield
    if inside():
        data = item.config.hook.pytest_report_to_serializable(config=item.config, report=report)
        with (Path(os.environ[INSIDE]) / REPORTS).open("a") as file:
            file.write(json.dumps(data) + "\n")
    return report


def _belongs_inside(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("kernel")
    return mark is not None and not mark.kwargs.get("outside", False)


def _failure(item: pytest.Item, text: str) -> pytest.TestReport:
    keywords: dict[str, Literal[1]] = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(item.nodeid, item.location, keywords, "failed", text, "call")


@pytest.fixture(scope="session")
def whole_farm() -> Iterator[Farm]:
    """The farm of the session; tests take :func:`farm`."""
    yield from farms()


@pytest.fixture
def farm(whole_farm: Farm) -> Iterator[Farm]:
    """A farm whose servers all serve, without a director."""
    yield whole_farm
    whole_farm.reset()


@pytest.fixture
def director(farm: Farm) -> Iterator[Host]:
    """A director with an empty table, the VIPs and the gateway addresses."""
    host = farm.director()
    give_addresses(host)
    yield host
    farm.remove(host)
