"""Commands on a task: claim it, give it back, give fields new values, act in its workflow (LC-100..LC-130)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args

from pydantic import ConfigDict, Field

from fleet.events.approval import ApprovalRejected
from fleet.events.payload import Payload
from fleet.events.story import GuardResult
from fleet.events.task import TaskClaimed, TaskClaimReleased, TaskTransitioned, TaskUpdated
from fleet.kernel.errors import (
    AlreadyClaimed,
    GateClosed,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PolicyDenied,
)
from fleet.kernel.ids import Principal
from fleet.kernel.types import Frozen, Risk, is_reason
from fleet.planning.planning_config import PlanningConfig
from fleet.planning.tasks import field_problems
from fleet.story.commands.command import Caller, Facts, Outcome, StoryCommand
from fleet.story.commands.gates import decide_gate
from fleet.story.plan_tasks import REVIEWS, route_task, system_step
from fleet.story.state import Approval, StoryState, TaskState
from fleet.story.tool_steps import claimed_by, known_trees

EDITABLE = ("estimated_hours", "keywords", "notes", "priority", "risk", "suggested_tech")
"""What may change while the plan stays what it is."""
_FIXED = ("title", "description", "role", "kind", "depends_on", "acceptance_refs", "paths", "points")
_NOTES, _TECHS, _TECH = 4000, 20, 80
"""Characters of the notes; number of suggested technologies, and characters of one."""


# Source: LC-100..LC-117.
class ActionRequest(Frozen):
    """One action of the task workflow."""

    action: Annotated[str, Field(min_length=1, max_length=60)]
    """Such as CLAIM_REVIEW, APPROVE_DESIGN, REJECT_TESTS, REQUEST_REWORK, DISCARD_TASK."""
    feedback: Annotated[str, Field(max_length=4000)] = ""
    """Why; every refusal needs 10 characters or more."""
    artifacts: Annotated[tuple[str, ...], Field(max_length=50)] = ()
    """Trees, runs and artifacts of the story that the decision rests on."""


class _OnTask(StoryCommand):
    """A command on one task of the story."""

    model_config = ConfigDict(extra="forbid")
    task_id: str


class ClaimTask(_OnTask):
    """The caller alone has the task for as long as the workflow says (LC-130)."""

    command = "claim_task"
    as_role: str

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The claim.

        Raises:
            NotFound: no such task.
            PolicyDenied: the caller does not hold the role of the task.
            InvalidTransition: it is not being worked on.
            AlreadyClaimed: somebody else has it.
        """
        task, by = _find_task(state, self.task_id), facts.caller.principal
        if task.task.role not in facts.held or self.as_role != task.task.role:
            raise PolicyDenied(f"task {self.task_id} is for role {task.task.role}", rule_id="role_not_held")
        if task.state != "implementing" or state.is_over:
            raise InvalidTransition(
                f"task {self.task_id} is {task.state}: only one that is being implemented can be claimed",
                state=task.state,
                event=self.command,
                allowed=[],
            )
        task_id = task.task.task_id
        holder = claimed_by(state, task_id, now_ms=facts.now_ms)
        if holder not in (None, by):
            raise AlreadyClaimed(f"task {task_id} is claimed by {holder}", holder=holder, task_id=task_id)
        ttl_s = facts.fsm.task_workflow.claim_s(task.state)
        expires_at = facts.now_ms + ttl_s * 1000
        return (TaskClaimed(task_id=task_id, state="implementing", principal=by, expires_at=expires_at),)


class UpdateTask(_OnTask):
    """Fields of an open task have new values, within the bounds of a plan (AP-62)."""

    command = "update_task"
    changes: dict[str, Any]
    """By name; each is judged here, so that all problems are listed with the codes of a plan."""

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The new values.

        Raises:
            PolicyDenied: the caller is neither architect nor po.
            NotFound: no such task.
            InvalidTransition: the task or its story is over, or the story is parked.
            InvalidInput: a field is fixed by the plan (PL-12), values are bad (all are listed), or nothing changes.
        """
        facts.caller.require("architect", "po", rule_id="LC-11")
        task = open_task(state, self.task_id, event=self.command)
        _require_editable(self.changes)
        problems = _problems(self.changes, facts.planning)
        if problems:
            listed = "; ".join(problem["message"] for problem in problems)
            raise InvalidInput(f"task {self.task_id} keeps its values: {listed}", problems=problems)
        now = task.task.model_dump(mode="json")
        changes = {name: value for name, value in self.changes.items() if now[name] != value}
        if not changes:
            raise InvalidInput(f"the edit changes nothing of task {self.task_id}", field="changes", problems=[])
        return (TaskUpdated(task_id=task.task.task_id, changes=changes),)


class ReleaseTask(_OnTask):
    """Nobody has the task any more; a review under way waits for a reviewer again (LC-130)."""

    command = "release_task"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The end of the claim.

        Raises:
            NotFound: no such task.
            InvalidTransition: nobody has it, it is over, or its story is over or parked.
            PolicyDenied: the caller neither has it nor is a po.
        """
        caller, task = facts.caller, open_task(state, self.task_id, event=self.command)
        task_id = task.task.task_id
        holder = claimed_by(state, task_id, now_ms=facts.now_ms)
        if holder is None:
            raise InvalidTransition(
                f"nobody has task {task_id}: there is no claim to give back",
                state=task.state,
                event=self.command,
                allowed=[],
            )
        if holder != caller.principal and "po" not in caller.roles:
            raise PolicyDenied(
                f"task {task_id} is claimed by {holder}: {holder} or a po gives it back", rule_id="LC-130", allowed="po"
            )
        released = TaskClaimReleased(task_id=task_id, principal=holder, reason="released")
        return (released, _back(task, caller)) if task.state in REVIEWS else (released,)


