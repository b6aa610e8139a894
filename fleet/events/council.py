"""Council events (EV-200..EV-212)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value, is_absent
from fleet.events.values import Count, DecimalText, EventGroup, Json, Millis, Origin
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.kernel.types import BallotRefusal, CouncilKind, OutputKind, RoleName, UndecidedReason, Vote


# Source: CN-11.
class RosterMember(Value):
    """A seat of the council with its own principal; members are named by `member_id`."""

    member_id: EntityId
    principal: Principal
    role: RoleName
    model_policy: str
    temperature: DecimalText
    prompt_variant: Count
    weight: Count = 1
    can_propose: bool = True
    can_vote: bool = True
    veto: bool = False
    test_author: bool = False
    persona: str | None = None
    """Of a named agent, as it was when the council opened (AP-79)."""
    strategy: Annotated[Literal["assisted", "session", "cascade"] | None, Field(exclude_if=is_absent)] = None
    """How the member proposes code, as it was for its engine when the council opened; None is with one reply."""
    strategy_reason: Annotated[str | None, Field(exclude_if=is_absent)] = None
    """Why it does: what models.yaml says, or what the probe of the engine measured."""


# Source: CN-8.
class CouncilBudget(Value):
    """What the council may use; None is unlimited."""

    tokens: Annotated[int, Field(gt=0)]
    wall_s: Annotated[int, Field(gt=0)]
    gpu_ms: Millis | None = None


class EvidenceGate(Value):
    """One hard gate of a candidate; None for `run_id` where no run was needed."""

    name: str
    ok: bool
    run_id: EntityId | None = None


# Source: CN-36.
class Evidence(Value):
    """What is known of one candidate after one round; `tree_digest` None for kinds that are not code."""

    candidate_id: EntityId
    round: Count
    tree_digest: Digest | None = None
    gates: tuple[EvidenceGate, ...]
    gates_ok: bool
    trusted_passed: Count
    trusted_total: Count
    cluster_id: str
    cluster_size: Count
    lint_errors: Count
    diff_lines: Count
    run_ids: tuple[EntityId, ...] = ()
    normal_digest: Digest | None = None
    """Digest of the content in normal form, where execution told it (CN-34)."""


# Source: CN-33.
class DroppedTest(Value):
    """A generated test that is not trusted, and why."""

    test: str
    reason: str


class _CouncilEvent(Payload):
    group: ClassVar[EventGroup] = "council"
    origin: ClassVar[Origin] = "council"
    council_id: EntityId


# Source: CN-20.
class CouncilOpened(_CouncilEvent):
    """Roster, rules, budget and seed are fixed."""

    type = "CouncilOpened"
    kind: CouncilKind
    output_kind: OutputKind
    task_id: EntityId | None = None
    subject_digest: Digest | None = None
    roster: tuple[RosterMember, ...]
    rubric_digest: Digest
    rule_version: Count
    quorum: Count
    pass_threshold: Literal["majority", "two_thirds"]
    rounds: Annotated[int, Field(ge=0, le=3)]
    budget: CouncilBudget
    seed: int
    deadline_at: Millis
    double_ballot: bool | None = None
    """None is true: each voter is asked in both orders (CN-46)."""
    max_on_ballot: Count | None = None
    """None is five (CN-44)."""
    retry_of: EntityId | None = None
    """The council that was sent back, or was cancelled, and that this one is in place of."""
    requested_by: Principal | None = None
    """Who asked for it: it advises, and moves nothing. None is a council that the story itself convened (CN-13)."""
    request_digest: Digest | None = None
    """The request as it was checked, with its question, requirements and rubric (CN-1..CN-12)."""
    scale: tuple[Count, ...] | None = None
    """Of an estimate: the points that a value is one of (PL-80)."""
    approval_id: EntityId | None = None
    """The request at a gate of the story that this council decides in the place of a person (LC-77)."""


# Source: CN-22.
class DraftReceived(_CouncilEvent):
    """A proposer delivered its candidate."""

    type = "DraftReceived"
    member_id: EntityId
    attempt: Count
    candidate_id: EntityId
    candidate_digest: Digest
    tokens: Count


# Source: CN-24.
class DraftFailed(_CouncilEvent):
    """A proposer gave no usable draft; it still counts as invited."""

    type = "DraftFailed"
    member_id: EntityId
    attempt: Count
    code: str


# Source: CN-23.
class TestsAuthored(_CouncilEvent):
    """The test author delivered tests without having seen a draft."""

    type = "TestsAuthored"
    __test__ = False

    author: EntityId
    tests_digest: Digest
    count: Count


# Source: CN-33.
class TestsFiltered(_CouncilEvent):
    """The validity filter ran; with `trusted` false the trusted set is empty."""

    type = "TestsFiltered"
    __test__ = False

    kept: tuple[str, ...]
    dropped: tuple[DroppedTest, ...] = ()
    trusted: bool
    on_base: dict[str, str] | None = None
    """Test -> how it ended on the tree without any candidate (CN-32); None in councils of an older rule version."""


class EvidenceRecorded(_CouncilEvent):
    """One candidate was executed and measured in this round."""

    type = "EvidenceRecorded"
    round: Count
    evidence: Evidence


# Source: CN-15.
class RoundOpened(_CouncilEvent):
    """The council is in this phase of this round."""

    type = "RoundOpened"
    round: Count
    phase: Literal["drafting", "evidence", "repairing", "balloting"]


# Source: CN-41.
class CritiqueReceived(_CouncilEvent):
    """A member that is not the author wrote a critique from the evidence."""

    type = "CritiqueReceived"
    round: Count
    candidate_id: EntityId
    critic: EntityId
    critique_digest: Digest


# Source: CN-42.
class RepairReceived(_CouncilEvent):
    """A repaired version was measured; the better one is kept."""

    type = "RepairReceived"
    round: Count
    candidate_id: EntityId
    new_digest: Digest
    kept: Literal["old", "new"]
    reason: str


# Source: CN-48.
class BallotCast(_CouncilEvent):
    """The first valid ballot of a voter in this round; keys of `votes` and `ranking` are candidate ids."""

    type = "BallotCast"
    round: Count
    voter: EntityId
    attempt: Count
    votes: dict[EntityId, Vote]
    ranking: tuple[EntityId, ...]
    reasons_digest: Digest
    order_seed: int
    tokens: Count


# Source: CN-47, CN-48.
class BallotRefused(_CouncilEvent):
    """A ballot that counts for nothing, neither abstention nor rejection."""

    type = "BallotRefused"
    round: Count
    voter: EntityId
    attempt: Count
    code: BallotRefusal
    ballot_digest: Digest


# Source: CN-70.
class EstimateCast(_CouncilEvent):
    """A member's blind value in this round."""

    type = "EstimateCast"
    round: Count
    member_id: EntityId
    value: Count
    reason_digest: Digest


