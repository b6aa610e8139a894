"""Arms by name, and the table over rows."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.bench.row import ARMS, Arm, BenchRow, Pick, arm_lines, end_shares, parse_arms, stage_gains
from fleet.kernel.errors import InvalidInput


def row(task: str, arm: str, **changes: Any) -> BenchRow:
    known: dict[str, Any] = {
        "task_id": task,
        "arm": arm,
        "seed": 1,
        "passed": True,
        "digest": "d",
        "solution": "s",
        "decided_in": "P3",
        "budget": 100,
        "tokens_in": 40,
        "tokens_out": 20,
        "stages": {"draft": 60},
        "calls": 2,
        "malformed": 1,
        "candidates": 1,
        "distinct": 1,
        "visible_passed": None,
        "model_ms": 500,
        "wall_ms": 600,
    }
    return BenchRow(**(known | changes))


def test_arms_are_named_with_their_blind_variants():
    assert parse_arms("greedy, council-blind,greedy") == (Arm("greedy"), Arm("council", True))
    assert [a.label for a in parse_arms("all-blind")] == [f"{name}-blind" for name in ARMS]
    for bad in ("", "best", "greedy,,council"):
        with pytest.raises(InvalidInput, match="is no arm"):
            parse_arms(bad)


def test_lines_compare_with_arms_of_the_same_variant():
    rows = [row("a", "greedy", passed=False), row("a", "council"), row("a", "greedy-blind"), row("b", "council")]
    rows += [row("a", "council-blind", passed=False, decided_in="undecided: no_quorum", tokens_in=90)]
    lines = {line.arm: line for line in arm_lines(rows)}
    assert list(lines) == ["greedy", "council", "greedy-blind", "council-blind"]
    council = lines["council"]
    assert (council.passed, council.rows, council.tokens, council.unspent) == (2, 2, 60, 40)
    assert council.against["greedy"].gains == 1
    blind = lines["council-blind"]
    assert (blind.over, blind.undecided, list(blind.against)) == (1, 1, ["greedy-blind"])
    assert lines["greedy"].against == {}


def test_stage_gains_count_each_rule_and_the_choice_last():
    picks = {"first_draft": Pick(digest="x", passed=False), "plurality": Pick()}
    rows = [row("a", "council", picks=picks), row("b", "council", picks={"first_draft": Pick(passed=True)})]
    found = [(g.rule, g.passed, g.rows) for g in stage_gains([*rows, row("a", "greedy")])]
    assert found == [("first_draft", 1, 2), ("plurality", 0, 2), ("chosen", 2, 2)]


def test_what_the_word_of_an_arm_is_worth_is_counted_by_how_it_ended():
    rows = [row("a", "council"), row("b", "council", passed=False), row("a", "greedy")]
    rows += [row(t, "council", decided_in=f"undecided: {why}") for t, why in (("c", "no_quorum"), ("d", "deadline"))]
    found = [(s.arm, s.ended, s.passed, s.rows) for s in end_shares(rows)]
    assert found == [("council", "P3", 1, 2), ("council", "undecided", 2, 2)]
