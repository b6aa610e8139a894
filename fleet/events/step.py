"""Step events: what was done, by whom, under which rule, at which cost (EV-160..EV-166)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value, is_absent
from fleet.events.values import Count, EventGroup, Millis, Origin, StepKind, StepOutcome, StuckPattern
from fleet.kernel.ids import Digest, EntityId, Principal, RunKey, StepId
from fleet.kernel.types import EffectClass, ProbeResult, RoleName


class PolicyRef(Value):
    """The rule that allowed the call, and the digest of the policy that holds it."""

    rule_id: Annotated[str, Field(min_length=1)]
    digest: Digest


# Source: MB-22.
class Reserve(Value):
    """Upper bound of what the step may use, held in every budget scope until it is settled."""

    tokens: Count = 0
    gpu_ms: Millis = 0
    wall_ms: Millis = 0
    output_tokens: Count | None = None
    """The part of `tokens` that is for the reply: the bound that the call was really made with."""
    cost_microusd: Count | None = None
    """At the dearest price that the call may be charged; absent when nothing that may answer has a price."""


# Source: MB-31.
class Cost(Value):
    """What the step used. `priced` false: the cost is unknown, which is not the same as 0."""

    tokens_in: Count = 0
    tokens_out: Count = 0
    tokens_cached: Count = 0
    gpu_ms: Millis = 0
    latency_ms: Millis = 0
    cost_microusd: Count | None = None
    priced: bool = False
    calls: Count | None = None
    """Model calls made for the step, repairs and fallbacks included."""
    queue_ms: Millis | None = None
    """Time in queues before an engine began, part of `latency_ms`."""


class Provenance(Value):
    """What produced the result: engine and prompt of a model call, image and trees of a run."""

    engine: str | None = None
    model: str | None = None
    revision: str | None = None
    seed: int | None = None
    prompt_digest: Digest | None = None
    image_digest: Digest | None = None
    tree_in_digest: Digest | None = None
    tree_out_digest: Digest | None = None
    unmet: tuple[str, ...] | None = None
    """Isolation that its sandbox lacked and that was waived (RC-32); absent when there was none."""
    contacts: tuple[str, ...] | None = None
    """What it asked for outside, as `host:port allowed|refused reason count`; absent when it asked for nothing."""


class StepArtifact(Value):
    """A file that the step left."""

    path: Annotated[str, Field(min_length=1)]
    artifact_digest: Digest
    size_bytes: Count


class _StepEvent(Payload):
    group: ClassVar[EventGroup] = "step"
    origin: ClassVar[Origin] = "steps"


# Source: RC-55.
class StepStarted(_StepEvent):
    """The step may be dispatched from here on, not before."""

    type = "StepStarted"
    step_id: StepId
    kind: StepKind
    tool: str | None = None
    op: str | None = None
    effect: EffectClass
    task_id: EntityId | None = None
    council_id: EntityId | None = None
    as_role: RoleName
    principal: Principal
    request_digest: Digest
    key: RunKey
    deadline_ms: Millis
    policy: PolicyRef
    approval_id: EntityId | None = None
    reserve: Reserve
    about: Annotated[Annotated[str, Field(max_length=300)] | None, Field(exclude_if=is_absent)] = None
    """What it does in a few words, for those who watch: the command line of an engineer, the file of an edit."""


# Source: RC-56.
class StepFinished(_StepEvent):
    """The one recorded result of the step."""

    type = "StepFinished"
    step_id: StepId
    outcome: StepOutcome
    result_digest: Digest
    excerpt: Annotated[str, Field(max_length=10_000)] | None = None
    exit_code: int | None = None
    reason: str | None = None
    artifacts: tuple[StepArtifact, ...] = ()
    cost: Cost
    provenance: Provenance
    error_code: str | None = None


# Source: RC-52.
class StepOutcomeUnknown(_StepEvent):
    """An UNSAFE step may or may not have happened; it is never repeated."""

    type = "StepOutcomeUnknown"
    step_id: StepId
    sent_digest: Digest
    sent_at: Millis
    probe: str | None = None


# Source: RC-57.
class StepResolved(_StepEvent):
    """A probe or a person said whether the step happened."""

    type = "StepResolved"
    step_id: StepId
    outcome: Literal["happened", "not_happened"]
    by: Principal
    note: str
    probe_result: ProbeResult | None = None


# Source: RT-31.
class ToolDenied(_StepEvent):
    """A call was refused by the policy."""

    type = "ToolDenied"
    tool: str
    op: str
    principal: Principal
    as_role: RoleName
    task_id: EntityId | None = None
    rule_id: str
    policy_digest: Digest
    reason: str
    call_digest: Digest | None = None
    """Digest of tool, operation and arguments: equal ones are the same call (RT-67)."""


# Source: MB-3.
class ModelFallbackUsed(_StepEvent):
    """Another entry of the model chain answered."""

    type = "ModelFallbackUsed"
    step_id: StepId
    from_: Annotated[str, Field(alias="from")]
    to: str
    reason: str


# Source: MB-41.
class StuckDetected(_StepEvent):
    """A task goes round in circles; `level` counts the answers, from a hint to parking."""

    type = "StuckDetected"
    origin = "owner"
    task_id: EntityId
    pattern: StuckPattern
    steps: tuple[StepId, ...]
    level: Annotated[int, Field(ge=1, le=4)]


class _SessionEvent(_StepEvent):
    origin = "planning"
    session_id: EntityId
    council_id: EntityId


# Source: CN-25, EV-167.
class SessionTold(_SessionEvent):
    """A person spoke to the engineer of a work session; the session reads it before its next reply."""

    type = "SessionTold"
    text: Annotated[str, Field(min_length=1, max_length=8_000)]
    by: Principal


# Source: CN-26, EV-167.
class SessionStopped(_SessionEvent):
    """A person ends a work session with the files that it has."""

    type = "SessionStopped"
    reason: str
    by: Principal


# Source: CN-27, EV-168.
class SessionForked(_SessionEvent):
    """A new work session goes on from the records of another one up to a turn, as a further candidate."""

    type = "SessionForked"
    source_id: EntityId
    """The session whose records it begins with."""
    turn: Annotated[int, Field(ge=1)]
    """The last turn of the source that it begins with."""
    of_member: EntityId
    """Whose session the source is."""
    member_id: EntityId
    """The seat of the new session, which proposes and does not vote."""
    by: Principal


# Source: CN-28, EV-169.
class SessionEnded(_SessionEvent):
    """A work session is over, and its files are what it submits."""

    type = "SessionEnded"
    origin = "owner"
    reason: str
    """`submitted`, or why it ended without that."""
    summary: Annotated[str, Field(max_length=4_000)] = ""
    """The engineer's words with its submission."""
    turns: Count
    base_digest: Digest
    head_digest: Digest
