"""Commands at gates: grant, reject, revoke, ask again, fire an event of the lifecycle (LC-70..LC-79)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from fleet.events.approval import ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.decision import DecisionRejected
from fleet.events.payload import Payload
from fleet.events.plan import PlanRejected, Task
from fleet.events.story import CriterionWaived, StoryTransitioned, StoryUnparked, TransitionRefused
from fleet.events.task import TaskAdded, TaskTransitioned
from fleet.kernel.errors import GateClosed, InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.kernel.ids import EntityId, Principal
from fleet.kernel.types import Frozen, Reason, ReasonRequest
from fleet.story.approvals import (
    check_approver,
    check_notes,
    check_requester,
    is_consumed,
    is_tool_gate,
    subject_authors,
    subject_of,
    terms_of,
)
from fleet.story.commands.command import Caller, Facts, Outcome, StoryCommand, require_not_over
from fleet.story.escalation import ESCALATION, resumed_by
from fleet.story.guards import GuardContext, evaluate, shown_criteria, words_of_tests
from fleet.story.lifecycle import FsmConfig, Transition
from fleet.story.plan import design_decision
from fleet.story.state import Approval, StoryState

GateName = Annotated[str, Field(min_length=1)]
"""A gate, or the id of one approval at it."""


class GrantRequest(Frozen):
    """A yes."""

    notes: Annotated[str, Field(max_length=4000)] = ""


class RejectRequest(Frozen):
    """A no, and why; `back` names the event of the lifecycle that takes the story back at once."""

    reason: Reason
    back: Annotated[str | None, Field(max_length=60)] = None


class RevokeRequest(Frozen):
    """A yes is taken back before it was used."""

    reason: Reason


# Source: AP-56.
class TransitionRequest(Frozen):
    """Fire an event of the story's lifecycle."""

    event: Annotated[str, Field(min_length=1, max_length=60)]
    reason: Annotated[str, Field(max_length=4000)] = ""
    actor: Annotated[str | None, Field(min_length=1, max_length=40)] = None
    """The role in which the caller fires it, one that it holds; without it, whichever of its roles may."""


class Approve(GrantRequest, StoryCommand):
    """A pending approval is granted."""

    command = "approve"
    gate: GateName

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The grant, and what follows from it at once."""
        caller, now_ms = facts.caller, facts.now_ms
        return decide_gate(state, facts.fsm, self.gate, approve=True, caller=caller, now_ms=now_ms, notes=self.notes)


class Reject(RejectRequest, StoryCommand):
    """A pending approval is rejected, with a reason."""

    command = "reject"
    gate: GateName

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The rejection; with a way back, named or the only one, the story goes back in the same append (LC-99).

        Raises:
            InvalidInput: the event leads forward, beside what `decide_gate` refuses.
        """
        caller, now_ms = facts.caller, facts.now_ms
        self._check_back(state, facts)
        no = decide_gate(state, facts.fsm, self.gate, approve=False, caller=caller, now_ms=now_ms, notes=self.reason)
        back = self.back or _way_back(state, facts, find_approval(state, self.gate).request)
        if back is None:
            return no
        moved = _fire_with_fix(state, facts, back, caller, self.reason)
        # What the no turned down is turned down once.
        said = {type(payload) for payload in no}
        return (*no, *(payload for payload in moved if type(payload) not in said))

    def _check_back(self, state: StoryState, facts: Facts) -> None:
        rows = facts.fsm.lifecycles[state.lifecycle].legal(state.state)
        ways = [row.event for row in rows if row.kind == "loopback"]
        if self.back is not None and self.back not in ways:
            raise InvalidInput(
                f"{self.back[:60]!r} leads not back from {state.state}; events that do: {', '.join(ways) or 'none'}",
                field="back",
                allowed=ways,
            )


