"""A call within a story: what is known of it, what it would do, how its tool is called (RT-31)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from fleet.kernel.errors import FleetError, ToolTimeout
from fleet.kernel.ids import Digest, EntityId, RunKey
from fleet.owner.story_repository import packs_of, staged_repository
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import CallFacts, NeedsApproval, Obligations, ToolCall
from fleet.policy.rules.policy import obligations_of
from fleet.policy.runs.outcome import ToolOutcome
from fleet.sandbox.service.runs import project_language
from fleet.story.allowance import used_up
from fleet.story.commands.calls import call_facts
from fleet.story.commands.command import Caller
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


def facts_of(
    bench: Workbench,
    caller: Caller,
    *,
    role: str,
    task_id: EntityId | None,
    epoch: int,
    tree: Digest | None,
) -> CallFacts:
    """What the product knows about a call in this story now."""
    journal = bench.journal
    return call_facts(
        bench.state,
        journal.policy.policy,
        caller,
        role=role,
        phase=journal.policy.phase(bench.state),
        task_id=task_id,
        epoch=epoch,
        current_epoch=journal.epoch,
        tree=tree,
        budgets=journal.budgeting.limits,
        now_ms=bench.now_ms,
    )


async def require_budget(bench: Workbench, role: str, task_id: EntityId | None) -> None:
    """A tool call may start. Raises BudgetExceeded, with the limit on record, when one is used up (MB-25)."""
    over = used_up(bench.state, bench.journal.budgeting.limits, role=role, task_id=task_id, now_ms=bench.now_ms)
    if over is not None:
        raise await bench.journal.exceeded(over)


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
