"""Ranked pairs: the order that ballots give to candidates which evidence leaves equal (CN-52, CN-54)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from fleet.council.ballot import CountedBallot
from fleet.council.evidence import Contender

__all__ = ["LockedPairs", "Pair", "lock_pairs"]


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
