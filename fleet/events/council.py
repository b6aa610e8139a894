"""Council events (EV-200..EV-212)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value
from fleet.events.values import (
    CouncilKind,
    Count,
    DecimalText,
    EventGroup,
    Json,
    Millis,
    Origin,
    OutputKind,
    RoleName,
    UndecidedReason,
    Vote,
)
from fleet.ids import Digest, EntityId, Principal

__all__ = [
    "BallotCast",
    "BallotRefused",
    "CouncilBudget",
    "CouncilCancelled",
    "CouncilDecided",
    "CouncilOpened",
    "CouncilUndecided",
    "CritiqueReceived",
    "DraftFailed",
    "DraftReceived",
    "DroppedTest",
    "EstimateCast",
    "Evidence",
    "EvidenceGate",
    "EvidenceRecorded",
    "RepairReceived",
    "RosterMember",
    "RoundOpened",
    "TestsAuthored",
    "TestsFiltered",
]


class RosterMember(Value):
    """A seat of the council with its own principal; members are named by `member_id` (CN-11)."""

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


class CouncilBudget(Value):
    """What the council may use; None is unlimited (CN-8)."""

    tokens: Annotated[int, Field(gt=0)]
    wall_s: Annotated[int, Field(gt=0)]
    gpu_ms: Millis | None = None


class EvidenceGate(Value):
    """One hard gate of a candidate; None for `run_id` where no run was needed."""

    name: str
    ok: bool
    run_id: EntityId | None = None


class Evidence(Value):
    """What is known of one candidate after one round (CN-36); `tree_digest` None for kinds that are not code."""

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


class DroppedTest(Value):
    """A generated test that is not trusted, and why (CN-33)."""

    test: str
    reason: str


class _CouncilEvent(Payload):
    group: ClassVar[EventGroup] = "council"
    origin: ClassVar[Origin] = "council"
    council_id: EntityId


class CouncilOpened(_CouncilEvent):
    """Roster, rules, budget and seed are fixed (CN-20)."""

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


class DraftReceived(_CouncilEvent):
    """A proposer delivered its candidate (CN-22)."""

    member_id: EntityId
    attempt: Count
    candidate_id: EntityId
    candidate_digest: Digest
    tokens: Count


class DraftFailed(_CouncilEvent):
    """A proposer gave no usable draft; it still counts as invited (CN-24)."""

    member_id: EntityId
    attempt: Count
    code: str


class TestsAuthored(_CouncilEvent):
    """The test author delivered tests without having seen a draft (CN-23)."""

    __test__ = False

    author: EntityId
    tests_digest: Digest
    count: Count


class TestsFiltered(_CouncilEvent):
    """The validity filter ran; with `trusted` false the trusted set is empty (CN-33)."""

    __test__ = False

    kept: tuple[str, ...]
    dropped: tuple[DroppedTest, ...] = ()
    trusted: bool
    on_base: dict[str, str] | None = None
    """Test -> how it ended on the tree without any candidate (CN-32); None in councils of an older rule version."""


class EvidenceRecorded(_CouncilEvent):
    """One candidate was executed and measured in this round."""

    round: Count
    evidence: Evidence


class RoundOpened(_CouncilEvent):
    """The council is in this phase of this round (CN-15)."""

    round: Count
    phase: Literal["drafting", "evidence", "repairing", "balloting"]


class CritiqueReceived(_CouncilEvent):
    """A member that is not the author wrote a critique from the evidence (CN-41)."""

    round: Count
    candidate_id: EntityId
    critic: EntityId
    critique_digest: Digest


class RepairReceived(_CouncilEvent):
    """A repaired version was measured; the better one is kept (CN-42)."""

    round: Count
    candidate_id: EntityId
    new_digest: Digest
    kept: Literal["old", "new"]
    reason: str


class BallotCast(_CouncilEvent):
    """The first valid ballot of a voter in this round; keys of `votes` and `ranking` are candidate ids (CN-48)."""

    round: Count
    voter: EntityId
    attempt: Count
    votes: dict[EntityId, Vote]
    ranking: tuple[EntityId, ...]
    reasons_digest: Digest
    order_seed: int
    tokens: Count


class BallotRefused(_CouncilEvent):
    """A ballot that counts for nothing, neither abstention nor rejection (CN-47, CN-48)."""

    round: Count
    voter: EntityId
    attempt: Count
    code: Literal["invalid", "late", "ineligible", "duplicate"]
    ballot_digest: Digest


class EstimateCast(_CouncilEvent):
    """A member's blind value in this round (CN-70)."""

    round: Count
    member_id: EntityId
    value: Count
    reason_digest: Digest


class CouncilDecided(_CouncilEvent):
    """The council has a winner, a verdict or an estimate, and says by what (CN-56..CN-61)."""

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


class CouncilUndecided(_CouncilEvent):
    """There is no winner and no default one; a person decides (CN-56). `approval_id` None for kind estimate alone."""

    reason: UndecidedReason
    tally: dict[str, Json]
    decision_hash: Digest
    minority_report_digest: Digest
    approval_id: EntityId | None = None
    record_digest: Digest | None = None
    """The whole record, as of a decision (CN-58)."""


class CouncilCancelled(_CouncilEvent):
    """The council ended without an outcome."""

    reason: str
