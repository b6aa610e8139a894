"""Calls of tools and runs within a story: which steps they are, what they need, and a person's consent to one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fleet.events.approval import ApprovalExpired, ApprovalRequested, Subject
from fleet.events.payload import Payload
from fleet.events.story import StoryParked
from fleet.kernel.digest import canonical_json, canonical_value, digest_of
from fleet.kernel.ids import Digest, EntityId, Principal, RunKey, StreamId, derive_id
from fleet.policy.rules.calls import NeedsApproval
from fleet.redaction.redact_json import redact_json
from fleet.story.state import Approval, Step, StoryState

_PREFIXES = ("tool/", "run/")
_NO_PREVIEW: Mapping[str, Any] = {
    "outcome": "none",
    "text": "what it would do cannot be tried beforehand: judge it by its arguments, its tree and its target",
}
"""On the card of a call that nothing can try, as a step of the story's own is: that it was not tried is said."""
Due = Literal["carry_out", "declare_unknown", "conclude"]


def asked_steps(state: StoryState) -> tuple[Step, ...]:
    """Every step that somebody asked for, oldest first; the others are those of the story's own procedures."""
    return tuple(step for name, step in state.steps.items() if name.startswith(_PREFIXES))


def open_asked_steps(state: StoryState) -> tuple[Step, ...]:
    """Those of them that have no result."""
    return tuple(step for step in asked_steps(state) if step.finished is None)


def due_of(step: Step, *, epoch: int, is_dispatched: bool) -> Due | None:
    """What the owner of this epoch has to do about an asked step. None when nothing, or when a person has to.

    PURE and KEYED ones are carried out, again if need be, under their one key. An UNSAFE one of an earlier epoch was
    perhaps sent: it is never repeated, and somebody has to say what came of it (RC-52).

    Args:
        is_dispatched: this owner has begun to carry it out.
    """
    if step.finished is not None:
        return None
    if step.resolution == "not_happened":
        return "conclude"
    if step.unknown is not None or is_dispatched:
        return None
    return "declare_unknown" if step.started.effect == "UNSAFE" and step.epoch != epoch else "carry_out"


def session_steps(state: StoryState, session_id: str) -> tuple[Step, ...]:
    """The calls of one session, oldest first."""
    prefix = f"tool/{session_id}/"
    return tuple(step for name, step in state.steps.items() if name.startswith(prefix))


def session_tree(state: StoryState, session_id: str, task_id: EntityId | None) -> Digest | None:
    """The workspace of a session now: what its last finished call left, else that of its task, else the story's."""
    for step in reversed(session_steps(state, session_id)):
        if step.finished is not None and step.finished.provenance.tree_out_digest is not None:
            return step.finished.provenance.tree_out_digest
    return base_tree(state, task_id)


def base_tree(state: StoryState, task_id: EntityId | None) -> Digest | None:
    """What a session begins with: the work of its task that is under review, else the tree of the story."""
    task = state.tasks.get(task_id or "")
    return task.candidate_tree if task is not None and task.candidate_tree is not None else state.tree


def known_trees(state: StoryState) -> frozenset[Digest]:
    """Every tree that belongs to the story: a run over any other would read what the story was not given."""
    found = {state.base_tree, state.tree, *(task.candidate_tree for task in state.tasks.values())}
    for step in state.steps.values():
        if step.finished is not None:
            found.add(step.finished.provenance.tree_out_digest)
    return frozenset(tree for tree in found if tree is not None)


def claimed_by(state: StoryState, task_id: EntityId | None, *, now_ms: int) -> Principal | None:
    """Who has the task now; None when nobody has."""
    task = state.tasks.get(task_id or "")
    claim = task.claim if task is not None else None
    return claim.principal if claim is not None and claim.expires_at_ms > now_ms else None


def step_key(story_id: str, step_id: str, request: Digest, attempt: int = 1) -> RunKey:
    """The key that travels to the receiver (RC-53); another one for each attempt that somebody allowed (RC-52)."""
    text = f"{story_id}\0{step_id}\0{request}" + (f"\0{attempt}" if attempt > 1 else "")
    return RunKey(hashlib.sha256(text.encode()).hexdigest())


