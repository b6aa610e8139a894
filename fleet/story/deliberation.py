"""What a council owes next: the procedure P0-P7 as a pure function of its record (CN-20..CN-57)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet.events import Evidence, RosterMember
from fleet.story.state import CouncilRecord

__all__ = [
    "OwedBallots",
    "OwedCritiques",
    "OwedDecision",
    "OwedDrafts",
    "OwedEvidence",
    "OwedRepairs",
    "critic_of",
    "early_exit",
    "on_ballot",
    "owed",
]

MAX_ON_BALLOT = 5


@dataclass(frozen=True, slots=True)
class OwedDrafts:
    """These members have not drafted yet, and `test_author` owes the tests (None: nothing owed)."""

    members: tuple[RosterMember, ...]
    test_author: RosterMember | None


@dataclass(frozen=True, slots=True)
class OwedEvidence:
    """All drafts are in: execute and measure them."""


@dataclass(frozen=True, slots=True)
class OwedCritiques:
    """These candidates lack the one critique of this round."""

    round: int
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwedRepairs:
    """The authors of these candidates may repair them once in this round."""

    round: int
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwedBallots:
    """These voters have not voted on the candidates that are left."""

    voters: tuple[RosterMember, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwedDecision:
    """Everything is in: decide, in P3 without ballots or in P6."""

    phase: Literal["P3", "P6"]


Owed = OwedDrafts | OwedEvidence | OwedCritiques | OwedRepairs | OwedBallots | OwedDecision


def owed(record: CouncilRecord) -> Owed:
    """The next thing that this council owes. Order of arrival never matters (CN-107)."""
    drafting = _drafting(record)
    if drafting is not None:
        return drafting
    if not record.drafts:
        return OwedDecision("P6")
    if record.rounds_done < 0:
        return OwedEvidence()
    if early_exit(record) is not None:
        return OwedDecision("P3")
    improving = _improving(record)
    if improving is not None:
        return improving
    candidates = on_ballot(record)
    voters = tuple(m for m in record.opened.roster if m.can_vote and _may_vote(record, m, candidates))
    if candidates and voters:
        return OwedBallots(voters, candidates)
    return OwedDecision("P6")


def _drafting(record: CouncilRecord) -> OwedDrafts | None:
    delivered = {d.member_id for d in record.drafts.values()} | set(record.failed)
    missing = tuple(m for m in record.opened.roster if m.can_propose and m.member_id not in delivered)
    author = next((m for m in record.opened.roster if m.test_author), None)
    tests = author if author is not None and not record.tests_done else None
    return OwedDrafts(missing, tests) if missing or tests else None


def _improving(record: CouncilRecord) -> OwedCritiques | OwedRepairs | None:
    done = max(record.repairs.values(), default=0)
    under_way = [c for c in failing(record) if record.repairs.get(c, 0) < done] if done else []
    number = done if under_way else done + 1
    if number > min(record.opened.rounds, 2) or (number > 1 and not under_way and record.last_change < done):
        return None
    candidates = tuple(under_way or failing(record))
    if record.opened.output_kind != "code_patch":
        uncriticised = tuple(c for c in sorted(record.drafts) if c not in record.critiques)
        return OwedCritiques(1, uncriticised) if uncriticised and record.opened.rounds else None
    return OwedRepairs(number, candidates) if candidates else None


def failing(record: CouncilRecord) -> tuple[str, ...]:
    """Candidates with a failure that is left to repair, by id."""
    return tuple(sorted(k for k, e in record.evidence.items() if not e.gates_ok or e.trusted_passed < e.trusted_total))


def early_exit(record: CouncilRecord) -> str | None:
    """The candidate that evidence alone decides for, None when ballots are needed (CN-40).

    It passes every gate and every trusted test, there are trusted tests, and its behaviour is that of a strict
    majority of the drafts that were invited.
    """
    invited = sum(m.can_propose for m in record.opened.roster)
    found = [
        e
        for e in record.evidence.values()
        if e.gates_ok and e.trusted_total and e.trusted_passed == e.trusted_total and e.cluster_size * 2 > invited
    ]
    return min(found, key=lambda e: _evidence_key(record, e)).candidate_id if found else None


def _evidence_key(record: CouncilRecord, e: Evidence) -> tuple[int, int, int, str]:
    # The content's digest comes last: a candidate's id would favour the seat of its author (CN-53).
    return (-e.trusted_passed, -e.cluster_size, e.diff_lines, record.drafts[e.candidate_id].content)


def on_ballot(record: CouncilRecord) -> tuple[str, ...]:
    """Gate-passing candidates that no other beats in both tests and cluster size, at most five, by id (CN-44)."""
    passing = [e for e in record.evidence.values() if e.gates_ok]
    best = [e for e in passing if not any(_dominates(o, e) for o in passing)]
    return tuple(sorted(e.candidate_id for e in sorted(best, key=lambda e: _evidence_key(record, e))[:MAX_ON_BALLOT]))


def _dominates(a: Evidence, b: Evidence) -> bool:
    at_least = a.trusted_passed >= b.trusted_passed and a.cluster_size >= b.cluster_size
    return at_least and (a.trusted_passed, a.cluster_size) != (b.trusted_passed, b.cluster_size)


def _may_vote(record: CouncilRecord, member: RosterMember, candidates: tuple[str, ...]) -> bool:
    if member.member_id in record.ballots or member.member_id in record.refused:
        return False
    return any(record.author_of(c) != member.member_id for c in candidates)


def critic_of(record: CouncilRecord, candidate_id: str) -> RosterMember:
    """The member that criticises the candidate: the next one in the roster after its author."""
    voters = [m for m in record.opened.roster if m.can_vote]
    author = record.author_of(candidate_id)
    at = next((n for n, m in enumerate(voters) if m.member_id == author), 0)
    return voters[(at + 1) % len(voters)]
