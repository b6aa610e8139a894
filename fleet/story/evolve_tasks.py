"""Fold of the plan and task events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events import (
    Payload,
    PlanAdopted,
    PlanProposed,
    PlanRejected,
    StoredEvent,
    TaskAdded,
    TaskClaimed,
    TaskClaimReleased,
    TaskTransitioned,
)
from fleet.ids import Digest
from fleet.story.state import Claim, Plan, StoryState, TaskState, attempts_of

__all__ = ["HANDLERS"]


def _proposed(s: StoryState, p: PlanProposed, _: StoredEvent) -> StoryState:
    return s.with_(plans={**s.plans, p.plan_id: Plan(proposal=p)})


def _adopted(s: StoryState, p: PlanAdopted, _: StoredEvent) -> StoryState:
    plans = {k: replace(v, status="SUPERSEDED") if v.status == "ADOPTED" else v for k, v in s.plans.items()}
    plans[p.plan_id] = replace(plans[p.plan_id], status="ADOPTED")
    return s.with_(plans=plans, plan_id=p.plan_id)


def _rejected(s: StoryState, p: PlanRejected, _: StoredEvent) -> StoryState:
    return s.with_(plans={**s.plans, p.plan_id: replace(s.plans[p.plan_id], status="REJECTED")})


def _added(s: StoryState, p: TaskAdded, _: StoredEvent) -> StoryState:
    known = s.tasks.get(p.task.task_id)
    return s.with_(tasks={**s.tasks, p.task.task_id: replace(known, task=p.task) if known else TaskState(task=p.task)})


def _transitioned(s: StoryState, p: TaskTransitioned, _: StoredEvent) -> StoryState:
    task = replace(s.tasks[p.task_id], state=p.to)
    match p.action:
        case "ASSIGN_TO_DEVELOPER" | "REVISE_CODE" | "REQUEST_REWORK" | "MERGE_FAILED":
            task = replace(task, attempt=task.attempt + 1, candidate_tree=None, author=None, reviewers=())
        case "RESTORE":
            task = _restored(s, task)
        case "COMMIT_CODE":
            task = replace(task, candidate_tree=_tree_in(p.evidence), author=p.principal)
        case "APPROVE_DESIGN" | "APPROVE_TESTS":
            task = replace(task, reviewers=(*task.reviewers, p.principal))
        case "REJECT_DESIGN" | "REJECT_TESTS":
            count = {**task.rejections, p.action: task.rejections.get(p.action, 0) + 1}
            task = replace(task, rejections=count)
        case _:
            pass
    if p.feedback:
        task = replace(task, feedback=(*task.feedback, p.feedback))
    return s.with_(tasks={**s.tasks, p.task_id: task})


def _restored(s: StoryState, task: TaskState) -> TaskState:
    """The task begins anew, or its work is in the tree again. An attempt that no council was opened for counts not."""
    councils = attempts_of(s.councils_on(task.task.task_id))
    again = replace(task, attempt=min(task.attempt, councils), reviewers=(), rejections={}, claim=None)
    return again if again.state == "done" else replace(again, candidate_tree=None, author=None)


def _claimed(s: StoryState, p: TaskClaimed, _: StoredEvent) -> StoryState:
    return _with_claim(s, p.task_id, Claim(principal=p.principal, expires_at_ms=p.expires_at))


def _released(s: StoryState, p: TaskClaimReleased, _: StoredEvent) -> StoryState:
    task = s.tasks.get(p.task_id)
    is_held = task is not None and task.claim is not None and task.claim.principal == p.principal
    return _with_claim(s, p.task_id, None) if is_held else s


def _with_claim(s: StoryState, task_id: str, claim: Claim | None) -> StoryState:
    task = s.tasks.get(task_id)
    return s if task is None else s.with_(tasks={**s.tasks, task_id: replace(task, claim=claim)})


def _tree_in(evidence: tuple[str, ...]) -> Digest | None:
    # COMMIT_CODE names the tree of the chosen work as its evidence (LC-118 work_recorded).
    return next((Digest(e) for e in evidence if e.startswith("sha256:")), None)


HANDLERS: Mapping[type[Payload], Callable[[StoryState, Any, StoredEvent], StoryState]] = {
    PlanProposed: _proposed,
    PlanAdopted: _adopted,
    PlanRejected: _rejected,
    TaskAdded: _added,
    TaskTransitioned: _transitioned,
    TaskClaimed: _claimed,
    TaskClaimReleased: _released,
}
