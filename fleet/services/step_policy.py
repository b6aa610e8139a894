"""The policy as the owner of a story applies it: to the steps of its own procedures, and to what others ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.ids import Principal
from fleet.story import FsmConfig, StoryState, tool_approvals
from fleet.tools import Allowed, ApprovalRecord, Denied, NeedsApproval, Policy, decide_step
from fleet.tools.roles import Phase

__all__ = ["StepPolicy", "approvals_of"]


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """config/policy.yaml with config/roles.yaml, and the lifecycles that say in which phase a story is."""

    policy: Policy
    fsm: FsmConfig

    def phase(self, state: StoryState) -> Phase:
        """The phase of the story now; a story that is over counts as in its last one."""
        return self.fsm.lifecycles[state.lifecycle].phase(state.state)

    def decide_step(
        self,
        state: StoryState,
        tool: str,
        op: str,
        *,
        principal: Principal,
        role: str,
        args: Mapping[str, Any],
        now_ms: int,
    ) -> Allowed | NeedsApproval | Denied:
        """Whether the story's own procedures may start this step now (RT-30)."""
        return decide_step(
            tool,
            op,
            principal=principal,
            role=role,
            phase=self.phase(state),
            policy=self.policy,
            args=args,
            tree=state.tree,
            rigor=state.rigor,
            approvals=approvals_of(state),
            now_ms=now_ms,
        )


def approvals_of(state: StoryState) -> Iterator[ApprovalRecord]:
    """What the story has on record for tool gates; looked at only when a call needs it, for that reads every step."""
    yield from tool_approvals(state)
