"""WorkspaceReport: absent sections, edge aliases, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.workspace.report import parse_report, static_gate

TREE = "sha256:" + "a" * 64
HEAD: dict[str, Any] = {
    "schema": 1,
    "run_id": "rn-1",
    "story_id": "st-1",
    "tree_digest": TREE,
    "rigor": "L1",
    "complete": True,
}


@pytest.mark.rule("RC-60", "RC-69")
def test_report_without_sections_keeps_them_absent() -> None:
    report = parse_report({**HEAD, "lint": {"ok": True, "errors": 0}})
    assert report.to_json() == {
        **HEAD,
        "stages": [],
        "timings": {},
        "lint": {"ok": True, "errors": 0, "tool": ""},
    }
    assert parse_report(report.to_json()) == report


@pytest.mark.rule("RC-69")
def test_report_with_edge_aliases_is_translated() -> None:
    document = {**HEAD, "job_id": "rn-2", "unit": {"ok": True, "passed": 1, "coverage": "81.5"}}
    del document["run_id"]
    report = parse_report(document)
    assert report.run_id == "rn-2"
    assert report.coverage is not None
    assert (str(report.coverage.total_pct), report.coverage.new_pct) == ("81.5", None)


@pytest.mark.rule("RC-69")
def test_unit_coverage_beside_a_coverage_section_does_not_replace_it() -> None:
    report = parse_report({**HEAD, "unit": {"coverage": 50}, "coverage": {"total_pct": 60, "new_pct": "70"}})
    assert report.coverage is not None
    assert (report.coverage.total_pct, report.coverage.new_pct) == (60, 70)
    with pytest.raises(InvalidInput):
        parse_report({**HEAD, "unit": {"coverage": 50}, "coverage": "none"})


@pytest.mark.rule("RG-44", "RC-69", "GL-15")
@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({"unit": {"passed": -1}}, "/unit/passed"),
        ({"unit": {"passed": 1.5}}, "/unit/passed"),
        ({"unit": {"ok": "yes"}}, "/unit/ok"),
        ({"coverage": {"new_pct": "100.1"}}, "/coverage/new_pct"),
        ({"coverage": {"new_pct": -1}}, "/coverage/new_pct"),
        ({"coverage": {"new_pct": "1e-999999"}}, "/coverage/new_pct"),
        ({"coverage": {"new_lines": 2, "new_covered": 3}}, "/coverage"),
        ({"static": {"gate": "GREEN"}}, "/static/gate"),
        ({"rigor": "L9"}, "/rigor"),
        ({"schema": 2}, "/schema"),
        ({"surprise": 1}, "/surprise"),
        ({"tree_digest": "abc"}, "/tree_digest"),
    ],
)
def test_report_with_an_impossible_value_is_invalid_input(section: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_report({**HEAD, **section, "commit": "zz"})
    assert {p["field"] for p in caught.value.details["problems"]} == {field, "/commit"}


def test_report_digest_is_the_same_for_the_same_content() -> None:
    one, two = parse_report(HEAD), parse_report({**HEAD, "lint": None})
    assert one.digest == two.digest
    assert isinstance(one.digest, Digest)


@pytest.mark.rule("RC-69")
@pytest.mark.parametrize(
    ("facts", "gate"),
    [
        ({"ran": True, "new_critical": 1, "new_major": 0}, "ERROR"),
        ({"ran": True, "new_critical": 0, "new_major": 2}, "WARN"),
        ({"ran": True, "new_critical": 0, "new_major": 0}, "OK"),
        ({"ran": False, "new_critical": 0, "new_major": 0}, "NONE"),
        ({"ran": True, "new_critical": 3, "new_major": 0, "quality_gate": "OK"}, "OK"),
    ],
)
def test_static_gate_follows_sonar_or_the_findings(facts: dict[str, Any], gate: str) -> None:
    assert static_gate(**facts) == gate


def test_report_stage_is_the_last_record_of_that_stage() -> None:
    report = parse_report({**HEAD, "stages": [{"name": "unit", "status": s} for s in ("failed", "passed")]})
    found = report.stage("unit")
    assert found is not None
    assert found.status == "passed"
    assert report.stage("e2e") is None
