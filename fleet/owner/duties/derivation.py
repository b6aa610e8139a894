"""Derive the tasks of a plan from the accepted design (PL-20..PL-25)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fleet.events.decision import DecisionLinked
from fleet.events.payload import Payload
from fleet.events.plan import (
    Dependency,
    PlanAdopted,
    PlanProblem,
    PlanProposed,
    Task,
    TaskDecision,
    TaskDerivationFailed,
    TaskDerivationRequested,
)
from fleet.events.story import StoryParked
from fleet.events.task import TaskAdded
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import ReplyMalformed, ReplyRefused
from fleet.kernel.ids import EntityId
from fleet.models.chat import AS_LONG_AS_FITS, Sampling
from fleet.models.port import AgentRequest
from fleet.owner.duties.summaries import keep_summary
from fleet.owner.duties.texts import pack_text, refusals_text
from fleet.owner.journal.steps import Work
from fleet.owner.workbench import Workbench, seat
from fleet.planning.coach import Problem
from fleet.planning.tasks import DerivedPlan, DerivedTask, complexity_of, derivation_schema, validate_derivation
from fleet.story.commands.plan_versions import derivation_name, next_plan_id
from fleet.story.intents import DeriveAgain, DerivePlan
from fleet.story.plan_tasks import system_step
from fleet.story.state import StoryState

PLANNER = seat("planner")


async def derive_plan(bench: Workbench, intent: DerivePlan) -> None:
    """A plan is adopted, or the story is parked with every problem of every attempt (PL-23)."""
    prefix, plan_id = derivation_name(bench.state), next_plan_id(bench.state)
    await keep_summary(bench, PLANNER.role, "DESIGN", before=f"{prefix}/derive-1")
    await bench.journal.record(
        f"{prefix}/requested",
        TaskDerivationRequested(plan_id=plan_id, content_digest=bench.state.content.digest, attempt=1),
    )
    await _derived(bench, intent, prefix, plan_id)


async def derive_again(bench: Workbench, intent: DeriveAgain) -> None:
    """The derivation that a person asked for has its answer (PL-24).

    Its plan is only proposed where the story follows one for its present text, or is past its design; that one stays
    when no attempt gave a valid plan.
    """
    prefix = f"plan/again/{intent.plan_id}"
    await keep_summary(bench, PLANNER.role, "DESIGN", before=f"{prefix}/derive-1")
    await _derived(bench, DerivePlan(decision_id=intent.decision_id), prefix, EntityId(intent.plan_id))


def _is_wanting(bench: Workbench) -> bool:
    """Whether the story lacks a plan for its text, so that the next one is adopted as it comes."""
    state, plan = bench.state, bench.state.plan
    if plan is not None and plan.status != "REJECTED" and plan.proposal.content_digest == state.content.digest:
        return False
    return bench.rules.fsm.lifecycles[state.lifecycle].phase(state.state) == "DESIGN"


async def _derived(bench: Workbench, intent: DerivePlan, prefix: str, plan_id: EntityId) -> None:
    problems: list[PlanProblem] = []
    for attempt in range(1, bench.rules.planning.derivation.attempts + 1):
        attempted = await _attempt(bench, intent, prefix, attempt, problems)
        if isinstance(attempted, DerivedPlan):
            await _adopt(bench, intent, attempted, plan_id=plan_id, prefix=prefix)
            return
        problems += [
            PlanProblem(code=p.code, message=p.message, task_index=p.task_index, attempt=attempt) for p in attempted
        ]
    attempts = bench.rules.planning.derivation.attempts
    detail = "; ".join(dict.fromkeys(p.message for p in problems))
    parked = StoryParked(cause="derivation_failed", detail=f"{attempts} attempts gave no valid plan: {detail}"[:3900])
    await bench.journal.record(
        f"{prefix}/failed",
        TaskDerivationFailed(plan_id=plan_id, attempts=attempts, problems=tuple(problems), requires_manual_review=True),
        *((parked,) if _is_wanting(bench) else ()),
    )


async def _attempt(
    bench: Workbench, intent: DerivePlan, prefix: str, attempt: int, before: list[PlanProblem]
) -> DerivedPlan | tuple[Problem, ...]:
    rules, criteria = bench.rules, tuple(c.ac_id for c in bench.criteria)
    decision = bench.state.decisions[intent.decision_id].proposed
    told = "\n".join(f"- {p.message}" for p in before)
    request = AgentRequest(
        kind="derive",
        role=PLANNER.role,
        principal=PLANNER.principal,
        shared=await pack_text(bench, "planner", "DESIGN", None),
        own=f"Decided design: {decision.title}\n{decision.rationale}"
        + await refusals_text(bench)
        + (f"\n\nYour last answer had these problems:\n{told}" if told else ""),
        sampling=Sampling(
            temperature=rules.planning.derivation.temperature,
            max_tokens=rules.planning.derivation.max_output_tokens or AS_LONG_AS_FITS,
            seed=attempt,
        ),
        model=bench.model,
        json_schema=derivation_schema(criteria, rules.assignable_roles, rules.planning),
    )
    work = Work(seat=PLANNER, tool="model", op="derive")
    try:
        answer = await bench.journal.ask(f"{prefix}/derive-{attempt}", request, work)
    except (ReplyMalformed, ReplyRefused) as error:
        return (Problem(code="reply", message=error.message[:500]),)
    outcome = validate_derivation(
        answer.value,
        acceptance_ids=criteria,
        decision_ids=(intent.decision_id,),
        assignable_roles=rules.assignable_roles,
        config=rules.planning,
    )
    return outcome if isinstance(outcome, DerivedPlan) else tuple(outcome)


async def _adopt(bench: Workbench, intent: DerivePlan, plan: DerivedPlan, *, plan_id: EntityId, prefix: str) -> None:
    state = bench.state
    # People may have proposed plans of their own while the planner was asked.
    version = len(state.plans) + 1
    ids = [bench.new_id("tk", prefix, n) for n in range(len(plan.tasks))]
    needs = {n: tuple(ids[d.depends_on] for d in plan.dependencies if d.task == n) for n in range(len(ids))}
    tasks = tuple(_task(bench, derived, needs[n], ids[n], plan_id) for n, derived in enumerate(plan.tasks))
    edges = tuple(Dependency(from_=ids[e.task], to=ids[e.depends_on], inferred=e.inferred) for e in plan.dependencies)
    decision = state.decisions[intent.decision_id]
    digest = digest_of_json([json.loads(t.model_dump_json()) for t in tasks])
    proposed = PlanProposed(
        plan_id=plan_id,
        version=version,
        previous_plan_id=EntityId(state.plan_id) if state.plan_id else None,
        author=PLANNER.principal,
        rationale=decision.proposed.rationale,
        tasks=tasks,
        dependencies=edges,
        estimated_complexity=complexity_of(len(tasks)),
        task_decisions=tuple(
            TaskDecision(
                task_index=n,
                task_description=t.title,
                decided_by=PLANNER.principal,
                decision_reason=decision.proposed.title,
                decided_at=bench.now_ms,
            )
            for n, t in enumerate(tasks)
        ),
        content_digest=state.content.digest,
        plan_digest=digest,
    )
    if not _is_wanting(bench):
        await bench.journal.record(f"{prefix}/proposed", proposed, actor=PLANNER.principal)
        return
    adopted = PlanAdopted(
        plan_id=plan_id,
        version=version,
        decision_id=EntityId(intent.decision_id),
        supersedes=EntityId(state.plan_id) if state.plan_id else None,
    )
    added: tuple[Payload, ...] = (
        *_discarded(state, version),
        *(TaskAdded(plan_id=plan_id, task=t) for t in tasks),
    )
    # The tasks hang on the design that they were derived from: they are made after it was decided.
    linked = DecisionLinked(decision_id=adopted.decision_id, affects=tuple(t.task_id for t in tasks))
    await bench.journal.record(f"{prefix}/adopted", proposed, *added, adopted, linked, actor=PLANNER.principal)


def _discarded(state: StoryState, version: int) -> Iterator[Payload]:
    """The tasks of a plan that was turned down, none of which was begun."""
    is_refused = state.plan is not None and state.plan.status == "REJECTED"
    for task in state.tasks.values() if is_refused else ():
        if task.state == "todo":
            step = system_step(task.task.task_id, "todo", "DISCARD_TASK", "cancelled")
            yield step.model_copy(update={"feedback": f"not part of plan version {version}"})


def _task(
    bench: Workbench, derived: DerivedTask, needs: tuple[EntityId, ...], task_id: EntityId, plan_id: EntityId
) -> Task:
    return Task(
        task_id=task_id,
        story_id=bench.journal.story_id,
        plan_id=plan_id,
        title=derived.title,
        description=derived.description,
        role=derived.role,
        kind=derived.kind,
        estimated_hours=derived.estimated_hours,
        priority=derived.priority,
        keywords=derived.keywords,
        depends_on=needs,
        acceptance_refs=tuple(EntityId(r) for r in derived.acceptance_refs),
        paths=derived.paths,
        risk="low",
        author=PLANNER.principal,
    )
