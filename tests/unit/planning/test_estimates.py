"""Delphi estimates and the planning data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.planning.estimates import AnotherRound, Estimated, NoEstimate, close_estimate_round, median_on_scale
from fleet.planning.planning_config import PlanningConfig

SHIPPED = yaml.safe_load((Path(__file__).parents[3] / "config" / "planning.yaml").read_text("utf-8"))
PLANNING = PlanningConfig.model_validate(SHIPPED)
CONFIG = PLANNING.estimates


@pytest.mark.rule("PL-81")
@pytest.mark.parametrize(
    ("answers", "round_number", "outcome"),
    [
        ([3, 3, 5], 1, Estimated(3, 2, 1, True, (3, 3, 5))),
        ([8, 3, 5], 1, AnotherRound(5)),
        ([3, 5], 1, Estimated(5, 2, 1, True, (3, 5))),
        ([3, 5, 5, 8], 2, Estimated(5, 2, 2, True, (3, 5, 5, 8))),
        ([1, 5, 5, 5, 21], 1, Estimated(5, 0, 1, True, (1, 5, 5, 5, 21))),
        ([13, 21, 13], 1, Estimated(13, 8, 1, True, (13, 13, 21))),
        ([2], 1, Estimated(2, 0, 1, True, (2,))),
    ],
)
def test_round_ends_when_the_middle_half_is_within_one_step(
    answers: list[int], round_number: int, outcome: object
) -> None:
    assert close_estimate_round(answers, round_number=round_number, config=CONFIG) == outcome


@pytest.mark.rule("PL-80", "PL-82")
def test_last_round_without_convergence_stores_the_median_and_says_so() -> None:
    assert close_estimate_round([1, 5, 21], round_number=2, config=CONFIG) == AnotherRound(5)
    last = close_estimate_round([1, 5, 21], round_number=3, config=CONFIG)
    assert last == Estimated(5, 20, 3, False, (1, 5, 21))


@pytest.mark.rule("PL-83")
def test_values_off_the_scale_and_missing_ones_count_as_absent() -> None:
    assert close_estimate_round([4, None, 5], round_number=1, config=CONFIG) == NoEstimate(values=1, needed=2)
    assert close_estimate_round([5, None, 5], round_number=1, config=CONFIG) == Estimated(5, 0, 1, True, (5, 5))
    assert close_estimate_round([5, 5, 0, -1], round_number=3, config=CONFIG) == NoEstimate(values=2, needed=3)
    assert close_estimate_round([], round_number=1, config=CONFIG) == NoEstimate(values=0, needed=1)


@pytest.mark.rule("PL-81")
@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(CONFIG.scale), min_size=1, max_size=9))
def test_median_is_on_the_scale_and_between_the_halves(values: list[int]) -> None:
    median = median_on_scale(values)
    assert median in values
    assert sum(v < median for v in values) <= len(values) / 2
    assert sum(v > median for v in values) < len(values) / 2


@pytest.mark.rule("PL-20", "PL-23", "PL-71", "PL-80")
def test_shipped_planning_config_has_the_values_of_the_rules() -> None:
    derivation = PLANNING.derivation
    assert (derivation.attempts, derivation.temperature, derivation.max_output_tokens) == (3, "0.3", None)
    assert (str(derivation.tasks), str(derivation.keywords), str(derivation.estimated_hours)) == (
        "1..8",
        "2..5",
        "1..40",
    )
    assert PLANNING.artifacts == "on"
    assert (CONFIG.scale, CONFIG.max_rounds) == ((1, 2, 3, 5, 8, 13, 21), 3)
    timeouts = PLANNING.ceremonies["backlog_review"].timeouts
    assert timeouts.step_max_s == 3600


@pytest.mark.rule("PL-53")
@pytest.mark.parametrize(
    ("words", "found"),
    [("off", "off"), ("on", "on"), ('"off"', "off"), ("'on'", "on"), ("Off", "off"), ("false", "off")],
)
def test_word_that_yaml_takes_for_a_truth_value_is_the_word_that_was_meant(words: str, found: str) -> None:
    data = SHIPPED | yaml.safe_load(f"artifacts: {words}")
    assert PlanningConfig.model_validate(data).artifacts == found


@pytest.mark.rule("PL-71", "GL-22")
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("derivation.tasks", {"min": 9, "max": 8}, "min 9 is above max 8"),
        ("derivation.temperature", "2.1", "above 2"),
        ("derivation.temperature", 0.3, "valid string"),
        ("derivation.attempts", 0, "greater than or equal to 1"),
        ("estimates.scale", [1, 3, 2], "does not rise"),
        ("artifacts", "maybe", "'on' or 'off'"),
        ("ceremonies.backlog_review.initial", "OPEN", "states lacks"),
        ("ceremonies.backlog_review.timeouts.step_max_s", 10, "steps.0.timeout_s: it is above"),
        ("surprise", 1, "Extra inputs"),
    ],
)
def test_config_that_breaks_a_rule_is_refused(path: str, value: Any, message: str) -> None:
    data = copy.deepcopy(SHIPPED)
    *parents, last = path.split(".")
    node = data
    for key in parents:
        node = node[key]
    node[last] = value
    with pytest.raises(ValidationError, match=message):
        PlanningConfig.model_validate(data)
