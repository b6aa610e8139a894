"""The procedure P0-P7: what a council owes next, as a pure function of what is recorded (CN-20..CN-57)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet.council.ballot import Attempt, BallotPaper, ballot_paper
from fleet.council.candidate import Candidate
from fleet.council.delphi import OwedEstimate, owed_estimates
from fleet.council.evidence import Contender, early_exit, on_ballot
from fleet.council.facts import DeliveredCritique, DeliveredRepair, DeliveredTests
from fleet.council.roster import Member
from fleet.council.state import CouncilState
from fleet.kernel.ids import Digest

CouncilPhase = Literal["drafting", "evidence", "repairing", "balloting", "complete"]
FRESH_TEMPERATURE = "0.8"
"""Of a draft made anew: high enough that it differs from the one that failed."""
_FRESH_SINCE = 3
"""The rule version from which on authors may draft anew; a council keeps the rules that it was opened with."""
_PERCENT: dict[CouncilPhase, int] = {"drafting": 5, "evidence": 30, "repairing": 55, "balloting": 80, "complete": 100}


@dataclass(frozen=True, slots=True)
class OwedDraft:
    """This proposer has not drafted; answer with DeliveredDraft or MissingDraft."""

    member: Member


@dataclass(frozen=True, slots=True)
class OwedTests:
    """The test author has not delivered; answer with DeliveredTests or MissingTests."""

    member: Member


@dataclass(frozen=True, slots=True)
class OwedEvidence:
    """These candidates have to be measured; answer with one EvidenceRecorded each, of this round.

    With `filter_tests` there are generated tests that nobody has filtered: if any candidate passes its gates, run them,
    and record KeptTests together with the evidence. `candidates` is empty when only the filter is missing.
    """

    round: int
    candidates: tuple[str, ...]
    filter_tests: bool


@dataclass(frozen=True, slots=True)
class OwedCritique:
    """One critique of a failing candidate, or of one that is put to the vote.

    Answer with DeliveredCritique or MissingCritique under these names.
    """

    round: int
    candidate_id: str
    critic: Member


@dataclass(frozen=True, slots=True)
class OwedRepair:
    """The author may repair once; answer with DeliveredRepair or MissingRepair.

    The evidence of the repair comes with it, or is owed.
    """

    round: int
    candidate_id: str
    author: Member
    critique: Digest | None
    """The critique to show, without its author."""
    is_fresh: bool = False
    """Draft anew, as in the first round, instead of mending the version at hand."""


@dataclass(frozen=True, slots=True)
class OwedBallot:
    """This voter has not answered this paper; answer with CastBallot or RefusedBallot invalid."""

    voter: Member
    paper: BallotPaper


@dataclass(frozen=True, slots=True)
class OwedDecision:
    """Nothing else is owed: call `conclude` and record what it says."""


Owed = OwedDraft | OwedTests | OwedEvidence | OwedCritique | OwedRepair | OwedBallot | OwedEstimate | OwedDecision


def owed(state: CouncilState) -> tuple[Owed, ...]:
    """Everything that may be done now, all of it in parallel; empty once the council is closed.

    Depends on the recorded facts alone, so a restart owes exactly what is missing. Ends after at most `rounds` repair
    rounds: each duty is answered by one fact and never owed again (CN-119).
    """
    if state.closed is not None:
        return ()
    if state.interrupted is not None:
        return (OwedDecision(),)
    if state.opened.kind == "estimate":
        return owed_estimates(state) or (OwedDecision(),)
    improving = _drafting(state) or _measuring(state, 0) or _improving(state)
    return improving or _reviewing(state) or _balloting(state) or (OwedDecision(),)


def owed_evidence(state: CouncilState) -> OwedEvidence | None:
    """What is to be measured of the drafts that are there, although others are still owed; None when nothing is."""
    return next((duty for duty in _measuring(state, 0) if isinstance(duty, OwedEvidence)), None)


def _drafting(state: CouncilState) -> tuple[Owed, ...]:
    drafts = [OwedDraft(m) for m in state.opened.proposers if m.member_id not in state.drafts]
    author = state.opened.test_author
    tests = [OwedTests(author)] if author is not None and state.tests is None else []
    return (*drafts, *tests)


def _measuring(state: CouncilState, number: int) -> tuple[Owed, ...]:
    missing = _unmeasured(state, number)
    tests_wait = isinstance(state.tests, DeliveredTests) and state.tests.count > 0 and state.filtered is None
    passing = any(c.gates_ok for c in state.contenders(number))
    if missing or (tests_wait and passing):
        return (OwedEvidence(number, missing, tests_wait),)
    return ()


def _unmeasured(state: CouncilState, number: int) -> tuple[str, ...]:
    if number == 0:
        return tuple(c.candidate_id for c in state.candidates(0) if c.evidence is None)
    before = state.versions(number - 1)
    seen = {v.normal_digest for v in before}
    missing: list[str] = []
    for version in before:
        repair = state.repairs.get((version.candidate_id, number))
        if not isinstance(repair, DeliveredRepair) or repair.kept == "old":
            continue
        normal = repair.normal_digest or repair.digest
        if normal not in seen and (version.candidate_id, number) not in state.evidence:
            missing.append(version.candidate_id)
        seen.add(normal)
    return tuple(missing)


def _improving(state: CouncilState) -> tuple[Owed, ...]:
    if _is_settled(state, 0):
        return ()
    for number in range(1, state.rounds + 1):
        if pending := _repairing(state, number) or _measuring(state, number):
            return pending
        changed = any(v.changed_in == number for v in state.versions(number))
        if not changed or _is_settled(state, number):
            return ()
    return ()


def _is_settled(state: CouncilState, upto: int) -> bool:
    return bool(early_exit(state.contenders(upto), invited=len(state.opened.proposers)))


def _repairing(state: CouncilState, number: int) -> tuple[Owed, ...]:
    pending: list[Owed] = []
    fresh = _drafted_anew(state, number)
    for candidate in state.failing(number - 1):
        missing = [v for v in candidate.versions if (v.candidate_id, number) not in state.repairs]
        repairs = [v for v in missing if v.candidate_id not in fresh]
        critic = _critic(state, candidate) if state.opened.critiques else None
        critique = state.critiques.get((candidate.candidate_id, number))
        pending += [
            OwedRepair(number, v.candidate_id, _member(state, v.author), None, is_fresh=True)
            for v in missing
            if v.candidate_id in fresh
        ]
        if critic is not None and critique is None and repairs:
            pending.append(OwedCritique(number, candidate.candidate_id, critic))
            continue
        ref = critique.ref if isinstance(critique, DeliveredCritique) else None
        pending += [OwedRepair(number, v.candidate_id, _member(state, v.author), ref) for v in repairs]
    return tuple(pending)


def _drafted_anew(state: CouncilState, number: int) -> frozenset[str]:
    """Whose authors draft anew in this round: where nothing passes, all but the first version of the best candidate.

    Of failing drafts of small models fresh ones mend more than repairs do; large ones mend well what they are shown.
    The evidence of the round says which it was.
    """
    contenders = state.contenders(number - 1)
    is_code = state.opened.output_kind == "code_patch" and state.opened.subject is None
    if state.opened.rule_version < _FRESH_SINCE or not is_code or any(c.gates_ok for c in contenders):
        return frozenset()
    failing = sorted(state.failing(number - 1), key=_most_passed)
    return frozenset(v.candidate_id for c in failing for v in c.versions) - {
        v.candidate_id for c in failing[:1] for v in c.versions[:1]
    }


def _most_passed(candidate: Candidate) -> tuple[int, int, Digest]:
    assert candidate.evidence is not None
    return (-sum(g.ok for g in candidate.evidence.gates), candidate.evidence.diff_lines, candidate.digest)


def _member(state: CouncilState, member_id: str) -> Member:
    return next(m for m in state.opened.roster if m.member_id == member_id)


def _critic(state: CouncilState, candidate: Candidate) -> Member | None:
    """The next voter of the roster after an author that is none itself."""
    voters = state.opened.voters
    after = next((n for n, m in enumerate(voters) if m.member_id in candidate.authors), 0) + 1
    return next((m for m in (*voters[after:], *voters[:after]) if m.member_id not in candidate.authors), None)


def _reviewing(state: CouncilState) -> tuple[Owed, ...]:
    if not state.opened.is_reviewed:
        return ()
    shown = {c.candidate_id for c in _shown(state)}
    waiting = [c for c in state.candidates() if c.candidate_id in shown and (c.candidate_id, 1) not in state.critiques]
    return tuple(OwedCritique(1, c.candidate_id, m) for c in waiting if (m := _critic(state, c)) is not None)


def _balloting(state: CouncilState) -> tuple[Owed, ...]:
    if _is_settled(state, state.rounds):
        return ()
    shown = _shown(state)
    papers = [(voter, paper) for voter in state.opened.voters for paper in _papers(state, voter, shown)]
    return tuple(OwedBallot(voter, paper) for voter, paper in papers if not _is_answered(state, paper))


def _is_answered(state: CouncilState, paper: BallotPaper) -> bool:
    key = (paper.voter, int(paper.attempt))
    return key in state.ballots or key in state.refused


def _shown(state: CouncilState) -> tuple[Contender, ...]:
    return on_ballot(state.contenders(), max_on_ballot=state.opened.max_on_ballot)


def _papers(state: CouncilState, voter: Member, candidates: tuple[Contender, ...]) -> tuple[BallotPaper, ...]:
    def paper(attempt: Attempt) -> BallotPaper | None:
        return ballot_paper(
            candidates,
            council_id=state.opened.council_id,
            round=_last_round(state),
            voter=str(voter.member_id),
            attempt=attempt,
            seed=state.opened.seed,
        )

    first, second = paper(1), paper(2)
    if first is None or second is None:
        return ()
    # One candidate reversed is the same question: asking it twice would only cost tokens.
    return (first, second) if state.opened.double_ballot and len(first.entries) > 1 else (first,)


def _last_round(state: CouncilState) -> int:
    return max((number for _, number in state.repairs), default=0)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the deliberation stands, for people (CN-15)."""

    phase: CouncilPhase
    round: int
    percent: int
    members: tuple[str, ...]
    """Members that are being waited for."""


