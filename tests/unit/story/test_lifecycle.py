"""The shipped lifecycles are those of the specification, and a broken table stops the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from fleet.story.guards import GUARDS
from fleet.story.lifecycle import GUARD_NAMES, FsmConfig, Lifecycle, TaskWorkflow
from tests.support.rules import fsm

AGILE = [
    ("LC-20", "BACKLOG", "create_story", "DRAFT", "", "po system"),
    ("LC-21", "DRAFT", "approve_scope", "DESIGN", "dor_ok po_approved", "po"),
    ("LC-22", "DESIGN", "approve_design", "BUILD", "po_approved design_complete", "po"),
    ("LC-23", "BUILD", "build_done", "TEST", "all_tasks_done builds_passing", "system"),
    ("LC-24", "TEST", "qa_passed", "DOCS", "qa_signoff tests_passing", "qa"),
    ("LC-25", "DOCS", "docs_ready", "DONE", "po_approved docs_complete", "po"),
    ("LC-26", "DESIGN", "reject_design", "DRAFT", "feedback_given", "po architect"),
    ("LC-27", "BUILD", "reject_build", "DESIGN", "feedback_given", "po architect"),
    ("LC-28", "TEST", "reject_test", "BUILD", "feedback_given", "po qa system"),
    ("LC-29", "DOCS", "reject_docs", "BUILD", "feedback_given", "po qa"),
]
SDLC = [
    ("LC-30", "NEW", "start_planning", "PLANNING", "dor_ok", "system po"),
    ("LC-31", "PLANNING", "approve_plan", "DESIGN", "plan_valid po_approved", "po"),
    ("LC-32", "DESIGN", "approve_design", "BUILD", "design_complete design_signoff", "architect"),
    ("LC-33", "BUILD", "build_done", "TEST", "all_tasks_done builds_passing", "system"),
    ("LC-34", "TEST", "tests_done", "REVIEW", "tests_passing", "system"),
    ("LC-35", "REVIEW", "review_approved", "DEPLOY", "review_signoff no_open_change_requests", "architect qa"),
    ("LC-36", "DEPLOY", "deploy_done", "MONITOR", "deploy_approved deploy_recorded", "system"),
    ("LC-37", "MONITOR", "monitor_ok", "DONE", "health_ok docs_complete", "system"),
    ("LC-38", "PLANNING", "reject_plan", "NEW", "feedback_given", "po architect"),
    ("LC-39", "DESIGN", "reject_design", "PLANNING", "feedback_given", "po architect"),
    ("LC-40", "BUILD", "reject_build", "DESIGN", "feedback_given", "po architect"),
    ("LC-41", "TEST", "tests_failed", "BUILD", "feedback_given", "system qa"),
    ("LC-42", "REVIEW", "request_changes", "BUILD", "feedback_given", "architect qa"),
    ("LC-43", "DEPLOY", "deploy_failed", "BUILD", "feedback_given", "system devops"),
    ("LC-44", "DEPLOY", "rollback", "REVIEW", "feedback_given", "devops po"),
]
ROWS = [
    pytest.param(name, *row[1:], marks=pytest.mark.rule(row[0]), id=row[0])
    for name, table in (("agile", AGILE), ("sdlc", SDLC))
    for row in table
]
WORKFLOW = [
    ("LC-101", "implementing", "COMMIT_CODE", "dev_completed", "assignee"),
    ("LC-102", "dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review", "system"),
    ("LC-103", "pending_arch_review", "CLAIM_REVIEW", "arch_reviewing", "architect"),
    ("LC-106", "arch_rejected", "REVISE_CODE", "implementing", "assignee"),
    ("LC-106", "qa_failed", "REVISE_CODE", "implementing", "assignee"),
    ("LC-107", "arch_approved", "AUTO_ROUTE_TO_QA", "pending_qa", "system"),
    ("LC-108", "pending_qa", "CLAIM_TESTING", "qa_testing", "qa"),
    ("LC-111", "qa_passed", "AUTO_ROUTE_TO_PO", "pending_po_approval", "system"),
    ("LC-113", "pending_po_approval", "REJECT_STORY", "cancelled", "po"),
    ("LC-114", "pending_po_approval", "REQUEST_REWORK", "implementing", "po"),
    ("LC-115", "po_approved", "AUTO_COMPLETE", "done", "system"),
    ("LC-116", "po_approved", "MERGE_FAILED", "implementing", "system"),
    ("LC-117", "todo", "DISCARD_TASK", "cancelled", "po"),
]


@pytest.mark.parametrize(("lifecycle", "from_", "event", "to", "guards", "by"), ROWS)
def test_shipped_table_has_the_row_of_the_rule(lifecycle: str, from_: str, event: str, to: str, guards: str, by: str):
    row = next(r for r in fsm().lifecycles[lifecycle].legal(from_) if r.event == event)
    assert (row.to, " ".join(row.guards), " ".join(row.by)) == (to, guards, by)


def test_shipped_agile_table_has_no_row_beside_those_of_the_rules():
    assert len(fsm().lifecycles["agile"].transitions) == len(AGILE)


@pytest.mark.rule("LC-46")
def test_table_without_deployment_ends_at_review_with_documentation_complete():
    table = fsm().lifecycles["sdlc-no-deploy"]
    assert not {"DEPLOY", "MONITOR"} & set(table.states)
    row = next(r for r in table.legal("REVIEW") if r.event == "review_approved")
    assert (row.to, row.guards) == ("DONE", ("review_signoff", "no_open_change_requests", "docs_complete"))
    assert row.skips == ("DEPLOY", "MONITOR")


@pytest.mark.parametrize(
    ("from_", "action", "to", "by"),
    [pytest.param(*row[1:], marks=pytest.mark.rule(row[0]), id=f"{row[0]}-{row[1]}") for row in WORKFLOW],
)
def test_shipped_workflow_has_the_row_of_the_rule(from_: str, action: str, to: str, by: str):
    row = fsm().task_workflow.find(from_, action)
    assert row is not None
    assert (row.to, row.by) == (to, by)


def test_workflow_has_no_row_out_of_a_terminal_state():
    assert all(fsm().task_workflow.find("done", r.action) is None for r in fsm().task_workflow.transitions)


def test_every_guard_name_of_the_tables_has_a_function():
    assert set(GUARDS) == GUARD_NAMES


@pytest.mark.parametrize(
    ("name", "role", "subject", "limit"),
    [
        ("approve_scope", "po", "content", "L2"),
        ("approve_plan", "po", "plan", "L2"),
        ("approve_design", "po", "plan", "L2"),
        ("qa_passed", "qa", "tree", "L2"),
        ("docs_ready", "po", "docs", "L2"),
        ("task_acceptance", "po", "task_tree", "L2"),
        ("accept_warning", "qa", "report", "L1"),
        ("approve_deploy", "po", "deployment", None),
        ("waive_dimension", "qa", "report", None),
    ],
)
@pytest.mark.rule("LC-71")
def test_shipped_gate_has_role_subject_and_delegation_limit_of_the_rule(
    name: str, role: str, subject: str, limit: str | None
):
    gate = fsm().gate("agile", name)
    assert (gate.role, gate.actor, gate.subject, gate.delegable_up_to) == (role, "human", subject, limit)


@pytest.mark.rule("LC-71")
def test_lifecycle_may_have_a_gate_of_its_own():
    gate = fsm().gate("sdlc", "approve_design")
    assert (gate.role, gate.actor, gate.request_ttl_s, gate.delegable_up_to) == ("architect", "any", 14400, "L3")


def table(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "initial": "A",
        "states": {"A": {"phase": "DESIGN"}, "B": {"terminal": True}},
        "transitions": [{"from": "A", "event": "go", "to": "B", "by": ["po"], "kind": "auto"}],
    }
    return fields | changes


def row(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"from": "A", "event": "go", "to": "B", "by": ["po"], "kind": "auto"}
    return fields | changes


@pytest.mark.rule("LC-66")
def test_guard_of_imported_files_is_known_by_its_other_name_too():
    moved = Lifecycle.model_validate(table(transitions=[row(guards=["all_subtasks_done", "builds_passing"])]))
    assert moved.transitions[0].guards == ("all_tasks_done", "builds_passing")
    assert set(moved.transitions[0].guards) <= set(GUARDS)


@pytest.mark.rule("LC-1")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial": "X"}, "initial state 'X' is not a state"),
        ({"states": {"A": {}, "B": {"terminal": True}}}, "state 'A' has no phase"),
        ({"transitions": [row(to="X")]}, "no state 'X'"),
        ({"transitions": [row(guards=["moon_is_full"])]}, "no guard 'moon_is_full'"),
        ({"transitions": [row(), row()]}, "'go' stands twice"),
        (
            {"states": {"A": {"phase": "DESIGN"}, "B": {"terminal": True}, "C": {"phase": "TEST"}}},
            "state 'C' is never reached",
        ),
        (
            {
                "states": {"A": {"phase": "DESIGN"}, "B": {"terminal": True}, "C": {"phase": "TEST"}},
                "transitions": [row(), row(event="stray", to="C")],
            },
            "no terminal state can be reached from 'C'",
        ),
    ],
)
def test_broken_lifecycle_is_refused_with_the_finding(changes: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Lifecycle.model_validate(table(**changes))


@pytest.mark.rule("LC-1")
def test_transition_with_a_gate_that_nobody_defined_is_refused():
    data = fsm().model_dump(by_alias=True)
    data["lifecycles"]["agile"]["transitions"][1]["gate"] = "nobody_knows"
    with pytest.raises(ValidationError, match="no gate 'nobody_knows'"):
        FsmConfig.model_validate(data)


def test_workflow_with_an_action_twice_for_one_state_is_refused():
    data = fsm().task_workflow.model_dump(by_alias=True)
    data["transitions"] = [*data["transitions"], data["transitions"][0]]
    with pytest.raises(ValidationError, match="stands twice"):
        TaskWorkflow.model_validate(data)


@pytest.mark.rule("LC-119")
def test_task_kind_without_a_review_is_refused():
    data = fsm().task_workflow.model_dump(by_alias=True)
    data["reviews_by_kind"]["code"] = []
    with pytest.raises(ValidationError, match="no review by anybody but the author"):
        TaskWorkflow.model_validate(data)


def test_phase_of_a_state_is_that_of_the_table_and_docs_at_the_end():
    agile = fsm().lifecycles["agile"]
    assert [agile.phase(s) for s in ("DRAFT", "BUILD", "DONE")] == ["DESIGN", "BUILD", "DOCS"]


@pytest.mark.rule("LC-1", "LC-12")
def test_example_of_the_page_about_lifecycles_is_one_that_can_work() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "lifecycles.md").read_text()
    example = yaml.safe_load(page.split("```text\n")[1].split("```")[0])
    shipped = fsm().model_dump(by_alias=True)
    loaded = FsmConfig.model_validate({**shipped, "lifecycles": {**shipped["lifecycles"], **example["lifecycles"]}})
    short = loaded.lifecycles["short"]
    assert short.creation is not None
    assert [short.phase(name) for name in ("OPEN", short.creation.to, "BUILD", "TEST")] == [
        "DESIGN",
        "DESIGN",
        "BUILD",
        "TEST",
    ]
    assert (short.deploys, loaded.gate("short", "qa_passed").role) == (False, "qa")
    assert sorted(GUARD_NAMES) == sorted(name for name in GUARD_NAMES if f"`{name}`" in page)
