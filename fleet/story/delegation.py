"""What a delegated gate owes: its delegate's word, or first the council that it is delegated to (LC-77). Pure."""

from __future__ import annotations

from fleet.events.approval import Subject
from fleet.story.approvals import delegation_for, supporting_fact
from fleet.story.intents import DecideGate, Intent, OpenGateCouncil
from fleet.story.state import Approval, CouncilRecord, StoryState


def gate_council(state: StoryState, approval_id: str) -> CouncilRecord | None:
    """The council that was convened on this request, whatever came of it; None before there is one."""
    return next((c for c in state.councils.values() if c.opened.approval_id == approval_id), None)


def delegated_intents(
    state: StoryState, approval: Approval, subject: Subject, *, now_ms: int, task_id: str | None = None
) -> tuple[Intent, ...]:
    """What is owed for a request that waits; empty where a person is to decide.

    A council is convened once for each request. It rejects, or comes to nothing, or is cancelled: then a person
    decides, for only a yes is delegated; nor is another one asked when the same request is made again.
    """
    request = approval.request
    delegation = delegation_for(state, request.gate, now_ms=now_ms)
    if approval.status != "requested" or delegation is None:
        return ()
    decide = DecideGate(gate=request.gate, approval_id=request.approval_id, task_id=task_id)
    if delegation.council is None:
        return (decide,) if supporting_fact(state, subject) else ()
    council = gate_council(state, request.approval_id)
    if council is None and _was_denied(state, approval):
        return ()
    if council is None:
        return (OpenGateCouncil(gate=request.gate, approval_id=request.approval_id),)
    return (decide,) if council.verdict == "approve" else ()


def _was_denied(state: StoryState, approval: Approval) -> bool:
    """Whether a council had this gate and subject before and did not say yes: asking until one does is no consent."""
    wanted = (approval.request.gate, approval.request.subject.digest)
    for council in state.councils.values():
        earlier = state.approvals.get(council.opened.approval_id or "")
        is_same = earlier is not None and (earlier.request.gate, earlier.request.subject.digest) == wanted
        if is_same and (council.verdict == "reject" or council.status == "UNDECIDED"):
            return True
    return False
