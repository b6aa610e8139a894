"""Steps of one story on record: started under a key, allowed by the policy, finished once (RC-53..RC-56)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fleet.events.payload import Payload
from fleet.events.step import PolicyRef, Reserve, StepFinished, StepStarted, ToolDenied
from fleet.kernel.clock import Clock
from fleet.kernel.ids import SYSTEM, Digest, EntityId, Principal, RunKey, StepId, StoryId
from fleet.kernel.types import EffectClass, Phase
from fleet.log.port import EventLog, SnapshotStore
from fleet.models.profiles import StepCaps
from fleet.owner.commands.consent import ask_consent
from fleet.owner.journal.step_records import step_key
from fleet.owner.journal.story_stream import StoryStream
from fleet.owner.platform_view import PlatformView
from fleet.policy.rules.calls import Allowed, ApprovalRecord, Denied, NeedsApproval
from fleet.policy.rules.config import Policy
from fleet.policy.rules.policy import decide_step, enforce
from fleet.story.allowance import require_steps
from fleet.story.commands.interventions import require_unpaused
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import StoryState, tool_approvals
from fleet.trees.port import BlobStore

_REMEMBERED = 1000
"""Decisions of steps that are kept; each new tree of a story begins anew."""
_MAX_ABOUT = 300
"""Characters of what is told of a step."""


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
        if not args and (known := self._allowed.get(asked)) is not None:
            return known
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


class Steps(StoryStream):
    """A stream, and the steps on it. What is done in a step is the matter of who builds on this."""

    def __init__(
        self,
        *,
        log: EventLog,
        blobs: BlobStore,
        clock: Clock,
        story_id: StoryId,
        epoch: int,
        policy: StepPolicy,
        snapshots: SnapshotStore | None = None,
        platform: PlatformView | None = None,
    ) -> None:
        super().__init__(log=log, clock=clock, story_id=story_id, epoch=epoch, snapshots=snapshots)
        self.blobs, self.policy, self.platform = blobs, policy, platform

    @property
    def step_caps(self) -> StepCaps:
        """How many steps the story and its tasks may take."""
        return StepCaps()

    async def require_running(self) -> None:
        """Returns when a new step may start; ApprovalRequired while story, project or fleet is paused (PL-50)."""
        require_unpaused(self.state)
        if self.platform is not None:
            await self.platform.require_running(self.state.project_id)

    def _finished(self, step_id: StepId) -> StepFinished | None:
        """The recorded result. It stays, whatever the step would ask for today (RC-58)."""
        step = self.state.steps.get(step_id)
        return step.finished if step else None

    def is_open(self, step_id: StepId, request: Digest) -> bool:
        """Whether the step is on record as started with this very request, and may still be carried out under it."""
        step = self.state.steps.get(step_id)
        return step is not None and step.started.request_digest == request and step.resolution != "not_happened"

    async def _finish(self, payload: StepFinished, work: Work, *also: Payload) -> StepFinished:
        """The result on record, which may be that of another call (EV-15)."""
        await self.record(f"{payload.step_id}/finish", payload, *also, actor=work.seat.principal)
        finished = self.state.steps[payload.step_id].finished
        assert finished is not None
        return finished

    async def _start(
        self,
        step_id: StepId,
        request: Digest,
        work: Work,
        *,
        kind: Literal["model", "run", "tool"],
        effect: EffectClass,
        wall_s: int,
        reserve: Reserve | None = None,
        also: tuple[Payload, ...] = (),
    ) -> RunKey:
        """The step is on record as started, under this key, and what belongs to it with it (RC-55).

        A step that was started with another request is started again: both requests are on record (RC-58).
        """
        known = self.state.steps.get(step_id)
        if known is not None and self.is_open(step_id, request):
            return known.started.key
        payload = await self._starting(step_id, request, work, kind=kind, effect=effect, wall_s=wall_s, reserve=reserve)
        phase = f"{step_id}/start" if known is None else f"{step_id}/start/{known.attempt + 1}"
        await self.record(phase, payload, *also, actor=work.seat.principal)
        return payload.key

    async def _starting(
        self,
        step_id: StepId,
        request: Digest,
        work: Work,
        *,
        kind: Literal["model", "run", "tool"],
        effect: EffectClass,
        wall_s: int,
        reserve: Reserve | None = None,
    ) -> StepStarted:
        """What is recorded when the step starts, once the story runs and the policy allows it."""
        known = self.state.steps.get(step_id)
        if self.platform is not None:
            # Not refused but held: what else the procedure has under way may finish (PL-50).
            await self.platform.until_running(self.state.project_id)
        require_unpaused(self.state)
        attempt = known.attempt + 1 if known else 1
        if known is None:
            require_steps(self.state, self.step_caps, task_id=work.task_id)
        allowed = await self._allowed(step_id, work)
        return StepStarted(
            step_id=step_id,
            kind=kind,
            tool=work.tool,
            op=work.op,
            effect=effect,
            task_id=work.task_id,
            council_id=work.council_id,
            as_role=work.seat.role,
            principal=work.seat.principal,
            request_digest=request,
            key=step_key(self.story_id, step_id, request, attempt),
            deadline_ms=self.clock.now_ms() + wall_s * 1000,
            policy=PolicyRef(rule_id=allowed.rule_id, digest=allowed.policy_digest),
            approval_id=allowed.obligations.consumes,
            reserve=reserve or Reserve(wall_ms=wall_s * 1000),
            about=work.about[:_MAX_ABOUT] or None,
        )

    async def _allowed(self, step_id: StepId, work: Work) -> Allowed:
        """What the policy says of the step. A refusal is on record, and a person who has to say yes is asked.

        Raises PolicyDenied, which parks the story; ApprovalRequired, with which the step waits (RT-31, RT-34).
        """
        seat = work.seat
        decision = self.policy.decide_step(
            self.state,
            work.tool,
            work.op,
            principal=seat.principal,
            role=seat.role,
            args=work.args,
            now_ms=self.clock.now_ms(),
        )
        match decision:
            case Denied():
                denied = ToolDenied(
                    tool=work.tool,
                    op=work.op,
                    principal=seat.principal,
                    as_role=seat.role,
                    task_id=work.task_id,
                    rule_id=decision.rule_id,
                    policy_digest=decision.policy_digest,
                    reason=decision.reason,
                )
                await self.record(f"{step_id}/denied/{self.state.version}", denied, actor=seat.principal)
            case NeedsApproval():
                call = {"tool": work.tool, "op": work.op, "args": dict(work.args), "tree": self.state.tree}
                call |= {"role": seat.role, "principal": seat.principal, "step": step_id, "task": work.task_id}
                asked = await ask_consent(self, self.blobs, decision, requester=SYSTEM, call=call)
                decision = decision.model_copy(update={"approval_id": asked})
            case Allowed():
                pass
        return enforce(decision)
