"""Counting: from ballots to a winner, a verdict, or a reason for neither (CN-49..CN-55)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Self

from fleet.council.ballot import CountedBallot
from fleet.council.config import PassThreshold
from fleet.council.evidence import Contender, on_ballot, order_key
from fleet.council.roster import passes
from fleet.kernel.types import Frozen, UndecidedReason, Vote


@dataclass(frozen=True, slots=True)
class Pair:
    """More weight ranks `winner` over `loser` than the other way round; abstaining voters are left out."""

    winner: str
    loser: str
    margin: int
    winning_weight: int

    @property
    def name(self) -> str:
        """`winner>loser`."""
        return f"{self.winner}>{self.loser}"


@dataclass(frozen=True, slots=True)
class LockedPairs:
    """Margins by `winner>loser` (a tie is 0), the locked pairs in order of locking, and each candidate's position."""

    margins: Mapping[str, int]
    locked: tuple[Pair, ...]
    positions: Mapping[str, int]
    """0 for candidates that no locked pair puts below another; equal positions go on down the chain of CN-53."""


def lock_pairs(contenders: Sequence[Contender], ballots: Sequence[CountedBallot]) -> LockedPairs:
    """Lock the pairs by margin, then winning weight, then the winner's diff size and digest, then the loser's digest.

    A pair that would close a cycle is skipped. Only pairs of equal evidence are locked: between others evidence has
    decided, and a candidate with less evidence must not turn the order of two better ones (CN-54, CN-105).

    Source: Tideman, Independence of clones as a criterion for voting rules (1987).
    """
    by_id = {c.candidate_id: c for c in contenders}
    pairs = [_pair(a, b, ballots) for a, b in combinations(sorted(by_id), 2)]
    locked: list[Pair] = []
    for pair in sorted((p for p in pairs if p.margin), key=lambda p: _strength(p, by_id)):
        is_contest = by_id[pair.winner].evidence_class == by_id[pair.loser].evidence_class
        if is_contest and not _reaches(locked, pair.loser, pair.winner):
            locked.append(pair)
    return LockedPairs({p.name: p.margin for p in pairs}, tuple(locked), {c: _above(locked, c) for c in by_id})


def _pair(a: str, b: str, ballots: Sequence[CountedBallot]) -> Pair:
    over = sum(x.weight for x in ballots if (a, b) in x.pairs)
    under = sum(x.weight for x in ballots if (b, a) in x.pairs)
    return Pair(a, b, over - under, over) if over >= under else Pair(b, a, under - over, under)


def _strength(pair: Pair, by_id: Mapping[str, Contender]) -> tuple[int, int, int, str, str]:
    winner, loser = by_id[pair.winner], by_id[pair.loser]
    return (-pair.margin, -pair.winning_weight, winner.diff_lines, winner.digest, loser.digest)


def _reaches(locked: Sequence[Pair], start: str, goal: str) -> bool:
    seen, todo = {start}, [start]
    while todo:
        node = todo.pop()
        below = [p.loser for p in locked if p.winner == node and p.loser not in seen]
        seen.update(below)
        todo += below
    return goal in seen


def _above(locked: Sequence[Pair], node: str) -> int:
    return max((1 + _above(locked, p.winner) for p in locked if p.loser == node), default=0)


class Removed(Frozen):
    """A candidate that ballots took out (CN-51)."""

    candidate_id: str
    why: Literal["vetoed", "rejected"]


class Tally(Frozen):
    """The counted numbers: voters by what they gave, and weights by candidate.

    `valid` voters gave a ballot (of them `abstained` said nothing in it), `invalid` only broken ones, `missing` none;
    `excused` could not be asked, because every candidate is their own.
    """

    valid: int = 0
    abstained: int = 0
    invalid: int = 0
    missing: int = 0
    excused: int = 0
    approve: dict[str, int] = {}
    reject: dict[str, int] = {}
    abstain: dict[str, int] = {}
    margins: dict[str, int] = {}
    """`winner>loser` -> margin."""
    locked: tuple[str, ...] = ()
    removed: tuple[Removed, ...] = ()
    ranking: tuple[str, ...] = ()
    """Candidates that could still win, best first (CN-53)."""

    @classmethod
    def of(
        cls, ballots: Sequence[CountedBallot], candidates: Sequence[Contender], *, turnout: Turnout, invalid: int
    ) -> Self:
        """Who answered, and the weight of each vote on each candidate."""
        return cls(
            valid=len(turnout.cast),
            abstained=sum(b.is_abstention for b in ballots if b.voter in turnout.cast),
            invalid=invalid,
            missing=len(turnout.asked) - len(turnout.cast) - invalid,
            excused=len(turnout.excused),
            approve=_weights(ballots, candidates, "approve"),
            reject=_weights(ballots, candidates, "reject"),
            abstain=_weights(ballots, candidates, "abstain"),
        )


def _weights(ballots: Sequence[CountedBallot], candidates: Sequence[Contender], vote: Vote) -> dict[str, int]:
    return {c.candidate_id: sum(b.weight for b in ballots if b.votes.get(c.candidate_id) == vote) for c in candidates}


@dataclass(frozen=True, slots=True)
class Decided:
    """A winner of a selection, or a verdict on the subject of a gate: exactly one of the two."""

    decided_in: Literal["P3", "P6"]
    tally: Tally
    winner: str | None = None
    verdict: Literal["approve", "reject"] | None = None

    def __post_init__(self) -> None:
        assert (self.winner is None) != (self.verdict is None), "a decision has a winner or a verdict"


