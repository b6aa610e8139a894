"""Each figure of the report, recomputed from the raw bodies of the events (RP-29)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.events.decision import DecisionLink, DecisionSuperseded
from fleet.kernel.digest import canonical_json
from fleet.kernel.ids import EntityId
from fleet.report.stats import statistics
from tests.support.event_samples import samples
from tests.support.story_events import DECISION, DOC_TASK, TASK, StoryLog, decision_payload, story

NAMES = set(
    [
        "total_tasks",
        "tasks_by_state",
        "tasks_by_role",
        "dependencies",
        "decisions",
        "decisions_by_status",
        "decision_edges",
        "impacted_tasks",
        "max_dependencies_on_one_decision",
        "max_impacts_from_one_decision",
        "plan_versions",
        "plan_status",
        "councils",
        "councils_undecided",
        "approvals_by_status",
        "delegated_approvals",
        "runs_by_outcome",
        "loopbacks",
        "reworks",
        "first_try_approval_rate",
        "questions_open",
        "sla_breaches",
        "events",
        "tokens_total",
        "tokens_unpriced",
        "gpu_ms",
        "cost_microusd",
        "active_wall_ms",
        "human_wait_ms",
        "estimate_error_median",
    ]
)


def bodies(log: StoryLog, *types: str) -> list[dict[str, Any]]:
    return [json.loads(e.body) | {"ts": e.ts_ms} for e in log.events if e.type in types]


@pytest.mark.rule("RP-29")
def test_statistics_have_exactly_the_names_of_the_rule() -> None:
    assert set(statistics(story().decoded)) == NAMES
    assert set(statistics([])) == NAMES


@pytest.mark.rule("RP-29")
def test_each_figure_equals_a_count_over_the_stored_bodies() -> None:
    log = story()
    stats = statistics(log.decoded)
    costs = [b["cost"] for b in bodies(log, "StepFinished")]
    kinds = {b["step_id"]: b["kind"] for b in bodies(log, "StepStarted")}
    runs = [b for b in bodies(log, "StepFinished") if kinds[b["step_id"]] != "model"]
    plan = bodies(log, "PlanProposed")[0]
    task_moves = bodies(log, "TaskTransitioned")
    took_ms = max(m["ts"] for m in task_moves if m["to"] == "done") - min(m["ts"] for m in task_moves)
    assert stats == {
        "events": len(log.events),
        "total_tasks": len(bodies(log, "TaskAdded")),
        "tasks_by_state": {"cancelled": 1, "done": 1},
        "tasks_by_role": {"developer": 1, "qa": 1},
        "dependencies": sum(len(t["depends_on"]) for t in plan["tasks"]),
        "decisions": len(bodies(log, "DecisionProposed")),
        "decisions_by_status": {"ACCEPTED": len(bodies(log, "DecisionAccepted"))},
        "decision_edges": 0,
        "impacted_tasks": len({t for b in bodies(log, "DecisionProposed") for t in b["affects"]}),
        "max_dependencies_on_one_decision": 0,
        "max_impacts_from_one_decision": 1,
        "plan_versions": 1,
        "plan_status": "ADOPTED",
        "councils": len(bodies(log, "CouncilOpened")),
        "councils_undecided": 0,
        "approvals_by_status": {"granted": len(bodies(log, "ApprovalGranted"))},
        "delegated_approvals": sum(b["delegated"] for b in bodies(log, "ApprovalGranted")),
        "runs_by_outcome": {"succeeded": len(runs)},
        "loopbacks": 0,
        "reworks": 0,
        "first_try_approval_rate": "1",
        "estimate_error_median": f"{1 - took_ms / 7_200_000:.4f}",
        "questions_open": 0,
        "sla_breaches": 0,
        "tokens_total": sum(c["tokens_in"] + c["tokens_out"] for c in costs),
        "tokens_unpriced": sum(c["tokens_in"] + c["tokens_out"] for c in costs if not c["priced"]),
        "gpu_ms": 0,
        "cost_microusd": 0,
        "active_wall_ms": log.events[-1].ts_ms - log.events[0].ts_ms,
        "human_wait_ms": 0,
    }


@pytest.mark.rule("RP-29")
def test_figures_follow_links_rework_questions_and_usage() -> None:
    log = story(until="merged")
    link = DecisionLink(rel="DEPENDS_ON", decision_id=DECISION)
    log.add(decision_payload(EntityId("de-two2"), links=(link,), affects=(TASK, DOC_TASK)))
    log.add(decision_payload(EntityId("de-three3"), links=(link,), affects=()))
    log.add(DecisionSuperseded(decision_id=DECISION, by_decision_id=EntityId("de-two2")))
    for name in ("QuestionRaised", "SlaBreached", "StepStarted", "StepFinished", "UsageAdjusted", "CouncilUndecided"):
        if name != "CouncilUndecided":
            log.add(samples()[name])
    log.move("TEST", "reject_test", "BUILD", loopback=True)
    log.task(TASK, "po_approved", "MERGE_FAILED", "implementing")
    log.task(TASK, "po_approved", "AUTO_COMPLETE", "done")
    stats = statistics(log.decoded)
    assert stats["decision_edges"] == 2
    assert stats["max_dependencies_on_one_decision"] == 2
    assert stats["max_impacts_from_one_decision"] == 2
    assert stats["impacted_tasks"] == 2
    assert stats["decisions_by_status"] == {"PROPOSED": 2, "SUPERSEDED": 1}
    assert (stats["reworks"], stats["loopbacks"], stats["first_try_approval_rate"]) == (1, 1, "0")
    assert (stats["questions_open"], stats["sla_breaches"]) == (1, 1)
    assert stats["runs_by_outcome"] == {"failed": 1, "succeeded": 3}
    assert (stats["gpu_ms"], stats["cost_microusd"]) == (1500, 12)
    before = statistics(story(until="merged").decoded)["tokens_total"]
    assert isinstance(before, int)
    assert stats["tokens_total"] == before + 1500 - 120


@pytest.mark.rule("GL-12")
def test_statistics_hold_no_floats_and_fit_an_event() -> None:
    assert len(canonical_json(statistics(story().decoded))) < 64 * 1024
