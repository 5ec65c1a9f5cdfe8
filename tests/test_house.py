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
