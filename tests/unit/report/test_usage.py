"""The usage ledger equals the events, whatever it is summed by (MB-30..MB-32, RP-26)."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.events.budget import BudgetScope, BudgetSet, UsageAdjusted
from fleet.events.step import Cost, PolicyRef, Provenance, Reserve, StepFinished, StepStarted
from fleet.kernel.ids import Principal, RunKey, StepId
from fleet.report.build import build_report
from fleet.report.reconcile import EngineUse, differences, settlements
from fleet.report.render.markdown import render_markdown
from fleet.report.usage import USAGE_KEYS, UsageKey, UsageRow, sum_usage, usage_rows
from tests.support.story_events import StoryLog, digest, story

Kind = Literal["model", "run"]


def add(log: StoryLog, number: int, *, kind: Kind = "model", role: str = "developer", **cost: Any) -> StoryLog:
    step = StepId(f"s-{number}")
    log.add(
        StepStarted(
            step_id=step,
            kind=kind,
            effect="PURE",
            as_role=role,
            principal=Principal("agent:developer-001"),
            request_digest=digest("r"),
            key=RunKey("ab" * 32),
            deadline_ms=10**15,
            policy=PolicyRef(rule_id="r", digest=digest("p")),
            reserve=Reserve(tokens=1000),
        )
    )
    engine = "e1" if kind == "model" else None
    return log.add(
        StepFinished(
            step_id=step,
            outcome="succeeded",
            result_digest=digest("x"),
            cost=Cost(**cost),
            provenance=Provenance(engine=engine, model=engine and "m1"),
        )
    )


def adjusted(number: int, **delta: int) -> UsageAdjusted:
    return UsageAdjusted(step_id=StepId(f"s-{number}"), delta=delta, source="engine:e1")


COSTS = st.builds(
    lambda i, o, g, c: {"tokens_in": i, "tokens_out": o, "gpu_ms": g, "cost_microusd": c, "priced": c is not None},
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(0, 99),
    st.none() | st.integers(0, 99),
)


@pytest.mark.rule("MB-30")
@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["model", "run"]), st.sampled_from(["qa", "po"]), COSTS), max_size=6),
    more=st.integers(0, 300),
)
def test_sums_by_every_key_that_all_rows_have_equal_the_events(steps: list[Any], more: int) -> None:
    log = story(until="created")
    for number, (kind, role, cost) in enumerate(steps):
        add(log, number, kind=kind, role=role, **cost)
    if steps:
        log.add(adjusted(0, tokens=more, gpu_ms=2))
    rows = usage_rows(log.decoded)
    costs = [p.cost for _, p in log.decoded if isinstance(p, StepFinished)]
    tokens = sum(c.tokens_in + c.tokens_out for c in costs) + (more if steps else 0)
    keys: tuple[UsageKey, ...] = ("story", "role", "kind", "day")
    for key in keys:
        sums = sum_usage(rows, by=key)
        assert sum(s.tokens_in + s.tokens_out for s in sums) == tokens
        assert sum(s.cost_microusd for s in sums) == sum(c.cost_microusd or 0 for c in costs)
        assert sum(s.gpu_ms for s in sums) == sum(c.gpu_ms for c in costs) + (2 if steps else 0)
        assert sum(s.steps for s in sums) == len(costs)


@pytest.mark.rule("MB-30", "MB-31")
def test_whole_story_has_a_row_for_each_result_and_unpriced_tokens_are_no_cost_of_0() -> None:
    log = add(story(), 1, tokens_in=10, tokens_out=5, cost_microusd=7, priced=True, calls=3)
    rows = usage_rows(log.decoded)
    done = {p.step_id for _, p in log.decoded if isinstance(p, StepFinished)}
    assert {row.step_id for row in rows} == done
    last = rows[-1]
    assert (last.engine, last.model, last.calls, last.cost_microusd) == ("e1", "m1", 3, 7)
    (model,) = [s for s in sum_usage([last], by="model")]
    assert (model.cost_microusd, model.tokens_unpriced) == (7, 0)
    unpriced = [row for row in rows if row.kind == "model" and not row.priced]
    assert unpriced
    assert all(row.cost_microusd is None for row in unpriced)
    assert {key for key in USAGE_KEYS if sum_usage(rows, by=key)} == set(USAGE_KEYS)


def test_second_result_and_results_of_unknown_steps_are_no_rows() -> None:
    log = add(story(until="created"), 1, tokens_in=10)
    before = usage_rows(log.decoded)
    finished = next(p for _, p in log.decoded if isinstance(p, StepFinished))
    log.add(finished, finished.model_copy(update={"step_id": StepId("s-none")}), adjusted(9, tokens=4))
    assert usage_rows(log.decoded) == before


@pytest.mark.rule("RP-26")
def test_report_shows_costs_of_corrections_too_and_what_each_budget_used() -> None:
    log = add(story(until="created"), 1, tokens_in=10, tokens_out=5)
    log.add(adjusted(1, tokens=20, output_tokens=5, cost_microusd=9))
    log.add(BudgetSet(scope=BudgetScope(kind="role", id="developer"), limits={"tokens": 99}, by=Principal("user:ana")))
    made = build_report(log.state, log.decoded)
    (role,) = [c for c in made.costs if c.group == "role"]
    assert (role.calls, role.tokens_in, role.tokens_out, role.tokens_unpriced, role.cost_microusd) == (1, 25, 10, 15, 9)
    shown = {(b.scope, b.quantity): (b.spent, b.reserved, b.limit) for b in made.budgets}
    assert shown["role", "tokens"] == (35, 0, 99)
    assert shown["story", "tokens"] == (35, 0, None)
    text = render_markdown(made)
    assert "| role | developer | tokens | 35 | 0 | 99 |" in text
    assert "as configured" in text


# Reconciliation.


def row(step: str, **changes: Any) -> UsageRow:
    values: dict[str, Any] = {"calls": 1, "tokens_in": 30, "tokens_out": 20, "gpu_ms": 4}
    return UsageRow(
        ts_ms=0,
        step_id=step,
        story="st-1",
        task=None,
        council=None,
        role="qa",
        engine="e1",
        model="m",
        kind="model",
        cost_microusd=None,
        priced=False,
        **{**values, **changes},
    )


@pytest.mark.rule("MB-23", "MB-32")
def test_calls_that_the_engine_ended_and_nobody_recorded_settle_their_step() -> None:
    use = EngineUse("e1", StepId("a"), calls=3, tokens_in=90, tokens_out=50, gpu_ms=10)
    (found,) = settlements([row("a")], [use])
    assert found.delta == {"calls": 2, "tokens": 90, "output_tokens": 30, "gpu_ms": 6}
    assert found.source == "engine:e1"
    (alone,) = settlements([], [use])
    assert alone.delta["tokens"] == 140


@pytest.mark.rule("MB-23")
def test_log_that_knows_no_more_calls_than_the_ledger_settles_nothing() -> None:
    assert settlements([row("a")], [EngineUse("e1", StepId("a"), calls=1, tokens_in=999, tokens_out=9)]) == ()
    assert settlements([row("a")], []) == ()


@pytest.mark.rule("MB-32")
@pytest.mark.parametrize(("ledger", "counted", "differs"), [(1000, 1000, 0), (990, 1000, 0), (989, 1000, 1), (0, 5, 1)])
def test_difference_of_more_than_one_percent_is_told_with_both_numbers(ledger: int, counted: int, differs: int) -> None:
    found = differences({"e1": ledger}, {"e1": counted})
    assert len(found) == differs
    assert all(f"{ledger} tokens" in d.warning and str(counted) in d.warning for d in found)
