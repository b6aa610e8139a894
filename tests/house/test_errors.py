"""The error tree: pickled, drawn, documented, and mapped to one HTTP row and one exit code each."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

import fleet.kernel.errors
from fleet.cli.exit_codes import exit_code
from fleet.kernel.errors import FleetError, ReplyMalformed, Retry, all_error_classes, from_wire
from serve_apps.problems import HTTP_STATUS

ROOT = Path(__file__).resolve().parents[2]
CLASSES = tuple(cls for cls in all_error_classes() if cls.__module__ == fleet.kernel.errors.__name__)
CODES = sorted({cls.code for cls in CLASSES})
STATUSES = {400, 401, 403, 404, 409, 412, 413, 415, 422, 428, 429, 500, 502, 503, 504, 507}

every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


@pytest.mark.rule("AP-47")
@every_class
def test_error_survives_pickling(cls: type[FleetError]) -> None:
    error = cls("story 'st-a' is gone; create it again", story_id="st-a", versions=[1, 2])

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is cls
    assert (copy.message, copy.details, str(copy)) == (error.message, error.details, error.message)


@every_class
def test_error_has_one_http_row(cls: type[FleetError]) -> None:
    assert HTTP_STATUS[cls.code] in STATUSES


def test_http_table_has_no_row_without_a_class() -> None:
    assert sorted(HTTP_STATUS) == CODES


@every_class
def test_error_has_one_exit_code(cls: type[FleetError]) -> None:
    assert exit_code(cls("x")) in {2, 3, 4, 5}


@every_class
def test_error_retry_is_one_of_the_three(cls: type[FleetError]) -> None:
    assert isinstance(cls.retry, Retry)


def test_tree_in_the_docstring_equals_the_classes() -> None:
    text = (fleet.kernel.errors.__doc__ or "").split("\n\n")[1]
    branches: dict[str, set[str]] = {}
    branch = ""
    for line in text.splitlines()[1:]:
        names = re.findall(r"[A-Z][A-Za-z]+", line)
        if "+-" in line:
            branch, *names = names
            branches[branch] = set()
        branches[branch].update(names)

    assert branches == {
        cls.__name__: {leaf.__name__ for leaf in CLASSES if cls in leaf.__bases__}
        for cls in CLASSES
        if FleetError in cls.__bases__
    }


@pytest.mark.rule("GL-24")
def test_troubleshooting_has_one_entry_per_code() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()

    assert sorted(re.findall(r"^### `([a-z_]+)`$", text, re.MULTILINE)) == CODES


@pytest.mark.rule("GL-24")
def test_troubleshooting_names_the_exit_code_and_http_status_of_each_error() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    entries = dict(re.findall(r"^### `([a-z_]+)`\n\n(.*)$", text, re.MULTILINE))
    # A branch without a code of its own is never raised.
    named = [cls for cls in CLASSES if "code" in vars(cls)]
    exits = {code: {exit_code(cls("x")) for cls in named if cls.code == code} for code in CODES}

    assert all(len(found) == 1 for found in exits.values())
    for code in CODES:
        http = "never over HTTP" if code == "config_error" else f"HTTP {HTTP_STATUS[code]}"
        assert entries[code] == f"Exit code {exits[code].pop()}, {http}.", code


def test_no_error_class_lives_outside_the_closed_tree() -> None:
    names = {cls.__name__ for cls in CLASSES}
    paths = [p for top in ("fleet", "actors", "serve_apps", "cluster") for p in sorted((ROOT / top).rglob("*.py"))]
    stray = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in paths
        if path != ROOT / "fleet" / "kernel" / "errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and names & {ast.unparse(base).split(".")[-1] for base in node.bases}
    ]

    assert stray == []


LEAVES = [cls for cls in CLASSES if "code" in vars(cls) and not any(cls in other.__bases__ for other in CLASSES)]


@pytest.mark.rule("AP-47")
@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_error_comes_back_from_the_wire_with_code_and_details(cls: type[FleetError]) -> None:
    back = from_wire(cls("x is wrong; mend it", limit=3).to_wire())

    assert (back.code, back.message, back.details) == (cls.code, "x is wrong; mend it", {"limit": 3})


@pytest.mark.rule("AP-47")
@pytest.mark.parametrize("document", [{}, {"code": "os.system"}, {"code": 3, "details": [1]}, {"code": "FleetError"}])
def test_unknown_code_from_the_wire_becomes_reply_malformed(document: dict[str, object]) -> None:
    assert type(from_wire(document)) is ReplyMalformed
