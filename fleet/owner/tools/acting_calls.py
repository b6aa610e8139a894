"""One call of a tool by an agent that looks around: decided by the policy, carried out under its key, on record."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import NamedTuple

from fleet.events.payload import Payload
from fleet.events.step import PolicyRef, Reserve, StepFinished, StepStarted, ToolDenied
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import (
    FleetError,
    InvalidInput,
    OwnershipError,
    PolicyDenied,
    Retry,
    ToolTimeout,
)
from fleet.kernel.ids import Digest, StepId
from fleet.models.acting.state import ObservationKind, call_digest
from fleet.models.replies.json_reply import normalise_output
from fleet.owner.journal.step_records import failed_step, finished_call, step_key
from fleet.owner.journal.steps import Work, approvals_of
from fleet.owner.story_repository import staged_repository
from fleet.owner.tools.decisions import facts_of
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import Allowed, CallFacts, Denied, NeedsApproval, ToolCall, request_document
from fleet.policy.rules.policy import decide
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.toolchains import Language
from fleet.sandbox.service.runs import language_of
from fleet.story.commands.command import Caller
from fleet.tools.port import ToolContext
from fleet.trees.tree import decode_tree

_MARGIN_S = 300
"""Beyond a tool's own time limit, waiting for its place included, until the owner stops waiting for it."""
_Decision = Allowed | NeedsApproval | Denied


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
            SandboxUnavailable, ToolTimeout, StoreUnavailable: nothing could carry it out now; later, by the same name.
        """
        facts = self._facts()
        request = await self._bench.blobs.put(canonical_json(request_document(call, facts)))
        known = self._bench.state.steps.get(step_id)
        finished = known.finished if known is not None else None
        return await self._seen(finished or await self._decided(step_id, call, facts, request))

    async def _decided(self, step_id: StepId, call: ToolCall, facts: CallFacts, request: Digest) -> StepFinished:
        bench = self._bench
        policy = bench.journal.policy.policy
        decision = decide(call, facts, policy=policy, approvals=approvals_of(bench.state), now_ms=bench.now_ms)
        is_started = bench.journal.is_open(step_id, request)
        before = bench.state.steps.get(step_id)
        attempt = before.attempt + 1 if before else 1
        started = self._started(step_id, call, request, decision, attempt=attempt)
        if not isinstance(decision, Allowed):
            return await self._refused(step_id, call, decision, () if is_started else (started,))
        if not is_started:
            phase = f"{step_id}/start" if attempt == 1 else f"{step_id}/start/{attempt}"
            await bench.journal.record(phase, started, actor=self._work.seat.principal)
        return await self._carried_out(step_id, call, facts, decision)

    def _facts(self) -> CallFacts:
        bench, seat, task_id = self._bench, self._work.seat, self._work.task_id
        caller = Caller(principal=seat.principal, roles=frozenset({seat.role}))
        epoch = bench.journal.epoch
        facts = facts_of(bench, caller, role=seat.role, task_id=task_id, epoch=epoch, tree=self._tree)
        # A task that a council deliberates on is with its seats. None of their calls leaves anything behind, so no two
        # of them can be in each other's way, which is what a claim is for (LC-130).
        return replace(facts, claimed_by=seat.principal)

    def _started(
        self, step_id: StepId, call: ToolCall, request: Digest, decision: _Decision, *, attempt: int
    ) -> StepStarted:
        wall_s = decision.obligations.timeout_s if isinstance(decision, Allowed) else 0
        return StepStarted(
            step_id=step_id,
            kind="tool",
            tool=call.tool,
            op=call.op,
            effect="PURE",
            task_id=self._work.task_id,
            council_id=self._work.council_id,
            as_role=self._work.seat.role,
            principal=self._work.seat.principal,
            request_digest=request,
            key=step_key(self._bench.state.story_id, step_id, request, attempt),
            deadline_ms=self._bench.now_ms + wall_s * 1000,
            policy=PolicyRef(rule_id=decision.rule_id, digest=decision.policy_digest),
            reserve=Reserve(wall_ms=wall_s * 1000),
        )

    async def _refused(
        self, step_id: StepId, call: ToolCall, decision: NeedsApproval | Denied, before: tuple[Payload, ...]
    ) -> StepFinished:
        """Record the refusal as the result of the step. So it stays the same if the policy is another one later.

        Nobody is asked for a yes: what would need one is not for looking around.
        """
        error = PolicyDenied(decision.reason, rule_id=decision.rule_id, policy_digest=str(decision.policy_digest))
        finished = await failed_step(self._bench.blobs, step_id, error, outcome="denied")
        return await self._finish(step_id, *before, finished, self._denial(call, error, decision.policy_digest))

    def _denial(self, call: ToolCall, error: PolicyDenied, policy: Digest) -> ToolDenied:
        seat = self._work.seat
        return ToolDenied(
            tool=call.tool,
            op=call.op,
            principal=seat.principal,
            as_role=seat.role,
            task_id=self._work.task_id,
            rule_id=str(error.details.get("rule_id", "tool")),
            policy_digest=policy,
            reason=error.message[:2000],
            call_digest=call_digest(call),
        )

    async def _carried_out(self, step_id: StepId, call: ToolCall, facts: CallFacts, decision: Allowed) -> StepFinished:
        blobs, clock = self._bench.blobs, self._bench.clock
        context = await self._context(step_id, call, facts, decision)
        began_ms = clock.monotonic_ms()
        try:
            outcome = await self._outcome(call, context)
        except OwnershipError:
            raise
        except PolicyDenied as error:
            # What only the tool could see: a link in the workspace, say.
            finished = await failed_step(blobs, step_id, error, outcome="denied")
            return await self._finish(step_id, finished, self._denial(call, error, decision.policy_digest))
        except FleetError as error:
            if error.retry is Retry.LATER:
                raise
            return await self._finish(step_id, await failed_step(blobs, step_id, error))
        spent_ms = clock.monotonic_ms() - began_ms
        return await self._finish(
            step_id, await finished_call(blobs, step_id, outcome, tree_in=self._tree, latency_ms=spent_ms)
        )

    async def _outcome(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        tools = self._bench.tools
        assert tools is not None, "nobody looks around without tools"
        self._bench.journal.admit()
        try:
            async with asyncio.timeout(context.obligations.timeout_s + _MARGIN_S):
                return await tools.call(call, context)
        except TimeoutError as error:
            raise ToolTimeout(f"{call.tool}.{call.op} gave no answer in time", tool=call.tool) from error

    async def _context(self, step_id: StepId, call: ToolCall, facts: CallFacts, decision: Allowed) -> ToolContext:
        bench, seat = self._bench, self._work.seat
        return ToolContext(
            story_id=bench.state.story_id,
            principal=seat.principal,
            role=seat.role,
            phase=facts.phase,
            key=bench.state.steps[step_id].started.key,
            epoch=bench.journal.epoch,
            obligations=decision.obligations,
            task_id=facts.task,
            tree=self._tree,
            base_tree=self._tree,
            repository=await self._repository(call),
            toolchain=bench.toolchain,
            language=await self._language(),
            environment=facts.environment,
        )

    async def _language(self) -> Language:
        """That of the story's toolchain; a Python one says nothing of the project, so its files say it."""
        known = self._bench.journal.policy.policy.toolchains.get(self._bench.toolchain)
        if known is not None and known.language != "python":
            return known.language
        return language_of(decode_tree(await self._bench.blobs.get(self._tree)))

    async def _repository(self, call: ToolCall) -> str | None:
        if call.tool != "git":
            return None
        staged = await staged_repository(self._bench)
        return staged.name if staged else None

    async def _finish(self, step_id: StepId, *payloads: Payload) -> StepFinished:
        await self._bench.journal.record(f"{step_id}/finish", *payloads, actor=self._work.seat.principal)
        finished = self._bench.state.steps[step_id].finished
        assert finished is not None
        return finished

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
