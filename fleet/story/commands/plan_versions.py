"""Plan versions that are not derived: written by a person, or outlined in a backlog review (PL-10..PL-13, PL-67).

A plan never changes. Whoever wants another one writes a new version, in which tasks that stay keep their ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from fleet.events.plan import Dependency, PlanProposed, PlanRejected, Task, TaskDecision, TaskDerivationRequested
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import AlreadyClaimed, InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import EntityId, Principal, StoryId, StreamId, derive_id
from fleet.kernel.types import Frozen, Reason, Risk, TaskKind
from fleet.planning.backlog_review import PlanOutlineTask
from fleet.planning.coach import Problem
from fleet.planning.tasks import DerivedPlan, complexity_of, validate_derivation
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Facts, Outcome, StoryCommand
from fleet.story.commands.tasks import task_extras_problems
from fleet.story.intents import DerivePlan
from fleet.story.lifecycle import Lifecycle
from fleet.story.plan import design_decision
from fleet.story.plan import plan as owed_intents
from fleet.story.state import Plan, StoryState, TaskState
from fleet.story.undecided import require_decided_design

PLANNERS = ("architect", "po")
"""The roles that write the plan of a story by hand (LC-11)."""
_EXTRAS = ("notes", "replaces", "risk", "suggested_tech")
"""What a person may say of a task beside what a planner answers."""
_KINDS: Mapping[str, TaskKind] = {
    "architect": "design",
    "data": "data",
    "designer": "design",
    "devops": "infra",
    "qa": "test",
}
"""What the outlined tasks of a role are; those of all others are code."""
_ANSWERED_BY_A_PLAN = ("derivation_failed", "plan_stalled")
"""Why a story is parked that a plan by hand gets out of there (PL-23, PL-46)."""


# Source: PL-20.
class TaskDraft(Frozen):
    """One task of a plan that a person writes; values out of bounds are all listed in the refusal."""

    title: str
    description: str
    role: str
    kind: str
    estimated_hours: int
    priority: int
    """1 is the highest."""
    keywords: tuple[str, ...]
    depends_on: tuple[int, ...] = ()
    """Indexes of other tasks of this plan, from 0."""
    acceptance_refs: tuple[str, ...]
    """Criteria of the story or accepted decisions that the task serves."""
    paths: tuple[str, ...] = ()
    replaces: str | None = None
    """A task of the story that nobody began, whose id this one keeps."""
    risk: Risk = "low"
    suggested_tech: tuple[str, ...] = ()
    notes: str = ""


class PlanBasis(Frozen):
    """Why a plan version is written, and from which one."""

    rationale: Reason
    previous_plan_id: Annotated[str | None, Field(max_length=80)] = None
    """The version that this one is an edit of; the adopted one when left out."""


# Source: PL-25.
class WritePlanRequest(PlanBasis):
    """A plan version by hand, new or edited."""

    tasks: Annotated[tuple[TaskDraft, ...], Field(max_length=50)]


class RejectPlanRequest(Frozen):
    """Do not follow a proposed version."""

    reason: Reason


class WritePlan(PlanBasis, StoryCommand):
    """The story has a proposed plan version of this author; it binds nobody until it is adopted.

    A task of the earlier versions keeps its id when title, role and kind are the same, or when the new one names it as
    `replaces` (PL-12). One that was cancelled is not taken up again.
    """

    model_config = ConfigDict(extra="forbid")
    command = "write_plan"
    tasks: Annotated[list[Any], Field(max_length=50)]
    """In the form of `TaskDraft`. The rules of a derivation judge them, so that all problems of a plan are listed."""

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The version.

        Raises:
            PolicyDenied: the caller is neither architect nor po.
            InvalidTransition: the story is over, or parked for another reason than that it lacks a plan.
            InvalidInput: the plan breaks rules; all problems are listed (PL-13, PL-20, PL-30).
        """
        caller = facts.caller
        caller.require(*PLANNERS, rule_id="LC-11")
        require_plannable(state, event=self.command)
        previous = self.previous_plan_id or state.plan_id
        if previous is not None:
            find_plan(state, previous)
        found = _valid(state, facts, self)
        name = f"plan-by-hand/{facts.command_id}"
        plan_id = _plan_id(StoryId(state.story_id), facts.command_id)
        kept = dict(_kept(state, found, self.tasks))
        ids = [kept[n].task.task_id if n in kept else facts.new_id("tk", name, n) for n in range(len(found.tasks))]
        tasks = tuple(_task(state, facts, self, found, n, ids, plan_id, kept.get(n)) for n in range(len(ids)))
        return (
            PlanProposed(
                plan_id=plan_id,
                version=len(state.plans) + 1,
                previous_plan_id=EntityId(previous) if previous else None,
                author=caller.principal,
                rationale=self.rationale,
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
                        decision_reason=self.rationale,
                        decided_at=facts.now_ms,
                    )
                    for n, task in enumerate(tasks)
                ),
                content_digest=state.content.digest,
                plan_digest=digest_of_json([json.loads(task.model_dump_json()) for task in tasks]),
            ),
        )


