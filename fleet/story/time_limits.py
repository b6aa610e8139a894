"""How long tasks may stay where they are: pure, from state and workflow to what passes when (LC-131..LC-136)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fleet.kernel.ids import EntityId
from fleet.story.lifecycle import TaskWorkflow
from fleet.story.state import StoryState, TaskState


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """A limit that runs for a task: since when, for how long, and who is told first when it passes."""

    task_id: EntityId
    state: str
    """The one that the time is counted from."""
    limit_s: int
    since_ms: int
    role: str

    @property
    def due_ms(self) -> int:
        """When it passes."""
        return self.since_ms + self.limit_s * 1000

    @property
    def name(self) -> str:
        """The same for one breach, whoever finds it (LC-131)."""
        return f"sla/{self.task_id}/{self.state}/{self.limit_s}/{self.since_ms}"


def time_limits(state: StoryState, workflow: TaskWorkflow) -> tuple[TimeLimit, ...]:
    """Every limit that runs, passed or not, in the order of their ends; none of a story that rests."""
    if state.start is None or state.disposition != "active" or state.is_paused or state.is_over:
        return ()
    found = [limit for task in state.tasks.values() if not task.is_terminal for limit in _of(state, task, workflow)]
    return tuple(sorted(found, key=lambda limit: (limit.due_ms, limit.name)))


def overdue_tasks(state: StoryState, workflow: TaskWorkflow, *, now_ms: int) -> Mapping[str, TimeLimit]:
    """The tasks that are past a limit now, and the limit: of the stage that a task is in before that of the whole."""
    passed = [limit for limit in time_limits(state, workflow) if limit.due_ms <= now_ms]
    # Whose turn it is in a stage can do most about it; the one that passed first is what the task is late by.
    own = {limit.task_id: limit for limit in reversed(passed) if limit.state != workflow.initial}
    whole = {limit.task_id: limit for limit in passed if limit.state == workflow.initial}
    return {**whole, **own}


def _of(state: StoryState, task: TaskState, workflow: TaskWorkflow) -> Iterator[TimeLimit]:
    task_id = task.task.task_id
    for stage in workflow.limits:
        first = stage.states[0]
        since_ms = task.entered_ms.get(first)
        if task.state not in stage.states or since_ms is None:
            continue
        if stage.wait_s is not None and task.state == first:
            yield TimeLimit(task_id, first, stage.wait_s, since_ms, stage.role)
        yield TimeLimit(task_id, first, stage.sla_s, since_ms, stage.role)
    ready_ms = _ready_ms(state, task)
    if workflow.task_sla_s is not None and ready_ms is not None:
        yield TimeLimit(task_id, workflow.initial, workflow.task_sla_s, ready_ms, "po")


def _ready_ms(state: StoryState, task: TaskState) -> int | None:
    """Since when nothing holds the task back; None while something does."""
    needed = [state.tasks[d] for d in task.task.depends_on if d in state.tasks]
    begins = [task.entered_ms.get("todo"), *(n.entered_ms.get("done") for n in needed)]
    known = [ms for ms in begins if ms is not None]
    return max(known) if len(known) == len(begins) and all(n.state == "done" for n in needed) else None