def progress(state: CouncilState) -> Progress:
    """Phase, round and who is being waited for; `complete` as soon as only the decision is left."""
    duties = owed(state)
    members = [str(member.member_id) for duty in duties if (member := _awaited(duty)) is not None]
    phase = _phase(duties[0]) if duties else "complete"
    number = max((d.round for d in duties if isinstance(d, _OF_A_ROUND)), default=_last_round(state))
    return Progress(phase, number, _PERCENT[phase], tuple(dict.fromkeys(members)))


_OF_A_ROUND = (OwedEvidence, OwedCritique, OwedRepair, OwedEstimate)


def _phase(duty: Owed) -> CouncilPhase:
    match duty:
        case OwedDraft() | OwedTests():
            return "drafting"
        case OwedEvidence(round=0):
            return "evidence"
        case OwedEvidence() | OwedCritique() | OwedRepair():
            return "repairing"
        case OwedBallot() | OwedEstimate():
            return "balloting"
        case OwedDecision():
            return "complete"


def _awaited(duty: Owed) -> Member | None:
    match duty:
        case OwedDraft(member) | OwedTests(member) | OwedCritique(critic=member) | OwedRepair(author=member):
            return member
        case OwedBallot(voter=member) | OwedEstimate(member=member):
            return member
        case OwedEvidence() | OwedDecision():
            return None
