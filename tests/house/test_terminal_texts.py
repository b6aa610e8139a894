"""Texts of people and models reach the terminal as they were written: markup is ours, and never made of a value."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "fleet" / "cli").rglob("*.py"))
_TAG = re.compile(r"\[(?:/|bold|dim|red|green|yellow|blue)[ \w]*\]")
_NUMBER = re.compile(r"[\d.,+<>]*[dfeg%]$")
_MARKUP = {"place", "how", "colour", "line", "mark", "needs", "words"}
"""Names of values that are markup themselves: each is made of literals, or of what went through `shown`."""
_COUNTED = (ast.Constant, ast.BinOp)


def _unsafe(text: ast.JoinedStr) -> list[str]:
    """What an f-string with markup in it puts in as it came."""
    words = "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in text.values)
    values = [part for part in text.values if isinstance(part, ast.FormattedValue)]
    return [ast.unparse(value) for value in values if not _is_safe(value)] if _TAG.search(words) else []


def _is_safe(value: ast.FormattedValue) -> bool:
    match value.value:
        case ast.Call(func=ast.Name(id="shown" | "shown_name" | "len")):
            return True
        case ast.Name(id=name) if name in _MARKUP:
            return True
        case found:
            form = ast.unparse(value.format_spec).strip("f'\"") if value.format_spec is not None else ""
            return isinstance(found, _COUNTED) or bool(form and _NUMBER.match(form))


def test_value_within_markup_is_escaped() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {value}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr)
        for value in _unsafe(node)
    ]
    assert found == []


def test_texts_are_escaped_in_one_place_alone() -> None:
    # `rich.markup.escape` leaves control characters in a text, with which it can paint the terminal.
    uses = [path.name for path in SOURCES if "rich.markup" in path.read_text()]
    assert uses == ["output.py"]


def test_rule_finds_a_value_that_is_not_escaped() -> None:
    (text,) = [n for n in ast.walk(ast.parse('f"[bold]{title}[/] {shown(goal)}"')) if isinstance(n, ast.JoinedStr)]
    assert [value.strip("f'{}") for value in _unsafe(text)] == ["title"]
