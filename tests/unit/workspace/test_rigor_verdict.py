"""Score and verdict: the golden rows of RG-60..RG-76, missing evidence, waivers, properties."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.workspace.evidence import E2eDeclaration, FlakyTests, find_flaky
from fleet.workspace.levels import LEVELS, RigorConfig
from fleet.workspace.report import parse_report
from fleet.workspace.verdict import Waiver, WorkspaceScore, score_workspace

CONFIG = RigorConfig.model_validate(yaml.safe_load((Path(__file__).parents[3] / "config" / "rigor.yaml").read_text()))
TREE = Digest("sha256:" + "a" * 64)
HEAD: dict[str, Any] = {
    "run_id": "rn-1",
    "story_id": "st-1",
    "tree_digest": TREE,
    "rigor": "L1",
    "complete": True,
}


def suite(passed: int, failed: int = 0, **more: Any) -> dict[str, Any]:
    return {"ok": not failed, "passed": passed, "failed": failed, "errored": 0, "skipped": 0, **more}


def static(**more: Any) -> dict[str, Any]:
    return {"ok": True, "gate": "OK", "new_critical": 0, "new_major": 0, **more}


def coverage(pct: Any) -> dict[str, Any]:
    return {"new_pct": pct, "new_lines": 200}


BASE: dict[str, Any] = {
    **HEAD,
    "build": {"ok": True, "exit_code": 0},
    "unit": suite(120),
    "coverage": coverage(92),
    "static": static(),
    "e2e": suite(12),
    "lint": {"ok": True, "errors": 0},
    "security": {"secrets_found": 0},
}


def scored(change: dict[str, Any] | None = None, *, rigor: str = "L1", **more: Any) -> WorkspaceScore:
    report = parse_report({**BASE, **(change or {})})
    return score_workspace(report, rigor=rigor, config=CONFIG, expected_tree=TREE, **more)


def dimension(score: WorkspaceScore, name: str) -> Any:
    return next(d for d in score.dimensions if d.name == name)


LINT_12 = {"ok": False, "errors": 12}
GOLDEN = [
    ("RG-60", {}, ["100 pass", "100 pass", "100 pass", "100 pass"]),
    ("RG-61", {"build": {"ok": False, "exit_code": 1}}, ["60 block", "65 block", "70 block", "75 block"]),
    ("RG-62", {"unit": suite(0)}, ["70 warn", "75 block", "75 block", "75 block"]),
    ("RG-63", {"unit": suite(114, 6)}, ["100 pass", "100 pass", "99.2 block", "98.7 block"]),
    ("RG-64", {"e2e": None}, ["90 pass", "90 pass", "88 warn", "85 block"]),
    ("RG-65", {"static": None}, ["90 pass", "80 warn", "75 block", "70 block"]),
    ("RG-66", {"static": static(new_critical=1, new_major=6)}, ["100 pass", "100 pass", "100 pass", "85 block"]),
    ("RG-67", {"lint": {"ok": False, "errors": 6}}, ["100 pass", "99.1 pass", "98 pass", "98 block"]),
    ("RG-68", {"lint": None}, ["95 pass", "95 pass", "97 pass", "98 block"]),
    ("RG-69", {"coverage": coverage(63)}, ["100 pass", "99.5 pass", "98.9 pass", "99.1 block"]),
    ("RG-70", {"coverage": None}, ["95 pass", "95 pass", "95 block", "97 block"]),
    ("RG-71", {"static": static(gate="WARN")}, ["100 pass", "90 pass", "87.5 warn", "85 block"]),
    ("RG-72", {"e2e": suite(9, 3)}, ["100 pass", "98.8 pass", "97.4 pass", "96.2 block"]),
    ("RG-73", {"static": static(new_major=500)}, ["100 pass", "90 pass", "87.5 warn", "85 block"]),
    (
        "RG-74",
        {"unit": suite(100, 20), "e2e": suite(9, 3), "coverage": coverage(40), "lint": LINT_12},
        ["99 pass", "90.6 block", "88.7 block", "88.4 block"],
    ),
    ("RG-75", {"lint": None, "e2e": suite(49, 71)}, ["91.8 pass", "89.8 warn", "90.1 warn", "89.1 block"]),
    ("RG-76", {"security": {"secrets_found": 1}}, ["100 block", "100 block", "100 block", "100 block"]),
]


@pytest.mark.rule(
    "RG-20", "RG-21", "RG-22", "RG-23", "RG-24", "RG-25", "RG-30", "RG-31", "RG-40", "RG-3", "RG-11", "RG-45",
    "RG-60", "RG-61", "RG-62", "RG-63", "RG-64", "RG-65", "RG-66", "RG-67", "RG-68", "RG-69", "RG-70", "RG-71",
    "RG-72", "RG-73", "RG-74", "RG-75", "RG-76",
)  # fmt: skip
@pytest.mark.parametrize(("change", "cells"), [row[1:] for row in GOLDEN], ids=[row[0] for row in GOLDEN])
def test_golden_row_gives_score_and_verdict_at_every_level(change: dict[str, Any], cells: list[str]) -> None:
    found = [scored(change, rigor=r) for r in LEVELS]
    assert [(Fraction(s.score), s.verdict) for s in found] == [
        (Fraction(number), verdict) for number, verdict in (c.split() for c in cells)
    ]


@pytest.mark.rule("RG-41", "RG-75")
def test_verdict_better_than_at_a_lower_level_is_limited_by_it() -> None:
    score = scored({"lint": None, "e2e": suite(49, 71)}, rigor="L2")
    assert (score.score, score.verdict, score.limited_by) == ("90.1", "warn", "L1")
    assert "limited by L1: warn at 89.8" in score.reasons
    assert scored({"build": None}, rigor="L2").limited_by == "L2"


@pytest.mark.rule("RG-10", "RG-45")
def test_missing_section_scores_nothing_and_says_so() -> None:
    score = scored({"lint": None})
    lint = dimension(score, "lint")
    assert (lint.score, lint.evidence, lint.value, lint.limit) == ("0.0", "missing", None, "at most 5 errors")
    assert score.reasons == ("lint scores 0.0: no evidence, needs at most 5 errors",)
    assert scored().reasons == ()


@pytest.mark.rule("RG-10", "RG-15")
@pytest.mark.parametrize(
    ("name", "section", "verdict"),
    [
        ("build", {"ok": True}, "block"),
        ("build", {"exit_code": 0}, "block"),
        ("unit", {**suite(5), "errored": None}, "block"),
        ("unit", {**suite(5), "ok": None}, "block"),
        ("static", {**static(), "gate": "NONE"}, "warn"),
        ("static", {**static(), "new_major": None}, "warn"),
        ("static", {**static(), "ok": None}, "warn"),
        ("coverage", {"new_pct": 90}, "pass"),
        ("coverage", {"new_lines": 9}, "pass"),
        ("lint", {"ok": True}, "pass"),
        ("lint", {"errors": 0}, "pass"),
        ("security", {}, "block"),
        ("security", None, "block"),
    ],
)
def test_section_with_a_missing_field_is_no_evidence(name: str, section: Any, verdict: str) -> None:
    score = scored({name: section})
    assert score.verdict == verdict
    if name != "security":
        assert dimension(score, name).evidence == "missing"


@pytest.mark.rule("RG-10", "RC-69")
@pytest.mark.parametrize("name", ["build", "unit", "static", "e2e"])
def test_section_of_a_skipped_stage_is_no_evidence(name: str) -> None:
    score = scored({"stages": [{"name": name, "status": "skipped"}]})
    assert dimension(score, name).evidence == "missing"
    assert score.inconsistent


@pytest.mark.rule("RG-13", "RG-15")
@pytest.mark.parametrize(("tools", "count", "is_ok"), [(["secrets"], 0, True), (["secrets"], 1, False), ([], 0, False)])
def test_secrets_that_were_looked_for_count_without_a_stage_for_them(tools: list[str], count: int, is_ok: bool) -> None:
    security = {"secrets_found": count, "tools": [{"name": name} for name in tools]}
    skipped = {"static": None, "lint": None, "stages": [{"name": "static", "status": "skipped"}]}
    score = scored({**skipped, "security": security}, rigor="L0")
    gate = next(g for g in score.gates if g.name == "secrets")
    assert (gate.ok, score.verdict == "block", score.inconsistent) == (is_ok, not is_ok, not tools)


@pytest.mark.rule("RG-12")
def test_mostly_skipped_run_is_no_evidence_from_l2_on() -> None:
    change = {"unit": suite(4, skipped=5)}
    assert [dimension(scored(change, rigor=r), "unit").evidence for r in LEVELS] == [
        "present",
        "present",
        "missing",
        "missing",
    ]
    assert dimension(scored(change), "unit").value == "1.0000 (4 of 4 passed), 5 skipped mostly_skipped"
    assert dimension(scored(change, rigor="L2"), "unit").value == "mostly_skipped"
    assert scored(change, rigor="L2").verdict == "block"
    assert scored({"unit": suite(5, skipped=5)}, rigor="L2").verdict == "pass"


@pytest.mark.rule("RG-13")
@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"build": {"ok": True, "exit_code": 2}}, "block"),
        ({"unit": suite(1, 119, ok=True)}, "block"),
        ({"static": static(gate="ERROR")}, "warn"),
        ({"e2e": suite(11, 1, ok=True)}, "pass"),
    ],
)
def test_claim_beside_contradicting_numbers_is_not_believed(change: dict[str, Any], verdict: str) -> None:
    score = scored(change)
    assert (score.inconsistent, score.verdict) == (True, verdict)
    assert not scored().inconsistent


@pytest.mark.rule("RG-14")
def test_coverage_of_a_change_without_new_lines_is_spread_over_the_others() -> None:
    change = {"coverage": {"new_lines": 0}, "lint": None}
    score = scored(change, rigor="L1")
    assert dimension(score, "coverage").evidence == "not_applicable"
    assert score.score == "94.7"  # 90 of 95 points
    assert scored({"coverage": {"new_lines": 0}}, rigor="L3").verdict == "pass"
    assert not [g for g in scored(change, rigor="L3").gates if g.name.startswith("coverage")]


@pytest.mark.rule("RG-23")
def test_static_that_is_not_ok_scores_nothing_and_closes_its_gate() -> None:
    score = scored({"static": static(ok=False)}, rigor="L3")
    assert dimension(score, "static").score == "0.0"
    assert [g.name for g in score.gates if not g.ok] == ["static_gate"]


@pytest.mark.rule("RG-31", "RG-45")
def test_failed_gates_are_named_with_value_and_limit() -> None:
    score = scored({"unit": suite(1, 1), "coverage": coverage("12.345")}, rigor="L3")
    failed = {g.name: (g.value, g.limit) for g in score.gates if not g.ok}
    assert failed == {"unit": ("0.5000", ">= 1.00"), "coverage": ("12.34 %", ">= 90 %")}
    assert "gate unit failed: 0.5000, needs >= 1.00" in score.reasons
    missing = scored({"unit": None, "static": None}, rigor="L3")
    assert {g.name: g.value for g in missing.gates if not g.ok} == dict.fromkeys(
        ("unit", "static_critical", "static_gate")
    )


@pytest.mark.rule("RG-31")
def test_level_without_a_maximum_keeps_its_hard_gate_open() -> None:
    data = yaml.safe_load((Path(__file__).parents[3] / "config" / "rigor.yaml").read_text())
    for level in LEVELS:
        data[level]["hard"] = list(data["L3"]["hard"])
    config = RigorConfig.model_validate(data)
    report = parse_report({**BASE, "static": static(new_critical=900, new_major=900)})
    score = score_workspace(report, rigor="L0", config=config, expected_tree=TREE)
    assert score.verdict == "pass"
    assert {g.name: g.limit for g in score.gates}["static_critical"] == "any number of critical"


@pytest.mark.rule("RG-3")
def test_absent_maxima_at_l0_are_unlimited() -> None:
    data = yaml.safe_load((Path(__file__).parents[3] / "config" / "rigor.yaml").read_text())
    data["L0"]["lint"] = {}
    report = parse_report({**BASE, "lint": {"ok": False, "errors": 10_000}, "static": static(new_major=500)})
    score = score_workspace(report, rigor="L0", config=RigorConfig.model_validate(data), expected_tree=TREE)
    assert score.score == "100.0"


@pytest.mark.rule("RG-44", "RG-10")
def test_report_of_another_tree_or_an_unknown_level_gets_no_score() -> None:
    other = Digest("sha256:" + "b" * 64)
    with pytest.raises(InvalidInput, match="expected sha256:b"):
        score_workspace(parse_report(BASE), rigor="L1", config=CONFIG, expected_tree=other)
    with pytest.raises(InvalidInput, match="L7"):
        scored(rigor="L7")


def waiver(name: Any, **more: Any) -> Waiver:
    return Waiver(**{"approval_id": "ap-1", "dimension": name, **more})


@pytest.mark.rule("RG-43")
def test_waived_dimension_opens_its_gate_and_spreads_its_weight() -> None:
    change = {"unit": suite(50, 50), "lint": None}
    assert scored(change).verdict == "block"
    score = scored(change, waivers=[waiver("unit")])
    assert (score.score, score.verdict) == ("93.3", "pass")  # 70 of 75 points
    assert dimension(score, "unit").evidence == "waived"
    assert score.waivers == ("unit",)
    assert "unit" not in {g.name for g in score.gates}


@pytest.mark.rule("RG-43")
def test_waiver_at_l3_does_not_hold() -> None:
    score = scored({"lint": None}, rigor="L3", waivers=[waiver("lint")])
    assert (score.verdict, score.waivers) == ("block", ())
    assert "waiver of lint does not hold at L3" in score.reasons


@pytest.mark.rule("RG-43")
@pytest.mark.parametrize("name", ["build", "secrets"])
def test_waiver_of_build_or_secrets_cannot_be_made(name: str) -> None:
    with pytest.raises(ValidationError):
        waiver(name)


@pytest.mark.rule("RG-77")
def test_e2e_declared_as_none_is_not_applicable() -> None:
    declared = E2eDeclaration(reason="a library without any surface", base_has_suite=False)
    score = scored({"e2e": None}, rigor="L2", e2e_declaration=declared)
    assert (score.score, score.verdict) == ("100.0", "pass")
    assert dimension(score, "e2e").evidence == "not_applicable"
    at_l3 = scored({"e2e": None}, rigor="L3", e2e_declaration=declared)
    assert (at_l3.score, at_l3.verdict) == ("85.0", "block")
    approved = declared.model_copy(update={"qa_approved": True})
    assert scored({"e2e": None}, rigor="L3", e2e_declaration=approved).verdict == "pass"
    by_waiver = scored({"e2e": None}, rigor="L3", e2e_declaration=declared, waivers=[waiver("e2e")])
    assert (by_waiver.verdict, by_waiver.reasons, by_waiver.waivers) == ("pass", (), ())


@pytest.mark.rule("RG-77")
def test_e2e_declaration_beside_a_suite_does_not_hide_it() -> None:
    declared = E2eDeclaration(reason="a library without any surface", base_has_suite=False)
    assert dimension(scored({"e2e": suite(1, 9)}, e2e_declaration=declared), "e2e").evidence == "present"
    with_suite = declared.model_copy(update={"base_has_suite": True})
    assert dimension(scored({"e2e": None}, e2e_declaration=with_suite), "e2e").evidence == "missing"


def failing(*ids: str, passed: int = 10, total: int | None = None) -> dict[str, Any]:
    count = len(ids) if total is None else total
    return suite(passed, count, failures=[{"id": i} for i in ids])


@pytest.mark.rule("RG-46")
def test_tests_on_which_two_reports_disagree_are_flaky() -> None:
    first = parse_report({**BASE, "unit": failing("a", "b"), "e2e": failing("x")})
    second = parse_report({**BASE, "unit": failing("b", "c"), "e2e": failing()})
    assert find_flaky(first, second) == FlakyTests(unit=frozenset({"a", "c"}), e2e=frozenset({"x"}))
    assert find_flaky(first, first) == FlakyTests()


@pytest.mark.rule("RG-46")
def test_test_missing_from_a_cut_or_absent_list_is_not_called_flaky() -> None:
    first = parse_report({**BASE, "unit": failing("a"), "e2e": failing("x")})
    cut = parse_report({**BASE, "unit": failing("b", total=60), "e2e": None})
    assert find_flaky(first, cut) == FlakyTests(unit=frozenset({"b"}))
    known = parse_report({**BASE, "unit": {**failing(), "known_failing": ["a"]}, "e2e": failing(passed=0)})
    assert find_flaky(first, known) == FlakyTests()


@pytest.mark.rule("RG-46")
def test_reports_of_different_trees_show_no_flaky_tests() -> None:
    with pytest.raises(InvalidInput, match="one tree"):
        find_flaky(parse_report(BASE), parse_report({**BASE, "tree_digest": "sha256:" + "b" * 64}))


@pytest.mark.rule("RG-46")
def test_flaky_test_counts_as_failed_from_l2_on() -> None:
    flaky = FlakyTests(unit=frozenset({"a", "b", "c"}), e2e=frozenset({"x"}))
    assert [scored(rigor=r, flaky=flaky).verdict for r in LEVELS] == ["pass", "pass", "block", "block"]
    value = dimension(scored(rigor="L2", flaky=flaky), "unit").value
    assert value == "0.9750 (117 of 120 passed)"
    listed = {"unit": failing("a", "b", "c", passed=997)}
    assert dimension(scored(listed, rigor="L2", flaky=flaky), "unit").value == "0.9970 (997 of 1000 passed)"


counts = st.one_of(st.none(), st.integers(0, 30))
flags = st.one_of(st.none(), st.booleans())
percents = st.one_of(st.none(), st.integers(0, 100), st.sampled_from(["79.999999", "80"]))
suites = st.one_of(
    st.none(),
    st.fixed_dictionaries({k: counts for k in ("passed", "failed", "errored", "skipped")} | {"ok": flags}),
)
sections = st.fixed_dictionaries(
    {
        "build": st.one_of(
            st.none(),
            st.fixed_dictionaries({"ok": flags, "exit_code": st.sampled_from([None, 0, 1])}),
        ),
        "unit": suites,
        "e2e": suites,
        "coverage": st.one_of(st.none(), st.fixed_dictionaries({"new_pct": percents, "new_lines": counts})),
        "static": st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {
                    "ok": flags,
                    "gate": st.sampled_from([None, "OK", "WARN", "ERROR", "NONE"]),
                    "new_critical": counts,
                    "new_major": counts,
                }
            ),
        ),
        "lint": st.one_of(st.none(), st.fixed_dictionaries({"ok": flags, "errors": counts})),
        "security": st.one_of(st.none(), st.fixed_dictionaries({"secrets_found": counts})),
    }
)


@pytest.mark.rule("RG-41", "RG-44", "RG-32")
@settings(max_examples=60, deadline=None)
@given(sections)
def test_any_report_gets_a_verdict_that_never_improves_with_rigor(found: dict[str, Any]) -> None:
    scores = [scored(found, rigor=r) for r in LEVELS]
    order = ["pass", "warn", "block"]
    ranks = [order.index(s.verdict) for s in scores]
    assert ranks == sorted(ranks)
    assert all(0 <= Fraction(s.score) <= 100 for s in scores)
    assert scores == [scored(found, rigor=r) for r in LEVELS]
    for lower, upper in pairwise(scores):
        assert {g.name for g in lower.gates} <= {g.name for g in upper.gates}


def test_score_json_form_is_canonical() -> None:
    document = scored({"lint": None}).to_json()
    assert WorkspaceScore.model_validate(document) == scored({"lint": None})
    assert document["dimensions"][0]["name"] == "build"
