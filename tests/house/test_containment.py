"""Every containment check is claimed by a test, or it is said why it does not apply."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.containment import CHECKS, NOT_APPLICABLE, claims, claims_in

ROOT = Path(__file__).resolve().parents[2]
EXTRACTING = {"extract", "extractall", "unpack_archive", "Unpickler"}


def suites() -> list[Path]:
    return sorted((ROOT / "tests").rglob("test_*.py"))


def test_list_of_checks_is_whole() -> None:
    assert list(CHECKS) == [f"{n:02}" for n in range(45)] + [f"S{n}" for n in range(1, 29)] + [
        f"O{n}" for n in range(1, 7)
    ]


@pytest.mark.rule("RC-31")
def test_every_check_is_claimed_or_does_not_apply() -> None:
    claimed = claims(suites())

    assert sorted(set(claimed) - set(CHECKS)) == []
    assert sorted(set(CHECKS) - set(claimed)) == sorted(NOT_APPLICABLE)


def test_claims_are_read_from_marks_and_probes() -> None:
    found = list(claims_in('@pytest.mark.check("S1", "04")\ndef test_a(): ...\nx = probe_params()\n'))

    assert found[:2] == [("S1", 1), ("04", 1)]
    assert ("17", 3) in found


def test_nothing_outside_of_the_sandbox_extracts_an_archive_or_loads_a_pickle() -> None:
    """Why S7 does not apply."""
    inside = ROOT / "fleet" / "sandbox" / "inside"
    files = [p for top in ("fleet", "actors", "serve_apps", "cluster") for p in (ROOT / top).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        if inside not in path.parents
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in EXTRACTING or ast.unparse(node.func) in ("pickle.load", "pickle.loads", "marshal.loads")
    ]

    assert found == []