class Revoke(RevokeRequest, StoryCommand):
    """A yes to a tool call is taken back before it was used."""

    command = "revoke"
    gate: GateName

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The end of the grant, before the call was started on it (LC-71).

        Raises:
            NotFound: the story has no such approval of a tool call.
            VersionConflict: it is not granted, or was used up.
            PolicyDenied: the caller does not hold the role that decides it.
        """
        caller, approval = facts.caller, state.approvals.get(self.gate)
        if approval is None or not is_tool_gate(approval.request.gate):
            raise NotFound(
                f"story {state.story_id} has no approval {self.gate!r} of a tool call", approval_id=self.gate
            )
        request = approval.request
        if approval.status != "granted" or is_consumed(state, self.gate):
            status = "used up" if approval.status == "granted" else approval.status
            raise VersionConflict(f"approval {self.gate} is {status}: there is nothing to take back", status=status)
        terms = terms_of(state, facts.fsm, request)
        check_approver(state, terms, request.subject, principal=caller.principal, roles=caller.roles, delegated=False)
        why = check_notes(self.reason, "reason")
        return (ApprovalRevoked(approval_id=request.approval_id, principal=caller.principal, reason=why),)


class FireEvent(TransitionRequest, StoryCommand):
    """An event of the lifecycle is fired, in the one role that the body names or in any of the caller's (AP-56)."""

    command = "transition"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The transition; one back to BUILD adds the task that it is about (LC-91)."""
        return _fire_with_fix(state, facts, self.event, facts.caller.acting(self.actor), self.reason)


def _way_back(state: StoryState, facts: Facts, request: ApprovalRequested) -> str | None:
    """The event with which a no at this gate sets the team to work: the only one that the caller may fire (LC-99).

    None in a phase that designs, where the design is made anew instead (LC-97), and at a gate that opens no transition.
    """
    lifecycle = facts.fsm.lifecycles[state.lifecycle]
    rows = lifecycle.legal(state.state)
    if lifecycle.phase(state.state) == "DESIGN" or all(row.gate != request.gate for row in rows):
        return None
    ways = [row.event for row in rows if row.kind == "loopback" and facts.caller.roles & {*row.by}]
    return ways[0] if len(ways) == 1 else None


def _fire_with_fix(state: StoryState, facts: Facts, event: str, caller: Caller, reason: str) -> tuple[Payload, ...]:
    """The transition; one back to BUILD adds its task (LC-91), one back from a design turns it down (LC-97)."""
    moved = fire(state, facts.fsm, event, caller=caller, now_ms=facts.now_ms, reason=reason)
    last = moved[-1]
    lifecycle = facts.fsm.lifecycles[state.lifecycle]
    if isinstance(last, StoryTransitioned) and last.loopback and lifecycle.phase(last.to) == "BUILD":
        number = sum(state.loopbacks.values()) + 1
        return (*moved, *fix_task(state, facts.new_id("tk", f"loopback/{event}/{number}"), reason.strip()))
    is_design = lifecycle.phase(state.state) == "DESIGN"
    if isinstance(last, StoryTransitioned) and last.loopback and is_design:
        role = next((name for name in ("po", "architect") if name in caller.roles), min(caller.roles, default="po"))
        return (*moved, *turn_down(state, caller.principal, role, reason.strip()))
    return moved


def turn_down(state: StoryState, by: Principal, as_role: str, reason: str) -> tuple[Payload, ...]:
    """The plan that is followed, and the design behind it, are turned down: their authors make new ones (LC-97).

    Nothing where a person wrote either of them: that person decides what comes next.
    """
    plan, decision_id = state.plan, design_decision(state)
    decision = state.decisions.get(decision_id or "")
    if plan is None or plan.status != "ADOPTED" or decision is None:
        return ()
    if plan.proposal.author.is_human or decision.proposed.author.is_human:
        return ()
    return (
        PlanRejected(plan_id=plan.proposal.plan_id, by=by, reason=reason),
        DecisionRejected(decision_id=decision.proposed.decision_id, by=by, as_role=as_role, reason=reason),
    )


def fire(
    state: StoryState, config: FsmConfig, event: str, *, caller: Caller, now_ms: int, reason: str = ""
) -> tuple[Payload, ...]:
    """What firing this event records: the transition, together with the consent of a caller who holds the gate (LC-78).

    Raises:
        InvalidTransition: the event is not in the table for this state (LC-3).
        PolicyDenied: the caller holds no role that may fire it (LC-11).
        GateClosed: guards are false; `refused` holds the TransitionRefused event to record (LC-4).
    """
    row = _row(state, config, event)
    _check_by(row, caller)
    grant = _consent(state, config, row, caller, now_ms)
    context = GuardContext(config=config, now_ms=now_ms, transition=row, reason=reason)
    results = evaluate(_with_grant(state, grant), context)
    if not all(r.ok for r in results):
        failing = "; ".join(f"{r.name}: {r.message}" for r in results if not r.ok)
        raise GateClosed(
            f"story {state.story_id} stays in {state.state}: {failing}",
            state=state.state,
            event=event,
            guards=[r.model_dump(mode="json") for r in results],
        )
    moved = StoryTransitioned(
        from_=state.state,
        event=event,
        to=row.to,
        guards=results,
        loopback=row.kind == "loopback",
        skipped=row.skips,
        reason=reason.strip() or None,
    )
    return (grant, moved) if grant else (moved,)


def refusal(state: StoryState, error: GateClosed, caller: Caller) -> TransitionRefused:
    """The record of a refused but legal attempt (LC-4)."""
    from fleet.events.story import GuardResult

    return TransitionRefused(
        state=state.state,
        event=str(error.details["event"]),
        guards=tuple(GuardResult.model_validate(g) for g in error.details["guards"]),
        principal=caller.principal,
    )


def _row(state: StoryState, config: FsmConfig, event: str) -> Transition:
    if state.disposition != "active" or state.closed:
        raise InvalidTransition(
            f"story {state.story_id} is {state.disposition if not state.closed else 'closed'}: unpark it first",
            state=state.state,
            event=event,
            allowed=[],
        )
    _require_tree(state, event)
    rows = config.lifecycles[state.lifecycle].legal(state.state)
    row = next((r for r in rows if r.event == event), None)
    if row is None:
        allowed = [r.event for r in rows]
        raise InvalidTransition(
            f"event {event!r} is not legal in state {state.state}; allowed: {', '.join(allowed) or 'none'}",
            state=state.state,
            event=event,
            allowed=allowed,
        )
    return row


def _require_tree(state: StoryState, event: str) -> None:
    """Returns when the tree is the one that a decision is about.

    It refuses while another is about to take its place.
    """
    if state.restoration is not None:
        raise InvalidTransition(
            f"story {state.story_id} is being restored to checkpoint {state.restoration.checkpoint_id}: "
            "decide again on the tree that comes of it",
            state=state.state,
            event=event,
            allowed=[],
        )


def _check_by(row: Transition, caller: Caller) -> None:
    # The owner may carry out a gate too: the guards then say that the consent is on record (LC-10).
    allowed = {*row.by, "system"} if row.kind == "gate" else {*row.by}
    if not caller.roles & allowed:
        raise PolicyDenied(
            f"{caller.principal} may not fire {row.event!r}: it is for {', '.join(row.by)}",
            rule_id="LC-11",
            allowed=list(row.by),
        )


def _consent(
    state: StoryState, config: FsmConfig, row: Transition, caller: Caller, now_ms: int
) -> ApprovalGranted | None:
    # The newest request is about the present subject; an older one may have been left behind by a loop-back.
    pending = next(
        (
            a
            for a in reversed(list(state.approvals.values()))
            if a.request.gate == row.gate and a.status == "requested" and not a.voided
        ),
        None,
    )
    if row.gate is None or pending is None or not caller.principal.is_human:
        return None
    if config.gate(state.lifecycle, row.gate).role not in caller.roles:
        return None
    return _grant(state, config, pending, caller, now_ms, notes=None)


def _with_grant(state: StoryState, grant: ApprovalGranted | None) -> StoryState:
    if grant is None:
        return state
    from fleet.story.state import Grant

    approval = state.approvals[grant.approval_id]
    granted = Grant(
        principal=grant.principal,
        as_role=grant.as_role,
        subject_digest=grant.subject_digest,
        expires_at_ms=grant.grant_expires_at,
        delegated=grant.delegated,
        notes=grant.notes,
        version=state.version,
    )
    approval = replace(approval, status="granted", grant=granted)
    return state.with_(approvals={**state.approvals, grant.approval_id: approval})


def _grant(
    state: StoryState,
    config: FsmConfig,
    approval: Approval,
    caller: Caller,
    now_ms: int,
    *,
    notes: str | None,
    delegation_id: Any = None,
) -> ApprovalGranted:
    request = approval.request
    terms = terms_of(state, config, request)
    delegated = delegation_id is not None
    check_approver(state, terms, request.subject, principal=caller.principal, roles=caller.roles, delegated=delegated)
    check_requester(request, principal=caller.principal)
    _require_no_author(state, config, request, caller)
    current = None
    # The digest of a tool call holds all that the consent is about, so it cannot change under it.
    if not is_tool_gate(request.gate):
        gate = config.gate(state.lifecycle, request.gate)
        current = subject_of(state, gate, state.tasks.get(request.subject.id))
    if current is not None and current.digest != request.subject.digest:
        raise VersionConflict(
            f"the subject of gate {request.gate} changed since it was requested: look at it again",
            expected=request.subject.digest,
            actual=current.digest,
        )
    return ApprovalGranted(
        approval_id=request.approval_id,
        principal=caller.principal,
        as_role=terms.role,
        subject_digest=request.subject.digest,
        notes=notes,
        grant_expires_at=now_ms + terms.grant_ttl_s * 1000,
        delegated=delegated,
        delegation_id=delegation_id,
    )


def _require_no_author(state: StoryState, config: FsmConfig, request: ApprovalRequested, caller: Caller) -> None:
    """Returns unless the gate is a review's, and the caller wrote something of its tree; persons too (LC-59)."""
    rows = config.lifecycles[state.lifecycle].transitions
    is_review = any("review_signoff" in row.guards and row.gate == request.gate for row in rows)
    if is_review and caller.principal in subject_authors(state, request.subject):
        raise PolicyDenied(
            f"{caller.principal} is an author of {request.subject.kind} {request.subject.id}: who reviews it wrote "
            "nothing in it",
            rule_id="author_is_approver",
        )