class ActOnTask(ActionRequest, _OnTask):
    """The task makes this step of its workflow."""

    command = "act_on_task"
    as_role: Annotated[str | None, Field(max_length=60)] = None

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The step, and what the system adds to it at once.

        Raises:
            NotFound: no such task.
            InvalidInput: an artifact that the story does not know.
            AlreadyClaimed: somebody else has the review.
            InvalidTransition, PolicyDenied, GateClosed: not in the table, not for this caller, a guard is false; each
                with the word of LC-120 as `action_status`.
        """
        try:
            return _act(state, facts, self)
        except (GateClosed, InvalidTransition, PolicyDenied) as error:
            word = _WORDS.get(error.code, "rejected")
            raise type(error)(
                error.message, **{**error.details, "action_status": word, "task_id": self.task_id}
            ) from error


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


def _find_task(state: StoryState, task_id: str) -> TaskState:
    task = state.tasks.get(task_id)
    if task is None:
        raise NotFound(f"story {state.story_id} has no task {task_id[:80]!r}", task_id=task_id[:80])
    return task


def open_task(state: StoryState, task_id: str, *, event: str) -> TaskState:
    """The task, which is not over and whose story takes such commands now (LC-93)."""
    task = _find_task(state, task_id)
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


def _act(state: StoryState, facts: Facts, asked: ActOnTask) -> tuple[Payload, ...]:
    task = _find_task(state, asked.task_id)
    _require_takes(state, asked.action)
    role = _role(facts, task, asked)
    if unknown := sorted(set(asked.artifacts) - evidence_of(state)):
        raise InvalidInput(
            f"story {state.story_id} has no artifact {unknown[0][:80]!r} on record", field="artifacts", allowed=[]
        )
    step = _Step(state, facts, task, asked, role)
    if asked.action in _REFUSALS:
        step.require("feedback_given", is_reason(step.feedback), "write a reason of 10 to 4,000 characters")
    if asked.action in _CLAIMS:
        return step.claim()
    if asked.action in _OF_PO:
        return step.decide_acceptance()
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


def _role(facts: Facts, task: TaskState, asked: ActOnTask) -> str:
    """The role in which the caller may do this now."""
    workflow, caller = facts.fsm.task_workflow, facts.caller
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
    if row.by == "system" or role not in facts.held or asked.as_role not in (None, role):
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

    def __init__(self, state: StoryState, facts: Facts, task: TaskState, asked: ActOnTask, role: str) -> None:
        self._state, self._facts, self._task, self._asked, self._role = state, facts, task, asked, role
        self._caller = facts.caller
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
        row = self._facts.fsm.task_workflow.find(self._task.state, self._asked.action)
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
        ttl_s = self._facts.fsm.task_workflow.claim_s(moved.to)
        claimed = TaskClaimed(
            task_id=moved.task_id,
            state=moved.to,
            principal=self._caller.principal,
            expires_at=self._facts.now_ms + ttl_s * 1000,
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
        # What the system adds to a review that is over, in the same append.
        if moved.action in _APPROVALS:
            return (moved, *route_task(self._facts.fsm, self._task, moved.to), done)
        if moved.action in ("REJECT_DESIGN", "REJECT_TESTS"):
            return (moved, system_step(moved.task_id, moved.to, "REVISE_CODE", "implementing"), done)
        return (moved,)

    def _require_claimant(self) -> None:
        if self._asked.action == "REVISE_CODE":
            return
        task_id = self._task.task.task_id
        holder = claimed_by(self._state, task_id, now_ms=self._facts.now_ms)
        if holder is not None and holder != self._caller.principal and holder.is_human:
            raise AlreadyClaimed(f"task {task_id} is reviewed by {holder}", holder=holder, task_id=task_id)
        self.require("claimant", holder == self._caller.principal, f"{holder or 'nobody'} has the review")

    def _require_other(self) -> None:
        author: Principal | None = self._task.author
        self.require("not_author", author != self._caller.principal, f"{author} did this work")

    def _measured(self) -> str:
        """The run that measured the work under review."""
        state, tree = self._state, self._task.candidate_tree
        score = state.scores.get(tree) if tree else None
        is_scored = score is not None and score.rigor == state.rigor
        self.require("scored_report", is_scored, "the work is not measured yet: wait for its score")
        assert score is not None
        self.require("scored_report", score.verdict != "block", f"verdict {score.verdict} with {score.score}")
        return score.run_id

    def decide_acceptance(self) -> tuple[Payload, ...]:
        """The po's word on finished work (LC-112..LC-114)."""
        request = self._request()
        match self._asked.action:
            case "APPROVE_STORY":
                self.require("task_acceptance", request is not None, "the work was not put up for acceptance yet")
                assert request is not None
                return self._granted(request)
            case _:
                return (*self.rejected_request(), self.moved(self._tree()))

    def _granted(self, approval: Approval) -> tuple[Payload, ...]:
        return decide_gate(
            self._state,
            self._facts.fsm,
            approval.request.approval_id,
            approve=True,
            caller=self._caller,
            now_ms=self._facts.now_ms,
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
            for a in reversed(list(self._state.approvals.values()))
            if a.request.gate == "task_acceptance"
            and a.request.subject.id == self._task.task.task_id
            and a.status == "requested"
            and not a.voided
        )
        return next(waiting, None)

    def _tree(self) -> tuple[str, ...]:
        return (self._task.candidate_tree,) if self._task.candidate_tree else ()
