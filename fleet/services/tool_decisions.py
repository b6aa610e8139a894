"""The decision on a call that was asked for: recorded when it refuses, a person asked when it needs one (RT-31)."""

from __future__ import annotations

import hashlib
from functools import partial

from fleet.digest import digest_of_json
from fleet.events import ToolDenied
from fleet.ports import Command
from fleet.services.call_preview import preview_of
from fleet.services.consent import ask_consent
from fleet.services.step_policy import approvals_of
from fleet.services.workbench import Workbench
from fleet.story import MAX_DENIALS, known_trees, stuck_on_denial
from fleet.tools import (
    Allowed,
    CallFacts,
    Denied,
    NeedsApproval,
    RunSpec,
    ToolCall,
    decide,
    enforce,
    request_document,
)

__all__ = ["decided"]


async def decided(
    bench: Workbench, command: Command, call: ToolCall, facts: CallFacts, *, spec: RunSpec | None = None
) -> Allowed:
    """The call may start now.

    Args:
        spec: of a run, whose limits, trees and hosts are looked at as well.

    Raises:
        PolicyDenied: it is refused, and the refusal is on record.
        ApprovalRequired: it waits for a person; the one request for it is on record.
    """
    policy, state = bench.journal.policy.policy, bench.state
    decision = decide(call, facts, policy=policy, approvals=approvals_of(state), now_ms=bench.now_ms)
    if spec is not None and not isinstance(decision, Denied) and (why := _spec_refusal(bench, decision, spec)):
        rule, reason = why
        decision = Denied(
            rule_id=rule, policy_digest=decision.policy_digest, request_digest=decision.request_digest, reason=reason
        )
    match decision:
        case Denied():
            if await _record_denial(bench, command, call, facts, decision):
                hint = f"{decision.reason}; it was asked for {MAX_DENIALS} times and refused: do something else"
                decision = decision.model_copy(update={"reason": hint})
        case NeedsApproval():
            shown = {**request_document(call, facts), "role": facts.role, "principal": facts.principal}
            shown |= {"task": facts.task, "spec": spec.document if spec else None}
            asked = await ask_consent(
                bench.journal,
                bench.blobs,
                decision,
                requester=facts.principal,
                call=shown,
                preview=None if spec else partial(preview_of, bench, call, facts, decision),
            )
            decision = decision.model_copy(update={"approval_id": asked})
        case Allowed():
            pass
    return enforce(decision)


async def _record_denial(
    bench: Workbench, command: Command, call: ToolCall, facts: CallFacts, decision: Denied
) -> bool:
    """The refusal is on record. True when it shows that the task is stuck, which is then on record too (RT-67)."""
    if bench.state.is_over:
        return False  # nothing more is written to a story that is over
    denied = ToolDenied(
        tool=call.tool,
        op=call.op,
        principal=facts.principal,
        as_role=facts.role,
        task_id=facts.task,
        rule_id=decision.rule_id,
        policy_digest=decision.policy_digest,
        reason=decision.reason,
        call_digest=digest_of_json({"tool": call.tool, "op": call.op, "args": call.args}),
    )
    stuck = stuck_on_denial(await bench.journal.payloads(), denied) if facts.task is not None else None
    # Not under the command's own id: a known id means that the command was carried out.
    name = hashlib.sha256(command.command_id.encode()).hexdigest()[:32]
    await bench.journal.record(f"denied/{name}", denied, actor=facts.principal)
    if stuck is not None:
        await bench.journal.record(f"stuck/{stuck.task_id}/{stuck.pattern}/{stuck.level}", stuck)
    return stuck is not None


def _spec_refusal(bench: Workbench, decision: Allowed | NeedsApproval, spec: RunSpec) -> tuple[str, str] | None:
    """Why a specification asks for more than its command's permission holds."""
    declared = bench.journal.policy.policy.capability("exec", "run")
    assert declared is not None
    timeout_s = declared.declared.timeout_s
    if spec.limits.overall_s > timeout_s:
        return "argument_invalid", f"limits.overall_s is {spec.limits.overall_s}; at most {timeout_s}"
    if spec.tree is not None and spec.tree not in known_trees(bench.state):
        return "tree_unknown", f"tree {spec.tree} does not belong to the story"
    if any(mount.kind == "repo" for mount in spec.mounts):
        return "mount_not_granted", "a repository is mounted by the fleet's own steps only"
    listed = bench.journal.policy.policy.targets.hosts
    for host in spec.hosts:
        name = host.rsplit(":", 1)[0].lower()
        if not any(name == known or (known.startswith(".") and name.endswith(known)) for known in listed):
            return "target_not_listed", f"host {host[:200]!r} is not listed"
    return None
