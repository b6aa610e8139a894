"""What the product knows about a call, whatever its caller wrote: role, phase, claim, epoch, tree (RT-30)."""

from __future__ import annotations

from typing import Any

from fleet.ids import Digest, EntityId, Principal
from fleet.services.workbench import Workbench
from fleet.story import Caller, StoryState, claimed_by
from fleet.tools import CallFacts, Policy

__all__ = ["facts_of", "roles_held"]


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
