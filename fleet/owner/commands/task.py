"""What people do with a task beside its workflow: give fields new values, give a claim back (AP-62, AP-64)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args

from pydantic import Field

from fleet.events.approval import ApprovalRejected
from fleet.events.payload import Payload
from fleet.events.story import GuardResult
from fleet.events.task import TaskClaimed, TaskClaimReleased, TaskTransitioned, TaskUpdated
from fleet.kernel.errors import (
    AlreadyClaimed,
    FleetError,
    GateClosed,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PolicyDenied,
)
from fleet.kernel.ids import EntityId, Principal
from fleet.kernel.types import Frozen, Risk, is_reason
from fleet.log.port import Command
from fleet.owner.duties.gates import system_step
from fleet.owner.tools.decisions import roles_held
from fleet.owner.tools.tool_steps import parsed
from fleet.owner.workbench import Workbench
from fleet.planning.planning_config import PlanningConfig
from fleet.planning.tasks import field_problems
from fleet.story.commands.command import Caller
from fleet.story.commands.gates import decide_gate
from fleet.story.lifecycle import FsmConfig
from fleet.story.plan_tasks import REVIEWS
from fleet.story.state import Approval, StoryState, TaskState
from fleet.story.tool_steps import claimed_by, known_trees

EDITABLE = ("estimated_hours", "keywords", "notes", "priority", "risk", "suggested_tech")
"""What may change while the plan stays what it is."""
_FIXED = ("title", "description", "role", "kind", "depends_on", "acceptance_refs", "paths", "points")
_NOTES, _TECHS, _TECH = 4000, 20, 80
"""Characters of the notes; number of suggested technologies, and characters of one."""


class _Edit(Frozen):
    task_id: EntityId
    changes: dict[str, Any]


class _Release(Frozen):
    task_id: Annotated[str, Field(max_length=80)]


async def update_task(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Fields of an open task have new values, within the bounds of a plan (`update_task`, AP-62).

    Raises:
        PolicyDenied: the caller is neither architect nor po.
        NotFound: no such task.
        InvalidTransition: the task or its story is over, or the story is parked.
        InvalidInput: a field is fixed by the plan (PL-12), values are bad (all are listed), or nothing changes.
    """
    caller.require("architect", "po", rule_id="LC-11")
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


_WORDS = {"gate_closed": "rejected", "invalid_transition": "invalid_action", "policy_denied": "rbac_violation"}
"""What LC-120 calls a refusal, by its code."""
_CLAIMS = {"CLAIM_REVIEW", "CLAIM_TESTING"}
_APPROVALS = {"APPROVE_DESIGN", "APPROVE_TESTS"}
_REFUSALS = {"REJECT_DESIGN", "REJECT_TESTS", "REJECT_STORY", "REQUEST_REWORK", "DISCARD_TASK"}
_OF_PO = {"APPROVE_STORY", "REJECT_STORY", "REQUEST_REWORK"}
"""Decisions at the gate `task_acceptance`: those of a parked story too (LC-93)."""
_FOLLOWS = {
    "APPROVE_DESIGN": ("AUTO_ROUTE_TO_QA", "pending_qa"),
    "APPROVE_TESTS": ("AUTO_ROUTE_TO_PO", "pending_po_approval"),
    "REJECT_DESIGN": ("REVISE_CODE", "implementing"),
    "REJECT_TESTS": ("REVISE_CODE", "implementing"),
}
"""What the system adds to a review that is over, in the same append."""


class _Asked(Frozen):
    task_id: Annotated[str, Field(max_length=80)]
    action: Annotated[str, Field(min_length=1, max_length=60)]
    feedback: Annotated[str, Field(max_length=4000)] = ""
    artifacts: Annotated[tuple[str, ...], Field(max_length=50)] = ()
    as_role: Annotated[str | None, Field(max_length=60)] = None


