"""What each council looked at, how it voted and what came of it (RP-17)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fleet.council.delphi import estimate_rounds
from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilCancelled,
    CouncilDecided,
    CouncilOpened,
    CouncilUndecided,
    DraftFailed,
    DraftReceived,
    EstimateCast,
    EvidenceRecorded,
    RepairReceived,
    TestsAuthored,
    TestsFiltered,
)
from fleet.events.payload import Payload
from fleet.events.values import Json
from fleet.kernel.types import Frozen
from fleet.report.history import Events, of_type, step_records
from fleet.story.council_facts import council_state


class SeatRow(Frozen):
    """A member of the council."""

    member_id: str
    principal: str
    role: str
    model_policy: str
    proposes: bool
    votes: bool
    writes_tests: bool


class CandidateRow(Frozen):
    """A candidate with its last evidence and the ballots of the last round of voting."""

    candidate_id: str
    authors: tuple[str, ...]
    won: bool
    gates_ok: bool | None
    """None: it was never measured."""
    failed_gates: tuple[str, ...]
    trusted_passed: int
    trusted_total: int
    cluster_size: int
    diff_lines: int
    lint_errors: int
    repairs_kept: int
    approve: int
    reject: int
    abstain: int
    first_places: int


# Source: CN-70.
class EstimateRoundRow(Frozen):
    """One round of an estimate, without names."""

    round: int
    median: int | None
    iqr: int | None
    values: tuple[int, ...]
    """Rising."""
    absent: int


# Source: CN-61.
class CouncilSummary(Frozen):
    """One council from its opening to its outcome; tokens by phase as it recorded them."""

    council_id: str
    kind: str
    output_kind: str
    task_id: str | None
    status: str
    reason: str | None
    decided_in: str | None
    winner: str | None
    verdict: str | None
    """Of a gate: `approve` or `reject`."""
    estimate: int | None
    """Of an estimate: its points; null where too few members gave a value."""
    estimate_rounds: tuple[EstimateRoundRow, ...]
    """Of an estimate: the rounds that every member was heard in."""
    requested_by: str | None
    """Who asked for it; null for the story's own. A council on request advises, and moves nothing."""
    retry_of: str | None
    """The council that was sent back or cancelled, in whose place it is."""
    quorum: int
    roster: tuple[SeatRow, ...]
    candidates: tuple[CandidateRow, ...]
    drafts_failed: tuple[str, ...]
    """`member: code`."""
    tests_written: int
    tests_kept: tuple[str, ...]
    tests_dropped: tuple[tuple[str, str], ...]
    """`(test, reason)`."""
    tests_passed_before: tuple[str, ...] | None
    """Those kept that pass on the tree without any candidate too; null where nobody looked (CN-32)."""
    ballots: int
    """Voters with a valid ballot in the last round of voting."""
    ballots_refused: tuple[str, ...]
    """`voter: code`."""
    counterfactuals: dict[str, Json]
    decision_hash: str | None
    minority_report: str | None
    tokens: dict[str, int]
    tokens_total: int
    tokens_ledger: int
    """Tokens of the recorded model calls of this council (CN-126)."""


def council_summaries(events: Events) -> tuple[CouncilSummary, ...]:
    """Every council of the story in the order of opening."""
    ledger: dict[str, int] = {}
    for step in step_records(events):
        if step.is_model_call and step.started.council_id is not None:
            council_id = step.started.council_id
            ledger[council_id] = ledger.get(council_id, 0) + step.tokens
    return tuple(
        _summary(opened, _own(events, opened.council_id), ledger.get(opened.council_id, 0))
        for _, opened in of_type(events, CouncilOpened)
    )


def _own(events: Events, council_id: str) -> list[Payload]:
    return [payload for _, payload in events if getattr(payload, "council_id", None) == council_id]


def _summary(opened: CouncilOpened, own: list[Payload], ledger: int) -> CouncilSummary:
    decided = next((p for p in own if isinstance(p, CouncilDecided)), None)
    undecided = next((p for p in own if isinstance(p, CouncilUndecided)), None)
    cancelled = next((p for p in own if isinstance(p, CouncilCancelled)), None)
    authored = next((p for p in own if isinstance(p, TestsAuthored)), None)
    filtered = [p for p in own if isinstance(p, TestsFiltered)]
    end = decided or undecided
    tokens = dict(decided.tokens) if decided else {}
    return CouncilSummary(
        council_id=opened.council_id,
        kind=opened.kind,
        output_kind=opened.output_kind,
        task_id=opened.task_id,
        status=_status(decided, undecided, cancelled),
        reason=undecided.reason if undecided else (cancelled.reason if cancelled else None),
        decided_in=decided.decided_in if decided else None,
        winner=decided.winner if decided else None,
        verdict=decided.verdict if decided else None,
        estimate=decided.estimate if decided else None,
        estimate_rounds=_estimates(opened, own, is_over=end is not None) if opened.kind == "estimate" else (),
        requested_by=opened.requested_by,
        retry_of=opened.retry_of,
        quorum=opened.quorum,
        roster=tuple(_seats(opened)),
        candidates=_candidates(own, decided.winner if decided else None),
        drafts_failed=tuple(f"{p.member_id}: {p.code}" for p in own if isinstance(p, DraftFailed)),
        tests_written=authored.count if authored else 0,
        tests_kept=filtered[-1].kept if filtered and filtered[-1].trusted else (),
        tests_dropped=tuple((d.test, d.reason) for d in filtered[-1].dropped) if filtered else (),
        tests_passed_before=_passed_before(filtered[-1]) if filtered else None,
        ballots=len(_last_ballots(own)),
        ballots_refused=tuple(f"{p.voter}: {p.code}" for p in own if isinstance(p, BallotRefused)),
        counterfactuals=dict(decided.counterfactuals) if decided else {},
        decision_hash=end.decision_hash if end else None,
        minority_report=end.minority_report_digest if end else None,
        tokens=tokens,
        tokens_total=sum(tokens.values()),
        tokens_ledger=ledger,
    )