def find_approval(state: StoryState, name: str) -> Approval:
    """The approval with this id, or the pending one of this gate; NotFound names what is pending."""
    if name in state.approvals:
        return state.approvals[name]
    pending = [a for a in state.approvals.values() if a.status == "requested" and not a.voided]
    found = [a for a in pending if a.request.gate == name]
    if not found:
        known = ", ".join(a.request.gate for a in pending) or "none"
        raise NotFound(f"story {state.story_id} has no pending approval {name!r}; pending: {known}", pending=known)
    if is_tool_gate(name) and len(found) > 1:
        ids = ", ".join(a.request.approval_id for a in found)
        raise InvalidInput(f"{len(found)} calls wait at gate {name}: name the one you mean: {ids}", allowed=ids)
    return found[-1]


def decide_gate(
    state: StoryState,
    config: FsmConfig,
    name: str,
    *,
    approve: bool,
    caller: Caller,
    now_ms: int,
    notes: str = "",
    delegation_id: Any = None,
) -> tuple[Payload, ...]:
    """What a decision about a pending approval records; the first one wins (LC-74).

    A granted gate whose transition has no other false guard moves the story in the same append, and a granted task
    moves on in its workflow (LC-78, LC-112).
    """
    if state.closed or state.disposition in ("cancelled", "archived"):
        raise InvalidTransition(
            f"story {state.story_id} is over: nothing is left to decide", state=state.state, event=name, allowed=[]
        )
    approval = find_approval(state, name)
    if not is_tool_gate(approval.request.gate):
        _require_tree(state, name)
    _require_waiting_task(state, approval)
    if approval.status != "requested" or approval.voided:
        raise VersionConflict(
            f"approval {approval.request.approval_id} is already {approval.status}",
            status=approval.status,
            approval_id=approval.request.approval_id,
        )
    if is_tool_gate(approval.request.gate) and approval.request.expires_at <= now_ms:
        raise VersionConflict(
            f"approval {approval.request.approval_id} expired: nobody answered in time, the call has to be made again",
            status="expired",
            approval_id=approval.request.approval_id,
        )
    if not approve:
        return _reject(state, config, approval, caller, notes)
    grant = _grant(state, config, approval, caller, now_ms, notes=notes.strip() or None, delegation_id=delegation_id)
    after = _with_grant(state, grant)
    return (grant, *_follow(after, config, approval, caller, now_ms, notes=grant.notes))


