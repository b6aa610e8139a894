"""Plan versions by hand: written or edited by a person, adopted on a decision, or rejected (PL-10..PL-13, PL-25).

A plan never changes. Whoever wants another one writes a new version, in which tasks that stay keep their ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from fleet.events.payload import Payload
from fleet.events.plan import Dependency, PlanProposed, PlanRejected, Task, TaskDecision, TaskDerivationRequested
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import AlreadyClaimed, InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import EntityId, Principal, StoryId, StreamId, derive_id
from fleet.kernel.types import Frozen, Reason
from fleet.log.port import Command
from fleet.owner.duties.derivation import next_plan_id
from fleet.owner.tools.tool_steps import parsed
from fleet.owner.workbench import Workbench
from fleet.planning.coach import Problem
from fleet.planning.tasks import DerivedPlan, complexity_of, validate_derivation
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller
from fleet.story.commands.tasks import task_extras_problems
from fleet.story.intents import DerivePlan
from fleet.story.plan import design_decision
from fleet.story.plan import plan as owed_intents
from fleet.story.state import Plan, StoryState, TaskState
from fleet.story.undecided import require_decided_design

_EXTRAS = ("notes", "replaces", "risk", "suggested_tech")
"""What a person may say of a task beside what a planner answers."""
_ANSWERED_BY_A_PLAN = ("derivation_failed", "plan_stalled")
"""Why a story is parked that a plan by hand gets out of there (PL-23, PL-46)."""


class _Written(Frozen):
    rationale: Reason
    tasks: Annotated[list[Any], Field(max_length=50)]
    previous_plan_id: Annotated[str | None, Field(max_length=80)] = None


class _Named(Frozen):
    plan_id: Annotated[str, Field(max_length=80)]
    reason: Annotated[str, Field(max_length=4000)] = ""


async def write_plan(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The story has a proposed plan version of this author; it binds nobody until it is adopted (`write_plan`).

    A task of the earlier versions keeps its id when title, role and kind are the same, or when the new one names it as
    `replaces` (PL-12). One that was cancelled is not taken up again.

    Raises:
        PolicyDenied: the caller is neither architect nor po.
        InvalidTransition: the story is over, or parked for another reason than that it lacks a plan.
        InvalidInput: the plan breaks rules; all problems are listed (PL-13, PL-20, PL-30).
    """
    caller.require("architect", "po", rule_id="LC-11")
    state = bench.state
    require_plannable(state, event="write_plan")
    asked = parsed(_Written, command)
    previous = asked.previous_plan_id or state.plan_id
    if previous is not None:
        find_plan(state, previous)
    found = _valid(bench, asked)
    name = f"plan-by-hand/{command.command_id}"
    plan_id = _plan_id(state.story_id, command.command_id)
    kept = dict(_kept(state, found, asked.tasks))
    ids = [kept[n].task.task_id if n in kept else bench.new_id("tk", name, n) for n in range(len(found.tasks))]
    tasks = tuple(_task(bench, caller, asked, found, n, ids, plan_id, kept.get(n)) for n in range(len(ids)))
    return (
        PlanProposed(
            plan_id=plan_id,
            version=len(state.plans) + 1,
            previous_plan_id=EntityId(previous) if previous else None,
            author=caller.principal,
            rationale=asked.rationale,
            tasks=tasks,
            dependencies=tuple(
                Dependency(from_=ids[e.task], to=ids[e.depends_on], inferred=e.inferred) for e in found.dependencies
            ),
            estimated_complexity=complexity_of(len(tasks)),
            task_decisions=tuple(
                TaskDecision(
                    task_index=n,
                    task_description=task.title,
                    decided_by=caller.principal,
                    decision_reason=asked.rationale,
                    decided_at=bench.now_ms,
                )
                for n, task in enumerate(tasks)
            ),
            content_digest=state.content.digest,
            plan_digest=digest_of_json([json.loads(task.model_dump_json()) for task in tasks]),
        ),
    )


def plan_by_hand(story_id: StoryId, who: Principal, key: str) -> EntityId:
    """The id of the version that this request of this caller writes; the same each time (AP-2, GL-9)."""
    return _plan_id(story_id, f"{who}/{key}")


def _plan_id(story_id: StoryId, command_id: str) -> EntityId:
    return derive_id("pv", StreamId.of_story(story_id), f"plan-by-hand/{command_id}")


