"""Actions of the task workflow in a person's or agent's hands: the table of `fsm.yaml` decides (LC-100..LC-121, AP-65).

Nobody brings evidence along: what a guard asks for is on record in the story, or the action is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fleet.errors import AlreadyClaimed, FleetError, GateClosed, InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.events import ApprovalRejected, GuardResult, Payload, TaskClaimed, TaskClaimReleased, TaskTransitioned
from fleet.ids import Principal
from fleet.ports import Command
from fleet.services.procedures.gates import system_step
from fleet.services.task_commands import require_workable
from fleet.services.tool_facts import roles_held
from fleet.services.tool_steps import parsed
from fleet.services.workbench import Workbench
from fleet.story import Approval, Caller, FsmConfig, StoryState, TaskState, claimed_by, decide_gate, known_trees

__all__ = ["act_on_task", "evidence_of"]

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


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: Annotated[str, Field(max_length=80)]
    action: Annotated[str, Field(min_length=1, max_length=60)]
    feedback: Annotated[str, Field(max_length=4000)] = ""
    artifacts: Annotated[tuple[str, ...], Field(max_length=50)] = ()
    as_role: Annotated[str | None, Field(max_length=40)] = None


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
        step.require("feedback_given", 10 <= len(step.feedback) <= 4000, "write a reason of 10 to 4,000 characters")
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
