"""One call of a tool by an agent that looks around: decided by the policy, carried out under its key, on record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple

from fleet.events.payload import Payload
from fleet.events.step import StepFinished
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import (
    FleetError,
    InvalidInput,
    OwnershipError,
    PolicyDenied,
    Retry,
)
from fleet.kernel.ids import Digest, RunKey, StepId
from fleet.models.acting.state import ObservationKind, call_digest
from fleet.models.replies.json_reply import normalise_output
from fleet.owner.journal.step_records import denied_call, failed_step, finished_call, started_step
from fleet.owner.journal.steps import StepTerms, Work, approvals_of
from fleet.owner.tools.decisions import call_tool, context_of, facts_of, require_budget
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import Allowed, CallFacts, ToolCall, request_document
from fleet.policy.rules.policy import decide
from fleet.policy.runs.outcome import ToolOutcome
from fleet.story.commands.command import Caller


class Seen(NamedTuple):
    """What a call came to, as the model is told of it."""

    kind: ObservationKind
    text: str
    latency_ms: int


class ActingCalls:
    """Calls of one seat on one tree. All are PURE: made again after a crash, they count once (RC-50)."""

    def __init__(self, bench: Workbench, work: Work, tree: Digest) -> None:
        self._bench, self._work, self._tree = bench, work, tree

    async def call(self, step_id: StepId, call: ToolCall) -> Seen:
        """What came of the call; it is carried out only if the record does not say it yet.

        Raises:
            BudgetExceeded: the story, its task or the role has used up a budget, and the call was not begun before.
            SandboxUnavailable, ToolTimeout, StoreUnavailable: nothing could carry it out now; later, by the same name.
        """
        facts = self._facts()
        request = await self._bench.blobs.put(canonical_json(request_document(call, facts)))
        step = self._bench.state.steps.get(step_id)
        finished = step.finished if step is not None else None
        return await self._seen(finished or await self._decided(step_id, call, facts, request))

    async def _decided(self, step_id: StepId, call: ToolCall, facts: CallFacts, request: Digest) -> StepFinished:
        bench = self._bench
        if not bench.journal.is_open(step_id, request):
            # The story parks until somebody raises the limit. A refusal on record would outlive it.
            await require_budget(bench, facts.role, self._work.task_id)
        policy = bench.journal.policy.policy
        decision = decide(call, facts, policy=policy, approvals=approvals_of(bench.state), now_ms=bench.now_ms)
        wall_s = decision.obligations.timeout_s if isinstance(decision, Allowed) else 0
        terms = StepTerms("tool", "PURE", wall_s)
        work = replace(self._work, tool=call.tool, op=call.op)
        started = started_step(bench.state, step_id, work, request, decision, terms, now_ms=bench.now_ms)
        if not isinstance(decision, Allowed):
            # Nobody is asked for a yes: what would need one is not for looking around. The refusal is the result of the
            # step, and so it stays the same if the policy is another one later.
            error = PolicyDenied(decision.reason, rule_id=decision.rule_id, policy_digest=str(decision.policy_digest))
            before = () if bench.journal.is_open(step_id, request) else (started,)
            return await self._refused(step_id, call, error, decision.policy_digest, *before)
        key = await bench.journal.begin(started)
        return await self._carried_out(step_id, call, facts, decision, key)

    def _facts(self) -> CallFacts:
        bench, seat, task_id = self._bench, self._work.seat, self._work.task_id
        caller = Caller(principal=seat.principal, roles=frozenset({seat.role}))
        epoch = bench.journal.epoch
        facts = facts_of(bench, caller, role=seat.role, task_id=task_id, epoch=epoch, tree=self._tree)
        # A task that a council deliberates on is with its seats. None of their calls leaves anything behind, so no two
        # of them can be in each other's way, which is what a claim is for (LC-130).
        return replace(facts, claimed_by=seat.principal)

    async def _refused(
        self, step_id: StepId, call: ToolCall, error: PolicyDenied, policy: Digest, *before: Payload
    ) -> StepFinished:
        finished = await failed_step(self._bench.blobs, step_id, error, outcome="denied")
        work, rule_id = replace(self._work, tool=call.tool, op=call.op), str(error.details.get("rule_id", "tool"))
        denied = denied_call(work, rule_id, policy, error.message[:2000], call=call_digest(call))
        return await self._finish(step_id, *before, finished, denied)

    async def _carried_out(
        self, step_id: StepId, call: ToolCall, facts: CallFacts, decision: Allowed, key: RunKey
    ) -> StepFinished:
        bench = self._bench
        context = await context_of(bench, call, facts, decision.obligations, key=key, base_tree=self._tree)
        began_ms = bench.clock.monotonic_ms()
        try:
            outcome = await call_tool(bench, call, context)
        except OwnershipError:
            raise
        except PolicyDenied as error:
            # What only the tool could see: a link in the workspace, say.
            return await self._refused(step_id, call, error, decision.policy_digest)
        except FleetError as error:
            if error.retry is Retry.LATER:
                raise
            return await self._finish(step_id, await failed_step(bench.blobs, step_id, error))
        spent_ms = bench.clock.monotonic_ms() - began_ms
        finished = await finished_call(bench.blobs, step_id, outcome, tree_in=self._tree, latency_ms=spent_ms)
        return await self._finish(step_id, finished)

    async def _finish(self, step_id: StepId, *payloads: Payload) -> StepFinished:
        return await self._bench.journal.finish(*payloads, step_id=step_id, actor=self._work.seat.principal)

    async def _seen(self, finished: StepFinished) -> Seen:
        raw, latency_ms = await self._bench.blobs.get(finished.result_digest), finished.cost.latency_ms
        if finished.error_code is None:
            outcome = ToolOutcome.model_validate_json(raw)
            return Seen(_kind_of(outcome), _told(outcome), latency_ms)
        message = json.loads(raw)["message"]
        if finished.outcome == "denied":
            return Seen("denial", f"Not allowed: {message}.", latency_ms)
        # A broken tool is no output of it, and nothing of it is shown (RT-23).
        is_ours = finished.error_code == InvalidInput.code
        return Seen("failure", f"Not carried out: {message if is_ours else 'the tool is out of order'}.", latency_ms)


def _kind_of(outcome: ToolOutcome) -> ObservationKind:
    """A program that ran gave a result, also one that says no: tests that fail are what one wants to know."""
    return "result" if outcome.outcome == "succeeded" or outcome.exit_code is not None else "failure"


def _told(outcome: ToolOutcome) -> str:
    """The outcome in words, the same on every machine."""
    text = normalise_output(outcome.text).strip()
    if outcome.outcome == "succeeded":
        return text or "(nothing)"
    ended = f"exit code {outcome.exit_code}" if outcome.exit_code is not None else outcome.reason
    return f"{outcome.outcome}: {ended}\n{text}".strip()
