"""What a council owes next: a function of its record, whatever the order of arrival (CN-20..CN-57)."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from fleet import events as ev
from fleet.ids import EntityId
from fleet.story import CouncilRecord
from fleet.story.deliberation import (
    OwedBallots,
    OwedCritiques,
    OwedDecision,
    OwedDrafts,
    OwedEvidence,
    OwedRepairs,
    critic_of,
    early_exit,
    failing,
    on_ballot,
    owed,
)
from fleet.story.state import Draft
from tests.support.story_events import TASK, TASK_COUNCIL, digest, open_council, story

MEMBERS = ("developer-001", "developer-002", "developer-003")


def evidence(candidate: str, **changes: Any) -> ev.Evidence:
    fields: dict[str, Any] = {
        "candidate_id": EntityId(candidate),
        "round": 0,
        "gates": (ev.EvidenceGate(name="build", ok=True),),
        "gates_ok": True,
        "trusted_passed": 4,
        "trusted_total": 4,
        "cluster_id": candidate,
        "cluster_size": 1,
        "lint_errors": 0,
        "diff_lines": 10,
    }
    return ev.Evidence(**(fields | changes))


def record(*found: ev.Evidence, design: bool = False, rounds: int = 1, **changes: Any) -> CouncilRecord:
    """Three drafts cd-1..cd-3 of the three developers, with this evidence."""
    opened = open_council(TASK_COUNCIL, task_id=None if design else TASK, design=design)
    drafts = {
        f"cd-{n}": Draft(f"cd-{n}", member, digest(f"content {n}"), 100) for n, member in enumerate(MEMBERS, start=1)
    }
    plain = CouncilRecord(
        opened=opened.model_copy(update={"rounds": rounds}),
        opened_version=1,
        drafts=drafts,
        tests_done=True,
        evidence={e.candidate_id: e for e in found},
        rounds_done=0 if found else -1,
    )
    return replace(plain, **changes)


def test_open_council_owes_every_draft_and_the_tests():
    found = owed(record(drafts={}, tests_done=False))
    assert isinstance(found, OwedDrafts)
    assert [m.member_id for m in found.members] == list(MEMBERS)
    assert found.test_author is not None
    assert found.test_author.member_id == "qa-001"


@pytest.mark.rule("CN-24")
def test_failed_draft_is_not_asked_for_again_and_none_at_all_is_decided():
    two = {k: v for k, v in record().drafts.items() if k != "cd-3"}
    assert owed(record(drafts=two, failed=("developer-003",))) == OwedEvidence()
    assert owed(record(drafts={}, failed=MEMBERS)) == OwedDecision("P6")
    waiting = owed(record(drafts=two))
    assert isinstance(waiting, OwedDrafts)
    assert ([m.member_id for m in waiting.members], waiting.test_author) == (["developer-003"], None)


@pytest.mark.rule("CN-107")
def test_order_of_arrival_changes_nothing():
    base = record(evidence("cd-1"), evidence("cd-2", trusted_passed=3), evidence("cd-3"), rounds=0)
    expected = owed(base)
    for order in permutations(base.drafts):
        shuffled = replace(
            base,
            drafts={k: base.drafts[k] for k in order},
            evidence={EntityId(k): base.evidence[EntityId(k)] for k in order},
        )
        assert owed(shuffled) == expected


@pytest.mark.rule("CN-40")
def test_majority_of_the_invited_drafts_that_passes_everything_decides_without_ballots():
    both = {"cluster_id": "c", "cluster_size": 2}
    agreed = record(evidence("cd-1", diff_lines=20, **both), evidence("cd-2", **both), evidence("cd-3"))
    assert early_exit(agreed) == "cd-2"
    assert owed(agreed) == OwedDecision("P3")


@pytest.mark.rule("CN-40")
@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_size": 1},
        {"gates_ok": False},
        {"trusted_passed": 3},
        {"trusted_passed": 0, "trusted_total": 0},
    ],
)
def test_weaker_evidence_does_not_end_the_council_early(changes: dict[str, Any]):
    assert early_exit(record(evidence("cd-1", **({"cluster_size": 2} | changes)))) is None


@pytest.mark.rule("CN-53", "CN-114")
def test_equal_candidates_leave_early_by_digest_and_not_by_the_seat_of_their_author():
    both = {"cluster_id": "c", "cluster_size": 3}
    agreed = record(*(evidence(f"cd-{n}", **both) for n in (1, 2, 3)))
    lowest = min(agreed.drafts.values(), key=lambda d: d.content)
    assert early_exit(agreed) == lowest.candidate_id


@pytest.mark.rule("CN-41", "CN-43")
def test_failing_candidates_are_repaired_once_a_round():
    start = record(evidence("cd-1"), evidence("cd-2", trusted_passed=3), evidence("cd-3", gates_ok=False), rounds=2)
    assert failing(start) == ("cd-2", "cd-3")
    assert owed(start) == OwedRepairs(1, ("cd-2", "cd-3"))
    one = replace(start, repairs={"cd-2": 1}, last_change=1)
    assert owed(one) == OwedRepairs(1, ("cd-3",))
    both = replace(one, repairs={"cd-2": 1, "cd-3": 1})
    assert owed(both) == OwedRepairs(2, ("cd-2", "cd-3"))


@pytest.mark.rule("CN-43")
def test_round_in_which_nobody_got_better_is_the_last():
    state = record(evidence("cd-1"), evidence("cd-2", trusted_passed=3), rounds=2, repairs={"cd-2": 1}, last_change=0)
    assert isinstance(owed(state), OwedBallots)


@pytest.mark.rule("CN-119")
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_no_more_rounds_than_the_council_has(rounds: int):
    state = record(evidence("cd-1"), evidence("cd-2", trusted_passed=3), rounds=rounds)
    done = 0
    while isinstance(step := owed(state), OwedRepairs):
        done += 1
        repairs = {**state.repairs, **dict.fromkeys(step.candidates, step.round)}
        state = replace(state, repairs=repairs, last_change=step.round)
    assert done == rounds


@pytest.mark.rule("CN-41")
def test_each_design_gets_one_critique_before_the_ballots():
    state = record(*(evidence(f"cd-{n}", trusted_total=0, trusted_passed=0) for n in (1, 2, 3)), design=True)
    assert owed(state) == OwedCritiques(1, ("cd-1", "cd-2", "cd-3"))
    critics = [critic_of(state, f"cd-{n}").member_id for n in (1, 2, 3)]
    assert critics == ["developer-002", "developer-003", "developer-001"]
    done = replace(state, critiques={f"cd-{n}": digest("critique") for n in (1, 2, 3)})
    assert isinstance(owed(done), OwedBallots)
    assert isinstance(owed(replace(state, opened=state.opened.model_copy(update={"rounds": 0}))), OwedBallots)


@pytest.mark.rule("CN-44")
def test_ballot_lists_candidates_that_no_other_beats_in_both_measures():
    state = record(
        evidence("cd-1", trusted_passed=4, cluster_size=1),
        evidence("cd-2", trusted_passed=3, cluster_size=2),
        evidence("cd-3", trusted_passed=3, cluster_size=1),
    )
    assert on_ballot(state) == ("cd-1", "cd-2")
    assert on_ballot(record(evidence("cd-1", gates_ok=False))) == ()


@pytest.mark.rule("CN-44")
def test_ballot_lists_five_candidates_at_most():
    many = {EntityId(f"cd-{n}"): evidence(f"cd-{n}", diff_lines=n) for n in range(1, 8)}
    drafts = {str(c): Draft(str(c), "developer-001", digest(str(c)), 1) for c in many}
    assert on_ballot(record(evidence("cd-1"), evidence=many, drafts=drafts)) == tuple(f"cd-{n}" for n in range(1, 6))


@pytest.mark.rule("CN-46", "CN-47", "CN-127")
def test_voters_are_those_with_something_to_vote_on_who_have_not_answered():
    state = record(evidence("cd-1"), evidence("cd-2"), rounds=0)
    cast = next(p for p in story(until="task").decoded_payloads("BallotCast"))
    found = owed(replace(state, ballots={"developer-002": cast}, refused=("developer-003",)))
    assert isinstance(found, OwedBallots)
    assert ([v.member_id for v in found.voters], found.candidates) == (["developer-001"], ("cd-1", "cd-2"))
    own = owed(record(evidence("cd-1"), rounds=0))
    assert isinstance(own, OwedBallots)
    assert "developer-001" not in [v.member_id for v in own.voters]


def test_everything_in_or_nothing_left_to_vote_on_is_decided():
    cast = next(p for p in story(until="task").decoded_payloads("BallotCast"))
    voted = record(evidence("cd-1"), rounds=0, ballots=dict.fromkeys(MEMBERS, cast))
    assert owed(voted) == OwedDecision("P6")
    assert owed(record(evidence("cd-1", gates_ok=False), rounds=0)) == OwedDecision("P6")
