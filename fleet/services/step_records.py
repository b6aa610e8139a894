"""What is recorded of a step: its key, and its one result (RC-53, RC-56)."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, cast

from pydantic import TypeAdapter

from fleet.digest import canonical_json
from fleet.errors import FleetError
from fleet.events import Cost, Provenance, StepArtifact, StepFinished
from fleet.ids import Digest, RunKey, StepId
from fleet.ports import AgentAnswer, BlobStore
from fleet.tools import RunResult

__all__ = ["ANSWER", "failed_step", "finished_ask", "finished_effect", "finished_run", "plain", "step_key"]

ANSWER = TypeAdapter(AgentAnswer)
_OUTCOMES: dict[str, Literal["succeeded", "failed", "timed_out", "cancelled"]] = {
    "passed": "succeeded",
    "timeout": "timed_out",
    "cancelled": "cancelled",
}


def step_key(story_id: str, step_id: str, request: Digest, attempt: int = 1) -> RunKey:
    """The key that travels to the receiver (RC-53); another one for each attempt that somebody allowed (RC-52)."""
    text = f"{story_id}\0{step_id}\0{request}" + (f"\0{attempt}" if attempt > 1 else "")
    return RunKey(hashlib.sha256(text.encode()).hexdigest())


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
            image_digest=result.image, tree_in_digest=result.tree_in, tree_out_digest=result.tree_out
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
            latency_ms=answer.latency_ms,
            priced=False,
        ),
        provenance=Provenance(
            engine=answer.engine,
            model=answer.model,
            revision=answer.revision,
            seed=seed,
            prompt_digest=answer.prompt,
        ),
    )


async def finished_effect(
    blobs: BlobStore, step_id: StepId, result: dict[str, Any], *, reason: str | None = None
) -> StepFinished:
    """The record of an effect that happened; its result is stored first."""
    return StepFinished(
        step_id=step_id,
        outcome="succeeded",
        result_digest=await blobs.put(canonical_json(result)),
        reason=reason,
        cost=Cost(priced=True, cost_microusd=0),
        provenance=Provenance(),
    )


async def failed_step(blobs: BlobStore, step_id: StepId, error: FleetError) -> StepFinished:
    """The record of a step that ended in an error which will not go away."""
    return StepFinished(
        step_id=step_id,
        outcome="failed",
        result_digest=await blobs.put(canonical_json(plain(error.to_wire()))),
        excerpt=error.message[:4000],
        # Tokens of replies that could not be used were spent all the same (MB-30).
        cost=_spent(error),
        provenance=Provenance(),
        error_code=error.code,
    )


def _spent(error: FleetError) -> Cost:
    usage = error.details.get("usage")
    known: dict[str, Any] = usage if isinstance(usage, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    return Cost(tokens_in=known.get("tokens_in", 0), tokens_out=known.get("tokens_out", 0))


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
