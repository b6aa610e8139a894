"""No two modules import each other, not even by way of others (docs/design/style.md, section 1)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOPS = ("fleet", "actors", "serve_apps", "cluster", "benchmarks", "scripts")


def modules(root: Path) -> dict[str, str]:
    """Dotted name -> source of every module below these folders."""
    found: dict[str, str] = {}
    for path in (file for top in TOPS for file in (root / top).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imports_of(source: str, known: Mapping[str, str]) -> set[str]:
    """The modules that a module loads when it is loaded; imports in functions and for types come later or never."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                children = {f"{module}.{alias.name}" for alias in names}
                found |= {name for name in children if name in known} or {module}
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case _:
                pass
    return {name for name in found if name in known}


def circle_in(sources: Mapping[str, str]) -> list[str]:
    """The modules of one circle, none when there is none."""
    try:
        TopologicalSorter({name: imports_of(text, sources) for name, text in sources.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_modules_import_each_other_in_one_direction() -> None:
    assert circle_in(modules(ROOT)) == []


@pytest.mark.parametrize(
    "second",
    ["from fleet import a", "from fleet.a import x", "import fleet.a"],
)
def test_circle_is_found(second: str) -> None:
    sources = {"fleet": "", "fleet.a": "from fleet.b import y", "fleet.b": second, "fleet.c": "import fleet.a"}
    assert set(circle_in(sources)) == {"fleet.a", "fleet.b"}


def test_import_in_a_function_makes_no_circle() -> None:
    assert circle_in({"fleet.a": "import fleet.b", "fleet.b": "def f():\n    import fleet.a"}) == []
