"""The state of a deliberation: a pure fold of facts, each kept under its own key so that order of arrival is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, assert_never

from fleet.council.candidate import Candidate, Version, contenders_of, merge_equal
from fleet.council.evidence import CandidateEvidence, Contender, has_failure, is_better
from fleet.council.facts import (
    CastBallot,
    CastEstimate,
    Closed,
    CouncilTerms,
    DeliveredCritique,
    DeliveredDraft,
    DeliveredRepair,
    DeliveredTests,
    Fact,
    Interrupted,
    KeptTests,
    MeasuredCandidate,
    MissingCritique,
    MissingDraft,
    MissingRepair,
    MissingTests,
    RefusedBallot,
)

SUBJECT_ID = "cd-subject"
"""Candidate id of what a gate is about."""
MAX_ROUNDS = 2

K = TypeVar("K")
V = TypeVar("V")


def _empty() -> Mapping[Any, Any]:
    return {}


@dataclass(frozen=True)
class CouncilState:
    """What is recorded of one council. Equal facts give an equal state and equal duties, whatever their order."""

    opened: CouncilTerms
    drafts: Mapping[str, DeliveredDraft | MissingDraft] = field(default_factory=_empty)
    """By member id."""
    tests: DeliveredTests | MissingTests | None = None
    filtered: KeptTests | None = None
    evidence: Mapping[tuple[str, int], CandidateEvidence] = field(default_factory=_empty)
    """By candidate id and round."""
    critiques: Mapping[tuple[str, int], DeliveredCritique | MissingCritique] = field(default_factory=_empty)
    """By candidate id and round."""
    repairs: Mapping[tuple[str, int], DeliveredRepair | MissingRepair] = field(default_factory=_empty)
    """By candidate id and round."""
    ballots: Mapping[tuple[str, int], CastBallot] = field(default_factory=_empty)
    """By voter and attempt."""
    refused: Mapping[tuple[str, int], RefusedBallot] = field(default_factory=_empty)
    """Papers that only a broken answer came to, by voter and attempt."""
    estimates: Mapping[tuple[str, int], CastEstimate] = field(default_factory=_empty)
    """By voter and round."""
    interrupted: Interrupted | None = None
    closed: Closed | None = None

    @property
    def rounds(self) -> int:
        """Repair rounds that may be held, never more than two (CN-41)."""
        return min(self.opened.rounds, MAX_ROUNDS) if self.opened.kind == "selection" else 0

    def versions(self, upto: int = MAX_ROUNDS) -> tuple[Version, ...]:
        """Every author's version as it stood after round `upto`, in roster order; for a gate the subject alone."""
        versions = self._versions_upto.get(upto)
        if versions is None:
            before = self.versions(upto - 1) if upto else None
            versions = _first_versions(self) if before is None else _after_repairs(self, before, upto)
            self._versions_upto[upto] = versions
        return versions

    @cached_property
    def _versions_upto(self) -> dict[int, tuple[Version, ...]]:
        # One look at a state asks for them dozens of times, and a state never changes.
        return {}

    def candidates(self, upto: int = MAX_ROUNDS) -> tuple[Candidate, ...]:
        """Distinct candidates after round `upto`, equal versions merged (CN-34)."""
        candidates = self._candidates_upto.get(upto)
        if candidates is None:
            candidates = self._candidates_upto[upto] = merge_equal(self.versions(upto))
        return candidates

    @cached_property
    def _candidates_upto(self) -> dict[int, tuple[Candidate, ...]]:
        return {}

    def version(self, candidate_id: str, upto: int = MAX_ROUNDS) -> Version:
        """The author's version of this name as it stood after round `upto`."""
        return next(v for v in self.versions(upto) if v.candidate_id == candidate_id)

    def contenders(self, upto: int = MAX_ROUNDS) -> tuple[Contender, ...]:
        """Measured candidates after round `upto` as the decision sees them."""
        return contenders_of(self.candidates(upto))

    def failing(self, upto: int) -> tuple[Candidate, ...]:
        """Candidates with a failure that is left to repair after round `upto`."""
        return tuple(c for c in self.candidates(upto) if c.evidence is not None and has_failure(c.evidence))


def _first_versions(state: CouncilState) -> tuple[Version, ...]:
    if state.opened.subject is not None:
        return _measured(state, [Version(SUBJECT_ID, "", state.opened.subject, state.opened.subject)], 0)
    drafts = [state.drafts.get(str(m.member_id)) for m in state.opened.proposers]
    received = [
        Version(d.candidate_id, d.member_id, d.digest, d.normal_digest or d.digest)
        for d in drafts
        if isinstance(d, DeliveredDraft)
    ]
    return _measured(state, received, 0)


