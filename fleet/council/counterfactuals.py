"""What simpler rules would have chosen, so that everybody sees what the council added (CN-60)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.council.ballot import CountedBallot
from fleet.council.candidate import Candidate
from fleet.council.evidence import CandidateEvidence
from fleet.council.state import CouncilState


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """The candidate that a simpler rule chooses, with its evidence; None where it was never measured."""

    candidate_id: str
    digest: str
    evidence: CandidateEvidence | None


def counterfactuals(state: CouncilState, ballots: Sequence[CountedBallot]) -> dict[str, Counterfactual | None]:
    """Winners by `first_draft` and `best_of_n`, both over the drafts before any repair, and by `plurality`; or None."""
    if state.opened.kind == "gate":
        return {}
    return {
        "first_draft": _first_draft(state),
        "best_of_n": _best_of_n(state),
        "plurality": _plurality(state, ballots),
    }


def _of(candidate: Candidate | None) -> Counterfactual | None:
    return candidate and Counterfactual(candidate.candidate_id, candidate.digest, candidate.evidence)


def _first_draft(state: CouncilState) -> Counterfactual | None:
    first = state.opened.proposers[0].member_id if state.opened.proposers else ""
    version = next((v for v in state.versions(0) if v.author == first), None)
    return version and Counterfactual(version.candidate_id, version.digest, version.evidence)


def _best_of_n(state: CouncilState) -> Counterfactual | None:
    measured = [(c, c.evidence) for c in state.candidates(0) if c.evidence is not None]
    best = min(
        measured,
        key=lambda m: (not m[1].gates_ok, -m[1].trusted_passed, m[1].diff_lines, m[0].digest),
        default=(None, None),
    )
    return _of(best[0])


def _plurality(state: CouncilState, ballots: Sequence[CountedBallot]) -> Counterfactual | None:
    places = Counter[str]()
    for ballot in ballots:
        if ballot.first is not None:
            places[ballot.first] += ballot.weight
    placed = [c for c in state.candidates() if places[c.candidate_id]]
    return _of(min(placed, key=lambda c: (-places[c.candidate_id], _diff(c), c.digest), default=None))


def _diff(candidate: Candidate) -> int:
    return candidate.evidence.diff_lines if candidate.evidence is not None else 0
