"""A proposed plan becomes the one that the story follows, and what is done or under way stays (PL-10..PL-13)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import ConfigDict, Field

from fleet.events.decision import DecisionLinked
from fleet.events.payload import Payload
from fleet.events.plan import PlanAdopted, PlanProposed, Task
from fleet.events.task import TaskAdded, TaskTransitioned, TaskUpdated
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import EntityId
from fleet.kernel.types import Frozen
from fleet.planning.graph import PlanEdge, PlanNode, validate_graph
from fleet.story.commands.command import Caller, Facts, Outcome, StoryCommand
from fleet.story.commands.plan_versions import find_plan, require_plannable, require_proposed
from fleet.story.lifecycle import FsmConfig
from fleet.story.plan_tasks import system_step
from fleet.story.state import StoryState, TaskState

_OF_WORK = ("title", "description", "role", "kind", "acceptance_refs", "paths")
"""What the work under way on a task was begun for."""


# Source: PL-11.
class AdoptRequest(Frozen):
    """Follow a proposed version."""

    decision_id: Annotated[str, Field(min_length=1, max_length=80)]
    """An accepted decision of the story."""


class AdoptPlan(AdoptRequest, StoryCommand):
    """The story follows this version; the former one is superseded in the same append.

    Finished tasks stay finished and work under way goes on; tasks that nobody began and the new version lacks end.
    """

    model_config = ConfigDict(extra="forbid")
    command = "adopt_plan"
    plan_id: Annotated[str, Field(max_length=80)]

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The adoption, and what becomes of each task.

        Raises:
            PolicyDenied: neither architect nor po, or the plan's author would be the only one who decided (PL-11).
            NotFound: no such plan or decision.
            InvalidTransition: the plan is not proposed or is for another text, the decision is not accepted, the story
                is past its build, or work under way would be lost.
            InvalidInput: the plan breaks a rule that an adopted one keeps (PL-13, PL-30).
        """
        facts.caller.require("architect", "po", rule_id="LC-11")
        plan = find_plan(state, self.plan_id)
        require_plannable(state, event=self.command)
        require_proposed(plan, event=self.command)
        _require_time(state, facts.fsm, plan.proposal)
        _require_decision(state, plan.proposal, self.decision_id, facts.caller)
        _require_rules(state, plan.proposal)
        changed = [*_changes(state, plan.proposal)]
        adopted = PlanAdopted(
            plan_id=plan.proposal.plan_id,
            version=plan.proposal.version,
            decision_id=EntityId(self.decision_id),
            supersedes=EntityId(state.plan_id) if state.plan_id else None,
        )
        tasks = tuple(task.task_id for task in plan.proposal.tasks)
        return (*changed, adopted, DecisionLinked(decision_id=adopted.decision_id, affects=tasks))


def _require_time(state: StoryState, fsm: FsmConfig, proposal: PlanProposed) -> None:
    if state.restoration is not None:
        raise _refused(state, f"story {state.story_id} is being restored: adopt the plan on the tree that comes of it")
    lifecycle = fsm.lifecycles[state.lifecycle]
    if lifecycle.states[state.state].terminal or lifecycle.phase(state.state) not in ("DESIGN", "BUILD"):
        raise _refused(
            state, f"story {state.story_id} is in state {state.state}: send it back to its build, then adopt the plan"
        )
    if proposal.content_digest != state.content.digest:
        raise _refused(state, f"plan {proposal.plan_id} was made for another text: write a new version for this one")


def _refused(state: StoryState, message: str) -> InvalidTransition:
    return InvalidTransition(message, state=state.state, event="adopt_plan", allowed=[])