def _require_waiting_task(state: StoryState, approval: Approval) -> None:
    """Returns unless the request is to accept the work of a task that went another way since (LC-112)."""
    task = state.tasks.get(approval.request.subject.id) if approval.request.gate == "task_acceptance" else None
    if task is not None and approval.status == "requested" and task.state != "pending_po_approval":
        raise VersionConflict(
            f"task {task.task.task_id} is {task.state} by now: its work does not wait for acceptance",
            status=task.state,
            approval_id=approval.request.approval_id,
        )


def _follow(
    state: StoryState, config: FsmConfig, approval: Approval, caller: Caller, now_ms: int, *, notes: str | None
) -> tuple[Payload, ...]:
    request = approval.request
    if request.gate == "task_acceptance":
        return (_task_step(state, request.subject.id, "APPROVE_STORY", "po_approved", caller),)
    if request.gate == ESCALATION:
        return resumed_by(state, approval, caller.principal, notes)
    row = next(
        (r for r in config.lifecycles[state.lifecycle].legal(state.state) if request.gate in (r.gate, r.event)), None
    )
    if row is None or state.disposition != "active":
        return ()
    results = evaluate(state, GuardContext(config=config, now_ms=now_ms, transition=row))
    if not all(r.ok for r in results):
        return ()
    return (StoryTransitioned(from_=state.state, event=row.event, to=row.to, guards=results, skipped=row.skips),)


