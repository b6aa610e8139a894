"""What council events say, as facts of `fleet.council`: whatever the order, and for logs of earlier versions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.council import rounds
from fleet.council.conclusion import conclude
from fleet.council.facts import MissingTests
from fleet.council.rounds import Owed, OwedBallot, OwedCritique, OwedEvidence, OwedRepair
from fleet.council.state import SUBJECT_ID
from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilOpened,
    CritiqueReceived,
    DraftFailed,
    DraftReceived,
    Evidence,
    EvidenceGate,
    EvidenceRecorded,
    RepairReceived,
)
from fleet.kernel.ids import EntityId
from fleet.story.council_facts import CouncilSaid, council_state, duty_of
from tests.support.story_events import TASK, TASK_COUNCIL, digest, open_council, story

MEMBERS = ("developer-001", "developer-002", "developer-003")
FEW = settings(max_examples=30, deadline=None)


def opened(*, design: bool = False, **changes: Any) -> CouncilOpened:
    plain = open_council(TASK_COUNCIL, task_id=None if design else TASK, design=design)
    return plain.model_copy(update=changes)


def draft(number: int, content: str | None = None) -> DraftReceived:
    return DraftReceived(
        council_id=TASK_COUNCIL,
        member_id=EntityId(MEMBERS[number - 1]),
        attempt=1,
        candidate_id=EntityId(f"cd-{number}"),
        candidate_digest=digest(content or f"content {number}"),
        tokens=100,
    )


def evidence(number: int, round: int = 0, **changes: Any) -> EvidenceRecorded:
    known: dict[str, Any] = {
        "candidate_id": EntityId(f"cd-{number}"),
        "round": round,
        "gates": (EvidenceGate(name="build", ok=True),),
        "gates_ok": True,
        "trusted_passed": 4,
        "trusted_total": 4,
        "cluster_id": f"cl-{number}",
        "cluster_size": 1,
        "lint_errors": 0,
        "diff_lines": 10,
    }
    return EvidenceRecorded(council_id=TASK_COUNCIL, round=round, evidence=Evidence(**(known | changes)))


def failed(member: str) -> DraftFailed:
    return DraftFailed(council_id=TASK_COUNCIL, member_id=EntityId(member), attempt=1, code="reply_malformed")


def ballot(voter: int, ranking: str, *, attempt: int = 1, tokens: int = 5) -> BallotCast:
    names = tuple(EntityId(f"cd-{n}") for n in ranking)
    return BallotCast(
        council_id=TASK_COUNCIL,
        round=0,
        voter=EntityId(MEMBERS[voter - 1]),
        attempt=attempt,
        votes=dict.fromkeys(names, "approve"),
        ranking=names,
        reasons_digest=digest("reasons"),
        order_seed=7,
        tokens=tokens,
    )


NO_TESTS = failed("qa-001")
DRAFTS: tuple[CouncilSaid, ...] = (draft(1), draft(2), draft(3), NO_TESTS)
EVIDENCE: tuple[CouncilSaid, ...] = (
    evidence(1),
    evidence(2, trusted_passed=3),
    evidence(3, gates_ok=False, gates=(EvidenceGate(name="build", ok=False),)),
)


def owed(*said: CouncilSaid, **changes: Any) -> tuple[Owed, ...]:
    return rounds.owed(council_state(opened(**changes), said))


@pytest.mark.rule("CN-22", "CN-23", "CN-24")
def test_failed_members_are_not_asked_again():
    asked = owed(draft(1), failed(MEMBERS[1]))
    assert [type(d).__name__ for d in asked] == ["OwedDraft", "OwedTests"]
    assert council_state(opened(), [NO_TESTS]).tests == MissingTests("qa-001", "reply_malformed")
    assert council_state(opened(), [failed(MEMBERS[1])]).tests is None


@pytest.mark.rule("CN-107", "CN-108")
@given(order=st.permutations([*DRAFTS, *EVIDENCE, ballot(1, "12"), ballot(2, "12"), ballot(2, "21", attempt=2)]))
@FEW
def test_order_of_arrival_changes_neither_what_is_owed_nor_the_decision(order: list[CouncilSaid]):
    state, plain = (council_state(opened(rounds=0), said) for said in (order, sorted(order, key=duty_of)))
    assert rounds.owed(state) == rounds.owed(plain)
    assert conclude(state) == conclude(plain)


@pytest.mark.rule("CN-34", "CN-35")
def test_normal_form_that_execution_told_makes_equal_drafts_one_candidate():
    same = {"normal_digest": digest("normal form")}
    state = council_state(opened(), [*DRAFTS, evidence(1, **same), evidence(2, **same), evidence(3)])
    assert [c.authors for c in state.candidates() if len(c.authors) > 1] == [MEMBERS[:2]]
    unmeasured = council_state(opened(), [*DRAFTS, evidence(1, **same)])
    assert len(unmeasured.candidates()) == 3


@pytest.mark.rule("CN-41", "CN-42")
def test_code_is_repaired_without_critique_and_only_what_was_kept_counts():
    first = owed(*DRAFTS, *EVIDENCE)
    assert [(type(d).__name__, d.critique) for d in first if isinstance(d, OwedRepair)] == [("OwedRepair", None)] * 2

    def repaired(number: int, kept: str) -> RepairReceived:
        return RepairReceived(
            council_id=TASK_COUNCIL,
            round=1,
            candidate_id=EntityId(f"cd-{number}"),
            new_digest=digest("mended"),
            kept=kept,  # pyright: ignore[reportArgumentType]
            reason="measured",
        )

    said = (*DRAFTS, *EVIDENCE, repaired(2, "old"), repaired(3, "new"), evidence(3, 1))
    state = council_state(opened(), said)
    assert [v.changed_in for v in state.versions()] == [0, 0, 1]
    assert state.version("cd-3").digest == digest("mended")


@pytest.mark.rule("CN-41", "CN-44")
def test_each_design_on_the_ballot_gets_one_critique_by_the_next_member_before_the_votes():
    plain = {"trusted_passed": 0, "trusted_total": 0}
    said = [draft(1), draft(2), draft(3), *(evidence(n, **plain) for n in (1, 2, 3))]
    critics = {d.candidate_id: d.critic.member_id for d in owed(*said, design=True) if isinstance(d, OwedCritique)}
    assert critics == {"cd-1": MEMBERS[1], "cd-2": MEMBERS[2], "cd-3": MEMBERS[0]}
    critiques = [
        CritiqueReceived(
            council_id=TASK_COUNCIL,
            round=1,
            candidate_id=EntityId(candidate),
            critic=critic,
            critique_digest=digest("critique"),
        )
        for candidate, critic in critics.items()
    ]
    assert {type(d) for d in owed(*said, *critiques, design=True)} == {OwedBallot}
    assert {type(d) for d in owed(*said, design=True, rounds=0)} == {OwedBallot}
    failing = [*said[:5], evidence(3, gates_ok=False, gates=(EvidenceGate(name="path", ok=False),), **plain)]
    assert len(owed(*failing, design=True)) == 2


@pytest.mark.rule("CN-46", "CN-48")
def test_ballot_that_once_stood_for_both_papers_answers_the_first():
    said = (draft(1), draft(2), failed(MEMBERS[2]), NO_TESTS, evidence(1), evidence(2), ballot(3, "12"))
    waiting = [d for d in owed(*said, rounds=0) if isinstance(d, OwedBallot) and d.voter.member_id == MEMBERS[2]]
    assert [d.paper.attempt for d in waiting] == [2]


@pytest.mark.rule("CN-20", "CN-46")
def test_rules_that_were_recorded_at_the_opening_hold_and_older_logs_have_the_defaults():
    state = council_state(opened(), ())
    assert (state.opened.double_ballot, state.opened.max_on_ballot) == (True, 5)
    told = council_state(opened(double_ballot=False, max_on_ballot=2), ())
    assert (told.opened.double_ballot, told.opened.max_on_ballot) == (False, 2)


@pytest.mark.rule("CN-110", "CN-111")
def test_broken_ballot_answers_its_paper():
    refused = BallotRefused(
        council_id=TASK_COUNCIL,
        round=0,
        voter=EntityId(MEMBERS[0]),
        attempt=1,
        code="invalid",
        ballot_digest=digest("ballot"),
    )
    state = council_state(opened(), [refused])
    assert [r.code for r in state.refused.values()] == ["invalid"]
    assert duty_of(refused) == duty_of(ballot(1, "12"))


def test_recorded_story_has_chosen_what_its_council_decided_for():
    record = story(until="task").state.councils[TASK_COUNCIL]
    assert record.chosen.candidate_id == record.winner
    assert record.chosen.author == "developer-001"
    assert record.chosen.evidence is not None
    with pytest.raises(AssertionError, match="only a decided council"):
        _ = story(until="created").add(opened()).state.councils[TASK_COUNCIL].chosen


def test_gate_is_about_its_subject():
    state = council_state(opened(kind="gate", subject_digest=digest("subject")), ())
    assert rounds.owed(state) == (OwedEvidence(0, (SUBJECT_ID,), filter_tests=False),)
