"""The doors of the product, and the test of each: `python -m tests.doors.table` writes `tests/doors/README.md`."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import typer

from fleet.cli.app import app
from serve_apps.routes.mcp import McpFront
from serve_apps.rpc.front import RPC_FILES

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "doors"
README = FOLDER / "README.md"
SOCKET = "WS /api/ws"
_MARK = "pytest.mark.door"
_VERBS = ("get", "put", "post", "patch", "delete")
_HEAD = """# Doors

Every way into the product, and the test that goes through it on one real fleet. `python -m tests.doors.table` writes
this page from the marks of the tests; a door without a test, or a test whose door does not answer, fails the run.
Tests elsewhere, with something in the last column, are not held to that: they run what lies behind the door.

While you write such tests, keep a fleet up with `python -m tests.support.world HOME`, and run them with
`DOORS_HOME=HOME pytest tests/doors`.

| door | test | instead of |
|---|---|---|
"""


class Entry(NamedTuple):
    """The test of a door; `stand_in` says what stands there for a counterpart that a test machine does not have."""

    test: str
    stand_in: str


def doors() -> set[str]:
    """All doors: commands, operations of HTTP, methods of gRPC, tools of MCP, and the socket."""
    methods = (method for file in RPC_FILES for s in file.DESCRIPTOR.services_by_name.values() for method in s.methods)
    return {*commands(), *operations(), *(f"rpc {m.name}" for m in methods), *_mcp_tools(), SOCKET}


def _mcp_tools() -> set[str]:
    nothing: Any = None
    front = McpFront(nothing, nothing, None, sight=nothing)
    return {f"mcp {tool.name}" for tool in asyncio.run(front._listed(nothing, None)).tools}


@cache
def commands() -> set[str]:
    """`fleet story list` and its like."""
    return set(_commands(typer.main.get_command(app), "fleet"))


def _commands(command: click.Command, name: str) -> Iterator[str]:
    inner: Mapping[str, click.Command] | None = getattr(command, "commands", None)
    if inner is None:
        yield name
        return
    for part, each in inner.items():
        yield from _commands(each, f"{name} {part}")


def command_of(arguments: Sequence[str]) -> str:
    """The command that these arguments call; a group that has a command of its own counts as that."""
    command: Any = typer.main.get_command(app)
    name = "fleet"
    for part in arguments:
        if part not in getattr(command, "commands", {}):
            break
        command, name = command.commands[part], f"{name} {part}"
    return name


@cache
def operations() -> dict[str, re.Pattern[str]]:
    """`GET /api/roles` and its like, with the pattern of its paths."""
    found: dict[str, re.Pattern[str]] = {}
    for name in ("openapi.json", "openapi-v1.json"):
        document = json.loads((ROOT / "docs" / name).read_text())
        base = document.get("servers", [{"url": ""}])[0]["url"].rstrip("/")
        for path, item in document["paths"].items():
            pattern = re.compile(re.sub(r"\\\{(\w+)\\\}", _parameter, re.escape(base + path)))
            found |= {f"{verb.upper()} {base}{path}": pattern for verb in _VERBS if verb in item}
    return found


def _parameter(match: re.Match[str]) -> str:
    """What may stand for it in a path: the ids of steps and of commands have slashes."""
    return ".+" if match[1] in {"step_id", "command_id"} else "[^/]+"


def operation_of(method: str, path: str) -> str | None:
    """The operation that serves this path; the one with fewer parameters where two could."""
    fitting = [d for d, p in operations().items() if d.startswith(f"{method} ") and p.fullmatch(path)]
    return min(fitting, key=lambda door: door.count("{"), default=None)


def entries() -> dict[str, Entry]:
    """The first test of each door that a mark names: those of this folder, then those with a stand-in elsewhere."""
    found: dict[str, Entry] = {}
    for path in sorted(FOLDER.glob("test_*.py")) + sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        for name, call in _marks(text) if _MARK in text else ():
            stand_in = next((ast.literal_eval(k.value) for k in call.keywords), "")
            is_real = path.parent == FOLDER
            assert is_real or stand_in, f"{path}::{name} goes through a door elsewhere: say what it has instead"
            entry = Entry(f"{path.name if is_real else path.relative_to(ROOT)}::{name}", stand_in)
            found |= {ast.literal_eval(a): entry for a in call.args if ast.literal_eval(a) not in found}
    return found


def _marks(text: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            calls = (n for d in node.decorator_list for n in ast.walk(d) if isinstance(n, ast.Call))
            yield from ((node.name, call) for call in calls if ast.unparse(call.func) == _MARK)


def page() -> str:
    """The table as the README of the folder."""
    rows = (f"| `{door}` | `{entry.test}` | {entry.stand_in} |\n" for door, entry in sorted(entries().items()))
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    README.write_text(page())
