"""Blind ballots: the paper that a voter sees, its answer, and what of two answers counts (CN-45..CN-48)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple, cast

from fleet.council.evidence import Contender
from fleet.council.roster import Member
from fleet.kernel.errors import ReplyMalformed
from fleet.kernel.ids import EntityId
from fleet.kernel.types import Frozen, Vote

Attempt = Literal[1, 2]
"""1: the order of the shuffle; 2: reversed (CN-46)."""
MAX_REASON = 400
_VOTES: tuple[Vote, ...] = ("approve", "reject", "abstain")


class Ballot(Frozen):
    """One valid answer of one voter, in candidate ids (CN-45)."""

    council_id: EntityId
    round: int
    voter: EntityId
    attempt: Attempt
    votes: dict[str, Vote]
    ranking: tuple[str, ...]
    """Every candidate of the paper once, best first."""
    reasons: dict[str, str] = {}
    """Candidate -> why; may be empty where the texts are in a blob. No part of the decision hash."""


class BallotLabel(NamedTuple):
    """A candidate under its name on one paper."""

    label: str
    candidate_id: str


@dataclass(frozen=True, slots=True)
class BallotPaper:
    """What one voter is asked in one order: labels only, no author, no other vote (CN-45). Never empty."""

    council_id: str
    round: int
    voter: str
    attempt: Attempt
    order_seed: int
    entries: tuple[BallotLabel, ...]
    """In the order to be shown; labels follow the order, so that a liking for a label is undone as well."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order to be shown."""
        return tuple(e.label for e in self.entries)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Candidate ids in the order to be shown."""
        return tuple(e.candidate_id for e in self.entries)


def ballot_paper(
    contenders: Iterable[Contender], *, council_id: str, round: int, voter: str, attempt: Attempt, seed: int
) -> BallotPaper | None:
    """The paper of one voter, None when every candidate is its own (CN-46).

    The shuffle depends on the seed, the voter and the candidates' ids, never on the order of `contenders`.
    """
    shown = [c.candidate_id for c in contenders if voter not in c.authors]
    shown.sort(key=lambda c: hashlib.sha256(f"{seed}/{voter}/{c}".encode()).digest(), reverse=attempt == 2)
    entries = tuple(BallotLabel(chr(ord("A") + n), c) for n, c in enumerate(shown))
    return BallotPaper(council_id, round, voter, attempt, seed, entries) if entries else None


def ballot_schema(labels: Sequence[str]) -> dict[str, Any]:
    """JSON schema of an answer to a paper with these labels, small enough for a grammar of a small model."""
    label: dict[str, Any] = {"type": "string", "enum": list(labels)}
    vote = _closed(
        {
            "label": label,
            "vote": {"type": "string", "enum": list(_VOTES)},
            "reason": {"type": "string", "minLength": 1, "maxLength": MAX_REASON},
        }
    )
    size = {"type": "array", "minItems": len(labels), "maxItems": len(labels)}
    votes = {"votes": {**size, "items": vote}}
    # Asked to rank a single label, a small model that rejects it invents another one to put first.
    return _closed(votes if len(labels) == 1 else {**votes, "ranking": {**size, "items": label}})


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_ballot(answer: Mapping[str, Any], paper: BallotPaper) -> Ballot:
    """The ballot that an answer casts; a single candidate is voted on and not ranked.

    Raises:
        ReplyMalformed: a label is missing, repeated or unknown, a vote is none of the three, a reason is missing or
            too long; `problems` lists all, for the one repair request of CN-47.
    """
    votes = _votes_of(answer.get("votes"))
    ranking = [str(item) for item in _list(answer.get("ranking"))] if len(paper.entries) > 1 else [*paper.labels]
    if problems := [*_vote_problems(votes, paper), *_label_problems("ranking", ranking, paper)]:
        raise ReplyMalformed(f"the ballot cannot be counted: {'; '.join(problems)}", problems=problems)
    names = {e.label: e.candidate_id for e in paper.entries}
    return Ballot(
        council_id=EntityId(paper.council_id),
        round=paper.round,
        voter=EntityId(paper.voter),
        attempt=paper.attempt,
        votes={names[label]: cast(Vote, vote) for label, vote, _ in votes},
        ranking=tuple(names[label] for label in ranking),
        reasons={names[label]: reason for label, _, reason in votes},
    )


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def _votes_of(value: Any) -> list[tuple[str, str, str]]:
    rows: list[Mapping[str, Any]] = [row if isinstance(row, Mapping) else {} for row in _list(value)]
    return [(str(r.get("label")), str(r.get("vote")), str(r.get("reason", "")).strip()) for r in rows]


def _vote_problems(votes: list[tuple[str, str, str]], paper: BallotPaper) -> list[str]:
    problems = _label_problems("votes", [label for label, _, _ in votes], paper)
    problems += [f"vote on {label} must be one of {', '.join(_VOTES)}" for label, v, _ in votes if v not in _VOTES]
    problems += [f"vote on {label} needs a reason" for label, _, reason in votes if not reason]
    problems += [
        f"reason for {label} is longer than {MAX_REASON} characters" for label, _, r in votes if len(r) > MAX_REASON
    ]
    return problems


def _label_problems(where: str, named: list[str], paper: BallotPaper) -> list[str]:
    if sorted(named) == sorted(paper.labels):
        return []
    return [f"{where} must name each of {', '.join(paper.labels)} exactly once, not {', '.join(named) or 'nothing'}"]


@dataclass(frozen=True, slots=True)
class CountedBallot:
    """What of a voter's answers counts: where two answers differ, it abstains (CN-46)."""

    voter: str
    weight: int
    has_veto: bool
    votes: Mapping[str, Vote]
    pairs: frozenset[tuple[str, str]]
    """(a, b): this voter ranks a over b."""
    first: str | None
    """The candidate ranked over all others, None where the answers do not agree on one."""

    @property
    def is_abstention(self) -> bool:
        """True when it neither votes nor ranks anything."""
        return not self.pairs and all(v == "abstain" for v in self.votes.values())


