"""Procedures at gates: ask for consent, let a delegate decide, move the story, park it."""

from __future__ import annotations

from typing import Any

from fleet.events.approval import ApprovalExpired, ApprovalRequested, Subject
from fleet.events.payload import Payload
from fleet.events.plan import Task
from fleet.events.report import OwnershipTaken
from fleet.events.story import StoryParked
from fleet.events.task import TaskAdded, TaskTransitioned
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import GateClosed
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.owner.commands.consent import MAX_EXPIRIES
from fleet.owner.commands.delegations import revoked_since
from fleet.owner.journal.story_stream import SYSTEM
from fleet.owner.workbench import Workbench
from fleet.story.approvals import delegation_for, expiries_in_a_row, last_request, subject_of
from fleet.story.commands import Caller, decide_gate, fire
from fleet.story.delegating import gate_council
from fleet.story.escalation import ESCALATION, last_escalation
from fleet.story.intents import DecideGate, ExpireGate, FireTransition, LoopBack, Park, RequestEscalation, RequestGate
from fleet.story.ownership import takeover_cause

REVIEWER = Principal("agent:reviewer-001")
"""Decides delegated po gates; authors nothing (LC-75)."""


async def request_gate(bench: Workbench, intent: RequestGate) -> None:
    """The approval is requested, with the card that its decider will see (LC-79)."""
    state = bench.state
    gate = bench.rules.fsm.gate(state.lifecycle, intent.gate)
    task = state.tasks.get(intent.task_id or "")
    subject = subject_of(state, gate, task)
    if subject is None or subject.digest != intent.subject:
        return
    await bench.journal.record(
        _request_name(bench, intent.gate, subject, intent.task_id),
        await gate_request(bench, intent.gate, subject, task_id=intent.task_id),
    )


def _request_name(bench: Workbench, gate: str, subject: Subject, task_id: str | None) -> str:
    before = last_request(bench.state, gate, subject.digest)
    name = f"gate/{gate}/{subject.digest.hex[:16]}/{before.request.attempt + 1 if before else 1}"
    return f"{name}/{task_id}" if task_id else name


async def gate_request(
    bench: Workbench, name: str, subject: Subject, *, task_id: str | None = None, requester: Principal = SYSTEM
) -> ApprovalRequested:
    """The next request for this gate and subject, with the card that its decider will see (LC-73, LC-79)."""
    state = bench.state
    gate = bench.rules.fsm.gate(state.lifecycle, name)
    before = last_request(state, name, subject.digest)
    return ApprovalRequested(
        approval_id=bench.new_id("ap", _request_name(bench, name, subject, task_id)),
        gate=name,
        role=gate.role,
        actor=gate.actor,
        subject=subject,
        risk="low",
        expires_at=bench.now_ms + gate.request_ttl_s * 1000,
        attempt=before.request.attempt + 1 if before else 1,
        card_digest=await _card(bench, name, subject, task_id),
        requested_by=requester,
    )


async def request_escalation(bench: Workbench, intent: RequestEscalation) -> None:
    """The undecided council is asked about once more, for nobody answered (LC-73, CN-56)."""
    asked = escalation_request(bench, intent.council_id)
    await bench.journal.record(f"gate/{ESCALATION}/{intent.council_id}/{asked.attempt}", asked)


def escalation_request(bench: Workbench, council_id: str, *, requester: Principal = SYSTEM) -> ApprovalRequested:
    """The next request about this undecided council: what is decided and shown is that of the one before."""
    before = last_escalation(bench.state, council_id)
    assert before is not None, "an undecided council was asked about when it ended"
    gate = bench.rules.fsm.gates[ESCALATION]
    attempt = before.request.attempt + 1
    changes = {
        "approval_id": bench.new_id("ap", f"gate/{ESCALATION}/{council_id}/{attempt}"),
        "expires_at": bench.now_ms + gate.request_ttl_s * 1000,
        "attempt": attempt,
        "requested_by": requester,
    }
    return before.request.model_copy(update=changes)


