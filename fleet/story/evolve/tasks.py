"""Fold of the plan and task events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.plan import PlanAdopted, PlanProposed, PlanRejected, TaskDerivationFailed, TaskDerivationRequested
from fleet.events.plan import Task as PlanTask
from fleet.events.task import SlaBreached, TaskAdded, TaskClaimed, TaskClaimReleased, TaskTransitioned, TaskUpdated
from fleet.kernel.ids import Digest, Principal
from fleet.story.state import Claim, Plan, StoryState, TaskState, attempts_of

_OWNER = Principal("system:council")


def _proposed(s: StoryState, p: PlanProposed, _: StoredEvent) -> StoryState:
    return s.with_(plans={**s.plans, p.plan_id: Plan(proposal=p)}, derivation=_left(s, p.plan_id))


def _left(s: StoryState, answered: str) -> str | None:
    return None if s.derivation == answered else s.derivation


def _derivation_requested(s: StoryState, p: TaskDerivationRequested, event: StoredEvent) -> StoryState:
    # What the owner asks of itself follows from the state and needs no memory.
    return s if event.actor == _OWNER else s.with_(derivation=p.plan_id)


def _derivation_failed(s: StoryState, p: TaskDerivationFailed, _: StoredEvent) -> StoryState:
    return s.with_(derivation=_left(s, p.plan_id))


def _adopted(s: StoryState, p: PlanAdopted, _: StoredEvent) -> StoryState:
    plans = {k: replace(v, status="SUPERSEDED") if v.status == "ADOPTED" else v for k, v in s.plans.items()}
    plans[p.plan_id] = replace(plans[p.plan_id], status="ADOPTED")
    return s.with_(plans=plans, plan_id=p.plan_id)


def _rejected(s: StoryState, p: PlanRejected, _: StoredEvent) -> StoryState:
    return s.with_(plans={**s.plans, p.plan_id: replace(s.plans[p.plan_id], status="REJECTED")})


def _added(s: StoryState, p: TaskAdded, event: StoredEvent) -> StoryState:
    known = s.tasks.get(p.task.task_id) or TaskState(task=p.task, entered_ms={"todo": event.ts_ms})
    return s.with_(tasks={**s.tasks, p.task.task_id: replace(known, task=p.task)})


def _updated(s: StoryState, p: TaskUpdated, _: StoredEvent) -> StoryState:
    known = s.tasks.get(p.task_id)
    if known is None:
        return s
    # An id is what a task is known by, so no change of a field can make it another one.
    changes = {k: v for k, v in p.changes.items() if k in PlanTask.model_fields and k not in ("task_id", "story_id")}
    task = PlanTask.model_validate({**known.task.model_dump(), **changes})
    return s.with_(tasks={**s.tasks, p.task_id: replace(known, task=task)})


def _transitioned(s: StoryState, p: TaskTransitioned, event: StoredEvent) -> StoryState:
    task = _moved(s.tasks[p.task_id], p.to, event.ts_ms)
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


def _moved(task: TaskState, to: str, now_ms: int) -> TaskState:
    """The task in its next state, with the time that it was in the one before."""
    stayed = task.stayed_ms.get(task.state, 0) + max(0, now_ms - task.entered_ms.get(task.state, now_ms))
    return replace(
        task,
        state=to,
        entered_ms={**task.entered_ms, to: now_ms},
        stayed_ms={**task.stayed_ms, task.state: stayed},
    )


def _breached(s: StoryState, p: SlaBreached, _: StoredEvent) -> StoryState:
    task = s.tasks.get(p.subject.id)
    return s if task is None else s.with_(tasks={**s.tasks, p.subject.id: replace(task, breaches=task.breaches + 1)})


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
    TaskDerivationRequested: _derivation_requested,
    TaskDerivationFailed: _derivation_failed,
    TaskAdded: _added,
    TaskUpdated: _updated,
    TaskTransitioned: _transitioned,
    SlaBreached: _breached,
    TaskClaimed: _claimed,
    TaskClaimReleased: _released,
}
