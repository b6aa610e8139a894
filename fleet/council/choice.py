"""Choose among candidates with one merged ballot per voter, for callers that keep no state machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from fleet.council.ballot import CountedBallot, Vote
from fleet.council.evidence import Contender, order_key
from fleet.council.pairs import lock_pairs
from fleet.council.tally import NoDecision, UndecidedReason, tally_selection

__all__ = ["Choice", "Contender", "Vote", "VoterBallot", "choose", "ranked_pairs"]


@dataclass(frozen=True, slots=True)
class VoterBallot:
    """One valid ballot: a vote for each candidate and a ranking, best first; a pair not in the ranking is abstained."""

    voter: str
    votes: Mapping[str, Vote]
    ranking: tuple[str, ...]
    weight: int = 1
    has_veto: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, or why nothing was; `tally` holds the counted numbers."""

    winner: str | None
    reason: UndecidedReason | None
    ranking: tuple[str, ...] = ()
    removed: Mapping[str, str] = field(default_factory=dict[str, str])
    margins: Mapping[str, int] = field(default_factory=dict[str, int])
    valid: int = 0


_WHY = {"vetoed": "veto", "rejected": "rejected by a majority"}


def choose(
    contenders: Sequence[Contender],
    ballots: Sequence[VoterBallot],
    *,
    weights: Mapping[str, int],
    quorum: int,
    max_on_ballot: int = 5,
) -> Choice:
    """The winner by CN-53 after the removals of CN-51, or the reason for none.

    Args:
        contenders: every candidate; those that failed a hard gate can never win (CN-54).
        weights: weight of every voter of the original roster.
        quorum: voters needed (CN-20). A voter whose every candidate is its own counts as abstaining.
    """
    counted = _counted(contenders, ballots)
    result = tally_selection(contenders, counted, weights=weights, quorum=quorum, max_on_ballot=max_on_ballot)
    tally = result.tally
    removed = {r.candidate_id: _WHY[r.why] for r in tally.removed}
    if isinstance(result, NoDecision):
        return Choice(None, result.reason, removed=removed, valid=tally.valid)
    left = [c for c in contenders if c.candidate_id in tally.ranking]
    known = [b for b in counted if b.voter in weights]
    return Choice(result.winner, None, tally.ranking, removed, _signed(left, known), tally.valid)


def _counted(contenders: Sequence[Contender], ballots: Sequence[VoterBallot]) -> list[CountedBallot]:
    # Only the first ballot of a voter counts (CN-109).
    first: dict[str, VoterBallot] = {}
    for ballot in ballots:
        first.setdefault(ballot.voter, ballot)
    return [_count(ballot, contenders) for _, ballot in sorted(first.items())]


def _count(ballot: VoterBallot, contenders: Sequence[Contender]) -> CountedBallot:
    allowed = {c.candidate_id for c in contenders if ballot.voter not in c.authors}
    ranking = [c for c in ballot.ranking if c in allowed]
    return CountedBallot(
        voter=ballot.voter,
        weight=ballot.weight,
        has_veto=ballot.has_veto,
        votes={c: v for c, v in ballot.votes.items() if c in allowed},
        pairs=frozenset(combinations(ranking, 2)),
        first=ranking[0] if ranking else None,
    )


def ranked_pairs(
    contenders: Sequence[Contender], ballots: Sequence[VoterBallot]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Candidates in the order of the locked graph, and the margin of each pair as `a>b` (CN-52)."""
    counted = _counted(contenders, ballots)
    positions = lock_pairs(contenders, counted).positions
    order = sorted(contenders, key=lambda c: (positions[c.candidate_id], order_key(c)))
    return tuple(c.candidate_id for c in order), _signed(contenders, counted)


def _signed(contenders: Sequence[Contender], counted: Sequence[CountedBallot]) -> dict[str, int]:
    margins = lock_pairs(contenders, counted).margins
    names = combinations(sorted(c.candidate_id for c in contenders), 2)
    return {f"{a}>{b}": margins[f"{a}>{b}"] if f"{a}>{b}" in margins else -margins[f"{b}>{a}"] for a, b in names}