def _valid(bench: Workbench, asked: _Written) -> DerivedPlan:
    """The plan by the rules of a derivation; InvalidInput with everything that is wrong (PL-21)."""
    state, rules = bench.state, bench.rules
    plain = [{k: v for k, v in t.items() if k not in _EXTRAS} if isinstance(t, dict) else t for t in asked.tasks]  # pyright: ignore[reportUnknownVariableType]
    found = validate_derivation(
        {"tasks": plain},
        acceptance_ids=tuple(c.ac_id for c in bench.criteria),
        decision_ids=[k for k, d in state.decisions.items() if d.status == "ACCEPTED"],
        assignable_roles=rules.assignable_roles,
        config=rules.planning,
    )
    problems = [_told(p) for p in found] if not isinstance(found, DerivedPlan) else []
    problems += [*_extras_problems(state, asked.tasks)]
    if isinstance(found, DerivedPlan) and not problems:
        problems += [*_carried_problems(state, found, asked.tasks)]
    if problems or not isinstance(found, DerivedPlan):
        listed = "; ".join(str(p["message"]) for p in problems)
        raise InvalidInput(f"the plan is not valid: {listed}"[:4000], field="tasks", problems=problems)
    return found


def _told(problem: Problem) -> dict[str, Any]:
    where = "/tasks" if problem.task_index is None else f"/tasks/{problem.task_index}"
    return {"pointer": where, "code": problem.code, "message": problem.message, "ids": list(problem.ids)}