async def _card(bench: Workbench, gate: str, about: Subject, task_id: str | None) -> Digest:
    state = bench.state
    task = state.tasks.get(task_id or "")
    is_deployment = about.kind == "tree+environment"
    score = state.scores.get(state.tree or "" if is_deployment else about.digest)
    card: dict[str, Any] = {
        "gate": gate,
        "story": {"id": state.story_id, "title": state.content.title, "state": state.state},
        "task": {"id": task.task.task_id, "title": task.task.title} if task else None,
        "subject": about.digest,
        "score": score.score if score else None,
        "verdict": score.verdict if score else None,
        "limited_by": score.limited_by if score else None,
        "councils": [
            {"id": c.opened.council_id, "kind": c.opened.output_kind, "status": c.status, "winner": c.winner}
            for c in state.councils.values()
        ],
        "tokens": state.tokens,
        "feedback": list(task.feedback) if task else [],
    }
    if is_deployment:
        card["deployment"] = {"tree": state.tree, "target": _target(bench, about.id)}
    return await bench.blobs.put(canonical_json(card))


def _target(bench: Workbench, environment: str) -> Any:
    """The declared target as text, so that who decides sees what is started and watched; None when there is none."""
    found = next((target for target in bench.rules.targets if target.environment == environment), None)
    return found and found.model_dump_json()


async def expire_gate(bench: Workbench, intent: ExpireGate) -> None:
    """It is on record that nobody answered; after three such requests in a row the story is parked (LC-73)."""
    state = bench.state
    approval = state.approvals[intent.approval_id]
    request = approval.request
    payloads: list[Payload] = [ApprovalExpired(approval_id=request.approval_id, attempt=request.attempt)]
    if (expiries_in_a_row(state, approval) + 1) % MAX_EXPIRIES == 0:
        detail = (
            f"nobody answered {MAX_EXPIRIES} requests in a row at gate {request.gate}, which is for role "
            f"{request.role}: let the story go on when somebody can, and it is asked again"
        )
        payloads.append(StoryParked(cause="approval_unanswered", detail=detail, ref=request.approval_id))
    await bench.journal.record(f"expire/{request.approval_id}", *payloads)


async def decide_delegated_gate(bench: Workbench, intent: DecideGate) -> None:
    """The delegate has decided the gate, and the record says that it was delegated (LC-77).

    A standing delegation that was revoked since the story was started decides nothing: the story says that it does
    not hold any more, and another one is looked for, or a person.
    """
    state = bench.state
    approval = state.approvals[intent.approval_id]
    delegation = delegation_for(state, intent.gate, now_ms=bench.now_ms)
    if delegation is None:
        return
    revoked = await revoked_since(bench, delegation)
    if revoked is not None:
        await bench.journal.record(f"undelegated/{delegation.delegation_id}", revoked)
        return
    caller = Caller(principal=delegation.delegate, roles=frozenset({approval.request.role}))
    payloads = decide_gate(
        state,
        bench.rules.fsm,
        intent.approval_id,
        approve=True,
        caller=caller,
        now_ms=bench.now_ms,
        notes=f"Delegated by {delegation.granted_by}: {delegation.reason}{_by_council(bench, intent.approval_id)}",
        delegation_id=delegation.delegation_id,
    )
    await bench.journal.record(f"decide/{intent.approval_id}", *payloads, actor=delegation.delegate)


def _by_council(bench: Workbench, approval_id: str) -> str:
    """Which council said yes, where the gate was delegated to one."""
    council = gate_council(bench.state, approval_id)
    return f" (approved by council {council.opened.council_id})" if council is not None else ""


