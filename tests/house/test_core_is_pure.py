"""The core maps values to values: no clock, no randomness, no environment, no input or output (GL-17)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.layout import is_pure

ROOT = Path(__file__).resolve().parents[2]
# Whoever needs more of the standard library shows first that it is pure, then adds it here.
MODULES = frozenset(
    """
    __future__ abc base64 binascii bisect collections collections.abc copy dataclasses decimal difflib enum fractions
    functools graphlib hashlib heapq html ipaddress itertools json keyword math operator posixpath re statistics string
    struct textwrap types typing unicodedata orjson pydantic pydantic_core typing_extensions
    """.split()  # noqa: SIM905 - a list of forty quoted words reads worse
)
NAMES_OF_OTHER_MODULES = frozenset(
    {("datetime", n) for n in ("date", "datetime", "timedelta", "timezone", "UTC", "time")}
    | {("pathlib", n) for n in ("PurePath", "PurePosixPath")}
    | {("contextlib", n) for n in ("suppress", "contextmanager")}
    # Of a text that is given; without one the class would read standard input.
    | {("shlex", n) for n in ("split", "join")}
    # Of a text that is given; `load` would read a file.
    | {("tomllib", "loads")}
    # A mapping that forgets; its siblings with a time to live read a clock.
    | {("cachetools", "LRUCache")}
    # A check of a value; a registry that was given no way to fetch a schema holds what it was given.
    | {("jsonschema", n) for n in ("Draft202012Validator", "SchemaError", "ValidationError")}
    | {("referencing", "Registry"), ("referencing.exceptions", "Unresolvable")}
    # Settings of a text that is given; tables that keep the text around them.
    | {("configparser", n) for n in ("ConfigParser", "Error")}
    | {("tomlkit", n) for n in ("parse", "table")}
    | {("tomlkit.exceptions", "TOMLKitError"), ("sys", "stdlib_module_names")}
    # A tree of a text; nothing of it is run.
    | {("ast", "parse")}
    | {("sqlglot", "exp"), ("sqlglot.dialects.postgres", "Postgres"), ("sqlglot.errors", "SqlglotError")}
)
# `hash` of text differs from process to process.
CALLS = frozenset({"open", "input", "print", "exec", "eval", "compile", "__import__", "breakpoint", "hash"})
CLOCK_METHODS = frozenset({"now", "utcnow", "today"})


def sources() -> list[Path]:
    """Every module that holds rules alone."""
    return [path for path in sorted((ROOT / "fleet").rglob("*.py")) if is_pure(str(path.relative_to(ROOT)))]


def impurities(source: str) -> list[str]:
    """One line per place where this module reaches out of its arguments."""
    return [line for node in ast.walk(ast.parse(source)) for line in _impurities_of(node)]


def _impurities_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (f"line {node.lineno}: import {a.name}" for a in names if a.name not in MODULES)
        case ast.ImportFrom(module=str(module), names=names, level=0) if not _is_ours(module) and module not in MODULES:
            foreign = [a.name for a in names if (module, a.name) not in NAMES_OF_OTHER_MODULES]
            yield from (f"line {node.lineno}: from {module} import {name}" for name in foreign)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield f"line {node.lineno}: {name}()"
        case ast.Call(func=ast.Attribute(attr=name, value=value)) if name in CLOCK_METHODS and "date" in ast.unparse(
            value
        ):
            yield f"line {node.lineno}: {ast.unparse(value)}.{name}()"
        case ast.AsyncFunctionDef() | ast.Await():
            yield f"line {node.lineno}: async"
        case _:
            return


def _is_ours(module: str) -> bool:
    return module == "fleet" or module.startswith("fleet.")


@pytest.mark.rule("GL-17")
@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_core_module_reaches_for_nothing_but_its_arguments(path: Path) -> None:
    assert impurities(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from random import choice",
        "from datetime import tzinfo",
        "from pathlib import Path",
        "from datetime import datetime\nx = datetime.now()",
        "x = open('a')",
        "x = hash('a')",
        "async def f(): ...",
    ],
)
def test_impure_source_is_found(source: str) -> None:
    assert impurities(source) != []


@pytest.mark.parametrize("source", ["import json", "from fleet.kernel.ids import Digest", "from datetime import UTC"])
def test_pure_source_is_left_alone(source: str) -> None:
    assert impurities(source) == []