def _extras_problems(state: StoryState, tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
    used: set[str] = set()
    for index, raw in enumerate(tasks):
        if not isinstance(raw, dict):
            continue
        task: dict[str, Any] = raw  # pyright: ignore[reportUnknownVariableType]
        extras = {name: task[name] for name in ("notes", "risk", "suggested_tech") if name in task}
        for code, message in task_extras_problems(extras):
            yield {"pointer": f"/tasks/{index}", "code": code, "message": f"task {index}: {message}"}
        named = task.get("replaces")
        if named is None:
            continue
        known = state.tasks.get(named) if isinstance(named, str) else None
        if known is None or known.state != "todo" or named in used:
            message = f"task {index}: replaces names a task of the story that is todo, each once"
            yield {"pointer": f"/tasks/{index}/replaces", "code": "task_replaces", "message": message}
        used.add(str(named))


def _carried_problems(state: StoryState, plan: DerivedPlan, tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """A finished task is carried over only for the criteria that it was finished for (PL-12)."""
    for index, known in _kept(state, plan, tasks):
        if known.state == "done" and {*plan.tasks[index].acceptance_refs} != {*known.task.acceptance_refs}:
            message = (
                f"task {index}: {known.task.task_id} is done and serves {', '.join(known.task.acceptance_refs)}; give "
                "other work another title"
            )
            yield {"pointer": f"/tasks/{index}/acceptance_refs", "code": "task_trace", "message": message}


def _kept(state: StoryState, plan: DerivedPlan, tasks: Sequence[Any]) -> Iterator[tuple[int, TaskState]]:
    """Index in the new version, and the task that it is."""
    named = {index: str(raw["replaces"]) for index, raw in enumerate(tasks) if raw.get("replaces") is not None}
    free = {k: t for k, t in state.tasks.items() if t.state != "cancelled" and k not in named.values()}
    by_key = {(t.task.title, t.task.role, t.task.kind): t for t in free.values()}
    for index, task in enumerate(plan.tasks):
        known = state.tasks[named[index]] if index in named else by_key.get((task.title, task.role, task.kind))
        if known is not None:
            yield index, known


def _task(
    bench: Workbench,
    caller: Caller,
    asked: _Written,
    plan: DerivedPlan,
    number: int,
    ids: Sequence[EntityId],
    plan_id: EntityId,
    known: TaskState | None,
) -> Task:
    derived, raw = plan.tasks[number], asked.tasks[number]
    return Task(
        task_id=ids[number],
        story_id=bench.journal.story_id,
        plan_id=plan_id,
        title=derived.title,
        description=derived.description,
        role=derived.role,
        kind=derived.kind,
        estimated_hours=derived.estimated_hours,
        points=known.task.points if known is not None else None,
        priority=derived.priority,
        keywords=derived.keywords,
        depends_on=tuple(ids[d.depends_on] for d in plan.dependencies if d.task == number),
        acceptance_refs=derived.acceptance_refs,
        paths=derived.paths,
        risk=raw.get("risk", "low"),
        suggested_tech=tuple(raw.get("suggested_tech", ())),
        notes=raw.get("notes", ""),
        author=caller.principal,
    )


async def reject_plan(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The proposed version will not be followed (`reject_plan`, PL-10).

    Raises PolicyDenied: neither architect nor po. NotFound: no such plan. InvalidTransition: it is not proposed, or the
    story is over. InvalidInput: the reason has not 10 to 4,000 characters.
    """
    caller.require("architect", "po", rule_id="LC-11")
    asked = parsed(_Named, command)
    plan = find_plan(bench.state, asked.plan_id)
    require_plannable(bench.state, event="reject_plan")
    require_proposed(plan, event="reject_plan")
    reason = check_notes(asked.reason, "reason")
    return (PlanRejected(plan_id=plan.proposal.plan_id, by=caller.principal, reason=reason),)


async def request_derivation(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The planner is to be asked for tasks of the present text once more (`derive_tasks`, PL-24).

    Raises:
        PolicyDenied: the caller is neither architect nor po, nor a system.
        InvalidTransition: the story is over, past its build, parked for another reason than that it lacks a plan, or
            its design is not decided yet.
        QuorumNotReached: the council on its design came to no decision.
        AlreadyClaimed: a derivation is under way; `holder` is the plan that comes of it.
    """
    caller.require("architect", "po", "system", rule_id="LC-11")
    state, fsm = bench.state, bench.rules.fsm
    # Before the disposition: such a council parks its story, and that alone would not say what is missing.
    require_decided_design(state)
    require_plannable(state, event="derive_tasks")
    lifecycle = fsm.lifecycles[state.lifecycle]
    is_early = lifecycle.phase(state.state) in ("DESIGN", "BUILD") and not lifecycle.states[state.state].terminal
    if not is_early or design_decision(state) is None:
        why = "its design is not decided" if is_early else "its build is over"
        raise InvalidTransition(
            f"story {state.story_id} is in state {state.state} and {why}: there is nothing to derive tasks from",
            state=state.state,
            event="derive_tasks",
            allowed=[],
        )
    owed = owed_intents(state, fsm, now_ms=bench.now_ms)
    under_way = state.derivation or (next_plan_id(bench) if any(isinstance(i, DerivePlan) for i in owed) else None)
    if under_way is not None:
        raise AlreadyClaimed(f"tasks are being derived as plan {under_way}: wait for it", holder=under_way)
    plan_id = _plan_id(state.story_id, command.command_id)
    return (TaskDerivationRequested(plan_id=plan_id, content_digest=state.content.digest, attempt=1),)


def find_plan(state: StoryState, plan_id: str) -> Plan:
    """The plan version of the story; NotFound names those that there are."""
    plan = state.plans.get(plan_id)
    if plan is None:
        known = ", ".join(state.plans) or "none"
        raise NotFound(f"story {state.story_id} has no plan {plan_id[:80]!r}; it has: {known}", plan_id=plan_id[:80])
    return plan


def require_proposed(plan: Plan, *, event: str) -> None:
    """Returns when the version waits for a decision; InvalidTransition otherwise (PL-10)."""
    if plan.status != "PROPOSED":
        raise InvalidTransition(
            f"plan {plan.proposal.plan_id} is {plan.status}: only a PROPOSED one is adopted or rejected",
            state=plan.status,
            event=event,
            allowed=[],
        )


def require_plannable(state: StoryState, *, event: str) -> None:
    """Returns while plans of the story are worked on; a parked one takes a plan where it lacks one (LC-93, PL-23)."""
    if state.is_over:
        raise InvalidTransition(f"story {state.story_id} is over", state=state.state, event=event, allowed=[])
    if state.disposition == "parked" and state.park is not None and state.park.cause not in _ANSWERED_BY_A_PLAN:
        raise InvalidTransition(
            f"story {state.story_id} is parked ({state.park.cause}): pause it, unpark it, do this, then resume it",
            state=state.state,
            event=event,
            allowed=[],
        )
