"""Procedures at gates: ask for consent, let a delegate decide, move the story, park it."""

from __future__ import annotations

from fleet.events.approval import ApprovalExpired
from fleet.events.payload import Payload
from fleet.events.plan import PlanStalled
from fleet.events.platform import DelegationRevoked
from fleet.events.report import OwnershipTaken
from fleet.events.story import RunDelegation, StoryParked
from fleet.kernel.errors import GateClosed
from fleet.kernel.ids import SYSTEM, Digest, EntityId, Principal
from fleet.owner.workbench import Workbench
from fleet.story.approvals import delegation_for, expiries_in_a_row, subject_of
from fleet.story.commands.command import Caller
from fleet.story.commands.gates import decide_gate, fire, fix_task
from fleet.story.commands.request_approval import escalation_request, gate_request, request_name
from fleet.story.delegation import gate_council, revocation_of
from fleet.story.escalation import ESCALATION
from fleet.story.intents import DecideGate, ExpireGate, FireTransition, LoopBack, Park, RequestEscalation, RequestGate
from fleet.story.ownership import takeover_cause
from fleet.story.plan_tasks import find_blockers

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
    card, requested = gate_request(
        state,
        bench.rules.fsm,
        bench.rules.targets,
        intent.gate,
        subject,
        requester=SYSTEM,
        now_ms=bench.now_ms,
        task_id=intent.task_id,
    )
    await bench.blobs.put(card.data)
    await bench.journal.record(request_name(state, intent.gate, subject, intent.task_id), requested)


async def request_escalation(bench: Workbench, intent: RequestEscalation) -> None:
    """The undecided council is asked about once more, for nobody answered (LC-73, CN-56)."""
    asked = escalation_request(bench.state, bench.rules.fsm, intent.council_id, requester=SYSTEM, now_ms=bench.now_ms)
    await bench.journal.record(f"gate/{ESCALATION}/{intent.council_id}/{asked.attempt}", asked)


async def expire_gate(bench: Workbench, intent: ExpireGate) -> None:
    """It is on record that nobody answered; after a number of such requests the story is parked (LC-73)."""
    state = bench.state
    approval = state.approvals[intent.approval_id]
    request = approval.request
    payloads: list[Payload] = [ApprovalExpired(approval_id=request.approval_id, attempt=request.attempt)]
    limit = bench.rules.fsm.limits.expiries_before_park
    if (expiries_in_a_row(state, approval) + 1) % limit == 0:
        detail = (
            f"nobody answered {limit} requests in a row at gate {request.gate}, which is for role "
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


async def revoked_since(bench: Workbench, delegation: RunDelegation) -> DelegationRevoked | None:
    """What the story has to say when a standing delegation of it was revoked; None while it holds."""
    platform = bench.journal.platform
    return revocation_of(await platform.state(), delegation) if platform is not None else None


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
    await bench.journal.record(name, *moved, *fix_task(state, bench.new_id("tk", name), reason))


def _loopback_name(bench: Workbench, event: str) -> str:
    return f"loopback/{event}/{bench.state.gone_back + 1}"


def fix_task_id(bench: Workbench, event: str) -> EntityId:
    """The task that going back by this event would add now."""
    return bench.new_id("tk", _loopback_name(bench, event))


async def park_story(bench: Workbench, intent: Park) -> None:
    """The story waits for a person; everything done so far is kept (LC-94). A stalled plan names its blockers."""
    blockers = find_blockers(bench.state) if intent.cause == "plan_stalled" else ()
    plan_id = bench.state.plan_id
    stalled = (PlanStalled(plan_id=EntityId(plan_id), blockers=blockers),) if blockers and plan_id else ()
    await record_park(bench, *stalled, cause=intent.cause, detail=intent.detail)


async def record_park(
    bench: Workbench, *before: Payload, cause: str, detail: str, code: str | None = None, ref: str | None = None
) -> None:
    """The park is on record with what comes before it, once per version of the story."""
    payload = StoryParked(cause=cause, code=code, detail=detail[:4000], ref=ref)  # pyright: ignore[reportArgumentType]
    await bench.journal.record(f"park/{cause}/{bench.state.version}", *before, payload)


async def take_ownership(bench: Workbench, *, epoch: int, owner: str) -> None:
    """The stream says who owns it from here on, and why (EV-230). Not for a story that is over or is not there.

    A story whose own definitions are not to be had goes on with those in force, which is on record with it (GL-23).
    """
    if not bench.journal.exists or bench.state.is_over or bench.state.epoch == epoch:
        return
    before = bench.state
    cause = takeover_cause(before.owner, owner)
    payload = OwnershipTaken(epoch=epoch, previous_epoch=before.epoch, owner=owner, cause=cause)
    moves = bench.definitions.moves(before.config) if bench.definitions is not None else ()
    await bench.journal.record(f"own/{epoch}", payload, *moves)