def _require_decision(state: StoryState, proposal: PlanProposed, decision_id: str, caller: Caller) -> None:
    decision = state.decisions.get(decision_id)
    if decision is None:
        known = ", ".join(state.decisions) or "none"
        raise NotFound(f"story {state.story_id} has no decision {decision_id[:80]!r}; it has: {known}")
    if decision.status != "ACCEPTED":
        raise _refused(state, f"decision {decision_id} is {decision.status}: a plan is adopted on an ACCEPTED one")
    is_author = caller.principal == proposal.author
    if is_author and (decision.decided_by == proposal.author or state.rigor == "L3" or not caller.principal.is_human):
        raise PolicyDenied(
            f"{caller.principal} wrote plan {proposal.plan_id}: somebody else has to decide on it too",
            rule_id="author_is_approver",
        )


def _require_rules(state: StoryState, proposal: PlanProposed) -> None:
    """The outline of a council may be proposed without criteria and edges; an adopted plan has them (PL-13, PL-30)."""
    known = {c.ac_id for c in state.content.acceptance_criteria} | {*state.decisions}
    served = {ref for task in proposal.tasks for ref in task.acceptance_refs}
    nodes = [PlanNode(t.task_id, t.priority, t.estimated_hours, t.role, t.paths) for t in proposal.tasks]
    edges = [PlanEdge(d.from_, d.to, d.inferred) for d in proposal.dependencies]
    problems = [{"code": str(p.code), "message": p.message} for p in validate_graph(nodes, edges)]
    problems += [
        {"code": "task_trace", "message": f"task {task.task_id} serves no acceptance criterion or decision"}
        for task in proposal.tasks
        if not known & {*task.acceptance_refs}
    ]
    problems += [
        {"code": "ac_uncovered", "message": f"no task serves acceptance criterion {c.ac_id}"}
        for c in state.content.acceptance_criteria
        if c.ac_id not in served
    ]
    if problems:
        listed = "; ".join(p["message"] for p in problems)
        raise InvalidInput(f"plan {proposal.plan_id} cannot be adopted: {listed}"[:4000], problems=problems)


def _changes(state: StoryState, proposal: PlanProposed) -> Iterator[Payload]:
    """What becomes of each task, of the former plan and of the new one."""
    wanted = {task.task_id: task for task in proposal.tasks}
    for task_id, known in state.tasks.items():
        if task_id not in wanted and not known.is_terminal:
            yield _discarded(state, known, proposal)
    for task_id, task in wanted.items():
        known = state.tasks.get(task_id)
        if known is None or known.state == "todo":
            yield TaskAdded(plan_id=proposal.plan_id, task=task)
            continue
        _require_same_work(state, known, task)
        yield _updated(known, task)


def _discarded(state: StoryState, known: TaskState, proposal: PlanProposed) -> TaskTransitioned:
    task_id = known.task.task_id
    if known.state != "todo":
        raise _refused(
            state,
            f"task {task_id} is {known.state} and plan {proposal.plan_id} lacks it: wait until it is done, discard it, "
            "or write a version that holds it",
        )
    step = system_step(task_id, "todo", "DISCARD_TASK", "cancelled")
    return step.model_copy(update={"feedback": f"not part of plan version {proposal.version}"})


def _require_same_work(state: StoryState, known: TaskState, task: Task) -> None:
    names = ("acceptance_refs",) if known.state == "done" else _OF_WORK
    changed = [name for name in names if getattr(known.task, name) != getattr(task, name)]
    if known.state == "cancelled" or changed:
        what = f"the plan has another {', '.join(changed)} for it" if changed else "it does not begin again"
        raise _refused(
            state,
            f"task {task.task_id} is {known.state} and {what}: write a version that takes it as it is, or that has "
            "another task",
        )


def _updated(known: TaskState, task: Task) -> TaskUpdated:
    before, after = known.task.model_dump(mode="json"), task.model_dump(mode="json")
    # The author of work that is done or under way stays who planned it.
    names = [name for name in after if name not in ("task_id", "story_id", "author") and before[name] != after[name]]
    return TaskUpdated(task_id=known.task.task_id, changes={name: after[name] for name in names})
