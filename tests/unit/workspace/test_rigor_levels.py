"""The levels' data: shipped values and what a config may not say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from fleet.kernel.errors import InvalidInput
from fleet.workspace.levels import LEVELS, RigorConfig, check_rigor

SHIPPED = yaml.safe_load((Path(__file__).parents[3] / "config" / "rigor.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(SHIPPED)
    *parents, last = path.split(".")
    node = data
    for key in parents:
        node = node[key]
    node[last] = value
    return data


@pytest.mark.rule("RG-1", "RG-2")
def test_shipped_config_has_four_levels_of_the_table() -> None:
    config = RigorConfig.model_validate(SHIPPED)
    assert [config.level(r).dor_min for r in LEVELS] == [50, 75, 85, 90]
    assert [config.level(r).weights.of("build") for r in LEVELS] == [40, 35, 30, 25]
    assert [str(config.level(r).unit.min_pass_rate) for r in LEVELS] == ["0.70", "0.95", "0.98", "1.00"]
    assert [config.level(r).static.max_critical for r in LEVELS] == [None, 5, 2, 0]
    assert [config.level(r).static.max_major for r in LEVELS] == [None, 20, 10, 5]
    assert [config.level(r).lint.max_errors for r in LEVELS] == [20, 5, 2, 0]


@pytest.mark.rule("RG-31", "RG-32")
def test_shipped_hard_gates_grow_from_level_to_level() -> None:
    hard = [set(RigorConfig.model_validate(SHIPPED).level(r).hard) for r in LEVELS]
    assert [len(h) for h in hard] == [2, 3, 5, 9]
    assert hard[0] < hard[1] < hard[2] < hard[3]


@pytest.mark.rule("RG-4")
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("L1.weights.lint", 6, "sum to 101"),
        ("L2.dor_min", 60, "L2.dor_min: 60 is below 75"),
        ("L2.unit.min_pass_rate", "0.94", "L2.unit.min_pass_rate"),
        ("L3.e2e.min_pass_rate", "0.5", "L3.e2e.min_pass_rate"),
        ("L1.coverage.min_new_pct", 10, "L1.coverage.min_new_pct"),
        ("L2.static.max_critical", 6, "L2.static.max_critical: 6 is above 5"),
        ("L2.static.max_major", None, "L2.static.max_major: unlimited"),
        ("L3.lint.max_errors", 3, "L3.lint.max_errors"),
        ("L2.static.gate", ["OK", "WARN"], "L2.static.gate: it allows"),
        ("L2.hard", ["build", "secrets"], "L2.hard: it lacks"),
        ("L0.hard", ["build"], "L0.hard: it must name 'secrets'"),
        ("L0.weights", {"build": 0, "unit": 70, "static": 10, "e2e": 10, "coverage": 5, "lint": 5}, "build"),
        ("verdict.warn", 95, "above verdict.pass"),
        ("L1.lint.max_errors", -1, "greater than or equal to 0"),
        ("L1.surprise", 1, "Extra inputs"),
    ],
)
def test_config_that_breaks_a_rule_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RigorConfig.model_validate(changed(path, value))


@pytest.mark.rule("RG-1")
@pytest.mark.parametrize("name", ["L4", "l1", "standard", "", "L1 "])
def test_check_rigor_with_another_name_is_invalid_input(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_rigor(name)
    assert caught.value.details["allowed"] == ["L0", "L1", "L2", "L3"]
