"""What is known of a call within a story, the decision on it, and how its tool is called (RT-31)."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Any

from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import FleetError, ToolTimeout
from fleet.kernel.ids import Digest, EntityId, Principal, RunKey
from fleet.log.port import Command
from fleet.owner.commands.consent import ask_consent
from fleet.owner.journal.step_records import denied_call
from fleet.owner.journal.steps import Seat, Work, approvals_of
from fleet.owner.story_repository import packs_of, staged_repository
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import (
    Allowed,
    CallFacts,
    Denied,
    NeedsApproval,
    Obligations,
    ToolCall,
    request_document,
)
from fleet.policy.rules.config import Policy
from fleet.policy.rules.policy import decide, enforce, obligations_of
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.service.runs import project_language
from fleet.story.commands.command import Caller
from fleet.story.state import MAX_DENIALS, StoryState, stuck_on_denial
from fleet.story.tool_steps import claimed_by, known_trees
from fleet.tools.port import ToolContext

_MARGIN_S = 300
"""Beyond a tool's own time limit, waiting for its place included, until the owner stops waiting for it."""
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
    # It is a trial: no approval is used up by it, and it may be made again.
    trial = {"effect": "PURE", "consumes": None, "timeout_s": min(obligations.timeout_s, _WITHIN_S)}
    name = f"{bench.state.story_id}/preview/{decision.request_digest}/{attempt}"
    key = RunKey(hashlib.sha256(name.encode()).hexdigest())
    try:
        async with asyncio.timeout(_WITHIN_S):
            context = await context_of(bench, call, facts, obligations.model_copy(update=trial), key=key)
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


def work_of(call: ToolCall, facts: CallFacts) -> Work:
    """What the step of a call belongs to that somebody asked for."""
    return Work(Seat(facts.principal, facts.role), call.tool, call.op, facts.task)


async def context_of(
    bench: Workbench,
    call: ToolCall,
    facts: CallFacts,
    obligations: Obligations,
    *,
    key: RunKey,
    base_tree: Digest | None = None,
) -> ToolContext:
    """What the tool is told beside the call itself, in this story now.

    Args:
        base_tree: what the workspace is compared with.

    Raises StoreUnavailable: what the call is about cannot be read now.
    """
    is_git, toolchain = call.tool == "git", bench.journal.policy.policy.toolchains.get(bench.toolchain)
    staged = await staged_repository(bench) if is_git else None
    return ToolContext(
        story_id=bench.state.story_id,
        principal=facts.principal,
        role=facts.role,
        phase=facts.phase,
        key=key,
        epoch=bench.journal.epoch,
        obligations=obligations,
        task_id=facts.task,
        tree=facts.tree,
        base_tree=base_tree,
        repository=staged.name if staged else None,
        packs=await packs_of(bench, str(call.args.get("commit"))) if is_git and call.op == "push_branch" else (),
        toolchain=bench.toolchain,
        language=await project_language(bench.blobs, facts.tree, toolchain),
        environment=facts.environment,
    )


async def call_tool(bench: Workbench, call: ToolCall, context: ToolContext) -> ToolOutcome:
    """The outcome of the call under its key. Raises what the tool does; ToolTimeout when its host does not answer."""
    assert bench.tools is not None, "nothing is called without tools"
    bench.journal.admit()
    try:
        async with asyncio.timeout(context.obligations.timeout_s + _MARGIN_S):
            return await bench.tools.call(call, context)
    except TimeoutError as error:
        raise ToolTimeout(f"{call.tool}.{call.op} gave no answer in time", tool=call.tool) from error


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
    digest = digest_of_json({"tool": call.tool, "op": call.op, "args": call.args})
    denied = denied_call(work_of(call, facts), decision.rule_id, decision.policy_digest, decision.reason, call=digest)
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
