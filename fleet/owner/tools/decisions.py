"""The decision on a call that was asked for: recorded when it refuses, a person asked when it needs one (RT-31)."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Any

from fleet.events.step import ToolDenied
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import Digest, EntityId, Principal, RunKey
from fleet.log.port import Command
from fleet.owner.commands.consent import ask_consent
from fleet.owner.journal.steps import approvals_of
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import Allowed, CallFacts, Denied, NeedsApproval, ToolCall, request_document
from fleet.policy.rules.config import Policy
from fleet.policy.rules.policy import decide, enforce, obligations_of
from fleet.policy.runs.spec import RunSpec
from fleet.story.commands.command import Caller
from fleet.story.state import MAX_DENIALS, StoryState, stuck_on_denial
from fleet.story.tool_steps import claimed_by, known_trees
from fleet.tools.port import ToolContext

_WITHIN_S = 30
"""The owner of the story waits so long; whoever approves without a preview is told why there is none."""


async def preview_of(
    bench: Workbench, call: ToolCall, facts: CallFacts, decision: NeedsApproval, attempt: int
) -> dict[str, Any] | None:
    """The part `preview` of the card: outcome, text, and the blobs of what the receiver answered.

    None when the tool cannot say. That it could not be found out is said on the card, and stops nobody from deciding.
    """
    if bench.tools is None:
        return None
    obligations = obligations_of(call, facts, policy=bench.journal.policy.policy)
    name = f"{bench.state.story_id}/preview/{decision.request_digest}/{attempt}"
    context = ToolContext(
        story_id=bench.state.story_id,
        principal=facts.principal,
        role=facts.role,
        phase=facts.phase,
        key=RunKey(hashlib.sha256(name.encode()).hexdigest()),
        epoch=bench.journal.epoch,
        # It is a trial: no approval is used up by it, and it may be made again.
        obligations=obligations.model_copy(
            update={"effect": "PURE", "consumes": None, "timeout_s": min(obligations.timeout_s, _WITHIN_S)}
        ),
        task_id=facts.task,
        tree=facts.tree,
        toolchain=bench.toolchain,
        environment=facts.environment,
    )
    try:
        async with asyncio.timeout(_WITHIN_S):
            outcome = await bench.tools.preview(call, context)
    except TimeoutError:
        return {"outcome": "unknown", "text": f"what it would do could not be found out within {_WITHIN_S} s"}
    except FleetError as error:
        return {"outcome": "unknown", "code": error.code, "text": f"it could not be tried: {error.message}"}
    if outcome is None:
        return None
    return {"outcome": outcome.outcome, "text": outcome.text, "content": outcome.content, "output": outcome.output}


def roles_held(policy: Policy, principal: Principal, registered: frozenset[str]) -> frozenset[str]:
    """The roles of a principal: those of the registry; an agent that is not in it has the one it is named after."""
    if registered or principal.kind != "agent":
        return registered
    named = principal.split(":", 1)[1].rsplit("-", 1)[0]
    return frozenset({named}) & frozenset(policy.roles.roles)


def facts_of(
    bench: Workbench,
    caller: Caller,
    *,
    role: str,
    task_id: EntityId | None,
    epoch: int,
    tree: Digest | None,
    is_read_only: bool = False,
) -> CallFacts:
    """What the product knows about a call in this story now."""
    state = bench.state
    held = roles_held(bench.journal.policy.policy, caller.principal, caller.roles)
    return CallFacts(
        principal=caller.principal,
        is_enabled=bool(held),
        role=role,
        roles_held=held,
        phase=bench.journal.policy.phase(state),
        story="closed" if state.closed else "cancelled" if state.is_over else _disposition(state),
        rigor=state.rigor,
        epoch=epoch,
        current_epoch=bench.journal.epoch,
        task=task_id if task_id in state.tasks else None,
        claimed_by=claimed_by(state, task_id, now_ms=bench.now_ms),
        is_read_only=is_read_only,
        tree=tree,
        environment=bench.journal.policy.policy.targets.environment,
    )


def _disposition(state: StoryState) -> Any:
    return "parked" if state.disposition == "parked" else "active"


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
