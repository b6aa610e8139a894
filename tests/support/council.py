"""Builders for council tests, and a scripted world that answers whatever a council owes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.council.ballot import CountedBallot, read_ballot
from fleet.council.conclusion import conclude
from fleet.council.evidence import CandidateEvidence, Contender, GateCheck
from fleet.council.facts import (
    CastBallot,
    Closed,
    CouncilTerms,
    DeliveredCritique,
    DeliveredDraft,
    DeliveredRepair,
    DeliveredTests,
    Fact,
    KeptTests,
    MeasuredCandidate,
    MissingDraft,
    MissingRepair,
    MissingTests,
)
from fleet.council.roster import Member, quorum_of
from fleet.council.rounds import (
    Owed,
    OwedBallot,
    OwedCritique,
    OwedDecision,
    OwedDraft,
    OwedEvidence,
    OwedRepair,
    OwedTests,
    owed,
)
from fleet.council.state import CouncilState, evolve
from fleet.council.tally import Decided
from fleet.council.tests_filter import UntrustedTest
from fleet.kernel.ids import Digest, EntityId, Principal

COUNCIL = "co-test1"


def sha(text: str) -> Digest:
    """The digest of a text."""
    return Digest(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


def member(name: str, **changes: Any) -> Member:
    """A seat that proposes and votes."""
    role = name.split("-")[0]
    known: dict[str, Any] = {
        "member_id": EntityId(name),
        "role": role,
        "principal": Principal(f"agent:{name}"),
        "model_policy": role,
        "temperature": "0.2",
    }
    return Member(**(known | changes))


def voters(count: int, **changes: Any) -> tuple[Member, ...]:
    """Developers 001.. that propose and vote."""
    return tuple(member(f"developer-{n:03d}", **changes) for n in range(1, count + 1))


def quality_seat() -> Member:
    """The test author."""
    return member("qa-001", can_propose=False, can_vote=False, test_author=True)


def opened(*roster: Member, **changes: Any) -> CouncilTerms:
    """An opened selection of code with three voters and a test author, unless told otherwise."""
    seats = roster or (*voters(3), quality_seat())
    kind = changes.get("kind", "selection")
    known: dict[str, Any] = {
        "council_id": COUNCIL,
        "kind": "selection",
        "output_kind": "code_patch",
        "roster": seats,
        "rounds": 1,
        "quorum": quorum_of(kind, sum(m.can_vote for m in seats)),
        "seed": 7,
        "rubric_digest": sha("rubric"),
        "rule_version": 1,
    }
    return CouncilTerms(**(known | changes))


def evidence(candidate: str, *, round: int = 0, ok: bool = True, passed: int = 2, total: int = 2, **more: Any) -> Any:
    """Evidence with one gate."""
    known: dict[str, Any] = {
        "candidate_id": EntityId(candidate),
        "round": round,
        "gates": (GateCheck(name="build", ok=ok),),
        "gates_ok": ok,
        "trusted_passed": passed,
        "trusted_total": total,
        "cluster_id": f"cl-{candidate}",
        "cluster_size": 1,
        "diff_lines": 10,
    }
    return CandidateEvidence(**(known | more))


def contender(name: str, **changes: Any) -> Contender:
    """A candidate with equal evidence; its digest is its name."""
    known: dict[str, Any] = {
        "candidate_id": name,
        "digest": f"sha256:{name}",
        "authors": frozenset(),
        "gates_ok": True,
        "trusted_passed": 3,
        "cluster_size": 1,
        "diff_lines": 10,
        "trusted_total": 3,
    }
    return Contender(**(known | changes))


def counted(voter: str, ranking: str, *, reject: str = "", abstain: str = "", **changes: Any) -> CountedBallot:
    """A counted ballot that ranks one-letter candidates and approves what is neither rejected nor abstained on."""
    known: dict[str, Any] = {
        "voter": voter,
        "weight": 1,
        "has_veto": False,
        "votes": {c: "reject" if c in reject else "abstain" if c in abstain else "approve" for c in ranking},
        "pairs": frozenset((a, b) for n, a in enumerate(ranking) for b in ranking[n + 1 :]),
        "first": ranking[:1] or None,
    }
    return CountedBallot(**(known | changes))


@dataclass
class World:
    """What members and sandbox would answer. A solution is a text; `worth` says what its execution shows."""

    solutions: Mapping[str, list[str | None]]
    """Author -> its draft and its repairs in turn; None fails, and so does what is not there."""
    worth: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Solution -> fields of its evidence."""
    tests: int = 2
    vote: Callable[[OwedBallot], Fact] | None = None
    measured: list[str] = field(default_factory=list[str])

    def answer(self, duty: Owed, state: CouncilState) -> tuple[Fact, ...]:
        """The facts that settle one duty."""
        match duty:
            case OwedDraft(seat):
                return (self._draft(str(seat.member_id)),)
            case OwedTests(seat):
                if not self.tests:
                    return (MissingTests(str(seat.member_id), "reply_malformed", tokens=1),)
                return (DeliveredTests(str(seat.member_id), sha("tests"), self.tests, tokens=20),)
            case OwedEvidence():
                return self._evidence(duty, state)
            case OwedCritique(number, candidate, critic):
                return (DeliveredCritique(number, candidate, str(critic.member_id), sha("critique"), tokens=5),)
            case OwedRepair(number, candidate, author):
                text = self._text(str(author.member_id), number)
                if text is None:
                    return (MissingRepair(number, candidate, "model_timeout", tokens=1),)
                return (DeliveredRepair(number, candidate, sha(text), sha(text.strip()), tokens=10),)
            case OwedBallot():
                return (self.vote(duty) if self.vote else ballot(duty),)
            case OwedDecision():
                result = conclude(state).result
                return (Closed("decided" if isinstance(result, Decided) else "undecided"),)

    def _text(self, author: str, number: int) -> str | None:
        known = self.solutions.get(author, [])
        return known[number] if number < len(known) else None

    def _draft(self, author: str) -> Fact:
        text = self._text(author, 0)
        if text is None:
            return MissingDraft(author, "model_timeout", tokens=1)
        return DeliveredDraft(author, f"cd-{author}", sha(text), sha(text.strip()), tokens=10)

    def _evidence(self, duty: OwedEvidence, state: CouncilState) -> tuple[Fact, ...]:
        facts: list[Fact] = []
        for candidate in duty.candidates:
            text = self._text(candidate.removeprefix("cd-"), duty.round) or "subject"
            self.measured.append(text)
            known = {"ok": True, "passed": self.tests, "cluster_id": f"cl-{text.strip()}"} | self.worth.get(
                text.strip(), {}
            )
            total = self.tests if state.opened.output_kind == "code_patch" else 0
            known["passed"] = min(known["passed"], total)
            facts.append(MeasuredCandidate(evidence(candidate, round=duty.round, total=total, **known)))
        if duty.filter_tests and (not duty.candidates or any(f.evidence.gates_ok for f in facts)):  # pyright: ignore
            kept = tuple(f"t{n}" for n in range(self.tests))
            facts.insert(0, KeptTests(kept, (UntrustedTest("t9", "failed_by_all"),), trusted=True))
        return tuple(facts)


