"""The outcome of a deliberation and everything that is recorded with it (CN-40, CN-50..CN-62)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fleet.council.ballot import CountedBallot, count_ballots
from fleet.council.counterfactuals import Counterfactual, counterfactuals
from fleet.council.evidence import CandidateEvidence, Contender, early_exit, on_ballot, order_key
from fleet.council.facts import DeliveredTests, MissingTests
from fleet.council.roster import voter_weights
from fleet.council.state import CouncilState
from fleet.council.tally import Decided, NoDecision, Result, Tally, tally_gate, tally_selection
from fleet.council.tests_filter import UntrustedTest
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest


@dataclass(frozen=True, slots=True)
class Checks:
    """What was checked of a candidate; None where a check did not run, which is never a pass (CN-62)."""

    policy: bool | None
    lint: bool | None
    dryrun: bool | None
    additional: tuple[tuple[str, bool], ...]

    @property
    def all_passed(self) -> bool:
        """True only if every check ran and passed."""
        return all([self.policy, self.lint, self.dryrun, *(ok for _, ok in self.additional)])


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """One candidate at the end: `rank` 1 is best; `score` is trusted (passed, total), None without trusted tests."""

    candidate_id: str
    digest: str
    authors: tuple[str, ...]
    rank: int
    score: tuple[int, int] | None
    checks: Checks
    evidence: CandidateEvidence


class RejectingReason(NamedTuple):
    """A voter's rejection; the text is empty where the ballot keeps its reasons in a blob."""

    voter: str
    candidate_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class MinorityReport:
    """What speaks against the outcome (CN-58)."""

    rejections: tuple[RejectingReason, ...]
    untrusted_tests: tuple[UntrustedTest, ...]
    questions: tuple[str, ...]
    """Tests that every candidate fails."""
    equals: tuple[str, ...]
    """Candidates whose evidence equals the winner's."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The outcome with its record. The same facts give the same conclusion and hash (CN-59, CN-108)."""

    result: Result
    decision_hash: Digest
    results: tuple[CandidateResult, ...]
    counterfactuals: dict[str, Counterfactual | None]
    minority: MinorityReport
    tokens: dict[str, int]


def conclude(state: CouncilState) -> Conclusion:
    """What the recorded facts decide, called for by OwedDecision; after an interruption, what there is (CN-57)."""
    contenders = state.contenders()
    counted = _counted(state)
    result = _result(state, contenders, counted)
    return Conclusion(
        result=result,
        decision_hash=_decision_hash(state, result),
        results=_results(state, contenders, result),
        counterfactuals=counterfactuals(state, counted),
        minority=_minority(state, contenders, result),
        tokens=tokens_by_phase(state),
    )


def _counted(state: CouncilState) -> tuple[CountedBallot, ...]:
    ballots = [cast.ballot for _, cast in sorted(state.ballots.items())]
    candidates = on_ballot(state.contenders(), max_on_ballot=state.opened.max_on_ballot)
    return count_ballots(ballots, state.opened.roster, candidates)


def _result(state: CouncilState, contenders: Sequence[Contender], counted: Sequence[CountedBallot]) -> Result:
    opened, invalid = state.opened, {voter for voter, _ in state.refused}
    weights = voter_weights(opened.roster)
    agreed = early_exit(contenders, invited=len(opened.proposers)) if opened.kind == "selection" else ()
    if agreed:
        return Decided("P3", Tally(ranking=tuple(c.candidate_id for c in agreed)), winner=agreed[0].candidate_id)
    if state.interrupted is not None and not counted:
        return NoDecision(state.interrupted.cause, Tally(invalid=len(invalid), missing=len(weights) - len(invalid)))
    if opened.kind == "gate":
        subject = contenders[0] if contenders else None
        if subject is None:
            return NoDecision("no_valid_candidate", Tally(missing=len(weights)))
        return tally_gate(
            subject, counted, weights=weights, quorum=opened.quorum, threshold=opened.pass_threshold, invalid=invalid
        )
    return tally_selection(
        contenders,
        counted,
        weights=weights,
        quorum=opened.quorum,
        invalid=invalid,
        max_on_ballot=opened.max_on_ballot,
    )