def _task_step(
    state: StoryState, task_id: str, action: Any, to: Any, caller: Caller, feedback: str | None = None
) -> TaskTransitioned:
    task = state.tasks[task_id]
    tree = task.candidate_tree
    return TaskTransitioned(
        task_id=task.task.task_id,
        from_=task.state,  # pyright: ignore[reportArgumentType]
        action=action,
        to=to,
        actor_type="human" if caller.principal.is_human else "agent",
        principal=caller.principal,
        as_role="po",
        feedback=feedback,
        evidence=(tree,) if tree else (),
    )


def _reject(
    state: StoryState, config: FsmConfig, approval: Approval, caller: Caller, reason: str
) -> tuple[Payload, ...]:
    request = approval.request
    why = check_notes(reason, "reason")
    terms = terms_of(state, config, request)
    check_approver(state, terms, request.subject, principal=caller.principal, roles=caller.roles, delegated=False)
    rejected = ApprovalRejected(
        approval_id=request.approval_id, principal=caller.principal, as_role=terms.role, reason=why, delegated=False
    )
    if request.gate == "task_acceptance" and request.subject.id in state.tasks:
        return (rejected, _task_step(state, request.subject.id, "REQUEST_REWORK", "implementing", caller, why))
    if request.subject.kind == "plan" and request.subject.id == state.plan_id:
        return (rejected, *turn_down(state, caller.principal, terms.role, why))
    return (rejected,)


def fix_task(state: StoryState, task_id: EntityId, reason: str) -> tuple[Payload, ...]:
    """The task that a loop-back to BUILD adds, so that the build is not done again at once (LC-91).

    It goes to the role that did all the work; to a developer where several did.
    """
    if state.plan is None:
        return ()
    plan_id, roles = state.plan.proposal.plan_id, {one.task.role for one in state.tasks.values()}
    task = Task(
        task_id=task_id,
        story_id=state.story_id,
        plan_id=plan_id,
        title=f"Mend the findings of round {state.gone_back + 1}",
        description=reason,
        role=next(iter(roles)) if len(roles) == 1 else "developer",
        kind="fix",
        estimated_hours=1,
        priority=1,
        keywords=("fix", "findings"),
        acceptance_refs=tuple(c.ac_id for c in state.content.acceptance_criteria),
        risk="medium",
    )
    return (TaskAdded(plan_id=plan_id, task=task),)


class WaiveCriterion(ReasonRequest, StoryCommand):
    """A criterion may pass although no test shows it: a person says so by its name (LC-98)."""

    command = "waive_criterion"
    ac_id: Annotated[str, Field(min_length=1, max_length=80)]

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The waiver; a story that was parked for it alone goes on.

        Raises:
            PolicyDenied: the caller is no person, or holds neither role po nor qa.
            NotFound: the story has no such criterion.
            InvalidTransition: the story is over, or a test shows the criterion, or it is waived already.
        """
        caller = facts.caller
        caller.require("po", "qa", rule_id="LC-98")
        if not caller.principal.is_human:
            raise PolicyDenied(f"{caller.principal} is no person: only a person waives a criterion", rule_id="LC-98")
        require_not_over(state, self.command)
        criterion = next((c for c in shown_criteria(state, state.tree) if c.ac_id == self.ac_id), None)
        if criterion is None:
            known = ", ".join(c.ac_id for c in state.content.acceptance_criteria) or "none"
            raise NotFound(f"story {state.story_id} has no criterion {self.ac_id[:80]!r}; criteria: {known}")
        if criterion.is_settled:
            tests, waiver = words_of_tests(criterion.tests), criterion.waiver
            how = f"waived by {waiver.by}" if waiver else f"shown by {tests}"
            raise InvalidTransition(
                f"criterion {criterion.ac_id} of story {state.story_id} is {how}: nothing is to be waived",
                state=state.state,
                event="waive",
                allowed=[],
            )
        waived = CriterionWaived(
            ac_id=EntityId(criterion.ac_id),
            text=criterion.text,
            by=caller.principal,
            as_role="po" if "po" in caller.roles else "qa",
            reason=check_notes(self.reason, "reason"),
        )
        after = state.with_(waivers={**state.waivers, criterion.ac_id: waived})
        is_held = any(not c.is_settled for c in shown_criteria(after, after.tree)) or state.unresolved_steps
        if state.disposition != "parked" or is_held or state.park is None or state.park.cause != "stuck":
            return (waived,)
        return (waived, StoryUnparked(by=caller.principal, note=waived.reason, cause="stuck"))