def count_ballots(
    ballots: Iterable[Ballot], roster: Sequence[Member], contenders: Iterable[Contender]
) -> tuple[CountedBallot, ...]:
    """One counted ballot per voter of the roster with a valid answer, by voter id; whatever the order of arrival.

    Of several ballots with one voter and attempt the first counts (CN-48). A voter's own candidates and unknown ones
    are left out (CN-127). A single valid answer of two counts as it is.
    """
    first: dict[tuple[str, int], Ballot] = {}
    for ballot in ballots:
        first.setdefault((ballot.voter, ballot.attempt), ballot)
    listed = list(contenders)
    counted: list[CountedBallot] = []
    for member in sorted((m for m in roster if m.can_vote), key=lambda m: m.member_id):
        answers = [b for key, b in sorted(first.items()) if key[0] == member.member_id]
        allowed = {c.candidate_id for c in listed if member.member_id not in c.authors}
        if answers:
            counted.append(_merged(answers, member, allowed))
    return tuple(counted)


def _merged(answers: Sequence[Ballot], member: Member, allowed: Collection[str]) -> CountedBallot:
    rankings = [[c for c in a.ranking if c in allowed] for a in answers]
    pairs = frozenset[tuple[str, str]].intersection(*(frozenset(combinations(r, 2)) for r in rankings))
    firsts = {r[0] if r else None for r in rankings}
    return CountedBallot(
        voter=str(member.member_id),
        weight=member.weight,
        has_veto=member.veto,
        votes={c: _agreed([a.votes.get(c, "abstain") for a in answers]) for c in sorted(allowed)},
        pairs=pairs,
        first=firsts.pop() if len(firsts) == 1 else None,
    )


def _agreed(votes: Sequence[Vote]) -> Vote:
    return votes[0] if len(set(votes)) == 1 else "abstain"