def _decision_hash(state: CouncilState, result: Result) -> Digest:
    opened = state.opened
    outcome: dict[str, Any] = {"reason": result.reason} if isinstance(result, NoDecision) else {}
    if isinstance(result, Decided):
        outcome = {"decided_in": result.decided_in, "winner": result.winner, "verdict": result.verdict}
    return digest_of_json(
        {
            "rule_version": opened.rule_version,
            "rubric": opened.rubric_digest,
            "roster": [
                [m.member_id, m.role, m.weight, m.can_propose, m.can_vote, m.veto, m.test_author] for m in opened.roster
            ],
            "candidates": sorted([c.candidate_id, c.digest] for c in state.candidates()),
            "evidence": [
                e.model_dump(mode="json", exclude={"normal_digest"}) for _, e in sorted(state.evidence.items())
            ],
            "ballots": [
                c.ballot.model_dump(mode="json", exclude={"reasons"}) for _, c in sorted(state.ballots.items())
            ],
            "seed": opened.seed,
            "outcome": outcome,
        }
    )


def _results(state: CouncilState, contenders: Sequence[Contender], result: Result) -> tuple[CandidateResult, ...]:
    candidates = {c.candidate_id: c for c in state.candidates()}
    results: list[CandidateResult] = []
    for rank, contender in enumerate(_ranked(contenders, result), start=1):
        candidate = candidates[contender.candidate_id]
        evidence = candidate.evidence
        assert evidence is not None, "a contender is a measured candidate"
        score = (evidence.trusted_passed, evidence.trusted_total) if evidence.trusted_total else None
        results.append(
            CandidateResult(
                contender.candidate_id, candidate.digest, candidate.authors, rank, score, _checks(evidence), evidence
            )
        )
    return tuple(results)


def _ranked(contenders: Sequence[Contender], result: Result) -> list[Contender]:
    standing = {name: n for n, name in enumerate(result.tally.ranking)}
    removed = {r.candidate_id for r in result.tally.removed}
    # Who could still win comes first, in the order of the decision; who was removed comes after who was not.
    return sorted(
        contenders,
        key=lambda c: (standing.get(c.candidate_id, len(standing)), c.candidate_id in removed, order_key(c)),
    )


def _checks(evidence: CandidateEvidence) -> Checks:
    named = {g.name: g.ok for g in evidence.gates}
    main = ("policy", "lint", "applies")
    others = tuple((g.name, g.ok) for g in evidence.gates if g.name not in main)
    return Checks(*(named.get(name) for name in main), additional=others)


def _minority(state: CouncilState, contenders: Sequence[Contender], result: Result) -> MinorityReport:
    rejections = [
        RejectingReason(voter, candidate, cast.ballot.reasons.get(candidate, ""))
        for (voter, _), cast in sorted(state.ballots.items())
        for candidate, vote in sorted(cast.ballot.votes.items())
        if vote == "reject"
    ]
    winner = result.winner if isinstance(result, Decided) else None
    best = next((c.evidence_class for c in contenders if c.candidate_id == winner), None)
    dropped = state.filtered.dropped if state.filtered is not None else ()
    return MinorityReport(
        rejections=tuple(dict.fromkeys(rejections)),
        untrusted_tests=tuple(dropped),
        questions=tuple(d.test for d in dropped if d.reason == "failed_by_all"),
        equals=tuple(
            sorted(c.candidate_id for c in contenders if c.evidence_class == best and c.candidate_id != winner)
        ),
    )


def tokens_by_phase(state: CouncilState) -> dict[str, int]:
    """Tokens of the recorded facts by phase; their sum is the total of the council (CN-61)."""
    ballots = [c.tokens for c in (*state.ballots.values(), *state.refused.values())]
    return {
        "draft": sum(d.tokens for d in state.drafts.values()),
        "tests": state.tests.tokens if isinstance(state.tests, DeliveredTests | MissingTests) else 0,
        "critique": sum(c.tokens for c in state.critiques.values()),
        "repair": sum(r.tokens for r in state.repairs.values()),
        "ballots": sum(ballots),
    }
