"""Read a test file without running it: which tests it defines, and what is left when a part of it does not parse."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

_BLOCK_START = re.compile(r"[^\s#)\]}]")
_CONTINUES = ("else:", "else ", "elif ", "except", "finally")


@dataclass(frozen=True)
class Suite:
    """A test file as it can be run: its text, its tests in order, the tests that do not parse, and why."""

    text: str
    tests: tuple[str, ...]
    broken: tuple[str, ...] = ()
    reason: str = ""


def split_tests(text: str) -> list[str]:
    """Names of the tests in order: `test_*` functions and `Test*::test_*` methods; SyntaxError from the parser."""
    names: list[str] = []
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
            names.append(node.name)
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            names += [f"{node.name}::{name}" for name in _methods(node)]
    return list(dict.fromkeys(names))


_ONE_PROCESS = re.compile(
    r"\b(?:monkeypatch|mock|patch|MagicMock|Mock|mocker|importlib|reload|sys|threading|multiprocessing|gc|weakref|inspect"
    r"|seed|capfd|stdin|recwarn|freeze_time|pickle|signal|asyncio)\b"
)


def needs_one_process(text: str) -> frozenset[str]:
    """The tests that by their text may need the product in their own process.

    What stands outside of tests, as fixtures do, counts for all of them.
    """
    lines = text.splitlines()
    tests: dict[str, str] = {}
    for node in ast.parse(text).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        source = "\n".join(lines[first - 1 : node.end_lineno])
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
            tests[node.name] = source
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            tests |= {f"{node.name}::{name}": source for name in _methods(node)}
        elif not isinstance(node, (ast.Import, ast.ImportFrom)) and _ONE_PROCESS.search(source):
            return frozenset(split_tests(text))
    return frozenset(name for name, source in tests.items() if _ONE_PROCESS.search(source))


def _methods(node: ast.ClassDef) -> list[str]:
    functions = [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [function.name for function in functions if function.name.startswith("test")]


def read_suite(text: str) -> Suite:
    """The suite; when the file does not parse, without the top-level blocks that are to blame.

    One broken test must not cost the others. A file of which nothing is left has no tests and gives the reason.
    """
    try:
        return Suite(text, tuple(split_tests(text)))
    except (SyntaxError, ValueError, RecursionError) as error:
        reason = f"SyntaxError: {error.msg} (line {error.lineno})" if isinstance(error, SyntaxError) else str(error)
    kept: list[str] = []
    broken: list[str] = []
    for block in _blocks(text):
        if _parses(block):
            kept.append(block)
        else:
            # Blank lines keep the line numbers of what follows.
            kept.append("\n" * block.count("\n"))
            broken += re.findall(r"^(?:async\s+)?def\s+(test\w*)", block, re.MULTILINE)
    rest = "".join(kept)
    tests = tuple(split_tests(rest)) if _parses(rest) else ()
    return Suite(rest if tests else "", tests, tuple(dict.fromkeys(broken)), reason)


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def _blocks(text: str) -> list[str]:
    blocks: list[str] = []
    decorated = False
    for line in text.splitlines(keepends=True):
        begins = bool(_BLOCK_START.match(line)) and not line.startswith(_CONTINUES)
        if not blocks or (begins and not decorated):
            blocks.append(line)
        else:
            blocks[-1] += line
        if begins:
            decorated = line.startswith("@")
    return blocks