@dataclass(frozen=True, slots=True)
class NoDecision:
    """There is no winner and no default one: a person decides (CN-56)."""

    reason: UndecidedReason
    tally: Tally


Result = Decided | NoDecision


@dataclass(frozen=True, slots=True)
class Turnout:
    """Who was asked, who answered, and who had nothing to answer, of the original roster (CN-49)."""

    asked: frozenset[str]
    excused: frozenset[str]
    cast: frozenset[str]

    @classmethod
    def of(cls, ballots: Sequence[CountedBallot], candidates: Sequence[Contender], weights: Mapping[str, int]) -> Self:
        """Voters are counted, not ballots; foreign ballots do not count (CN-110, CN-112)."""
        asked = frozenset(v for v in weights if any(v not in c.authors for c in candidates))
        return cls(asked, frozenset(weights) - asked, asked & {b.voter for b in ballots})

    def reaches(self, quorum: int) -> bool:
        """Excused authors count as abstaining, but never without the voice of anybody who could be asked."""
        if self.asked and not self.cast:
            return False
        return len(self.cast) + len(self.excused) >= quorum


def tally_selection(
    contenders: Sequence[Contender],
    ballots: Sequence[CountedBallot],
    *,
    weights: Mapping[str, int],
    quorum: int,
    invalid: Collection[str] = (),
    max_on_ballot: int = 5,
) -> Result:
    """The winner by CN-53 among the candidates on the ballot, after the removals of CN-51, or the reason for none.

    Args:
        contenders: every candidate; those that failed a hard gate can never win (CN-54).
        weights: weight of every voter of the original roster.
        quorum: voters needed (CN-20).
        invalid: voters whose every ballot was broken; neither abstaining nor rejecting (CN-47).
    """
    candidates = on_ballot(contenders, max_on_ballot=max_on_ballot)
    eligible = [b for b in ballots if b.voter in weights]
    turnout = Turnout.of(eligible, candidates, weights)
    broken = len(set(invalid) & (turnout.asked - turnout.cast))
    tally = Tally.of(eligible, candidates, turnout=turnout, invalid=broken)
    if not candidates:
        return NoDecision("no_valid_candidate", tally)
    if not turnout.reaches(quorum):
        return NoDecision("no_quorum", tally)
    removed = tuple(r for c in candidates if (r := _removal(c, eligible, weights)) is not None)
    out = {r.candidate_id for r in removed}
    left = [c for c in candidates if c.candidate_id not in out]
    tally = tally.model_copy(update={"removed": removed})
    # Where every voter is an author of all that is left, evidence alone decides.
    return _choose(left, eligible, tally, "P6" if turnout.asked else "P3")


def _choose(
    left: Sequence[Contender], ballots: Sequence[CountedBallot], tally: Tally, phase: Literal["P3", "P6"]
) -> Result:
    if not left:
        return NoDecision("all_rejected", tally)
    order = lock_pairs(left, ballots)
    ranking = sorted(left, key=lambda c: order_key(c, order.positions[c.candidate_id]))
    update = {
        "margins": dict(order.margins),
        "locked": tuple(p.name for p in order.locked),
        "ranking": tuple(c.candidate_id for c in ranking),
    }
    return Decided(phase, tally.model_copy(update=update), winner=ranking[0].candidate_id)


def _removal(c: Contender, ballots: Sequence[CountedBallot], weights: Mapping[str, int]) -> Removed | None:
    rejecting = [b for b in ballots if b.voter not in c.authors and b.votes.get(c.candidate_id) == "reject"]
    if any(b.has_veto for b in rejecting):
        return Removed(candidate_id=c.candidate_id, why="vetoed")
    eligible = sum(weight for voter, weight in weights.items() if voter not in c.authors)
    if 2 * sum(b.weight for b in rejecting) > eligible:
        return Removed(candidate_id=c.candidate_id, why="rejected")
    return None


def tally_gate(
    subject: Contender,
    ballots: Sequence[CountedBallot],
    *,
    weights: Mapping[str, int],
    quorum: int,
    threshold: PassThreshold,
    invalid: Collection[str] = (),
) -> Result:
    """The verdict on one subject (CN-50): quorum, then veto, then approval over the threshold, then rejection.

    Silence approves nothing: missing, broken and abstaining ballots never lower the threshold (CN-21, CN-129).
    """
    eligible = [b for b in ballots if b.voter in weights and b.voter not in subject.authors]
    turnout = Turnout(frozenset(weights), frozenset(), frozenset(b.voter for b in eligible))
    broken = len(set(invalid) & (turnout.asked - turnout.cast))
    tally = Tally.of(eligible, (subject,), turnout=turnout, invalid=broken)
    name, total = subject.candidate_id, sum(weights.values())
    if not subject.gates_ok:
        return NoDecision("no_valid_candidate", tally)
    if not turnout.reaches(quorum):
        return NoDecision("no_quorum", tally)
    if any(b.has_veto and b.votes.get(name) == "reject" for b in eligible):
        removed = (Removed(candidate_id=name, why="vetoed"),)
        return Decided("P6", tally.model_copy(update={"removed": removed}), verdict="reject")
    if passes(tally.approve[name], total, threshold):
        return Decided("P6", tally, verdict="approve")
    if 2 * tally.reject[name] > total:
        return Decided("P6", tally, verdict="reject")
    return NoDecision("no_majority", tally)