# Source: CN-56..CN-61.
class CouncilDecided(_CouncilEvent):
    """The council has a winner, a verdict or an estimate, and says by what."""

    type = "CouncilDecided"
    outcome: Literal["decided"] = "decided"
    decided_in: Literal["P3", "P6"]
    winner: EntityId | None = None
    verdict: Literal["approve", "reject"] | None = None
    estimate: Count | None = None
    tally: dict[str, Json]
    decision_hash: Digest
    minority_report_digest: Digest
    counterfactuals: dict[str, Json]
    """What `first_draft`, `best_of_n` and `plurality` would have chosen, with their evidence (CN-60)."""
    tokens: dict[str, Count]
    """Tokens per phase (CN-61)."""
    decision_id: EntityId | None = None
    record_digest: Digest | None = None
    """The whole decision record: candidates, evidence, ballots with reasons, rules, seed, tokens (CN-58)."""


# Source: CN-56.
class CouncilUndecided(_CouncilEvent):
    """There is no winner and no default one; a person decides. `approval_id` None for kind estimate alone."""

    type = "CouncilUndecided"
    reason: UndecidedReason
    tally: dict[str, Json]
    decision_hash: Digest
    minority_report_digest: Digest
    approval_id: EntityId | None = None
    record_digest: Digest | None = None
    """The whole record, as of a decision (CN-58)."""


class CouncilCancelled(_CouncilEvent):
    """The council ended without an outcome."""

    type = "CouncilCancelled"
    reason: str
