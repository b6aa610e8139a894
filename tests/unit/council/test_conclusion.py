"""The record of a decision: the worked example, counterfactuals, minority report and hash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.council.ballot import read_ballot
from fleet.council.conclusion import RejectingReason, conclude
from fleet.council.evidence import GateCheck
from fleet.council.facts import (
    CastBallot,
    DeliveredDraft,
    DeliveredTests,
    Fact,
    Interrupted,
    KeptTests,
    MeasuredCandidate,
)
from fleet.council.rounds import OwedBallot, owed
from fleet.council.state import CouncilState, evolve
from fleet.council.tally import Decided, NoDecision
from fleet.council.tests_filter import UntrustedTest
from tests.support.council import evidence, member, opened, quality_seat, sha, voters

FEW = settings(max_examples=60, deadline=None)
VOTERS = voters(5, can_propose=False)
AUTHORS = tuple(member(f"data-{n:03d}", can_vote=False) for n in (1, 2, 3))
A, B, C = "cd-a1", "cd-b1", "cd-c1"
RANKINGS = ((A, B, C), (A, B, C), (B, C, A), (B, C, A), (C, A, B))


def example(
    *, silent: int = 0, c_builds: bool = True, changes: dict[str, Any] | None = None, **more: Any
) -> CouncilState:
    """The worked example of the specification; the first `silent` voters are not heard before the deadline."""
    state = CouncilState(opened(*VOTERS, *AUTHORS, quality_seat(), rounds=0, double_ballot=False, **more))
    facts: list[Fact] = [
        DeliveredDraft(str(m.member_id), name, sha(name)) for m, name in zip(AUTHORS, (A, B, C), strict=True)
    ]
    facts += [DeliveredTests("qa-001", sha("tests"), 2), KeptTests(("t1", "t2"), (), trusted=True)]
    for name, diff in ((A, 40), (B, 55), (C, 60)):
        known: dict[str, Any] = {"diff_lines": diff, "passed": 1} | (changes or {}).get(name, {})
        facts.append(MeasuredCandidate(evidence(name, ok=c_builds or name != C, **known)))
    for fact in facts:
        state = evolve(state, fact)
    return _vote(state, silent)


def _vote(state: CouncilState, silent: int) -> CouncilState:
    for duty, ranking in list(zip(owed(state), RANKINGS, strict=True))[silent:]:
        assert isinstance(duty, OwedBallot)
        labels = {e.candidate_id: e.label for e in duty.paper.entries}
        votes = [{"label": label, "vote": "approve", "reason": "It works."} for label in duty.paper.labels]
        answer = {"votes": votes, "ranking": [labels[c] for c in ranking if c in labels]}
        state = evolve(state, CastBallot(read_ballot(answer, duty.paper)))
    return evolve(state, Interrupted("deadline")) if silent else state


def decided(state: CouncilState) -> Decided:
    result = conclude(state).result
    assert isinstance(result, Decided)
    return result


@pytest.mark.rule("CN-130", "CN-52", "CN-60")
def test_worked_example_is_won_by_a_and_plurality_ends_its_tie_by_size():
    state = example()
    result = decided(state)
    assert result.tally.margins == {f"{B}>{C}": 3, f"{A}>{B}": 1, f"{C}>{A}": 1}
    assert result.tally.locked == (f"{B}>{C}", f"{A}>{B}")
    assert (result.winner, result.decided_in, result.tally.ranking) == (A, "P6", (A, B, C))
    plurality = conclude(state).counterfactuals["plurality"]
    assert plurality is not None
    assert plurality.candidate_id == A


@pytest.mark.rule("CN-131")
def test_worked_example_without_c_and_with_silent_voters():
    gone = example(c_builds=False)
    assert decided(gone).winner == A
    assert decided(gone).tally.margins == {f"{A}>{B}": 1}
    assert [r.candidate_id for r in conclude(gone).results] == [A, B, C]
    two = decided(example(c_builds=False, silent=2))
    assert (two.winner, two.tally.valid, two.tally.missing) == (B, 3, 2)
    three = conclude(example(c_builds=False, silent=3)).result
    assert isinstance(three, NoDecision)
    assert three.reason == "no_quorum"


@pytest.mark.rule("CN-60")
def test_counterfactuals_look_at_the_drafts_and_name_their_evidence():
    changes = {A: {"passed": 0}, B: {"passed": 2, "ok": True}, C: {"passed": 2, "diff_lines": 1}}
    measured = {(name, 0): evidence(name, **({"diff_lines": 40} | known)) for name, known in changes.items()}
    found = conclude(replace(example(silent=5), evidence=measured)).counterfactuals
    assert {k: v and v.candidate_id for k, v in found.items()} == {"first_draft": A, "best_of_n": C, "plurality": None}
    assert found["first_draft"] is not None
    assert found["first_draft"].evidence is not None
    assert found["first_draft"].evidence.trusted_passed == 0


def test_counterfactuals_are_none_where_nothing_was_drafted():
    found = conclude(CouncilState(opened())).counterfactuals
    assert found == {"first_draft": None, "best_of_n": None, "plurality": None}


@pytest.mark.rule("CN-58")
def test_minority_report_holds_rejections_untrusted_tests_and_equal_candidates():
    state = example()
    key, cast = next(iter(sorted(state.ballots.items())))
    rejecting = cast.ballot.model_copy(update={"votes": cast.ballot.votes | {B: "reject"}})
    dropped = (UntrustedTest("t8", "unstable"), UntrustedTest("t9", "failed_by_all"))
    state = replace(
        state,
        ballots={**state.ballots, key: replace(cast, ballot=rejecting)},
        filtered=KeptTests((), dropped, trusted=False),
    )
    minority = conclude(state).minority
    assert minority.rejections == (RejectingReason("developer-001", B, "It works."),)
    assert (minority.untrusted_tests, minority.questions, minority.equals) == (dropped, ("t9",), (B, C))


@pytest.mark.rule("CN-62")
def test_results_are_ranked_and_a_check_that_did_not_run_is_not_passed():
    first = conclude(example()).results[0]
    assert (first.rank, first.score) == (1, (1, 2))
    assert (first.checks.policy, first.checks.additional, first.checks.all_passed) == (None, (("build", True),), False)
    gates = tuple(GateCheck(name=n, ok=True) for n in ("applies", "policy", "lint", "build"))
    full = conclude(example(changes={A: {"gates": gates}})).results[0]
    assert full.checks.all_passed


@pytest.mark.rule("CN-62")
def test_removed_candidate_ranks_after_those_that_stand():
    state = example()
    ballots = {
        key: replace(cast, ballot=cast.ballot.model_copy(update={"votes": cast.ballot.votes | {A: "reject"}}))
        for key, cast in state.ballots.items()
    }
    conclusion = conclude(replace(state, ballots=ballots))
    assert [r.candidate_id for r in conclusion.results] == [B, C, A]
    assert [r.rank for r in conclusion.results] == [1, 2, 3]


@pytest.mark.rule("CN-59", "CN-108")
def test_hash_is_the_same_for_the_same_record_and_another_for_any_other():
    plain = conclude(example()).decision_hash
    assert conclude(example()).decision_hash == plain
    others = [
        example(seed=8),
        example(rule_version=2),
        example(rubric_digest=sha("other")),
        example(c_builds=False),
        example(silent=1),
        example(changes={C: {"lint_errors": 1}}),
    ]
    hashes = {conclude(other).decision_hash for other in others}
    assert len(hashes | {plain}) == 7


@pytest.mark.rule("CN-59")
def test_hash_is_pinned_so_that_recorded_decisions_can_be_checked_forever():
    assert conclude(example()).decision_hash == PINNED


PINNED = "sha256:f01cf40c2656b081ae1753847af8d0570d1c8d3f81618ef7b36a70ae0a884155"


@pytest.mark.rule("CN-100")
@given(order=st.permutations(RANKINGS))
@FEW
def test_which_voter_gave_which_ranking_does_not_matter(order: list[tuple[str, ...]]):
    state = example()
    ballots = {
        key: replace(cast, ballot=cast.ballot.model_copy(update={"ranking": ranking}))
        for (key, cast), ranking in zip(sorted(state.ballots.items()), order, strict=True)
    }
    assert decided(replace(state, ballots=ballots)) == decided(state)
