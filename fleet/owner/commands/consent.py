"""Asking a person for one tool call: the request at gate `tool:<tool>.<op>`, and what becomes of unanswered ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fleet.events.approval import ApprovalExpired, ApprovalRequested, Subject
from fleet.events.payload import Payload
from fleet.events.story import StoryParked
from fleet.kernel.digest import canonical_json
from fleet.kernel.ids import EntityId, Principal, derive_id
from fleet.owner.journal.step_records import plain
from fleet.owner.journal.story_stream import StoryStream
from fleet.policy.rules.calls import NeedsApproval
from fleet.redaction.redact_json import redact_json
from fleet.story.state import Approval, StoryState
from fleet.trees.port import BlobStore

MAX_EXPIRIES = 3
"""Unanswered requests in a row until the story is parked (LC-73)."""

_NO_PREVIEW: Mapping[str, Any] = {
    "outcome": "none",
    "text": "what it would do cannot be tried beforehand: judge it by its arguments, its tree and its target",
}
"""On the card of a call that nothing can try, as a step of the story's own is: that it was not tried is said."""


async def ask_consent(
    stream: StoryStream,
    blobs: BlobStore,
    decision: NeedsApproval,
    *,
    requester: Principal,
    call: Mapping[str, Any],
    preview: Callable[[int], Awaitable[Mapping[str, Any] | None]] | None = None,
) -> EntityId:
    """Returns the id of the request that waits for an answer about this call. It is recorded if there was none (RT-34).

    Args:
        requester: who asked; `system:...` for the story's own procedures, which all wait until a person decided.
        call: for the card that the decider sees: tool, op, args, tree, role, principal (LC-79).
        preview: says what the call would do (RT-62); asked once for each new request, with its number.
    """
    state, now_ms = stream.state, stream.clock.now_ms()
    before = _requests(state, decision)
    last = before[-1] if before else None
    payloads: list[Payload] = []
    if last is not None and last.status == "requested" and not last.voided:
        if last.request.expires_at > now_ms:
            return last.request.approval_id
        payloads.append(ApprovalExpired(approval_id=last.request.approval_id, attempt=last.request.attempt))
        if requester.kind == "system" and (_unanswered(before[:-1]) + 1) % MAX_EXPIRIES == 0:
            return await _park(stream, last, payloads)
    gate, attempt = decision.gate, len(before) + 1
    name = f"gate/{gate.name}/{decision.request_digest.hex[:16]}/{attempt}"
    seen = await preview(attempt) if preview is not None else None
    call = {**call, "preview": _NO_PREVIEW if seen is None else seen}
    card = {"gate": gate.name, "reason": decision.reason, "risk": gate.risk, **_story(state), "call": plain(dict(call))}
    request = ApprovalRequested(
        approval_id=derive_id("ap", stream.stream, name),
        gate=gate.name,
        role=gate.role,
        actor=gate.actor,
        subject=Subject(kind="request", id=gate.name.removeprefix("tool:"), digest=decision.request_digest),
        risk=gate.risk,
        expires_at=now_ms + gate.request_ttl_s * 1000,
        attempt=attempt,
        card_digest=await blobs.put(canonical_json(redact_json(card))),
        requested_by=requester,
    )
    await stream.record(name, *payloads, request, actor=requester)
    return request.approval_id


def _requests(state: StoryState, decision: NeedsApproval) -> list[Approval]:
    return [
        a
        for a in state.approvals.values()
        if a.request.gate == decision.gate.name and a.request.subject.digest == decision.request_digest
    ]


def _unanswered(requests: Sequence[Approval]) -> int:
    count = 0
    for approval in reversed(requests):
        if approval.status != "expired":
            break
        count += 1
    return count


async def _park(stream: StoryStream, last: Approval, payloads: list[Payload]) -> EntityId:
    request = last.request
    parked = StoryParked(
        cause="approval_unanswered",
        detail=f"nobody answered {MAX_EXPIRIES} requests in a row at gate {request.gate}, which is for role "
        f"{request.role}: let the story go on when somebody can, and it is asked again",
        ref=request.approval_id,
    )
    await stream.record(f"gate/expired/{request.approval_id}", *payloads, parked)
    return request.approval_id


def _story(state: StoryState) -> dict[str, Any]:
    return {
        "story": {"id": state.story_id, "title": state.content.title, "state": state.state},
        "tokens": state.tokens,
    }
