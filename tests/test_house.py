"""The house: what may stand beside what. Who may import whom is in pyproject.toml."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vrrpkit

ROOT = Path(vrrpkit.__file__).parent

Arrows = Mapping[str, set[str]]
"""What each module imports, within the package."""


def modules(root: Path) -> dict[str, Path]:
    """The modules of a package, by their full names."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.Module, package: str, known: Iterable[str]) -> Iterator[str]:
    """The modules of a package that a module imports, wherever in it: in a function and for types
    alone too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"an import that is relative: {ast.unparse(node)}"
            if node.module is not None and node.module.split(".")[0] == package:
                for name in node.names:
                    whole = f"{node.module}.{name.name}"
                    yield whole if whole in known else node.module


def arrows(root: Path) -> dict[str, set[str]]:
    """See :data:`Arrows`."""
    known = modules(root)
    return {
        name: set(imported(ast.parse(path.read_text()), root.name, known)) - {name}
        for name, path in known.items()
    }


def between_children(folder: str, found: Arrows) -> dict[str, set[str]]:
    """Which direct child of a folder imports which: those of a child that is a folder count as
    its own."""
    depth = folder.count(".") + 1
    inside = f"{folder}."
    children: dict[str, set[str]] = defaultdict(set)
    for name, targets in found.items():
        if name.startswith(inside):
            child = name.split(".")[depth]
            others = {to.split(".")[depth] for to in targets if to.startswith(inside)}
            children[child] |= others - {child}
    return children


def circle(children: Mapping[str, set[str]]) -> list[str]:
    """One circle among them, or nothing."""
    try:
        TopologicalSorter(children).prepare()
    except CycleError as problem:
        return list(problem.args[1])
    return []


FOUND = arrows(ROOT)
FOLDERS = sorted(name for name, path in modules(ROOT).items() if path.name == "__init__.py")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_circle_among_the_direct_children_of_a_folder(folder: str) -> None:
    assert circle(between_children(folder, FOUND)) == []


def test_a_circle_is_found_in_functions_for_types_and_through_folders(tmp_path: Path) -> None:
    root = tmp_path / "vrrpkit"
    for path, text in {
        "__init__.py": "",
        "errors.py": "",
        "values.py": "import vrrpkit.errors",
        "host/__init__.py": "",
        "host/base.py": "def late() -> None:\n    from vrrpkit.host.links.monitor import Monitor",
        "host/links/__init__.py": "",
        "host/links/monitor.py": "from vrrpkit.host.routing import kernel",
        "host/links/requests.py": "from vrrpkit.host.links import monitor",
        "host/routing/__init__.py": "",
        "host/routing/kernel.py": "if TYPE_CHECKING:\n    from vrrpkit.host.base import Interface",
    }.items():
        module = root / path
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(text)
    found = arrows(root)
    assert found["vrrpkit.values"] == {"vrrpkit.errors"}
    assert set(circle(between_children("vrrpkit.host", found))) == {"base", "links", "routing"}
    assert circle(between_children("vrrpkit", found)) == []
    assert circle(between_children("vrrpkit.host.links", found)) == []


SAME_ROLE = {
    "Driver": "runs a room's pure logic on asyncio: of a router, of a virtual server",
    "Publish": "the effect that publishes an event: of a router, of a BFD session",
    "TimerFired": "the input that a deadline has come: of a router, of a BFD session",
}
"""Names of classes that stand in two modules, and the role that is the same in both."""


def test_a_class_name_stands_in_two_modules_only_where_the_role_is_the_same() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for name, path in modules(ROOT).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(name)
    twice = {name: where for name, where in found.items() if len(where) > 1}
    assert twice.keys() == SAME_ROLE.keys(), twice


LONGEST_FUNCTION = 60
"""Lines, those of docstrings aside."""
LONGEST_MODULE = 650

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST, inside: str) -> Iterator[tuple[str, Function]]:
    """The functions of a module, by their full names."""
    for child in ast.iter_child_nodes(node):
        name = f"{inside}.{child.name}" if isinstance(child, Function | ast.ClassDef) else inside
        if isinstance(child, Function):
            yield name, child
        yield from functions(child, name)


def length(node: ast.AST) -> int:
    """Lines from the first to the last, those of docstrings aside."""
    texts = [
        each
        for each in ast.walk(node)
        if isinstance(each, ast.Expr)
        and isinstance(each.value, ast.Constant)
        and isinstance(each.value.value, str)
    ]
    return sum(
        sign * ((each.end_lineno or 0) - each.lineno + 1)
        for sign, several in ((1, [node]), (-1, texts))
        for each in several
    )


def test_functions_and_modules_can_be_read_at_once() -> None:
    overlong: dict[str, int] = {}
    for module, path in modules(ROOT).items():
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_MODULE, module
        for name, node in functions(ast.parse(text), module):
            if length(node) > LONGEST_FUNCTION:
                overlong[name] = length(node)
    assert overlong == {}


def test_lines_of_functions_are_counted_without_docstrings() -> None:
    text = (
        'class A:\n    async def b(self):\n        """Two\n        lines."""\n\n        return 1\n'
    )
    assert [(name, length(node)) for name, node in functions(ast.parse(text), "m")] == [
        ("m.A.b", 3)
    ]


TESTED_WITH = {
    # What carries no logic of its own, tested with what uses it.
    "bfd/base.py": "bfd/test_session.py",
    "bfd/protocol/effects.py": "bfd/protocol/test_session.py",
    "bfd/protocol/events.py": "bfd/protocol/test_session.py",
    "bfd/protocol/inputs.py": "bfd/protocol/test_session.py",
    "checks/events.py": "checks/engine/test_check.py",
    "checks/protocol/exchange.py": "checks/protocol/test_http_status.py",
    "host/base.py": "host/test_host.py",
    "host/changes.py": "host/test_host.py",
    "host/resources.py": "host/test_host.py",
    "ipvs/base.py": "ipvs/memory/test_table.py",
    "ipvs/kernel/constants.py": "ipvs/kernel/test_requests.py",
    "ipvs/model/events.py": "ipvs/model/test_pool.py",
    "transport/base.py": "transport/test_memory.py",
    "vrrp/protocol/effects.py": "vrrp/protocol/test_machine.py",
    "vrrp/protocol/inputs.py": "vrrp/protocol/test_machine.py",
    # One part of several behind one front, through which they are tested.
    "bfd/endpoint.py": "bfd/test_session.py",
    "bfd/memory.py": "bfd/test_session.py",
    "bfd/run.py": "bfd/test_session.py",
    "checks/engine/closing.py": "checks/engine/test_attempt.py",
    "checks/engine/rules.py": "checks/engine/test_check.py",
    "checks/io/tcp.py": "checks/test_tcp.py",
    "checks/model/concurrency.py": "checks/engine/test_scheduler.py",
    "checks/protocol/dns_records.py": "checks/protocol/test_dns_message.py",
    "checks/protocol/smtp.py": "checks/test_smtp.py",
    "commands/process.py": "commands/test_command.py",
    "host/firewall/nft.py": "host/firewall/test_nftables.py",
    "host/kernel_interface.py": "host/test_host.py",
    "host/links/solicited.py": "host/firewall/test_filters.py",
    "host/local.py": "host/test_host.py",
    "host/liveness.py": "host/addresses/test_leftovers.py",
    "host/memory/interface.py": "host/memory/test_bus.py",
    "host/memory/resources.py": "host/memory/test_bus.py",
    "host/routing/kernel.py": "host/routing/test_reconciler.py",
    "host/routing/leftovers.py": "host/routing/test_reconciler.py",
    "host/routing/tracked.py": "host/routing/test_reconciler.py",
    "ipvs/claim.py": "ipvs/test_reconciler.py",
    "ipvs/draining.py": "ipvs/test_server.py",
    "ipvs/driver.py": "ipvs/test_server.py",
    "ipvs/enlisted.py": "ipvs/test_server.py",
    "ipvs/first_results.py": "ipvs/test_server.py",
    "ipvs/health.py": "ipvs/test_server.py",
    "ipvs/memory/rules.py": "ipvs/memory/test_table.py",
    "ipvs/memory/traffic.py": "ipvs/memory/test_table.py",
    "ipvs/model/cache.py": "ipvs/test_pool_model.py",
    "ipvs/model/connections.py": "ipvs/model/test_pool.py",
    "ipvs/realserver.py": "ipvs/test_config.py",
    "ipvs/state_writer.py": "ipvs/test_statefile.py",
    "notify/mail/connect.py": "notify/mail/test_delivery.py",
    "notify/model/keepalived.py": "notify/test_fifo.py",
    "notify/model/mail.py": "notify/test_servers.py",
    "notify/model/states.py": "notify/test_fifo.py",
    "routes/rule.py": "routes/test_route.py",
    "routes/syntax.py": "routes/test_route.py",
    "routes/values.py": "routes/test_route.py",
    "testing/lan/conduct.py": "testing/test_mutants.py",
    "testing/lan/journal.py": "testing/lan/test_lan.py",
    "testing/lan/model.py": "testing/lan/test_lan.py",
    "testing/lan/settling.py": "testing/lan/test_lan.py",
    "testing/lan/timeline.py": "testing/lan/test_invariants.py",
    "testing/record/jsonform.py": "testing/record/test_recorder.py",
    "testing/record/replay.py": "testing/record/test_recorder.py",
    "tracking/limits.py": "tracking/test_tracker.py",
    "vrrp/resources.py": "vrrp/test_driver.py",
    "vrrp/run.py": "vrrp/test_driver.py",
    # Octets that the kernel sends and takes: one test holds them all against recorded messages.
    "host/addresses/kernel.py": "linux/test_netlink.py",
    "host/links/monitor.py": "linux/test_netlink.py",
    "host/links/records.py": "host/test_decoders.py",
    "host/links/requests.py": "host/test_decoders.py",
    "host/routing/records.py": "host/test_decoders.py",
    "host/routing/requests.py": "host/test_decoders.py",
    "ipvs/kernel/records.py": "ipvs/test_kernel_table.py",
    "ipvs/kernel/table.py": "ipvs/test_kernel_table.py",
    "linux/nfnetlink.py": "host/test_decoders.py",
    "linux/procevents.py": "host/test_decoders.py",
    # Only a namespace or a socket of the kernel's shows whether it works.
    "linux/capabilities.py": "host/firewall/test_nftables.py",
    "linux/netns.py": "checks/test_ping.py",
    "linux/socketfilter.py": "transport/test_raw.py",
    "linux/sysctl.py": "ipvs/masquerade/test_rules.py",
    "transport/receiver.py": "transport/test_raw.py",
    "transport/recvmmsg.py": "transport/test_raw.py",
    "transport/sockets.py": "transport/test_raw.py",
    # pytest loads it before a test begins.
    "testing/plugin.py": "testing/test_virtual.py",
    # Faces and what makes them.
    "events.py": "test_public_names.py",
    "lazy_names.py": "test_public_names.py",
    "version.py": "test_public_names.py",
}
"""Modules without a test module of their own, and the one that tests them."""


def test_each_module_has_its_test_module_or_is_listed() -> None:
    tests = Path(__file__).parent
    alone = set()
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT)
        if path.name not in ("__init__.py", "py.typed"):
            own = tests / place.parent / f"test_{place.name}"
            if not own.exists():
                alone.add(str(place))
    assert alone == TESTED_WITH.keys()
    assert [name for name in TESTED_WITH.values() if not (tests / name).exists()] == []


def test_only_the_runtime_lists_what_event_loops_share() -> None:
    """Below it, ``lifecycle`` knows what an event loop itself is: ending, in a hurry, forked; and
    ``eventlog`` what was logged on it."""
    found = {
        path.relative_to(ROOT).parts[0]
        for path in modules(ROOT).values()
        if "Dictionary[asyncio.AbstractEventLoop" in "".join(path.read_text().split())
    }
    assert found == {"eventlog.py", "lifecycle", "runtime.py"}
