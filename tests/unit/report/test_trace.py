"""Traceability: all links of a whole story, and the one orphan that a missing link leaves (RP-20..RP-39)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet.events.decision import DecisionSuperseded
from fleet.events.step import Cost, Provenance, StepFinished
from fleet.events.story import AcceptanceCriterion
from fleet.events.task import TaskAdded
from fleet.kernel.ids import EntityId, StepId
from fleet.report.build import build_report
from fleet.report.model import ReportOptions
from fleet.report.trace import MAX_ORPHANS, trace, traceability
from tests.support.event_samples import samples
from tests.support.story_events import (
    AC_1,
    DECISION,
    DEVELOPER,
    TASK,
    TASK_COUNCIL,
    StoryLog,
    created_payload,
    decision_payload,
    digest,
    story,
)


def orphans(log: StoryLog) -> list[tuple[str, str, str | None]]:
    return [(o.id, o.missing, o.rule) for c in trace(log.state, log.decoded) for o in c.orphans]


def without(type: str, keep: Callable[[Any], bool] = lambda _: False) -> StoryLog:
    """The whole story with the events of one type left out, but for those to keep."""
    log = StoryLog()
    for event, payload in story().decoded:
        if event.type != type or keep(payload):
            log.add(payload, actor=event.actor)
    return log


@pytest.mark.rule("RP-20", "RP-21")
def test_whole_story_is_fully_linked_in_every_class() -> None:
    classes = trace(story().state, story().decoded)
    assert [(c.rule, c.linked == c.total) for c in classes] == [(f"RP-{n}", True) for n in range(30, 39)]
    assert {c.rule: c.total for c in classes}["RP-36"] == 3
    assert traceability(classes).linked == traceability(classes).total > 20


@pytest.mark.rule("RP-39")
@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (without("DocsProduced", lambda p: False), (AC_1, "evidence", "RP-30")),
        (without("DraftReceived", lambda p: p.council_id != TASK_COUNCIL), (TASK_COUNCIL, "candidates", "RP-33")),
        (without("EvidenceRecorded", lambda p: p.council_id != TASK_COUNCIL), (TASK_COUNCIL, "evidence", "RP-33")),
        (
            without("BallotCast", lambda p: p.council_id != TASK_COUNCIL),
            (TASK_COUNCIL, "ballots or early exit", "RP-33"),
        ),
        (without("StepFinished", lambda p: p.step_id != "merge/task-1"), ("merge/task-1", "result", "RP-34")),
        (without("DecisionAccepted"), None),
    ],
    ids=["docs", "drafts", "evidence", "ballots", "result", "open decision"],
)
def test_missing_link_is_listed_and_makes_the_report_incomplete(
    log: StoryLog, expected: tuple[str, str, str] | None
) -> None:
    report = build_report(log.state, log.decoded, ReportOptions())
    assert report.header.status == ("incomplete" if expected else "complete")
    if expected:
        assert expected in orphans(log)


@pytest.mark.rule("RP-39")
def test_exactly_one_orphan_for_exactly_one_missing_link() -> None:
    log = without("BallotCast", lambda p: p.council_id != TASK_COUNCIL)
    assert orphans(log) == [(TASK_COUNCIL, "ballots or early exit", "RP-33")]


@pytest.mark.rule("RP-30")
def test_criterion_without_a_task_is_an_orphan_from_the_beginning() -> None:
    assert (AC_1, "task", "RP-30") in orphans(story(until="created"))
    assert orphans(story(until="planned")) == []


@pytest.mark.rule("RP-31")
def test_done_task_needs_plan_criterion_author_run_and_a_second_pair_of_eyes() -> None:
    log = StoryLog().add(created_payload(acceptance_criteria=()))
    added = samples()["TaskAdded"]
    assert isinstance(added, TaskAdded)
    task = added.task.model_copy(update={"acceptance_refs": ()})
    log.add(added.model_copy(update={"task": task}))
    assert {m for _, m, _ in orphans(log)} == {"plan version", "criterion or decision"}
    log.task(task.task_id, "po_approved", "AUTO_COMPLETE", "done")
    assert {m for _, m, _ in orphans(log)} == {
        "plan version",
        "criterion or decision",
        "author of the work",
        "run or artifact",
        "review by another",
    }


@pytest.mark.rule("RP-32")
def test_decision_needs_known_tasks_and_a_known_successor() -> None:
    log = story(until="planned").add(decision_payload(EntityId("de-lost2"), affects=(EntityId("tk-gone9"),)))
    assert orphans(log) == [("de-lost2", "affected task", "RP-32")]
    log = story(until="planned").add(DecisionSuperseded(decision_id=DECISION, by_decision_id=EntityId("de-none9")))
    assert orphans(log) == [(DECISION, "successor", "RP-32")]


@pytest.mark.rule("RP-34")
def test_run_that_names_what_does_not_exist_is_an_orphan() -> None:
    log = story(until="base").add(samples()["StepStarted"], samples()["StepFinished"])
    assert {m for _, m, r in orphans(log) if r == "RP-34"} == {"task", "council", "approval"}


@pytest.mark.rule("RP-35")
def test_approval_needs_a_decider_the_same_subject_and_its_delegation() -> None:
    log = story(until="planned").add(samples()["ApprovalRequested"])
    assert orphans(log) == []
    granted = samples()["ApprovalGranted"]
    log.add(granted.model_copy(update={"delegation_id": None, "subject_digest": digest("other")}))
    assert {m for _, m, _ in orphans(log)} == {"delegation", "same subject"}


@pytest.mark.rule("RP-36")
def test_changed_file_needs_its_task_and_run() -> None:
    log = story(until="planned")
    merge = samples()["TreeMerged"].model_copy(update={"task_id": None, "restored_from": None})
    assert {m for _, m, r in orphans(log.add(merge)) if r == "RP-36"} == {"task", "run"}
    named = story(until="planned").add(
        samples()["TreeMerged"].model_copy(update={"task_id": TASK, "restored_from": None})
    )
    assert [(m, r) for _, m, r in orphans(named)] == [("run", "RP-36")]


@pytest.mark.rule("RP-37")
def test_model_call_needs_prompt_engine_model_and_tokens_unless_it_failed_with_a_code() -> None:
    log = story(until="planned").step("plan/again", tokens=(0, 0))
    assert orphans(log) == [("plan/again", "tokens", "RP-37")]
    failed = StepFinished(
        step_id=StepId("plan/fails"),
        outcome="failed",
        result_digest=digest("error"),
        cost=Cost(),
        provenance=Provenance(),
        error_code="reply_malformed",
    )
    started = samples()["StepStarted"].model_copy(
        update={"step_id": StepId("plan/fails"), "kind": "model", "task_id": None, "council_id": None}
    )
    log = story(until="planned").add(started, actor=DEVELOPER)
    assert {m for _, m, _ in orphans(log)} == {"result", "prompt", "engine", "model", "tokens"}
    assert orphans(log.add(failed, actor=DEVELOPER)) == []


@pytest.mark.rule("RP-38")
def test_deployment_needs_run_approval_and_a_known_outcome() -> None:
    log = story(until="planned").add(samples()["DeploymentRecorded"].model_copy(update={"status": "unknown"}))
    assert {m for _, m, _ in orphans(log)} == {"run", "approval", "known outcome"}


def test_event_form_lists_a_bounded_number_of_orphans() -> None:
    criteria = tuple(AcceptanceCriterion(ac_id=EntityId(f"ac-x{n}"), text="x") for n in range(50))
    log = StoryLog().add(created_payload(acceptance_criteria=criteria))
    classes = trace(log.state, log.decoded)
    assert len(traceability([*classes] * 5).orphans) == MAX_ORPHANS
    assert traceability([*classes] * 5).total == 250
