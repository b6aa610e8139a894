"""Everything on record about one task: its steps through the workflow, and what was measured of its work (LC-121)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.events import Payload, StoredEvent, TaskEstimated, TaskTransitioned, TreeMerged
from fleet.ids import Digest
from fleet.story import StoryState

__all__ = ["TaskEvidence", "TaskMove", "estimate_of", "evidence_on", "moves_of"]


@dataclass(frozen=True, slots=True)
class TaskMove:
    """One step of the workflow, and when it was recorded."""

    version: int
    ts_ms: int
    step: TaskTransitioned


@dataclass(frozen=True, slots=True)
class TaskEvidence:
    """What is on record about the work of a task; trees and runs by their ids."""

    candidate_tree: Digest | None
    run_id: str | None
    """Of the run that measured the work under review."""
    score: str | None
    verdict: str | None
    merged_commit: str | None
    councils: tuple[str, ...]
    runs: tuple[str, ...]
    """Steps that ran programs for the task."""


def moves_of(events: Sequence[tuple[StoredEvent, Payload]], task_id: str) -> tuple[TaskMove, ...]:
    """The steps of the task in order."""
    return tuple(
        TaskMove(event.version, event.ts_ms, payload)
        for event, payload in events
        if isinstance(payload, TaskTransitioned) and payload.task_id == task_id
    )


def estimate_of(events: Sequence[tuple[StoredEvent, Payload]], task_id: str) -> TaskEstimated | None:
    """The last estimate that a council gave of the task; None when none did (PL-81)."""
    found = (p for _, p in reversed(events) if isinstance(p, TaskEstimated) and p.task_id == task_id)
    return next(found, None)


def evidence_on(
    state: StoryState, events: Sequence[tuple[StoredEvent, Payload]], task_id: str, moves: Sequence[TaskMove]
) -> TaskEvidence:
    """What is on record about the work of the task now. Of a tree without a score nothing is measured."""
    task = state.tasks[task_id]
    score = state.scores.get(task.candidate_tree) if task.candidate_tree else None
    merges = [p for _, p in events if isinstance(p, TreeMerged) and p.task_id == task_id]
    is_done = bool(moves) and task.state == "done"
    return TaskEvidence(
        candidate_tree=task.candidate_tree,
        run_id=score.run_id if score else None,
        score=score.score if score else None,
        verdict=score.verdict if score else None,
        merged_commit=merges[-1].commit if merges and is_done else None,
        councils=tuple(k for k, c in state.councils.items() if c.opened.task_id == task_id),
        runs=tuple(
            name
            for name, step in state.steps.items()
            if step.started.task_id == task_id and step.started.kind in ("run", "tool", "merge")
        ),
    )
