"""What is recorded of a step: its key, and its one result (RC-53, RC-56)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from fleet.events.budget import FAILED_CALLS, UsageAdjusted
from fleet.events.step import (
    Cost,
    ModelFallbackUsed,
    PolicyRef,
    Provenance,
    Reserve,
    StepArtifact,
    StepFinished,
    StepStarted,
    ToolDenied,
)
from fleet.kernel.digest import canonical_json, canonical_value, digest_of_json
from fleet.kernel.errors import FleetError, NondeterministicPlan, OutcomeUnknown
from fleet.kernel.ids import Digest, RunKey, StepId
from fleet.kernel.types import OutcomeKind
from fleet.models.chat import CallTag
from fleet.models.engine_config import Price
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.models.routing.budget import QUANTITIES
from fleet.owner.journal.steps import Probe, StepTerms, Work
from fleet.policy.rules.calls import Allowed, Denied, NeedsApproval
from fleet.policy.runs.outcome import ToolOutcome, excerpt_of
from fleet.policy.runs.spec import EgressDecision, RunResult, RunSpec
from fleet.redaction.redact_json import redact_json
from fleet.story.allowance import CallNeed
from fleet.story.budgets import actual_spend
from fleet.story.state import Step, StoryState
from fleet.story.tool_steps import step_key
from fleet.trees.port import BlobStore

RUN_TRIES = 12
"""How often a run is asked for that an earlier owner had cancelled when it lost the story."""
MAX_CONTACTS = 50
"""Of one step; the whole list is in the result of the run."""
_MAX_ABOUT = 300
"""Characters of what is told of a step."""

ANSWER = TypeAdapter(AgentAnswer)
_OUTCOMES: dict[str, OutcomeKind] = {
    "passed": "succeeded",
    "timeout": "timed_out",
    "cancelled": "cancelled",
}


def request_digest(request: AgentRequest) -> Digest:
    """The digest of what an agent is asked."""
    return digest_of_json(canonical_value(request.pinned()))


def run_attempts(story_id: str, step_id: str, request: Digest) -> tuple[RunKey, ...]:
    """The keys under which a run may have been asked for, first one first."""
    return tuple(step_key(story_id, step_id, request, attempt) for attempt in range(1, RUN_TRIES + 1))


def is_no_result(result: RunResult) -> bool:
    """Whether nothing is known of the command because its run was killed from outside. The key of the run is used up.

    An owner that loses its story has its runs killed, and a node or supervisor that dies takes its runs along.
    """
    return result.status == "cancelled" or (result.status == "error" and result.reason == "sandbox_lost")


def started_step(
    state: StoryState,
    step_id: StepId,
    work: Work,
    request: Digest,
    decision: Allowed | NeedsApproval | Denied,
    terms: StepTerms,
    *,
    now_ms: int,
) -> StepStarted:
    """The record of the start of a step, which is its next attempt (RC-55).

    Args:
        request: digest of what is asked for; its document is stored.
        decision: of the policy, on this step.
    """
    step = state.steps.get(step_id)
    return StepStarted(
        step_id=step_id,
        kind=terms.kind,
        tool=work.tool,
        op=work.op,
        effect=terms.effect,
        task_id=work.task_id,
        council_id=work.council_id,
        as_role=work.seat.role,
        principal=work.seat.principal,
        request_digest=request,
        key=step_key(state.story_id, step_id, request, step.attempt + 1 if step else 1),
        deadline_ms=now_ms + terms.wall_s * 1000,
        policy=PolicyRef(rule_id=decision.rule_id, digest=decision.policy_digest),
        approval_id=decision.obligations.consumes if isinstance(decision, Allowed) else None,
        reserve=terms.reserve or Reserve(wall_ms=terms.wall_s * 1000),
        about=work.about[:_MAX_ABOUT] or None,
    )


def denied_call(work: Work, rule_id: str, policy: Digest, reason: str, *, call: Digest | None = None) -> ToolDenied:
    """The record of a refusal.

    Args:
        call: digest of tool, operation and arguments, by which equal calls are known.
    """
    return ToolDenied(
        tool=work.tool,
        op=work.op,
        principal=work.seat.principal,
        as_role=work.seat.role,
        task_id=work.task_id,
        rule_id=rule_id,
        policy_digest=policy,
        reason=reason,
        call_digest=call,
    )


async def finished_call(
    blobs: BlobStore, step_id: StepId, outcome: ToolOutcome, *, tree_in: Digest | None, latency_ms: int = 0
) -> StepFinished:
    """The record of a tool call that ended, however it did; its outcome is stored first."""
    return StepFinished(
        step_id=step_id,
        outcome=outcome.outcome,
        result_digest=await blobs.put(outcome.model_dump_json().encode()),
        excerpt=excerpt_of(outcome.text) or None,
        exit_code=outcome.exit_code,
        reason=outcome.reason,
        artifacts=tuple(
            StepArtifact(path=a.path, artifact_digest=a.blob, size_bytes=a.size_bytes)
            for a in outcome.artifacts
            if a.blob is not None
        ),
        cost=Cost(latency_ms=latency_ms, priced=True, cost_microusd=0),
        provenance=Provenance(
            tree_in_digest=tree_in,
            tree_out_digest=outcome.tree_out,
            unmet=outcome.unmet or None,
            contacts=contacts_of(outcome.egress),
        ),
    )


def contacts_of(decisions: Sequence[EgressDecision]) -> tuple[str, ...] | None:
    """One line for each host, port and answer, in their order, refused ones first; None when there are none."""
    counts = Counter((d.allowed, d.host, d.port, d.reason) for d in decisions)
    ordered = sorted(counts.items(), key=lambda item: item[0][0])
    return (
        tuple(
            f"{host}:{port} {'allowed' if allowed else 'refused'} {reason} {times}"
            for (allowed, host, port, reason), times in ordered[:MAX_CONTACTS]
        )
        or None
    )


async def finished_run(blobs: BlobStore, step_id: StepId, result: RunResult) -> StepFinished:
    """The record of a run that ended, however it did; its result is stored first."""
    return StepFinished(
        step_id=step_id,
        outcome=_OUTCOMES.get(result.status, "failed"),
        result_digest=await blobs.put(result.model_dump_json().encode()),
        excerpt=_excerpt(result),
        exit_code=result.exit_code,
        reason=result.reason,
        artifacts=tuple(
            StepArtifact(path=a.path, artifact_digest=a.blob, size_bytes=a.size_bytes)
            for a in result.artifacts
            if a.blob is not None
        ),
        cost=Cost(latency_ms=result.usage.wall_ms, priced=True, cost_microusd=0),
        provenance=Provenance(
            image_digest=result.image,
            tree_in_digest=result.tree_in,
            tree_out_digest=result.tree_out,
            unmet=result.unmet or None,
            contacts=contacts_of(result.egress),
        ),
    )


async def finished_ask(blobs: BlobStore, step_id: StepId, answer: AgentAnswer, *, seed: int) -> StepFinished:
    """The record of an answer; the answer is stored first."""
    return StepFinished(
        step_id=step_id,
        outcome="succeeded",
        result_digest=await blobs.put(ANSWER.dump_json(answer)),
        cost=Cost(
            tokens_in=answer.usage.tokens_in,
            tokens_out=answer.usage.tokens_out,
            tokens_cached=answer.usage.tokens_cached,
            gpu_ms=answer.gpu_ms,
            latency_ms=answer.latency_ms,
            cost_microusd=answer.cost_microusd,
            priced=answer.cost_microusd is not None,
            calls=answer.calls,
            queue_ms=answer.queue_ms or None,
        ),
        provenance=Provenance(
            engine=answer.engine,
            model=answer.model,
            revision=answer.revision,
            seed=seed,
            prompt_digest=answer.prompt,
        ),
    )


def fallbacks_of(step_id: StepId, answer: AgentAnswer) -> tuple[ModelFallbackUsed, ...]:
    """One record for each engine of the chain that another one stood in for, with the last reason (MB-3)."""
    reasons = {passed.engine: passed.reason for passed in answer.passed_over if passed.engine != answer.engine}
    return tuple(
        ModelFallbackUsed.model_validate({"step_id": step_id, "from": engine, "to": answer.engine, "reason": reason})
        for engine, reason in reasons.items()
    )


async def finished_effect(
    blobs: BlobStore,
    step_id: StepId,
    result: dict[str, Any],
    *,
    reason: str | None = None,
    trees: tuple[Digest | None, Digest | None] = (None, None),
) -> StepFinished:
    """The record of an effect that happened; its result is stored first, and its `summary` is what people see.

    Args:
        trees: those before and after it, where it is about files.
    """
    return StepFinished(
        step_id=step_id,
        outcome="succeeded",
        result_digest=await blobs.put(canonical_json(result)),
        excerpt=result.get("summary"),
        reason=reason,
        cost=Cost(priced=True, cost_microusd=0),
        provenance=Provenance(tree_in_digest=trees[0], tree_out_digest=trees[1]),
    )


async def failed_step(
    blobs: BlobStore, step_id: StepId, error: FleetError, *, outcome: Literal["failed", "denied"] = "failed"
) -> StepFinished:
    """The record of a step that ended in an error which will not go away."""
    return StepFinished(
        step_id=step_id,
        outcome=outcome,
        result_digest=await blobs.put(canonical_json(redact_json(canonical_value(error.to_wire())))),
        excerpt=error.message[:4000],
        # Tokens of replies that could not be used were spent all the same (MB-30).
        cost=cost_of_failure(error),
        provenance=Provenance(),
        error_code=error.code,
    )


def require_same_tree(step_id: StepId, result: RunResult, spec: RunSpec) -> None:
    """Raise NondeterministicPlan when the recorded result is about another tree: it says nothing of this one."""
    if None not in (result.tree_in, spec.tree) and result.tree_in != spec.tree:
        raise NondeterministicPlan(
            f"step {step_id} has a result about tree {result.tree_in} and is now about {spec.tree}: go on with the "
            "version that recorded it, or cancel the story and start it anew",
            step_id=step_id,
            recorded=result.tree_in,
            wanted=spec.tree,
        )


def require_sent(step: Step, request: Digest) -> None:
    """Raise NondeterministicPlan when the step sent something else, which cannot be undone."""
    step_id, sent = step.started.step_id, step.started.request_digest
    if sent != request:
        raise NondeterministicPlan(
            f"step {step_id} is done and cannot be undone, and would now send something else: what was sent is "
            f"{sent}, what would be sent is {request}. Go on with the version and the configuration that sent it, "
            "or cancel the story",
            step_id=step_id,
            recorded=sent,
            wanted=request,
        )


def outcome_unknown(story_id: str, step: Step, *, sent: str, probe: Probe | None) -> OutcomeUnknown:
    """The error of an UNSAFE step of which nobody knows whether it happened; `sent` is the request."""
    started = step.started
    looked = f"probe {probe.name} cannot tell" if probe else "it has no probe"
    return OutcomeUnknown(
        f"step {started.step_id} ({started.tool}.{started.op}) was sent and its outcome is not known; {looked}. "
        f"It is never repeated by itself: find out whether it happened, then run `fleet story resolve "
        f"{story_id} {started.step_id} --outcome happened|not_happened --note ...`. Sent: {sent[:2000]}",
        step_id=started.step_id,
        sent_digest=started.request_digest,
        sent_at=step.started_ms,
    )


def charged_failure(step_id: StepId, error: FleetError) -> UsageAdjusted | None:
    """The record of what calls used that left their step without an answer; None when they used nothing (MB-15)."""
    used = actual_spend(cost_of_failure(error), calls=1)
    if not (used.tokens or used.gpu_ms or used.cost_microusd):
        return None
    return UsageAdjusted(step_id=step_id, delta={k: used.of(k) for k in QUANTITIES if used.of(k)}, source=FAILED_CALLS)


def call_need(
    step_id: StepId, request: AgentRequest, work: Work, prompt_tokens: int, *, price: Price | None
) -> CallNeed:
    """What a call of a step may use, for the budgets that it counts in."""
    return CallNeed(
        step_id=step_id,
        role=work.seat.role,
        prompt_tokens=prompt_tokens,
        max_tokens=request.sampling.max_tokens,
        task_id=work.task_id,
        council_id=work.council_id,
        price=price,
    )


def call_tag(state: StoryState, work: Work) -> CallTag:
    """Whose share of an engine the calls of a step take. Those of one council go to one replica of it."""
    place = work.council_id or work.task_id or ""
    return CallTag(tenant=state.project_id, affinity=f"{state.story_id}/{place}", story=state.story_id)


def cost_of_failure(error: FleetError) -> Cost:
    """What a call cost that ended in this error, as far as the error says it."""
    used, spent = _numbers(error, "usage"), _numbers(error, "spent")
    cost = spent.get("cost_microusd")
    return Cost(
        tokens_in=used.get("tokens_in", 0),
        tokens_out=used.get("tokens_out", 0),
        tokens_cached=used.get("tokens_cached", 0),
        gpu_ms=spent.get("gpu_ms", 0),
        latency_ms=spent.get("latency_ms", 0),
        cost_microusd=cost,
        priced=cost is not None,
        calls=spent.get("calls"),
        queue_ms=spent.get("queue_ms") or None,
    )


def _numbers(error: FleetError, name: str) -> dict[str, Any]:
    value = error.details.get(name)
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _excerpt(result: RunResult) -> str | None:
    text = (result.stdout.text + result.stderr.text).strip()
    return (text[:6000] + "\n[...]\n" + text[-3000:] if len(text) > 9500 else text) or None
