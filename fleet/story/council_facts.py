"""What the events of a council say, as the facts that `fleet.council` folds (EV-200..EV-208)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from fleet.council import facts
from fleet.council.ballot import Ballot
from fleet.council.evidence import CandidateEvidence
from fleet.council.facts import CouncilTerms, Fact, MissingTests
from fleet.council.roster import Member
from fleet.council.state import CouncilState, evolve
from fleet.council.tests_filter import UntrustedTest
from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilOpened,
    CritiqueReceived,
    DraftFailed,
    DraftReceived,
    EstimateCast,
    EvidenceRecorded,
    RepairReceived,
    TestsAuthored,
    TestsFiltered,
)
from fleet.kernel.ids import Digest

CouncilSaid = (
    DraftReceived
    | DraftFailed
    | TestsAuthored
    | TestsFiltered
    | EvidenceRecorded
    | CritiqueReceived
    | RepairReceived
    | BallotCast
    | BallotRefused
    | EstimateCast
)
"""What members and sandbox delivered between the opening and the outcome."""
Normal = Mapping[tuple[str, int], Digest | None]
"""Normal form by candidate and round, where execution told it."""

_OF_WORK = {"persona", "strategy", "strategy_reason"}
"""How a member works, which its vote does not depend on."""


def duty_of(p: CouncilSaid) -> str:
    """The duty that a payload answers: the first answer counts (CN-48, CN-109)."""
    match p:
        case DraftReceived() | DraftFailed():
            return f"draft/{p.member_id}"
        case TestsAuthored():
            return "tests"
        case TestsFiltered():
            return "filter"
        case EvidenceRecorded():
            return f"evidence/{p.round}/{p.evidence.candidate_id}"
        case CritiqueReceived():
            return f"critique/{p.round}/{p.candidate_id}"
        case RepairReceived():
            return f"repair/{p.round}/{p.candidate_id}"
        case BallotCast() | BallotRefused():
            return f"ballot/{p.voter}/{p.attempt}"
        case EstimateCast():
            return f"ballot/{p.member_id}/{p.round}"
        case _:
            assert_never(p)


def council_state(opened: CouncilOpened, said: Iterable[CouncilSaid]) -> CouncilState:
    """The deliberation as recorded; whatever the order of `said`, the same things are owed next (CN-107)."""
    known = tuple(said)
    normal: Normal = {
        (p.evidence.candidate_id, p.evidence.round): p.evidence.normal_digest
        for p in known
        if isinstance(p, EvidenceRecorded)
    }
    author = next((m.member_id for m in opened.roster if m.test_author), None)
    state = CouncilState(_opened(opened))
    for payload in known:
        state = evolve(state, _fact(payload, author, normal))
    return state


def _opened(p: CouncilOpened) -> CouncilTerms:
    is_code = p.output_kind == "code_patch"
    return CouncilTerms(
        council_id=p.council_id,
        kind=p.kind,
        output_kind=p.output_kind,
        roster=tuple(Member.model_validate(m.model_dump(exclude=_OF_WORK)) for m in p.roster),
        # Only what can be executed says what there is to repair; anything else is reviewed once, for the voters.
        rounds=p.rounds if is_code or p.kind == "estimate" else 0,
        is_reviewed=not is_code and p.rounds > 0 and p.kind != "estimate",
        critiques=False,
        quorum=p.quorum,
        seed=p.seed,
        rubric_digest=p.rubric_digest,
        rule_version=p.rule_version,
        pass_threshold=p.pass_threshold,
        subject=p.subject_digest if p.kind == "gate" else None,
        double_ballot=p.double_ballot is not False,
        max_on_ballot=p.max_on_ballot or 5,
        scale=p.scale or (),
    )


def _fact(p: CouncilSaid, test_author: str | None, normal: Normal) -> Fact:
    match p:
        case DraftReceived():
            form = normal.get((p.candidate_id, 0))
            return facts.DeliveredDraft(p.member_id, p.candidate_id, p.candidate_digest, form, tokens=p.tokens)
        case DraftFailed():
            failed = MissingTests if p.member_id == test_author else facts.MissingDraft
            return failed(p.member_id, p.code)
        case TestsAuthored():
            return facts.DeliveredTests(p.author, p.tests_digest, p.count)
        case TestsFiltered():
            return facts.KeptTests(p.kept, tuple(UntrustedTest(d.test, d.reason) for d in p.dropped), p.trusted)
        case EvidenceRecorded():
            return facts.MeasuredCandidate(CandidateEvidence.model_validate(p.evidence.model_dump()))
        case CritiqueReceived():
            return facts.DeliveredCritique(p.round, p.candidate_id, p.critic, p.critique_digest)
        case RepairReceived():
            form = normal.get((p.candidate_id, p.round))
            return facts.DeliveredRepair(p.round, p.candidate_id, p.new_digest, form, p.kept)
        case BallotCast():
            return facts.CastBallot(_ballot(p), tokens=p.tokens)
        case BallotRefused():
            # Whatever the code on record: a ballot is asked for as a step, so that none comes late or from outside.
            return facts.RefusedBallot(p.voter, p.attempt, "invalid")
        case EstimateCast():
            return facts.CastEstimate(p.member_id, p.round, p.value, p.reason_digest)
        case _:
            assert_never(p)


def _ballot(p: BallotCast) -> Ballot:
    return Ballot(
        council_id=p.council_id,
        round=p.round,
        voter=p.voter,
        attempt=2 if p.attempt == 2 else 1,
        votes={str(k): v for k, v in p.votes.items()},
        ranking=tuple(p.ranking),
    )
