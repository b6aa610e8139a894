"""Whether what was decided about a story still follows from it: people and its owner's work decide side by side."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.events import ApprovalRequested, Payload, PlanAdopted, TaskTransitioned
from fleet.story.state import StoryState

__all__ = ["staleness"]


def staleness(state: StoryState, payloads: Sequence[Payload]) -> str | None:
    """Why these events no longer follow from the state; None when they do.

    A review or a derivation takes a while. What a person did to the same task or plan meanwhile stands, and the work is
    planned anew from there (LC-8): no task makes a step from a state that it has left, no plan takes the place of one
    that it does not know of, and nobody is asked to accept work that is not up for it.
    """
    moved: dict[str, str] = {}
    for payload in payloads:
        match payload:
            case TaskTransitioned():
                now = moved.get(payload.task_id) or _state_of(state, payload.task_id)
                if now not in (None, payload.from_):
                    return f"task {payload.task_id} is {now} by now, and {payload.action} starts from {payload.from_}"
                moved[payload.task_id] = payload.to
            case PlanAdopted():
                if payload.supersedes != state.plan_id:
                    return f"plan {state.plan_id} was adopted before plan {payload.plan_id}, which does not know of it"
            case ApprovalRequested():
                now = _state_of(state, payload.subject.id) if payload.gate == "task_acceptance" else None
                if now not in (None, "pending_po_approval"):
                    return f"task {payload.subject.id} is {now} by now, so nobody is asked to accept its work"
            case _:
                pass
    return None


def _state_of(state: StoryState, task_id: str) -> str | None:
    task = state.tasks.get(task_id)
    return task.state if task is not None else None
