"""What people do with a task beside its workflow: give fields new values, give a claim back (AP-62, AP-64)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from fleet.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.events import Payload, Risk, TaskClaimReleased, TaskTransitioned, TaskUpdated
from fleet.ids import EntityId
from fleet.planning import PlanningConfig, field_problems
from fleet.ports import Command
from fleet.services.tool_steps import parsed
from fleet.services.workbench import Workbench
from fleet.story import REVIEWS, Caller, StoryState, TaskState, claimed_by

__all__ = [
    "EDITABLE",
    "needs_one_of",
    "open_task",
    "release_claim",
    "require_workable",
    "task_extras_problems",
    "update_task",
]

EDITABLE = ("estimated_hours", "keywords", "notes", "priority", "risk", "suggested_tech")
"""What may change while the plan stays what it is."""
_FIXED = ("title", "description", "role", "kind", "depends_on", "acceptance_refs", "paths", "points")
_NOTES, _TECHS, _TECH = 4000, 20, 80
"""Characters of the notes; number of suggested technologies, and characters of one."""


class _Edit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: EntityId
    changes: dict[str, Any]


class _Release(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: Annotated[str, Field(max_length=80)]


async def update_task(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Fields of an open task have new values, within the bounds of a plan (`update_task`, AP-62).

    Raises:
        PolicyDenied: the caller is neither architect nor po.
        NotFound: no such task.
        InvalidTransition: the task or its story is over, or the story is parked.
        InvalidInput: a field is fixed by the plan (PL-12), values are bad (all are listed), or nothing changes.
    """
    needs_one_of(caller, "architect", "po")
    asked = parsed(_Edit, command)
    task = open_task(bench.state, asked.task_id, event="update_task")
    _require_editable(asked.changes)
    problems = _problems(asked.changes, bench.rules.planning)
    if problems:
        listed = "; ".join(problem["message"] for problem in problems)
        raise InvalidInput(f"task {asked.task_id} keeps its values: {listed}", problems=problems)
    now = task.task.model_dump(mode="json")
    changes = {name: value for name, value in asked.changes.items() if now[name] != value}
    if not changes:
        raise InvalidInput(f"the edit changes nothing of task {asked.task_id}", field="changes", problems=[])
    return (TaskUpdated(task_id=task.task.task_id, changes=changes),)


def _require_editable(changes: dict[str, Any]) -> None:
    if fixed := sorted(set(changes) & set(_FIXED)):
        raise InvalidInput(
            f"{fixed[0]} of a task is fixed by its plan, which never changes: make a new plan version with it",
            field=fixed[0],
            allowed=list(EDITABLE),
        )
    if unknown := sorted(set(changes) - set(EDITABLE)):
        raise InvalidInput(f"a task has no field {unknown[0][:60]!r}", field=unknown[0][:60], allowed=list(EDITABLE))


def _problems(changes: dict[str, Any], config: PlanningConfig) -> list[dict[str, str]]:
    found = [(str(problem.code), problem.message) for problem in field_problems(changes, config)]
    return [{"code": code, "message": message} for code, message in (*found, *task_extras_problems(changes))]


def task_extras_problems(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Code and message of what is wrong with `risk`, `notes` or `suggested_tech` of a task, where they are there."""
    found: list[tuple[str, str]] = []
    risk, notes, techs = fields.get("risk", "low"), fields.get("notes", ""), fields.get("suggested_tech", [])
    if risk not in get_args(Risk):
        found.append(("task_risk", f"risk is one of {', '.join(get_args(Risk))}"))
    if not isinstance(notes, str) or len(notes) > _NOTES:
        found.append(("task_notes", f"notes is a text of at most {_NOTES} characters"))
    if not _are_names(techs):
        found.append(("task_suggested_tech", f"suggested_tech is a list of at most {_TECHS} names, each once"))
    return found


def _are_names(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > _TECHS:  # pyright: ignore[reportUnknownArgumentType]
        return False
    names: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
    return all(isinstance(n, str) and 1 <= len(n.strip()) <= _TECH for n in names) and len(set(names)) == len(names)


async def release_claim(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Nobody has the task any more; a review under way waits for a reviewer again (`release_task`, LC-130).

    Raises:
        NotFound: no such task.
        InvalidTransition: nobody has it, it is over, or its story is over or parked.
        PolicyDenied: the caller neither has it nor is a po.
    """
    asked = parsed(_Release, command)
    state = bench.state
    task = open_task(state, asked.task_id, event="release_task")
    task_id = task.task.task_id
    holder = claimed_by(state, task_id, now_ms=bench.now_ms)
    if holder is None:
        raise InvalidTransition(
            f"nobody has task {task_id}: there is no claim to give back",
            state=task.state,
            event="release_task",
            allowed=[],
        )
    if holder != caller.principal and "po" not in caller.roles:
        raise PolicyDenied(
            f"task {task_id} is claimed by {holder}: {holder} or a po gives it back", rule_id="LC-130", allowed="po"
        )
    released = TaskClaimReleased(task_id=task_id, principal=holder, reason="released")
    return (released, _back(task, caller)) if task.state in REVIEWS else (released,)


def _back(task: TaskState, caller: Caller) -> TaskTransitioned:
    role = "architect" if task.state == "arch_reviewing" else "qa"
    return TaskTransitioned(
        task_id=task.task.task_id,
        from_=task.state,  # pyright: ignore[reportArgumentType]
        action="RELEASE_CLAIM",
        to=REVIEWS[task.state],  # pyright: ignore[reportArgumentType]
        actor_type="human" if caller.principal.is_human else "agent",
        principal=caller.principal,
        as_role=role if role in caller.roles else "po",
    )


def open_task(state: StoryState, task_id: str, *, event: str) -> TaskState:
    """The task, which is not over and whose story takes such commands now (LC-93)."""
    task = state.tasks.get(task_id)
    if task is None:
        raise NotFound(f"story {state.story_id} has no task {task_id[:80]!r}", task_id=task_id[:80])
    require_workable(state, event=event)
    if task.is_terminal:
        raise InvalidTransition(f"task {task_id} is {task.state}", state=task.state, event=event, allowed=[])
    return task


def require_workable(state: StoryState, *, event: str) -> None:
    """Returns unless the story is over or parked; InvalidTransition then (LC-93)."""
    if state.is_over:
        raise InvalidTransition(f"story {state.story_id} is over", state=state.state, event=event, allowed=[])
    if state.disposition == "parked":
        raise InvalidTransition(
            f"story {state.story_id} is parked: pause it, unpark it, do this, then resume it",
            state=state.state,
            event=event,
            allowed=[],
        )


def needs_one_of(caller: Caller, *roles: str) -> None:
    """Returns when the caller holds one of these roles; PolicyDenied otherwise (LC-11)."""
    if not caller.roles & {*roles}:
        wanted = " or ".join(repr(role) for role in roles)
        raise PolicyDenied(f"{caller.principal} does not hold role {wanted}", rule_id="LC-11", allowed=" ".join(roles))