class ConsentRequest(NamedTuple):
    """The request for a person's consent to one call, and what is recorded for it."""

    approval_id: EntityId
    name: str = ""
    """The command under which `records` are recorded."""
    records: tuple[Payload, ...] = ()
    """Empty when the request is on record already."""
    card: bytes = b""
    """What the decider sees; it is stored before `records` are recorded, which name it by its digest."""


def consent_attempt(state: StoryState, decision: NeedsApproval, *, now_ms: int) -> int | None:
    """The number of the request that has to be made for exactly this call; None when none has to."""
    before = _consents(state, decision)
    if before and _waits(before[-1], now_ms):
        return None
    return len(before) + 1


def request_consent(
    state: StoryState,
    decision: NeedsApproval,
    *,
    requester: Principal,
    call: Mapping[str, Any],
    now_ms: int,
    preview: Mapping[str, Any] | None = None,
    most_unanswered: int | None = None,
) -> ConsentRequest:
    """The one request that waits for an answer about exactly this call, or the next one (RT-34).

    Args:
        requester: who asked; `system:...` for the story's own procedures, which all wait until a person decided.
        call: for the card that the decider sees: tool, op, args, tree, role, principal (LC-79).
        preview: what the call would do (RT-62); None when nothing can say that.
        most_unanswered: after so many requests in a row that nobody answered the story is parked instead (LC-73); None
            for callers, who may ask again.
    """
    before = _consents(state, decision)
    last = before[-1] if before else None
    expired = tuple[Payload, ...]()
    if last is not None and last.status == "requested" and not last.voided:
        if _waits(last, now_ms):
            return ConsentRequest(last.request.approval_id)
        expired = (ApprovalExpired(approval_id=last.request.approval_id, attempt=last.request.attempt),)
        if most_unanswered is not None and _is_unanswered(before, most_unanswered):
            approval_id = last.request.approval_id
            parked = _park(last, most_unanswered)
            return ConsentRequest(approval_id, f"gate/expired/{approval_id}", (*expired, parked))
    gate, attempt = decision.gate, len(before) + 1
    name = f"gate/{gate.name}/{decision.request_digest.hex[:16]}/{attempt}"
    shown = {**call, "preview": _NO_PREVIEW if preview is None else preview}
    card = canonical_json(
        redact_json(
            {
                "gate": gate.name,
                "reason": decision.reason,
                "risk": gate.risk,
                "story": {"id": state.story_id, "title": state.content.title, "state": state.state},
                "tokens": state.tokens,
                "call": canonical_value(shown),
            }
        )
    )
    request = ApprovalRequested(
        approval_id=derive_id("ap", StreamId.of_story(state.story_id), name),
        gate=gate.name,
        role=gate.role,
        actor=gate.actor,
        subject=Subject(kind="request", id=gate.name.removeprefix("tool:"), digest=decision.request_digest),
        risk=gate.risk,
        expires_at=now_ms + gate.request_ttl_s * 1000,
        attempt=attempt,
        card_digest=digest_of(card),
        requested_by=requester,
    )
    return ConsentRequest(request.approval_id, name, (*expired, request), card)


def _consents(state: StoryState, decision: NeedsApproval) -> list[Approval]:
    return [
        a
        for a in state.approvals.values()
        if a.request.gate == decision.gate.name and a.request.subject.digest == decision.request_digest
    ]


def _waits(approval: Approval, now_ms: int) -> bool:
    return approval.status == "requested" and not approval.voided and approval.request.expires_at > now_ms


def _is_unanswered(requests: Sequence[Approval], limit: int) -> bool:
    """Whether the last request, whose time is over, is one too many that nobody answered."""
    if not requests or requests[-1].status != "requested" or requests[-1].voided:
        return False
    count = 1
    for approval in reversed(requests[:-1]):
        if approval.status != "expired":
            break
        count += 1
    return count % limit == 0


def _park(last: Approval, limit: int) -> StoryParked:
    request = last.request
    return StoryParked(
        cause="approval_unanswered",
        detail=f"nobody answered {limit} requests in a row at gate {request.gate}, which is for role "
        f"{request.role}: let the story go on when somebody can, and it is asked again",
        ref=request.approval_id,
    )
