"""The approvals of tool calls that a story has on record, as the policy reads them (RT-32, LC-70)."""

from __future__ import annotations

from dataclasses import replace

from fleet.story.state import Approval, StoryState
from fleet.tools.policy_calls import ApprovalRecord

__all__ = ["tool_approvals"]


def tool_approvals(state: StoryState) -> tuple[ApprovalRecord, ...]:
    """Every request at a gate `tool:<tool>.<op>`, in the order of recording.

    One that a step names is used up (RT-33), and with it every older one for the same request: a step that was started
    again names only its last.
    """
    steps = {step.started.approval_id for step in state.steps.values()}
    records: list[ApprovalRecord] = []
    used: set[tuple[str, str]] = set()
    for approval in reversed(list(state.approvals.values())):
        if approval.request.gate.startswith("tool:"):
            record = _record(approval)
            about = (record.gate, record.subject)
            if record.approval_id in steps:
                used.add(about)
            records.append(replace(record, is_consumed=about in used))
    return tuple(reversed(records))


def _record(approval: Approval) -> ApprovalRecord:
    request, grant = approval.request, approval.grant
    return ApprovalRecord(
        approval_id=request.approval_id,
        gate=request.gate,
        # A yes to another digest than the one that was asked about is a yes to nothing.
        subject=grant.subject_digest if grant else request.subject.digest,
        status="revoked" if approval.voided and approval.status == "granted" else approval.status,
        principal=grant.principal if grant else None,
        as_role=grant.as_role if grant else None,
        expires_at_ms=grant.expires_at_ms if grant else 0,
        is_delegated=grant.delegated if grant else False,
    )
