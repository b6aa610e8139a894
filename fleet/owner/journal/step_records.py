"""What is recorded of a step: its key, and its one result (RC-53, RC-56)."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, cast

from pydantic import TypeAdapter

from fleet.events.step import Cost, ModelFallbackUsed, Provenance, StepArtifact, StepFinished
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import Digest, RunKey, StepId
from fleet.kernel.types import OutcomeKind
from fleet.models.port import AgentAnswer
from fleet.owner.step_contacts import contacts_of
from fleet.policy.runs.outcome import ToolOutcome, excerpt_of
from fleet.policy.runs.spec import RunResult
from fleet.redaction.redact_json import redact_json
from fleet.trees.port import BlobStore

RUN_TRIES = 12
"""How often a run is asked for that an earlier owner had cancelled when it lost the story."""

ANSWER = TypeAdapter(AgentAnswer)
_OUTCOMES: dict[str, OutcomeKind] = {
    "passed": "succeeded",
    "timeout": "timed_out",
    "cancelled": "cancelled",
}


def step_key(story_id: str, step_id: str, request: Digest, attempt: int = 1) -> RunKey:
    """The key that travels to the receiver (RC-53); another one for each attempt that somebody allowed (RC-52)."""
    text = f"{story_id}\0{step_id}\0{request}" + (f"\0{attempt}" if attempt > 1 else "")
    return RunKey(hashlib.sha256(text.encode()).hexdigest())


def run_attempts(story_id: str, step_id: str, request: Digest) -> tuple[RunKey, ...]:
    """The keys under which a run may have been asked for, first one first."""
    return tuple(step_key(story_id, step_id, request, attempt) for attempt in range(1, RUN_TRIES + 1))


def is_no_result(result: RunResult) -> bool:
    """Whether nothing is known of the command because its run was killed from outside. The key of the run is used up.

    An owner that loses its story has its runs killed, and a node or supervisor that dies takes its runs along.
    """
    return result.status == "cancelled" or (result.status == "error" and result.reason == "sandbox_lost")


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
        result_digest=await blobs.put(canonical_json(redact_json(plain(error.to_wire())))),
        excerpt=error.message[:4000],
        # Tokens of replies that could not be used were spent all the same (MB-30).
        cost=cost_of_failure(error),
        provenance=Provenance(),
        error_code=error.code,
    )


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
    found = error.details.get(name)
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _excerpt(result: RunResult) -> str | None:
    text = (result.stdout.text + result.stderr.text).strip()
    return (text[:6000] + "\n[...]\n" + text[-3000:] if len(text) > 9500 else text) or None


def plain(value: Any) -> Any:
    """The value in what canonical JSON has a form for: floats as text, models as mappings."""
    match value:
        case float():
            return repr(value)
        case dict():
            return {str(k): plain(v) for k, v in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [plain(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        case None | bool() | int() | str():
            return value
        case _:
            return plain(value.model_dump(mode="json")) if hasattr(value, "model_dump") else str(value)
