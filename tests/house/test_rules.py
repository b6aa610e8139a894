"""Cited rules and pages exist, rules have anchors, and the table of rules and tests is right."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from scripts import rules

ROOT = Path(__file__).resolve().parents[2]


# `docs/design/sandbox.md, section 5`, `docs/design/sandbox.md, sections 11 and 12`, and pages without a section.
_PAGE = re.compile(r"\bdocs/(?:design|spec)/[a-z_]+\.md(?:, sections? ([0-9]+)(?: and ([0-9]+))?)?")
_SOURCE_FILE = re.compile(r"`((?:fleet|actors|serve_apps|cluster)/[\w/]+\.py)`")


@pytest.mark.rule("GL-2")
def test_every_cited_rule_exists() -> None:
    assert rules.unknown_citations(rules.citations(ROOT / "tests"), rules.known_rules()) == []
    assert rules.unknown_citations(rules.mentions(), rules.known_rules()) == []


@pytest.mark.rule("GL-2")
def test_a_rule_that_nobody_defines_is_found_in_code_and_in_documents(tmp_path: Path) -> None:
    for name, text in {
        "fleet/a.py": '"""Fine (LC-1)."""\n# Not defined (ZZ-9).\n',
        "docs/b.md": "See ZZ-8, UTF-8 and XX-1-1.\n",
        "serve_apps/ui/node_modules/c.ts": "// ZZ-7\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)

    found = rules.mentions(tmp_path)

    assert rules.unknown_citations(found, ["LC-1"]) == ["ZZ-8 (docs/b.md:1)", "ZZ-9 (fleet/a.py:2)"]


@pytest.mark.rule("GL-1")
def test_every_rule_is_defined_once() -> None:
    pages = [page.read_text() for page in rules.SPECIFICATION.glob("*.md")]
    defined = Counter(
        match.group(2) for text in pages for match in map(rules.definition_of, text.splitlines()) if match
    )

    assert [rule for rule, times in defined.items() if times > 1] == []
    assert rules.in_order(set(defined)) == rules.known_rules()
    assert len(defined) > 900


@pytest.mark.rule("GL-1")
def test_page_has_an_anchor_for_each_rule_and_links_for_the_rules_that_it_cites() -> None:
    text = (
        "## 1. As GL-1\n\n- **LC-1** As LC-2, `LC-3` and ZZ-1.\n  RC-6..RC-9\n| LC-20 (es) | GL-1 |\n"
        "```text\n- **LC-4** no\n```\n- **LC-5** [LC-6](x.md)\n"
    )

    assert rules.with_links(text, page="spec/lifecycle.md") == (
        '## 1. As GL-1\n\n- **<span id="lc-1">LC-1</span>** As [LC-2](lifecycle.md#lc-2), `LC-3` and ZZ-1.\n'
        "  [RC-6](runner_contract.md#rc-6)..[RC-9](runner_contract.md#rc-9)\n"
        '| <span id="lc-20">LC-20</span> (es) | [GL-1](index.md#gl-1) |\n'
        "```text\n- **LC-4** no\n```\n"
        '- **<span id="lc-5">LC-5</span>** [LC-6](x.md)\n'
    )
    assert rules.with_links("| LC-1 |", page="design/a.md") == "| [LC-1](../spec/lifecycle.md#lc-1) |"


def test_cited_page_of_the_design_has_the_cited_section() -> None:
    cited = {
        (match.group().split(",")[0], section)
        for path in rules.texts()
        for match in _PAGE.finditer(path.read_text())
        for section in match.groups()
    }
    missing = [
        (page, section)
        for page, section in cited
        if not (ROOT / page).is_file() or f"\n## {section + '.' if section else ''}" not in (ROOT / page).read_text()
    ]

    assert missing == []
    assert len(cited) > 10


def test_every_source_file_that_the_documents_of_the_code_name_exists() -> None:
    tour = ROOT / "docs" / "tour.md"
    pages = [tour, *rules.SPECIFICATION.glob("*.md"), *(ROOT / "docs" / "design").glob("*.md")]
    named = {name for page in pages for name in _SOURCE_FILE.findall(page.read_text())}

    assert sorted(name for name in named if not (ROOT / name).is_file()) == []
    assert len(named) > 40
    assert len(re.findall(r"^\| [0-9]+ \|", tour.read_text(), re.MULTILINE)) == 12


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
