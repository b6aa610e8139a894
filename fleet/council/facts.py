"""The recorded facts that a deliberation is folded from. Each can be built from one event of EV-200..EV-212."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fleet.council.ballot import Ballot
from fleet.council.config import PassThreshold
from fleet.council.evidence import CandidateEvidence
from fleet.council.roster import Member
from fleet.council.tests_filter import UntrustedTest
from fleet.kernel.ids import Digest
from fleet.kernel.types import CouncilKind, OutputKind


@dataclass(frozen=True, slots=True)
class CouncilTerms:
    """Everything that was fixed when the council opened (CN-20); a later change of config changes nothing here."""

    council_id: str
    kind: CouncilKind
    output_kind: OutputKind
    roster: tuple[Member, ...]
    rounds: int
    """Of repair; of an estimate, the rounds of answers that may be held."""
    quorum: int
    seed: int
    rubric_digest: Digest
    rule_version: int
    pass_threshold: PassThreshold = "majority"
    subject: Digest | None = None
    """What a gate is about."""
    double_ballot: bool = True
    max_on_ballot: int = 5
    critiques: bool = True
    """A repair is shown one critique by a member that is not the author."""
    is_reviewed: bool = False
    """Each candidate on the ballot gets one critique before anybody votes, and voters see it."""
    scale: tuple[int, ...] = ()
    """Points that an estimate is one of, rising."""

    @property
    def proposers(self) -> tuple[Member, ...]:
        """Members that were invited to draft, in roster order."""
        return tuple(m for m in self.roster if m.can_propose) if self.kind == "selection" else ()

    @property
    def voters(self) -> tuple[Member, ...]:
        """Members with a vote, in roster order."""
        return tuple(m for m in self.roster if m.can_vote)

    @property
    def test_author(self) -> Member | None:
        """Who writes the tests; nobody for anything but a selection of code."""
        if self.kind != "selection" or self.output_kind != "code_patch":
            return None
        return next((m for m in self.roster if m.test_author), None)


@dataclass(frozen=True, slots=True)
class DeliveredDraft:
    """A proposer delivered. Without `normal_digest` only equal bytes are one candidate (CN-34)."""

    member_id: str
    candidate_id: str
    digest: Digest
    normal_digest: Digest | None = None
    tokens: int = 0


# Source: CN-24.
@dataclass(frozen=True, slots=True)
class MissingDraft:
    """A proposer gave no usable draft; it still counts as invited."""

    member_id: str
    code: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class DeliveredTests:
    """The test author delivered `count` tests (CN-23)."""

    author: str
    digest: Digest
    count: int
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class MissingTests:
    """There are no generated tests, so the trusted set stays empty."""

    author: str
    code: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class KeptTests:
    """The validity filter ran, once, in the first round with a gate-passing candidate (CN-33)."""

    kept: tuple[str, ...]
    dropped: tuple[UntrustedTest, ...]
    trusted: bool


@dataclass(frozen=True, slots=True)
class MeasuredCandidate:
    """One candidate was measured in `evidence.round`; for a gate the candidate is `SUBJECT_ID`."""

    evidence: CandidateEvidence


@dataclass(frozen=True, slots=True)
class DeliveredCritique:
    """A member that is not the author wrote a critique for the repair of this round (CN-41)."""

    round: int
    candidate_id: str
    critic: str
    ref: Digest
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class MissingCritique:
    """There is no critique; the author repairs from the failures alone."""

    round: int
    candidate_id: str
    critic: str
    code: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class DeliveredRepair:
    """An author gave a new version. `kept` None or `new`: its evidence is owed, or comes with it; `old`: it was
    measured and is not better. In any case the evidence decides, not this field (CN-42).
    """

    round: int
    candidate_id: str
    digest: Digest
    normal_digest: Digest | None = None
    kept: Literal["old", "new"] | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class MissingRepair:
    """The author gave no new version; the old one stays."""

    round: int
    candidate_id: str
    code: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class CastBallot:
    """A valid answer to one ballot paper (CN-45)."""

    ballot: Ballot
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class CastEstimate:
    """A voter's blind value in this round, from 1 (CN-70)."""

    member_id: str
    round: int
    value: int
    reason: Digest


@dataclass(frozen=True, slots=True)
class RefusedBallot:
    """A broken ballot that counts for nothing, and answers the paper (CN-47).

    In an estimate its attempt is the round in which the voter gave no value (PL-83).
    """

    voter: str
    attempt: int
    code: Literal["invalid"]
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Budget or deadline is reached: no further call is started, what is recorded is decided on (CN-57)."""

    cause: Literal["budget_exhausted", "deadline"]


@dataclass(frozen=True, slots=True)
class Closed:
    """The outcome is on record, or the council was cancelled; nothing after it changes anything."""

    how: Literal["decided", "undecided", "cancelled"]
    details: Mapping[str, str] = field(default_factory=dict[str, str])


Fact = (
    DeliveredDraft
    | MissingDraft
    | DeliveredTests
    | MissingTests
    | KeptTests
    | MeasuredCandidate
    | DeliveredCritique
    | MissingCritique
    | DeliveredRepair
    | MissingRepair
    | CastBallot
    | RefusedBallot
    | CastEstimate
    | Interrupted
    | Closed
)
