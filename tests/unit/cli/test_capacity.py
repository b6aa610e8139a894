"""`fleet capacity`: the plan for people and for programs, and what is refused."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from fleet.capacity import MEASURED, Workload, plan_capacity
from fleet.cli.app import app


def asked(*arguments: str) -> Result:
    """What `fleet capacity` does."""
    return CliRunner().invoke(app, ["capacity", *arguments])


def test_plan_is_printed_with_the_place_of_every_figure() -> None:
    shown = asked("60")
    assert shown.exit_code == 0
    assert "60 stories an hour, councils of 3" in shown.output
    assert "make demo" in shown.output
    for name, _ in MEASURED.named():
        assert f"  {name} " in shown.output


def test_plan_as_json_holds_workload_plan_and_figures() -> None:
    shown = asked("60", "--engine-out", "2000", "--engine-in", "20000", "--slots", "32", "--gpus", "2", "--json")
    found = json.loads(shown.stdout.splitlines()[-1])
    plan = plan_capacity(
        Workload(
            stories_per_hour=60, engine_tokens_out_per_s=2000, engine_tokens_in_per_s=20000, engine_slots=32,
            gpus_per_engine=2,
        )
    )  # fmt: skip
    assert found["workload"]["stories_per_hour"] == 60
    assert found["plan"]["gpus"] == plan.gpus == 2
    assert found["plan"]["load"]["wait_s"] == plan.load.wait_s
    assert "engine_tokens_out_per_s" not in {figure["name"] for figure in found["figures"]}
    assert "tokens_in" in {figure["name"] for figure in found["figures"]}


def test_rate_that_one_log_cannot_hold_is_said() -> None:
    assert "a faster disk, or two fleets" in " ".join(asked("3000").output.split())
    assert "two fleets" not in asked("10").output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["0"], "stories_per_hour"),
        (["10", "--council", "0"], "council_size"),
        (["10", "--cached", "1"], "cached_share"),
    ],
)
def test_workload_that_is_none_is_refused_by_name(arguments: list[str], reason: str) -> None:
    shown = asked(*arguments, "--json")
    assert shown.exit_code == 2
    error = json.loads(shown.stdout.splitlines()[-1])["error"]
    assert error["code"] == "invalid_input"
    assert [problem["path"] for problem in error["details"]["problems"]] == [reason]


def test_word_that_is_no_number_is_a_usage_error() -> None:
    assert asked("many").exit_code == 2