class RejectPlan(RejectPlanRequest, StoryCommand):
    """The proposed version will not be followed (PL-10)."""

    model_config = ConfigDict(extra="forbid")
    command = "reject_plan"
    plan_id: Annotated[str, Field(max_length=80)]

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The rejection.

        Raises:
            PolicyDenied: the caller is neither architect nor po.
            NotFound: no such plan.
            InvalidTransition: it is not proposed, or the story is over.
        """
        facts.caller.require(*PLANNERS, rule_id="LC-11")
        plan = find_plan(state, self.plan_id)
        require_plannable(state, event=self.command)
        require_proposed(plan, event=self.command)
        reason = check_notes(self.reason, "reason")
        return (PlanRejected(plan_id=plan.proposal.plan_id, by=facts.caller.principal, reason=reason),)


class DeriveTasks(StoryCommand):
    """The planner is to be asked for tasks of the present text once more (PL-24)."""

    command = "derive_tasks"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The request.

        Raises:
            PolicyDenied: the caller is neither architect nor po, nor a system.
            InvalidTransition: the story is over, past its build, parked for another reason than that it lacks a plan,
                its design is not decided yet, or it was never started.
            QuorumNotReached: the council on its design came to no decision.
            AlreadyClaimed: a derivation is under way; `holder` is the plan that comes of it.
        """
        facts.caller.require("architect", "po", "system", rule_id="LC-11")
        # Before the disposition: such a council parks its story, and that alone would not say what is missing.
        require_decided_design(state)
        require_plannable(state, event=self.command)
        lifecycle = facts.fsm.lifecycles[state.lifecycle]
        is_early = lifecycle.phase(state.state) in ("DESIGN", "BUILD") and not lifecycle.states[state.state].terminal
        if not is_early or design_decision(state) is None:
            why = "its design is not decided" if is_early else "its build is over"
            raise InvalidTransition(
                f"story {state.story_id} is in state {state.state} and {why}: there is nothing to derive tasks from",
                state=state.state,
                event=self.command,
                allowed=[],
            )
        if state.start is None and lifecycle.phase(state.state) == "DESIGN":
            raise InvalidTransition(
                f"story {state.story_id} was never started, so nobody would derive them: start it with "
                f"`fleet story start {state.story_id} --repo ...`, then ask again",
                state=state.state,
                event=self.command,
                allowed=["start_story"],
            )
        owed = owed_intents(state, facts.fsm, now_ms=facts.now_ms)
        is_owed = any(isinstance(intent, DerivePlan) for intent in owed)
        under_way = state.derivation or (next_plan_id(state) if is_owed else None)
        if under_way is not None:
            raise AlreadyClaimed(f"tasks are being derived as plan {under_way}: wait for it", holder=under_way)
        plan_id = _plan_id(StoryId(state.story_id), facts.command_id)
        return (TaskDerivationRequested(plan_id=plan_id, content_digest=state.content.digest, attempt=1),)


