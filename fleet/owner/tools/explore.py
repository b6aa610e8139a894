"""An agent that looks around with tools before it works: each reply and each call is a step on record (MB-40, RC-50).

The loop itself is pure (`fleet.models.acting`); its state is what the recorded steps make of it. So whoever goes on
after a crash asks for the same steps by the same names: a recorded reply is not paid for again, and a call that was
under way is asked for by its one key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from fleet.events.step import StuckDetected
from fleet.kernel.errors import ContextTooLarge, ReplyMalformed, ReplyRefused
from fleet.kernel.ids import Digest, StepId
from fleet.models.acting.loop import Ended, Think, UseTool, next_action
from fleet.models.acting.offers import may_explore, offers_of
from fleet.models.acting.patterns import Ending
from fleet.models.acting.reply import ActReply
from fleet.models.acting.shown import findings_of, transcript_of
from fleet.models.acting.state import ActState, after_reply, after_result, after_unusable, begin
from fleet.models.port import AgentRequest
from fleet.owner.journal.step_records import cost_of_failure
from fleet.owner.journal.steps import Work
from fleet.owner.tools.acting_calls import ActingCalls
from fleet.owner.workbench import Workbench
from fleet.policy.roles import Acting
from fleet.policy.rules.matrix import offered

_UNUSABLE = (ReplyMalformed, ReplyRefused, ContextTooLarge)
_MAX_STEPS_NAMED = 20


@dataclass(frozen=True, slots=True)
class Exploration:
    """Who looks around, for which work, and where."""

    step: str
    """Its steps are named `<step>/<n>` for replies and `<step>/<n>/tool/<m>` for calls."""
    request: AgentRequest
    """Of kind `act`, without tools and turns: the prompt of the first reply."""
    work: Work
    """Seat, council and task; tool and op are those of the replies."""
    acts: Acting
    tree: Digest
    """What is looked at. It stays as it is: whatever a call does to it is thrown away."""


class Explored(NamedTuple):
    """How it ended, and what the work that follows is shown of it."""

    reason: Ending
    findings: str


def acting_of(bench: Workbench, role: str) -> Acting | None:
    """How this role looks around; None when it does not, or when nothing here could carry its calls out."""
    profile = bench.journal.policy.policy.roles.roles.get(role)
    return profile.acts if profile is not None and bench.tools is not None else None


async def explore(bench: Workbench, exploration: Exploration) -> Explored:
    """What the agent found. That it went in circles is on record once per task and pattern (MB-41).

    Raises:
        BudgetExceeded: no further reply can be paid for.
        ModelUnavailable, ModelTimeout, SandboxUnavailable, ToolTimeout, StoreUnavailable: later; what is on record
            holds.
    """
    loop = _Loop(bench, exploration)
    state = begin(exploration.acts)
    while True:
        match next_action(state):
            case Think() as think:
                state = await loop.think(state, think)
            case UseTool() as use:
                state = await loop.use(state, use)
            case Ended(reason):
                await loop.record_stuck(reason, state)
                prompt = f"{exploration.request.shared}\n{exploration.request.own}"
                return Explored(reason, findings_of(state, reason, prompt=prompt))


class _Loop:
    """The steps of one exploration."""

    def __init__(self, bench: Workbench, exploration: Exploration) -> None:
        self._bench, self._is = bench, exploration
        acts, policy = exploration.acts, bench.journal.policy
        seat = exploration.work.seat
        # Denied operations are absent from what a model is offered, and refused again if it names them (RT-35).
        offers = offered(policy.policy, seat.role, phase=policy.phase(bench.state))
        ops = {one.name: one for one in offers if may_explore(one)}
        self._offers = offers_of(ops[name] for name in acts.tools if name in ops)
        self._calls = ActingCalls(bench, exploration.work, exploration.tree)

    async def think(self, state: ActState, think: Think) -> ActState:
        """The next reply of the model is on record."""
        turns = transcript_of(state, is_last=think.is_last)
        request = replace(self._is.request, tools=self._offers, turns=turns)
        work = replace(self._is.work, tool="model", op="act")
        try:
            answer = await self._bench.journal.ask(f"{self._is.step}/{think.number}", request, work)
        except _UNUSABLE as error:
            cost = cost_of_failure(error)
            tokens = cost.tokens_in + cost.tokens_out
            return after_unusable(state, error.message, tokens=tokens, latency_ms=cost.latency_ms)
        tokens = answer.usage.tokens_in + answer.usage.tokens_out
        return after_reply(state, ActReply.model_validate(answer.value), tokens=tokens, latency_ms=answer.latency_ms)

    async def use(self, state: ActState, use: UseTool) -> ActState:
        """The call was carried out, refused or failed, and that is on record."""
        seen = await self._calls.call(StepId(f"{self._is.step}/{use.turn}/tool/{use.number}"), use.call)
        return after_result(state, seen.kind, seen.text, latency_ms=seen.latency_ms)

    async def record_stuck(self, reason: Ending, state: ActState) -> None:
        """The pattern is on record. Its answer is level 1: the work that follows is told of it (MB-41)."""
        task_id = self._is.work.task_id
        if not reason.is_stuck or task_id is None:
            return
        steps = [f"{self._is.step}/{number}" for number in range(1, len(state.turns) + 1)]
        stuck = {"task_id": task_id, "pattern": reason.value, "steps": steps[-_MAX_STEPS_NAMED:], "level": 1}
        await self._bench.journal.record(f"stuck/{task_id}/{reason.value}/1", StuckDetected.model_validate(stuck))