def _measured(state: CouncilState, versions: list[Version], number: int) -> tuple[Version, ...]:
    # Versions that are equal in normal form behave alike: evidence of one is evidence of all.
    by_normal_form: dict[str, CandidateEvidence] = {}
    for v in versions:
        if (own := state.evidence.get((v.candidate_id, number))) is not None:
            by_normal_form.setdefault(v.normal_digest, own)
    measured = [(v, by_normal_form.get(v.normal_digest, v.evidence)) for v in versions]
    return tuple(v if evidence is v.evidence else replace(v, evidence=evidence) for v, evidence in measured)


def _after_repairs(state: CouncilState, old: tuple[Version, ...], number: int) -> tuple[Version, ...]:
    if not any(of_round == number for _, of_round in state.repairs):
        return old
    by_normal_form = {v.normal_digest: v.evidence for v in old}
    tried = [(v, _attempt(state, v, number)) for v in old]
    measured = _measured(state, [new for _, new in tried if new is not None], number)
    evidence_of = {v.candidate_id: v.evidence or by_normal_form.get(v.normal_digest) for v in measured}
    return tuple(_better_of(v, new, evidence_of.get(v.candidate_id)) for v, new in tried)


def _attempt(state: CouncilState, old: Version, number: int) -> Version | None:
    repair = state.repairs.get((old.candidate_id, number))
    if not isinstance(repair, DeliveredRepair) or repair.kept == "old":
        return None
    return Version(
        old.candidate_id, old.author, repair.digest, repair.normal_digest or repair.digest, changed_in=number
    )


def _better_of(old: Version, new: Version | None, evidence: CandidateEvidence | None) -> Version:
    if new is None or evidence is None or old.evidence is None or not is_better(evidence, old.evidence):
        return old
    return replace(new, evidence=evidence)


def _first(values: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return values if key in values else {**values, key: value}


def evolve(state: CouncilState, fact: Fact) -> CouncilState:
    """The state with one more fact. The first fact under a key counts (CN-109); after the end nothing counts.

    After `Interrupted` only the end itself is taken in. Nothing here checks a ballot.
    """
    if state.closed is not None or (state.interrupted is not None and not isinstance(fact, Closed)):
        return state
    return _take(state, fact)


def _take(s: CouncilState, fact: Fact) -> CouncilState:
    match fact:
        case DeliveredDraft() | MissingDraft():
            return replace(s, drafts=_first(s.drafts, fact.member_id, fact))
        case DeliveredTests() | MissingTests():
            return replace(s, tests=s.tests or fact)
        case KeptTests():
            return replace(s, filtered=s.filtered or fact)
        case MeasuredCandidate():
            key = (str(fact.evidence.candidate_id), fact.evidence.round)
            return replace(s, evidence=_first(s.evidence, key, fact.evidence))
        case DeliveredCritique() | MissingCritique():
            return replace(s, critiques=_first(s.critiques, (fact.candidate_id, fact.round), fact))
        case DeliveredRepair() | MissingRepair():
            return replace(s, repairs=_first(s.repairs, (fact.candidate_id, fact.round), fact))
        case CastBallot() | RefusedBallot():
            return _take_ballot(s, fact)
        case CastEstimate():
            return _take_estimate(s, fact)
        case Interrupted():
            return replace(s, interrupted=fact)
        case Closed():
            return replace(s, closed=fact)
        case _:
            assert_never(fact)


def _take_estimate(s: CouncilState, fact: CastEstimate) -> CouncilState:
    key = (fact.member_id, fact.round)
    if key in s.refused or fact.member_id not in {m.member_id for m in s.opened.voters}:
        return s
    return replace(s, estimates=_first(s.estimates, key, fact))


def _take_ballot(s: CouncilState, fact: CastBallot | RefusedBallot) -> CouncilState:
    voter, attempt = (
        (fact.ballot.voter, fact.ballot.attempt) if isinstance(fact, CastBallot) else (fact.voter, fact.attempt)
    )
    key = (str(voter), int(attempt))
    is_answered = key in s.ballots or key in s.estimates or key in s.refused
    if is_answered or key[0] not in {m.member_id for m in s.opened.voters}:
        return s
    if isinstance(fact, CastBallot):
        return replace(s, ballots={**s.ballots, key: fact})
    return replace(s, refused={**s.refused, key: fact})
