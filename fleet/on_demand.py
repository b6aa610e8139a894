"""Packages that import a module when one of its names is asked for, not all of them with the first.

Every actor is a process of its own and pays for its imports alone: half of what a package offers it never uses.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["on_demand"]


def on_demand(package: str, file: str) -> Callable[[str], Any]:
    """The `__getattr__` (PEP 562) of a package whose names stand as imports below `if TYPE_CHECKING:`.

    Args:
        package: its `__name__`; no exported name may be that of a submodule, which would hide it once imported.
        file: its `__file__`.
    """
    places: dict[str, str] = {}

    def find(name: str) -> Any:
        if not places:
            places.update(_listed_in(Path(file).read_text(encoding="utf-8")))
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(places[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return find


def _listed_in(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    yield from ((alias.name, line.module) for alias in line.names)
