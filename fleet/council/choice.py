"""Choose among candidates: evidence first, ranked pairs on what evidence leaves equal (CN-50..CN-54)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

__all__ = ["Choice", "Contender", "Vote", "VoterBallot", "choose", "ranked_pairs"]

Vote = Literal["approve", "reject", "abstain"]
Undecided = Literal["no_quorum", "no_valid_candidate", "all_rejected"]


@dataclass(frozen=True, slots=True)
class Contender:
    """One candidate with the evidence that decides: authors are excluded from voting on it (CN-46)."""

    candidate_id: str
    digest: str
    authors: frozenset[str]
    gates_ok: bool
    trusted_passed: int
    cluster_size: int
    diff_lines: int


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
    reason: Undecided | None
    ranking: tuple[str, ...] = ()
    removed: Mapping[str, str] = field(default_factory=dict[str, str])
    margins: Mapping[str, int] = field(default_factory=dict[str, int])
    valid: int = 0


def choose(
    contenders: Sequence[Contender], ballots: Sequence[VoterBallot], *, weights: Mapping[str, int], quorum: int
) -> Choice:
    """The winner by CN-53 after the removals of CN-51, or the reason for none.

    Args:
        contenders: every candidate; those that failed a hard gate can never win (CN-54).
        weights: weight of every voter of the original roster.
        quorum: valid ballots needed (CN-20).
    """
    ballots = _countable(contenders, ballots, weights)
    passing = [c for c in contenders if c.gates_ok]
    if not passing:
        return Choice(None, "no_valid_candidate", valid=len(ballots))
    if len(ballots) < quorum:
        return Choice(None, "no_quorum", valid=len(ballots))
    removed = {c.candidate_id: why for c in passing if (why := _removal(c, ballots, weights))}
    left = [c for c in passing if c.candidate_id not in removed]
    if not left:
        return Choice(None, "all_rejected", removed=removed, valid=len(ballots))
    order, margins = ranked_pairs(left, ballots)
    position = {c: n for n, c in enumerate(order)}
    ranking = sorted(
        left, key=lambda c: (-c.trusted_passed, -c.cluster_size, position[c.candidate_id], c.diff_lines, c.digest)
    )
    names = tuple(c.candidate_id for c in ranking)
    return Choice(names[0], None, ranking=names, removed=removed, margins=margins, valid=len(ballots))


def _countable(
    contenders: Sequence[Contender], ballots: Sequence[VoterBallot], weights: Mapping[str, int]
) -> list[VoterBallot]:
    """The first ballot of each voter of the roster, without what it says of the voter's own work (CN-46, CN-48)."""
    first: dict[str, VoterBallot] = {}
    for ballot in ballots:
        if ballot.voter in weights:
            first.setdefault(ballot.voter, ballot)
    own = {voter: {c.candidate_id for c in contenders if voter in c.authors} for voter in first}
    return [
        replace(
            b,
            votes={c: vote for c, vote in b.votes.items() if c not in own[b.voter]},
            ranking=tuple(c for c in b.ranking if c not in own[b.voter]),
        )
        for b in first.values()
    ]


def _removal(c: Contender, ballots: Sequence[VoterBallot], weights: Mapping[str, int]) -> str | None:
    rejecting = [b for b in ballots if b.votes.get(c.candidate_id) == "reject"]
    if any(b.has_veto for b in rejecting):
        return "veto"
    eligible = sum(w for voter, w in weights.items() if voter not in c.authors)
    return "rejected by a majority" if sum(b.weight for b in rejecting) * 2 > eligible else None


def ranked_pairs(
    contenders: Sequence[Contender], ballots: Sequence[VoterBallot]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Candidates in the order of the locked graph, and the margin of each pair as `a>b` (CN-52)."""
    by_id = {c.candidate_id: c for c in contenders}
    margins: dict[str, int] = {}
    wins: list[tuple[int, int, str, str]] = []
    for a, b in combinations(sorted(by_id), 2):
        over, under = _preferring(ballots, a, b), _preferring(ballots, b, a)
        margins[f"{a}>{b}"] = over - under
        if over != under:
            winner, loser = (a, b) if over > under else (b, a)
            wins.append((abs(over - under), max(over, under), winner, loser))
    wins.sort(key=lambda w: (-w[0], -w[1], by_id[w[2]].diff_lines, by_id[w[2]].digest, by_id[w[3]].digest))
    locked: dict[str, set[str]] = {c: set() for c in by_id}
    for _, _, winner, loser in wins:
        if not _reaches(locked, loser, winner):
            locked[winner].add(loser)
    return tuple(sorted(by_id, key=lambda c: (-_depth(locked, c), by_id[c].diff_lines, by_id[c].digest))), margins


def _preferring(ballots: Sequence[VoterBallot], a: str, b: str) -> int:
    return sum(
        x.weight for x in ballots if a in x.ranking and b in x.ranking and x.ranking.index(a) < x.ranking.index(b)
    )


def _reaches(graph: Mapping[str, set[str]], start: str, goal: str) -> bool:
    seen, todo = {start}, [start]
    while todo:
        for node in graph[todo.pop()]:
            if node not in seen:
                seen.add(node)
                todo.append(node)
    return goal in seen


def _depth(graph: Mapping[str, set[str]], node: str) -> int:
    return 1 + max((_depth(graph, n) for n in graph[node]), default=0)