def ballot(duty: OwedBallot, *, order: tuple[str, ...] | None = None, votes: str = "approve") -> CastBallot:
    """A valid answer to a paper: ranks by candidate id, or by `order`."""
    names = sorted(duty.paper.candidates, key=(order or tuple(sorted(duty.paper.candidates))).index)
    labels = {e.candidate_id: e.label for e in duty.paper.entries}
    answer = {
        "votes": [{"label": label, "vote": votes, "reason": f"seen as {label}"} for label in duty.paper.labels],
        "ranking": [labels[name] for name in names],
    }
    return CastBallot(read_ballot(answer, duty.paper), tokens=3)


def run(
    world: World,
    start: CouncilTerms,
    *,
    pick: Callable[[int], int] = lambda count: 0,
    stop: Callable[[CouncilState], Fact | None] = lambda state: None,
) -> tuple[CouncilState, list[Fact]]:
    """The council from its opening to its end; `pick` chooses which of the owed answers comes first."""
    state, facts = CouncilState(start), list[Fact]()
    for _ in range(200):
        duties = owed(state)
        if not duties:
            return state, facts
        ended = stop(state) if state.interrupted is None else None
        new = (ended,) if ended else world.answer(duties[pick(len(duties))], state)
        for fact in new:
            state = evolve(state, fact)
            facts.append(fact)
    raise AssertionError(f"no end after 200 answers: {owed(state)}")
