"""What needs a server, a GPU or a cluster has a twin in memory, and both pass the same suite (GL-21)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
HINTS = {"MemoryPeers", "MemoryTokenSource", "MemoryChange", "MemoryStatus"}
"""No ports of their own: what a supervisor tells another, the fake engine's kernel, and parts of the forge's twin."""
ELSEWHERE = ("redis", "bolt", "bubblewrap", "s3", "files", "folder", "webhook", "process", "sqlite", "parquet", "local")
"""What the suites call the real thing."""


def _suites() -> str:
    """The suites that run on every adapter of a port, and what opens the adapters for them."""
    return "\n".join(path.read_text() for folder in ("contract", "support") for path in (TESTS / folder).glob("*.py"))


def _choices() -> Iterator[tuple[str, set[str]]]:
    """The adapters that a suite runs on, by file: the texts in the `params` of its fixtures."""
    for path in sorted((TESTS / "contract").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("fixture"):
                for given in call.keywords:
                    if given.arg == "params":
                        found = {n.value for n in ast.walk(given.value) if isinstance(n, ast.Constant)}
                        yield path.name, {str(text) for text in found}


@pytest.mark.rule("GL-21")
def test_every_twin_passes_a_suite_of_its_port() -> None:
    text = _suites()
    adapters = (
        p for p in TESTS.parent.glob("fleet/**/*.py") if "memory" in p.relative_to(TESTS.parent).with_suffix("").parts
    )
    sources = (path.read_text() for path in adapters)
    twins = {name for source in sources for name in re.findall(r"^class (Memory\w+)", source, re.MULTILINE)} - HINTS
    assert {name for name in twins if not re.search(rf"\b{name}\b", text)} == set()
    assert len(twins) > 25


@pytest.mark.rule("GL-21")
def test_suite_of_a_real_store_or_sandbox_runs_on_memory_too() -> None:
    found = list(_choices())
    real = [(name, choices) for name, choices in found if choices & set(ELSEWHERE)]
    assert [name for name, choices in real if not choices & {"memory", "twin"}] == []
    # Stores, graph, sandbox, blobs and forge: without a server, a GPU or a cluster.
    names = {name for name, _ in real}
    assert {"conftest.py", "test_graph.py", "test_sandbox.py", "test_blobs.py", "test_forge.py"} <= names
