"""`fleet budget`: limits as people write them, and the lines that they read."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from fleet.cli.app import app
from fleet.cli.models.budget import given_limits, parse_limits, print_budgets, print_usage
from fleet.cli.output import Output
from fleet.desk.budgets import BudgetView
from fleet.kernel.errors import InvalidInput
from fleet.report.usage import UsageSum
from fleet.story.allowance import BudgetLine


def test_limits_are_read_from_one_line_or_from_options() -> None:
    assert parse_limits("tokens=200000, cost_usd=1.5,") == {"tokens": 200_000, "cost_microusd": 1_500_000}
    assert parse_limits("") == {}
    assert given_limits(cost_usd="0.000001", tokens=5, calls=None) == {"tokens": 5, "cost_microusd": 1}
    assert given_limits(cost_usd=None) == {}


@pytest.mark.parametrize("text", ["tokens", "tokens=many", "cost_usd=-1", "cost_usd=NaN", "cost_usd=x"])
def test_limit_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_limits(text)


@pytest.mark.parametrize(
    "args", [["budget", "st-x"], ["budget"], ["budget", "--by", "role"], ["budget", "show", "st-x"]]
)
def test_show_may_be_left_out(args: list[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_HOME", str(tmp_path))
    assert CliRunner().invoke(app, args).exit_code == 5  # no fleet is up


def test_help_lists_the_commands_and_a_budget_without_a_limit_is_refused() -> None:
    shown = CliRunner().invoke(app, ["budget", "--help"])
    assert shown.exit_code == 0
    assert "set" in shown.output
    assert CliRunner().invoke(app, ["budget", "set", "st-x"]).exit_code == 2


def test_lines_show_what_is_used_reserved_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = (
        BudgetLine("story", "st-x", "tokens", 1000, 850, 100),
        BudgetLine("task", "tk-x", "wall_ms", 1000, 2000, 0),
        BudgetLine("role", "qa", "cost_microusd", None, 1_500_000, 0),
        BudgetLine("council", "co-x", "calls", 10, 1, 0),
    )
    print_budgets(BudgetView("st-x", "2026-01-02", lines), Output(as_json=False))
    print_budgets(BudgetView(None, "2026-01-02", ()), Output(as_json=False))
    told = capsys.readouterr().out
    assert "850 + 100 reserved of 1,000, 50 left" in told
    assert "2.0 s of 1.0 s, 0.0 s left" in told
    assert "1.5000 USD" in told
    assert "nothing was used" in told


def test_usage_shows_unpriced_tokens_and_never_as_a_cost(capsys: pytest.CaptureFixture[str]) -> None:
    row = UsageSum(
        key="qa",
        steps=1,
        calls=2,
        tokens_in=1000,
        tokens_out=50,
        tokens_cached=7,
        tokens_unpriced=1050,
        gpu_ms=500,
        latency_ms=9,
        cost_microusd=0,
    )
    print_usage("role", [row], Output(as_json=False))
    print_usage("role", [], Output(as_json=False))
    told = capsys.readouterr().out
    assert "2 calls, 1,000 in, 50 out, 7 cached, 0.5 s GPU, 1,050 unpriced tokens" in told
    assert "USD" not in told
    assert "nothing was used by any role" in told


@pytest.mark.parametrize("key", ["[/]", "[/x]", "\x1b[2J", "\x1b]0;t\x07"])
def test_usage_of_a_strange_key_is_printed_as_it_is(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = UsageSum(
        key=key, steps=1, calls=1, tokens_in=1, tokens_out=1, tokens_cached=0, tokens_unpriced=0, gpu_ms=0,
        latency_ms=0, cost_microusd=0,
    )  # fmt: skip
    print_usage("model", (row,), Output(as_json=False))
    told = capsys.readouterr().out
    assert (key.encode("unicode_escape").decode() in told, "\x1b" in told) == (True, False)
