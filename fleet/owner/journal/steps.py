"""What a step of a story belongs to, who does it, and whether the policy allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from fleet.events.step import Reserve
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.kernel.types import EffectClass, Phase, ProbeResult
from fleet.policy.rules.calls import Allowed, ApprovalRecord, Denied, NeedsApproval
from fleet.policy.rules.config import Policy
from fleet.policy.rules.policy import decide_step
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import StoryState, tool_approvals

_REMEMBERED = 1000
"""Decisions of steps that are kept; each new tree of a story begins anew."""


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """config/policy.yaml with config/roles.yaml, and the lifecycles that say in which phase a story is."""

    policy: Policy
    fsm: FsmConfig
    _allowed: dict[tuple[object, ...], Allowed] = field(
        init=False, compare=False, repr=False, default_factory=dict[tuple[object, ...], Allowed]
    )
    """Steps without arguments that were allowed without a person: neither time nor approvals decide about those."""

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
        asked = (tool, op, principal, role, self.phase(state), state.tree, state.rigor)
        if not args and (allowed := self._allowed.get(asked)) is not None:
            return allowed
        decision = decide_step(
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
        if not args and isinstance(decision, Allowed) and decision.obligations.consumes is None:
            if len(self._allowed) >= _REMEMBERED:
                self._allowed.clear()
            self._allowed[asked] = decision
        return decision


def approvals_of(state: StoryState) -> Iterator[ApprovalRecord]:
    """What the story has on record for tool gates. Looked at only when a call needs it, for that reads every step."""
    yield from tool_approvals(state)


@dataclass(frozen=True, slots=True)
class Seat:
    """Who does a step: a principal in one role."""

    principal: Principal
    role: str


@dataclass(frozen=True, slots=True)
class Work:
    """What a step belongs to."""

    seat: Seat
    tool: str
    op: str
    task_id: EntityId | None = None
    council_id: EntityId | None = None
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What rules of the policy look at, and what a person who is asked sees."""
    about: str = ""
    """What those who watch the story are told of the step."""


class StepTerms(NamedTuple):
    """How a step is carried out, and what it holds of the budgets meanwhile."""

    kind: Literal["model", "run", "tool"]
    effect: EffectClass
    wall_s: int
    """Seconds that it may take."""
    reserve: Reserve | None = None
    """By default its time alone."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What a PURE effect came to: its result, and the trees before and after where it changed files."""

    result: dict[str, Any]
    trees: tuple[Digest | None, Digest | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Probe:
    """A read-only look at whether an UNSAFE effect happened (RC-57)."""

    name: str
    look: Callable[[], Awaitable[ProbeResult]]
