"""Where a task stands, in five words that people sort lists by (LC-123)."""

from __future__ import annotations

from typing import Literal

from fleet.story.state import StoryState, TaskState

CoarseStatus = Literal["todo", "blocked", "in_progress", "in_review", "completed", "cancelled"]
_COARSE: dict[str, CoarseStatus] = {
    "implementing": "in_progress",
    "dev_completed": "in_progress",
    "arch_rejected": "in_progress",
    "qa_failed": "in_progress",
    "done": "completed",
    "cancelled": "cancelled",
}


def coarse_status(state: StoryState, task: TaskState) -> CoarseStatus:
    """The word for the task's workflow state; one that waits for a cancelled or parked task is blocked."""
    if task.state != "todo":
        return _COARSE.get(task.state, "in_review")
    needed = {state.tasks[name].state for name in task.task.depends_on if name in state.tasks}
    # Tasks are parked with their story.
    is_parked = state.disposition == "parked" and bool(needed - {"done"})
    return "blocked" if is_parked or "cancelled" in needed else "todo"
