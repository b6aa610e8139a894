"""Cited rules exist, and the table of rules and tests is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import rules

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.rule("GL-2")
def test_every_cited_rule_exists() -> None:
    assert rules.unknown_citations(rules.citations(ROOT / "tests"), rules.known_rules()) == []


@pytest.mark.rule("GL-1")
def test_list_of_rules_is_sorted_and_has_no_id_twice() -> None:
    known = rules.known_rules()

    assert known == rules.in_order(set(known))
    assert len(known) == len(set(known)) > 900


def test_rules_are_found_in_bold_and_in_first_columns_only() -> None:
    text = "- **GL-1** Every rule, see GL-2.\n| AP-20 | x | AP-9 |\n| SC-66 (es) | y |\n| field | AP-8 |\n"

    assert rules.in_order(rules.rules_of(text)) == ["AP-20", "GL-1", "SC-66"]


def test_citations_are_read_without_importing(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_a.py").write_text(
        'raise SystemExit\n@pytest.mark.rule("GL-1", "ZZ-9")\ndef test_a(): ...\n'
        "@pytest.mark.rule(NAME)\ndef test_b(): ...\n"
    )

    found = rules.citations(folder)

    assert found["GL-1"] == ["tests/test_a.py:2"]
    assert rules.unknown_citations(found, ["GL-1"]) == [
        "ZZ-9 (tests/test_a.py:2)",
        "not a literal: NAME (tests/test_a.py:4)",
    ]


def test_citations_are_read_from_a_table_that_makes_the_marks() -> None:
    source = (
        'ROWS = [\n  ("LC-1", "a"),\n  ("LC-2", "b"),\n]\n'
        "@pytest.mark.parametrize('x', [pytest.param(r[1], marks=pytest.mark.rule(r[0])) for r in ROWS])\n"
        "def test_a(x): ...\n"
    )

    assert sorted(rules.cited_in(source)) == [("LC-1", 2), ("LC-2", 3)]


def test_table_counts_by_family() -> None:
    lines = rules.table({"GL-1": ["x"]}, ["AP-1", "GL-1", "GL-2", "GL-3"]).splitlines()

    assert [line.split() for line in lines[1:]] == [
        ["AP", "1", "0", "0%"],
        ["GL", "3", "1", "33%"],
        ["all", "4", "1", "25%"],
    ]
    assert rules.uncited({"GL-1": ["x"]}, ["GL-1", "GL-2"], ["GL"]) == "GL without a test: GL-2"
