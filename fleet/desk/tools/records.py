"""Calls and runs of stories as those who asked for them see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from fleet.kernel.errors import FleetError, NotFound
from fleet.kernel.ids import Digest, EntityId, RunKey, StepId, StoryId
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One tool call and where it is."""

    story_id: StoryId
    step_id: StepId
    """`tool/<session>/<invocation>`: the name under which it is recorded."""
    status: Literal["queued", "running", "finished", "unknown"]
    """`queued`: the owner has not decided yet; `unknown`: nobody knows whether it happened, a person has to say."""
    outcome: ToolOutcome | None = None
    """Of a call that was carried out."""
    error: FleetError | None = None
    """Of a finished call that nothing could carry out, or that its tool refused."""

    @property
    def invocation_id(self) -> EntityId:
        """The id by which the outside names it."""
        return entity_of(self.step_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run and where it is."""

    story_id: StoryId
    run_id: EntityId
    status: Literal["queued", "running", "finished"]
    result: RunResult | None = None
    error: FleetError | None = None
    """Of a finished run that no sandbox could hold."""
    task_id: EntityId | None = None
    key: RunKey | None = None
    started_ms: int | None = None
    """UTC milliseconds since the Unix epoch, as recorded; None before it was decided."""
    finished_ms: int | None = None
    tree_in: Digest | None = None


def outputs_of(raw: bytes, *, is_run: bool) -> set[Digest | None]:
    """What a recorded result refers to beside its artifacts; nothing that stands in an output counts."""
    try:
        if is_run:
            result = RunResult.model_validate_json(raw)
            return {result.log, result.stdout.blob, result.stderr.blob}
        outcome = ToolOutcome.model_validate_json(raw)
    except ValidationError:
        return set()  # recorded by a person who resolved the step: no outputs
    return {outcome.output, outcome.run_log}


def unknown_step(story_id: StoryId, step_id: StepId) -> NotFound:
    """The error for a call that is not there, or is somebody else's."""
    return NotFound(f"story {story_id} has no call {step_id} of yours", step_id=step_id)


def entity_of(step_id: StepId) -> EntityId:
    """The id by which the outside names a call or run: `<session>-<invocation>`, or that of the run."""
    return EntityId(step_id.split("/", 1)[1].replace("/", "-"))