async def act_on_task(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The task has made this step of its workflow (`act_on_task`).

    Raises:
        NotFound: no such task.
        InvalidInput: an artifact that the story does not know.
        AlreadyClaimed: somebody else has the review.
        InvalidTransition, PolicyDenied, GateClosed: not in the table, not for this caller, a guard is false; each with
            the word of LC-120 as `action_status`.
    """
    asked = parsed(_Asked, command)
    try:
        return _decided(bench, asked, caller)
    except (GateClosed, InvalidTransition, PolicyDenied) as error:
        raise _worded(error, asked) from error


def _worded(error: FleetError, asked: _Asked) -> FleetError:
    details = {**error.details, "action_status": _WORDS.get(error.code, "rejected"), "task_id": asked.task_id}
    return type(error)(error.message, **details)


def _decided(bench: Workbench, asked: _Asked, caller: Caller) -> tuple[Payload, ...]:
    state, fsm = bench.state, bench.rules.fsm
    task = state.tasks.get(asked.task_id)
    if task is None:
        raise NotFound(f"story {state.story_id} has no task {asked.task_id!r}", task_id=asked.task_id)
    _require_takes(state, asked.action)
    role = _role(bench, task, asked, caller)
    if unknown := sorted(set(asked.artifacts) - evidence_of(state)):
        raise InvalidInput(
            f"story {state.story_id} has no artifact {unknown[0][:80]!r} on record", field="artifacts", allowed=[]
        )
    step = _Step(bench, task, asked, caller, role)
    if asked.action in _REFUSALS:
        step.require("feedback_given", is_reason(step.feedback), "write a reason of 10 to 4,000 characters")
    if asked.action in _CLAIMS:
        return step.claim()
    if asked.action in _OF_PO:
        return step.decide_acceptance(fsm)
    if asked.action == "DISCARD_TASK":
        return (*step.rejected_request(), step.moved())
    if asked.action == "COMMIT_CODE":
        # A commit is the tree that the task's council chose, and its procedure records it with the choice (LC-118).
        step.require("work_recorded", False, "the work of this task is handed over by its council, once it chose")
    return step.review()


def _require_takes(state: StoryState, action: str) -> None:
    if action not in _OF_PO or state.is_over:
        require_workable(state, event=action)
    if state.restoration is not None:
        raise InvalidTransition(
            f"story {state.story_id} is being restored to checkpoint {state.restoration.checkpoint_id}: decide again "
            "on the tree that comes of it",
            state=state.state,
            event=action,
            allowed=[],
        )


def _role(bench: Workbench, task: TaskState, asked: _Asked, caller: Caller) -> str:
    """The role in which the caller may do this now."""
    workflow = bench.rules.fsm.task_workflow
    row = workflow.find(task.state, asked.action)
    if row is None:
        allowed = [r.action for r in workflow.transitions if task.state in r.from_ and r.by != "system"]
        raise InvalidTransition(
            f"action {asked.action!r} is not legal for a task in state {task.state}; allowed: "
            f"{', '.join(allowed) or 'none'}",
            state=task.state,
            event=asked.action,
            allowed=allowed,
        )
    role = task.task.role if row.by == "assignee" else row.by
    held = roles_held(bench.journal.policy.policy, caller.principal, caller.roles)
    if row.by == "system" or role not in held or asked.as_role not in (None, role):
        raise PolicyDenied(f"{asked.action} is for {role}, not for {caller.principal}", rule_id="LC-120", allowed=role)
    if asked.action in _OF_PO and not caller.principal.is_human:
        raise PolicyDenied(f"{asked.action} needs a person; {caller.principal} is none", rule_id="LC-76")
    return role


def evidence_of(state: StoryState) -> frozenset[str]:
    """What a caller may point at: trees, runs, and what steps of the story left behind."""
    runs = {str(report.run_id) for report in state.reports.values()}
    left = {
        str(artifact.artifact_digest)
        for step in state.steps.values()
        for artifact in (step.finished.artifacts if step.finished else ())
    }
    return frozenset({*map(str, known_trees(state)), *runs, *left})


class _Step:
    """One action that the table allows this caller, with the facts that it needs."""

    def __init__(self, bench: Workbench, task: TaskState, asked: _Asked, caller: Caller, role: str) -> None:
        self._bench, self._task, self._asked, self._caller, self._role = bench, task, asked, caller, role
        self.feedback = asked.feedback.strip()

    def require(self, guard: str, ok: bool, message: str) -> None:
        """Returns when the guard holds; GateClosed with it otherwise."""
        if ok:
            return
        result = GuardResult(name=guard, ok=False, message=message)
        raise GateClosed(
            f"task {self._task.task.task_id} stays {self._task.state}: {guard}: {message}",
            state=self._task.state,
            event=self._asked.action,
            guards=[result.model_dump(mode="json")],
        )

    def moved(self, evidence: Sequence[str] = ()) -> TaskTransitioned:
        """The step as it is recorded."""
        row = self._bench.rules.fsm.task_workflow.find(self._task.state, self._asked.action)
        assert row is not None
        return TaskTransitioned(
            task_id=self._task.task.task_id,
            from_=self._task.state,  # pyright: ignore[reportArgumentType]
            action=row.action,  # pyright: ignore[reportArgumentType]
            to=row.to,  # pyright: ignore[reportArgumentType]
            actor_type="human" if self._caller.principal.is_human else "agent",
            principal=self._caller.principal,
            as_role=self._role,
            feedback=self.feedback or None,
            evidence=tuple(dict.fromkeys((*evidence, *self._asked.artifacts))),
        )

    def claim(self) -> tuple[Payload, ...]:
        """The caller alone reviews the work (LC-103, LC-108, LC-130)."""
        self._require_other()
        moved = self.moved()
        ttl_s = self._bench.rules.fsm.task_workflow.claim_ttl_s.get(moved.to, 7200)
        claimed = TaskClaimed(
            task_id=moved.task_id,
            state=moved.to,
            principal=self._caller.principal,
            expires_at=self._bench.now_ms + ttl_s * 1000,
        )
        return (claimed, moved)

    def review(self) -> tuple[Payload, ...]:
        """The review is over, and the task goes where it leads (LC-104, LC-105, LC-109, LC-110)."""
        self._require_claimant()
        evidence: list[str] = []
        if self._asked.action in _APPROVALS:
            self._require_other()
        if self._asked.action == "APPROVE_TESTS":
            evidence.append(self._measured())
        moved = self.moved(evidence)
        done = TaskClaimReleased(task_id=moved.task_id, principal=self._caller.principal, reason="finished")
        follows = _FOLLOWS.get(moved.action)
        if follows is None:
            return (moved,)
        return (moved, system_step(moved.task_id, moved.to, *follows), done)

    def _require_claimant(self) -> None:
        if self._asked.action == "REVISE_CODE":
            return
        task_id = self._task.task.task_id
        holder = claimed_by(self._bench.state, task_id, now_ms=self._bench.now_ms)
        if holder is not None and holder != self._caller.principal and holder.is_human:
            raise AlreadyClaimed(f"task {task_id} is reviewed by {holder}", holder=holder, task_id=task_id)
        self.require("claimant", holder == self._caller.principal, f"{holder or 'nobody'} has the review")

    def _require_other(self) -> None:
        author: Principal | None = self._task.author
        self.require("not_author", author != self._caller.principal, f"{author} did this work")

    def _measured(self) -> str:
        """The run that measured the work under review."""
        state, tree = self._bench.state, self._task.candidate_tree
        score = state.scores.get(tree) if tree else None
        is_scored = score is not None and score.rigor == state.rigor
        self.require("scored_report", is_scored, "the work is not measured yet: wait for its score")
        assert score is not None
        self.require("scored_report", score.verdict != "block", f"verdict {score.verdict} with {score.score}")
        return score.run_id

    def decide_acceptance(self, fsm: FsmConfig) -> tuple[Payload, ...]:
        """The po's word on finished work (LC-112..LC-114)."""
        request = self._request()
        match self._asked.action:
            case "APPROVE_STORY":
                self.require("task_acceptance", request is not None, "the work was not put up for acceptance yet")
                assert request is not None
                return self._granted(fsm, request)
            case _:
                return (*self.rejected_request(), self.moved(self._tree()))

    def _granted(self, fsm: FsmConfig, approval: Approval) -> tuple[Payload, ...]:
        return decide_gate(
            self._bench.state,
            fsm,
            approval.request.approval_id,
            approve=True,
            caller=self._caller,
            now_ms=self._bench.now_ms,
            notes=self.feedback,
        )

    def rejected_request(self) -> tuple[Payload, ...]:
        """The request for acceptance that waits is answered by this: it must not be granted afterwards."""
        request = self._request()
        if request is None:
            return ()
        return (
            ApprovalRejected(
                approval_id=request.request.approval_id,
                principal=self._caller.principal,
                as_role=self._role,
                reason=self.feedback,
                delegated=False,
            ),
        )

    def _request(self) -> Approval | None:
        waiting = (
            a
            for a in reversed(list(self._bench.state.approvals.values()))
            if a.request.gate == "task_acceptance"
            and a.request.subject.id == self._task.task.task_id
            and a.status == "requested"
            and not a.voided
        )
        return next(waiting, None)

    def _tree(self) -> tuple[str, ...]:
        return (self._task.candidate_tree,) if self._task.candidate_tree else ()