async def fire_transition(bench: Workbench, intent: FireTransition) -> None:
    """The story is in the next state; a guard that fell in the meantime leaves it where it is."""
    state = bench.state
    caller = Caller(principal=SYSTEM, roles=frozenset({"system"}))
    try:
        payloads = fire(state, bench.rules.fsm, intent.event, caller=caller, now_ms=bench.now_ms)
    except GateClosed:
        return
    await bench.journal.record(f"fire/{state.state}/{intent.event}/{sum(state.loopbacks.values())}", *payloads)


async def loop_back(bench: Workbench, intent: LoopBack) -> None:
    """The story is back in an earlier state with one fix task that names the findings (LC-47, LC-91)."""
    state = bench.state
    score = state.scores.get(Digest(intent.tree))
    findings = "; ".join(score.reasons) if score and score.reasons else "the pipeline blocks"
    blocks = f"The tree scored {score.score if score else 'nothing'} and blocks: {findings}"
    reason = (intent.reason or blocks)[:3900]
    caller = Caller(principal=SYSTEM, roles=frozenset({"system"}))
    moved = fire(state, bench.rules.fsm, intent.event, caller=caller, now_ms=bench.now_ms, reason=reason)
    name = _loopback_name(bench, intent.event)
    await bench.journal.record(name, *moved, *fix_task(bench, name, reason))


def _loopback_name(bench: Workbench, event: str) -> str:
    return f"loopback/{event}/{bench.state.gone_back + 1}"


def fix_task_id(bench: Workbench, event: str) -> EntityId:
    """The task that going back by this event would add now."""
    return bench.new_id("tk", _loopback_name(bench, event))


def fix_task(bench: Workbench, name: str, reason: str) -> tuple[Payload, ...]:
    """The task that a loop-back to BUILD adds, so that the build is not done again at once (LC-91)."""
    state = bench.state
    if state.plan is None:
        return ()
    plan_id = state.plan.proposal.plan_id
    task = Task(
        task_id=bench.new_id("tk", name),
        story_id=state.story_id,
        plan_id=plan_id,
        title=f"Mend the findings of round {state.gone_back + 1}",
        description=reason,
        role="developer",
        kind="fix",
        estimated_hours=1,
        priority=1,
        keywords=("fix", "findings"),
        acceptance_refs=tuple(c.ac_id for c in bench.criteria),
        risk="medium",
    )
    return (TaskAdded(plan_id=plan_id, task=task),)


async def park_story(bench: Workbench, intent: Park) -> None:
    """The story waits for a person; everything done so far is kept (LC-94)."""
    await record_park(bench, cause=intent.cause, detail=intent.detail)


async def record_park(
    bench: Workbench, *, cause: str, detail: str, code: str | None = None, ref: str | None = None
) -> None:
    """The park is on record, once per version of the story."""
    payload = StoryParked(cause=cause, code=code, detail=detail[:4000], ref=ref)  # pyright: ignore[reportArgumentType]
    await bench.journal.record(f"park/{cause}/{bench.state.version}", payload)


async def take_ownership(bench: Workbench, *, epoch: int, owner: str) -> None:
    """The stream says who owns it from here on, and why (EV-230). Not for a story that is over or is not there."""
    if not bench.journal.exists or bench.state.is_over or bench.state.epoch == epoch:
        return
    before = bench.state
    cause = takeover_cause(before.owner, owner)
    payload = OwnershipTaken(epoch=epoch, previous_epoch=before.epoch, owner=owner, cause=cause)
    await bench.journal.record(f"own/{epoch}", payload)


def system_step(
    task_id: EntityId, from_: str, action: str, to: str, *, evidence: tuple[str, ...] = ()
) -> TaskTransitioned:
    """A task transition that the system makes."""
    return TaskTransitioned(
        task_id=task_id,
        from_=from_,  # pyright: ignore[reportArgumentType]
        action=action,  # pyright: ignore[reportArgumentType]
        to=to,  # pyright: ignore[reportArgumentType]
        actor_type="system",
        principal=SYSTEM,
        as_role="system",
        evidence=evidence,
    )
