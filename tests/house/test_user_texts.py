"""Texts that users read name no rule of the specification: they say what holds in words."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

from fleet.cli.app import app
from scripts import openapi

ROOT = Path(__file__).resolve().parents[2]
RULE = re.compile(r"(?<![\w-])[A-Z]{2}-[0-9]+(?![\w-])")
# Of Markdown: what stands in the text, not where a link leads.
_TARGET = re.compile(r"\]\([^)\n]*\)")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.mark.parametrize("document", [openapi.GATEWAY, openapi.MODELS, openapi.EVENTS])
def test_interface_document_names_no_rule(document: str) -> None:
    text = json.dumps(openapi.documents()[document], indent=1)

    assert [line.strip() for line in text.splitlines() if RULE.search(line)] == []


def commands(command: Any, name: str = "fleet") -> Iterator[tuple[str, Any]]:
    """Every command and group below this one, by its whole name."""
    yield name, command
    for part, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {part}")


def help_of(command: Any, name: str) -> str:
    """What `--help` is made of: the text of a command and of its parameters."""
    texts = [command.help, command.short_help, command.epilog]
    parameters = command.get_params(click.Context(command, info_name=name))
    return "\n".join(text for text in [*texts, *(getattr(p, "help", None) for p in parameters)] if text)


def test_help_of_commands_names_no_rule() -> None:
    texts = {name: help_of(command, name) for name, command in commands(typer.main.get_command(app))}

    assert {name: RULE.findall(text) for name, text in texts.items() if RULE.search(text)} == {}
    assert "the branch fleet/<story> holds the result" in texts["fleet run"]
    assert "L0 to L3" in texts["fleet run"]
    assert len(texts) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_for_users_names_no_rule_but_by_a_link(page: Path) -> None:
    assert RULE.findall(_TARGET.sub("]", page.read_text())) == []


def shown_strings(source: str) -> Iterator[tuple[int, str]]:
    """Every string of a module that is no docstring, with its line."""
    tree = ast.parse(source)
    described = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, _DOCUMENTED)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
            yield node.lineno, node.value


def named_in_words(source: str) -> list[int]:
    """Lines whose strings name a rule within a text; an id alone is data, such as the field `rule` of an error."""
    return [line for line, text in shown_strings(source) if RULE.search(text) and not RULE.fullmatch(text)]


def test_messages_name_no_rule() -> None:
    modules = [
        path for folder in ("fleet", "actors", "serve_apps", "cluster") for path in (ROOT / folder).rglob("*.py")
    ]

    assert [f"{m.relative_to(ROOT)}:{n}" for m in modules for n in named_in_words(m.read_text())] == []


def test_rule_within_a_message_is_found() -> None:
    source = (
        '"""As LC-1."""\nclass A:\n    """As LC-2."""\n    a: int\n    """As LC-3."""\n'
        'raise Refused(f"{a} is too low (LC-4)", rule="LC-5")  # LC-6\n'
    )

    assert named_in_words(source) == [6]