def _passed_before(filtered: TestsFiltered) -> tuple[str, ...] | None:
    if filtered.on_base is None:
        return None
    return tuple(test for test in filtered.kept if filtered.on_base.get(test) == "passed")


def _estimates(opened: CouncilOpened, own: list[Payload], *, is_over: bool) -> tuple[EstimateRoundRow, ...]:
    said = [p for p in own if isinstance(p, EstimateCast | BallotRefused)]
    # While a round is open, nobody learns of its values.
    rounds = estimate_rounds(council_state(opened, said), with_open=is_over)
    return tuple(
        EstimateRoundRow(round=r.number, median=r.median, iqr=r.iqr, values=r.values, absent=r.absent) for r in rounds
    )


def _status(
    decided: CouncilDecided | None, undecided: CouncilUndecided | None, cancelled: CouncilCancelled | None
) -> str:
    if decided:
        return "decided"
    if undecided:
        return "undecided"
    return "cancelled" if cancelled else "in progress"


def _seats(opened: CouncilOpened) -> Iterable[SeatRow]:
    for m in opened.roster:
        yield SeatRow(
            member_id=m.member_id,
            principal=m.principal,
            role=m.role,
            model_policy=m.model_policy,
            proposes=m.can_propose,
            votes=m.can_vote,
            writes_tests=m.test_author,
        )


class _Voted(NamedTuple):
    """What a voter said on all its papers: where they differ, it abstains (CN-46)."""

    votes: dict[str, str]
    first: str | None


def _last_ballots(own: list[Payload]) -> list[_Voted]:
    ballots = [p for p in own if isinstance(p, BallotCast)]
    last = max((b.round for b in ballots), default=0)
    papers: dict[str, dict[int, BallotCast]] = {}
    for ballot in ballots:
        if ballot.round == last:
            papers.setdefault(ballot.voter, {}).setdefault(ballot.attempt, ballot)
    return [_voted(list(cast.values())) for cast in papers.values()]


def _voted(cast: list[BallotCast]) -> _Voted:
    votes = {c: {b.votes.get(c, "abstain") for b in cast} for c in cast[0].votes}
    firsts = {b.ranking[0] if b.ranking else None for b in cast}
    agreed = {str(c): said.pop() if len(said) == 1 else "abstain" for c, said in votes.items()}
    return _Voted(agreed, firsts.pop() if len(firsts) == 1 else None)


def _candidates(own: list[Payload], winner: str | None) -> tuple[CandidateRow, ...]:
    authors: dict[str, list[str]] = {}
    for payload in own:
        if isinstance(payload, DraftReceived):
            authors.setdefault(payload.candidate_id, []).append(payload.member_id)
        elif isinstance(payload, EvidenceRecorded):
            authors.setdefault(payload.evidence.candidate_id, [])
    return tuple(_candidate(own, id, tuple(names), won=id == winner) for id, names in authors.items())


def _candidate(own: list[Payload], candidate_id: str, authors: tuple[str, ...], *, won: bool) -> CandidateRow:
    measured = [p.evidence for p in own if isinstance(p, EvidenceRecorded) and p.evidence.candidate_id == candidate_id]
    evidence = measured[-1] if measured else None
    ballots = _last_ballots(own)
    votes = [vote for b in ballots for id, vote in b.votes.items() if id == candidate_id]
    repairs = [p for p in own if isinstance(p, RepairReceived) and p.candidate_id == candidate_id]
    return CandidateRow(
        candidate_id=candidate_id,
        authors=authors,
        won=won,
        gates_ok=evidence.gates_ok if evidence else None,
        failed_gates=tuple(g.name for g in evidence.gates if not g.ok) if evidence else (),
        trusted_passed=evidence.trusted_passed if evidence else 0,
        trusted_total=evidence.trusted_total if evidence else 0,
        cluster_size=evidence.cluster_size if evidence else 0,
        diff_lines=evidence.diff_lines if evidence else 0,
        lint_errors=evidence.lint_errors if evidence else 0,
        repairs_kept=sum(r.kept == "new" for r in repairs),
        approve=votes.count("approve"),
        reject=votes.count("reject"),
        abstain=votes.count("abstain"),
        first_places=sum(b.first == candidate_id for b in ballots),
    )
