"""What a call that waits for a person would do, found out before that person is asked (RT-62)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from fleet.errors import FleetError
from fleet.ids import RunKey
from fleet.ports import ToolContext
from fleet.services.workbench import Workbench
from fleet.tools import CallFacts, NeedsApproval, ToolCall, obligations_of

__all__ = ["preview_of"]

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
