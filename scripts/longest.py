"""The longest modules and functions, so that a hub is seen while it is small."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fleet", "actors", "serve_apps", "cluster")
SHOWN = 12
MOST_LINES = 600


class Length(NamedTuple):
    """Lines of one module or function."""

    lines: int
    name: str


def modules(root: Path = ROOT) -> list[Length]:
    """Every module of the product, longest first."""
    paths = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
    return sorted((Length(len(p.read_text().splitlines()), str(p.relative_to(root))) for p in paths), reverse=True)


def functions(root: Path = ROOT) -> list[Length]:
    """Every function of the product, longest first; lines of its docstring do not count."""
    found = [length for module in modules(root) for length in functions_of(root / module.name, module.name)]
    return sorted(found, reverse=True)


def functions_of(path: Path, name: str) -> list[Length]:
    """Every function of one module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [Length(body_lines(n), f"{name}:{n.lineno} {n.name}") for n in nodes if isinstance(n, kinds)]


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    first = node.body[0]
    has_docstring = ast.get_docstring(node) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def listing(title: str, lengths: list[Length]) -> str:
    """The first of them, with the median of all."""
    rows = "\n".join(f"{length.lines:>6}  {length.name}" for length in lengths[:SHOWN])
    return f"{title}: {len(lengths)}, median {median(length.lines for length in lengths):.0f} lines\n{rows}\n"


def main() -> int:
    """Print both lists, and name the modules that may be two things."""
    found = modules()
    sys.stdout.write(listing("modules", found) + "\n" + listing("functions", functions()))
    over = [length.name for length in found if length.lines > MOST_LINES]
    for name in over:
        sys.stderr.write(f"{name} is over {MOST_LINES} lines: which two things is it?\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