class ProposePlan(StoryCommand):
    """The outline of a council in a backlog review is a plan version of the story (PL-67, PL-69).

    Nobody is bound by it until a plan is adopted (PL-10).
    """

    command = "propose_plan"
    ceremony_id: Annotated[str, Field(max_length=80)]
    council: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$")]
    """The role of the council."""
    feedback: str
    """What the council said of the story."""
    tasks: tuple[PlanOutlineTask, ...]
    notes: str
    """Why the product owner approved the story."""

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The version, whose tasks nobody has estimated in detail.

        Raises:
            PolicyDenied: the caller is no po.
            InvalidTransition: the work on the story has begun.
        """
        facts.caller.require("po")
        if not takes_outline(state, facts.fsm.lifecycles):
            raise InvalidTransition(
                f"story {state.story_id} is {state.state}: an outline comes before the work",
                state=state.state,
                event=self.command,
                allowed=early_states(state, facts.fsm.lifecycles),
            )
        author = Principal(f"agent:{self.council}-001")
        plan_id = preliminary_plan_id(self.ceremony_id, state.story_id)
        tasks = tuple(
            Task(
                task_id=facts.new_id("tk", f"ceremony/{self.ceremony_id}", number),
                story_id=StoryId(state.story_id),
                plan_id=plan_id,
                title=task.title,
                description=task.title,
                role=task.role,
                kind=_KINDS.get(task.role, "code"),
                # 0 says that nobody estimated it: so it is in reviews that are older than the question.
                estimated_hours=task.estimated_hours or 0,
                priority=min(number + 1, 10),
                risk="low",
                author=author,
            )
            for number, task in enumerate(self.tasks)
        )
        return (
            PlanProposed(
                plan_id=plan_id,
                version=len(state.plans) + 1,
                previous_plan_id=EntityId(state.plan_id) if state.plan_id else None,
                author=author,
                rationale=self.feedback,
                tasks=tasks,
                estimated_complexity=complexity_of(len(tasks)),
                task_decisions=tuple(
                    TaskDecision(
                        task_index=number,
                        task_description=task.title,
                        decided_by=facts.caller.principal,
                        decision_reason=self.notes,
                        council_feedback=self.feedback,
                        decided_at=facts.now_ms,
                    )
                    for number, task in enumerate(self.tasks)
                ),
                content_digest=state.content.digest,
                plan_digest=digest_of_json([json.loads(task.model_dump_json()) for task in tasks]),
            ),
        )


def is_early(state: StoryState, lifecycles: Mapping[str, Lifecycle]) -> bool:
    """Whether the work on the story has not begun, so that it may be reviewed (PL-60)."""
    lifecycle = lifecycles.get(state.lifecycle)
    return lifecycle is not None and lifecycle.is_early(state.state)


def early_states(state: StoryState | None, lifecycles: Mapping[str, Lifecycle]) -> list[str]:
    """The states in which its work has not begun."""
    lifecycle = lifecycles.get(state.lifecycle) if state is not None else None
    return [name for name in lifecycle.states if lifecycle.is_early(name)] if lifecycle is not None else []


def takes_outline(state: StoryState | None, lifecycles: Mapping[str, Lifecycle]) -> bool:
    """Whether an outline can still become a plan version of the story: its work has not begun, and it is not over."""
    return state is not None and is_early(state, lifecycles) and not state.is_over


def preliminary_plan_id(ceremony_id: str, story_id: str) -> EntityId:
    """The id of the plan that an approval of this story makes, the same each time (GL-9)."""
    return derive_id("pv", StreamId.of_story(StoryId(story_id)), f"ceremony/{ceremony_id}")


def plan_by_hand(story_id: StoryId, who: Principal, key: str) -> EntityId:
    """The id of the version that this request of this caller writes; the same each time (AP-2, GL-9)."""
    return _plan_id(story_id, f"{who}/{key}")


def _plan_id(story_id: StoryId, command_id: str) -> EntityId:
    return derive_id("pv", StreamId.of_story(story_id), f"plan-by-hand/{command_id}")


def _valid(state: StoryState, facts: Facts, asked: WritePlan) -> DerivedPlan:
    """The plan by the rules of a derivation; InvalidInput with everything that is wrong (PL-21)."""
    plain = [{k: v for k, v in t.items() if k not in _EXTRAS} if isinstance(t, dict) else t for t in asked.tasks]  # pyright: ignore[reportUnknownVariableType]
    found = validate_derivation(
        {"tasks": plain},
        acceptance_ids=tuple(c.ac_id for c in state.content.acceptance_criteria),
        decision_ids=[k for k, d in state.decisions.items() if d.status == "ACCEPTED"],
        assignable_roles=facts.assignable_roles,
        config=facts.planning,
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
    state: StoryState,
    facts: Facts,
    asked: WritePlan,
    plan: DerivedPlan,
    number: int,
    ids: Sequence[EntityId],
    plan_id: EntityId,
    known: TaskState | None,
) -> Task:
    derived, raw = plan.tasks[number], asked.tasks[number]
    return Task(
        task_id=ids[number],
        story_id=StoryId(state.story_id),
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
        author=facts.caller.principal,
    )


def derivation_name(state: StoryState) -> str:
    """The name of what the next derivation of the story by itself does."""
    return f"plan/{len(state.plans) + 1}/{state.content.digest.hex[:12]}"


def next_plan_id(state: StoryState) -> EntityId:
    """The id of the plan that the story derives next by itself."""
    return derive_id("pv", StreamId.of_story(state.story_id), derivation_name(state))


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
    """Returns while plans of the story are worked on. A parked one takes a plan where it lacks one (LC-93, PL-23)."""
    if state.is_over:
        raise InvalidTransition(f"story {state.story_id} is over", state=state.state, event=event, allowed=[])
    if state.disposition == "parked" and state.park is not None and state.park.cause not in _ANSWERED_BY_A_PLAN:
        raise InvalidTransition(
            f"story {state.story_id} is parked ({state.park.cause}): pause it, unpark it, do this, then resume it",
            state=state.state,
            event=event,
            allowed=[],
        )
