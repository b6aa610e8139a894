"""Estimates beside what the work took: per task, and their error by role (PL-81, PL-82, PL-84)."""

from __future__ import annotations

from fractions import Fraction
from statistics import median

from fleet.events.plan import Task
from fleet.events.task import TaskAdded, TaskEstimated
from fleet.report.history import Events, decimal_text, of_type, step_records
from fleet.report.model import EstimateErrorRow, EstimateRow
from fleet.report.stats import actual_ms

_HOUR_MS = 3_600_000


def estimates(events: Events) -> dict[str, EstimateRow]:
    """The last estimate of each task that a council gave one of, by task."""
    return {
        payload.task_id: EstimateRow(
            points=payload.points,
            iqr=payload.iqr,
            rounds=payload.rounds,
            converged=payload.converged,
            values=payload.values,
            council_id=payload.council_id,
        )
        for _, payload in of_type(events, TaskEstimated)
    }


def task_tokens(events: Events) -> dict[str, int]:
    """Tokens of the calls for each task."""
    tokens: dict[str, int] = {}
    for step in step_records(events):
        if step.started.task_id is not None:
            tokens[step.started.task_id] = tokens.get(step.started.task_id, 0) + step.tokens
    return tokens


def task_gpu_ms(events: Events) -> dict[str, int]:
    """Time of graphics processors that the calls for each task took."""
    gpu_ms: dict[str, int] = {}
    for step in step_records(events):
        if step.started.task_id is not None and step.finished is not None:
            gpu_ms[step.started.task_id] = gpu_ms.get(step.started.task_id, 0) + step.finished.cost.gpu_ms
    return gpu_ms


def estimate_errors(events: Events) -> tuple[EstimateErrorRow, ...]:
    """What the done tasks of each role took beside what was estimated, by role; tasks without hours are left out."""
    tasks: dict[str, Task] = {p.task.task_id: p.task for _, p in of_type(events, TaskAdded)}
    took, tokens, gpu_ms = actual_ms(events), task_tokens(events), task_gpu_ms(events)
    by_role: dict[str, list[Task]] = {}
    for task_id in took:
        if task_id in tasks and tasks[task_id].estimated_hours:
            by_role.setdefault(tasks[task_id].role, []).append(tasks[task_id])
    return tuple(_row(role, by_role[role], took, tokens, gpu_ms) for role in sorted(by_role))


def _row(
    role: str, tasks: list[Task], took: dict[str, int], tokens: dict[str, int], gpu_ms: dict[str, int]
) -> EstimateErrorRow:
    actual = {task.task_id: Fraction(took[task.task_id], _HOUR_MS) for task in tasks}
    errors = [abs(actual[task.task_id] - task.estimated_hours) / task.estimated_hours for task in tasks]
    return EstimateErrorRow(
        role=role,
        tasks=len(tasks),
        estimated_h=sum(task.estimated_hours for task in tasks),
        actual_h=decimal_text(Fraction(sum(actual.values())), 3),
        error_median=decimal_text(median(errors)),
        tokens=sum(tokens.get(task.task_id, 0) for task in tasks),
        gpu_ms=sum(gpu_ms.get(task.task_id, 0) for task in tasks),
    )
