"""The procedure as a whole: what is owed when, in any order of arrival, after any interruption."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.council import rounds as council_rounds
from fleet.council.conclusion import conclude
from fleet.council.evidence import GateCheck, is_better
from fleet.council.facts import (
    CastBallot,
    Closed,
    DeliveredCritique,
    DeliveredDraft,
    DeliveredRepair,
    DeliveredTests,
    Fact,
    Interrupted,
    MeasuredCandidate,
    MissingCritique,
    MissingDraft,
    MissingRepair,
    MissingTests,
    RefusedBallot,
)
from fleet.council.rounds import Owed, OwedBallot, OwedCritique, OwedEvidence, OwedRepair, Progress, progress
from fleet.council.state import SUBJECT_ID, CouncilState, evolve
from fleet.council.tally import Decided, NoDecision, Tally
from tests.support.council import World, ballot, evidence, member, opened, quality_seat, run, sha, voters

FEW = settings(max_examples=60, deadline=None)
ONE, TWO, THREE = "developer-001", "developer-002", "developer-003"


def world(first: Any, second: Any, third: Any, **changes: Any) -> World:
    as_list = [s if isinstance(s, list) else [s] for s in (first, second, third)]
    return World(dict(zip((ONE, TWO, THREE), as_list, strict=True)), **changes)


def kinds(duties: tuple[Owed, ...]) -> list[str]:
    return [type(d).__name__ for d in duties]


def winner(state: CouncilState) -> str | None:
    result = conclude(state).result
    return result.winner if isinstance(result, Decided) else None


def after(state: CouncilState, *facts: Fact) -> CouncilState:
    for fact in facts:
        state = evolve(state, fact)
    return state


MIXED = [["good"], ["bad", "better", "good"], ["worse", None, "bad"]]
WORTH: dict[str, dict[str, Any]] = {
    "bad": {"ok": False},
    "worse": {"ok": False, "gates": (GateCheck(name="a", ok=False), GateCheck(name="b", ok=False))},
    "better": {"passed": 1},
}


@pytest.mark.rule("CN-22", "CN-23")
def test_drafts_and_tests_are_owed_at_once_and_nothing_else():
    state = CouncilState(opened())
    assert kinds(council_rounds.owed(state)) == ["OwedDraft"] * 3 + ["OwedTests"]
    assert progress(state) == Progress("drafting", 0, 5, (ONE, TWO, THREE, "qa-001"))


@pytest.mark.rule("CN-40")
def test_majority_of_one_behaviour_that_passes_everything_is_decided_without_ballots():
    w = world("x", "y", "bad", worth=WORTH | {"x": {"cluster_id": "cl-1"}, "y": {"cluster_id": "cl-1"}})
    state, facts = run(w, opened())
    result = conclude(state).result
    assert isinstance(result, Decided)
    assert result.decided_in == "P3"
    assert not any(isinstance(f, CastBallot | DeliveredRepair) for f in facts)


@pytest.mark.rule("CN-40", "CN-24")
def test_cluster_is_measured_against_the_drafts_invited_not_those_received():
    state, facts = run(world("x", None, None), opened(rounds=0))
    assert any(isinstance(f, CastBallot) for f in facts)
    assert winner(state) == f"cd-{ONE}"


@pytest.mark.rule("CN-40")
def test_majority_without_trusted_tests_still_goes_to_ballots():
    w = world("x", "x ", "y", tests=0)
    state, facts = run(w, opened(rounds=0))
    assert any(isinstance(f, CastBallot) for f in facts)
    assert winner(state) in (f"cd-{ONE}", f"cd-{TWO}")


@pytest.mark.rule("CN-34")
def test_equal_drafts_are_measured_once_and_count_for_each_author():
    w = world("x", "x ", "y")
    state, _ = run(w, opened())
    assert len(w.measured) == 2
    merged = next(c for c in state.candidates() if len(c.authors) == 2)
    assert merged.authors == (ONE, TWO)
    assert conclude(state).results[0].authors == (ONE, TWO)


@pytest.mark.rule("CN-24", "CN-56")
def test_council_without_any_draft_has_no_valid_candidate():
    state, _ = run(world(None, None, None), opened())
    assert conclude(state).result == NoDecision("no_valid_candidate", Tally(excused=3))


@pytest.mark.rule("CN-44", "CN-56")
def test_council_whose_candidates_all_fail_a_gate_has_no_valid_candidate_and_asks_nobody_to_vote():
    state, facts = run(world("bad", "worse", "bad", worth=WORTH), opened(rounds=0))
    assert not any(isinstance(f, CastBallot) for f in facts)
    result = conclude(state).result
    assert isinstance(result, NoDecision)
    assert result.reason == "no_valid_candidate"


@pytest.mark.rule("CN-41", "CN-42", "CN-43")
def test_failing_candidates_are_repaired_and_a_strictly_better_version_is_kept():
    state, facts = run(World(dict(zip((ONE, TWO, THREE), MIXED, strict=True)), WORTH), opened(rounds=2))
    repairs = [f for f in facts if isinstance(f, DeliveredRepair | MissingRepair)]
    assert {(r.candidate_id, r.round) for r in repairs} == {
        (f"cd-{TWO}", 1),
        (f"cd-{THREE}", 1),
        (f"cd-{TWO}", 2),
        (f"cd-{THREE}", 2),
    }
    by_author = {v.author: v for v in state.versions()}
    assert by_author[TWO].digest == sha("good")
    assert by_author[THREE].evidence is not None
    assert by_author[ONE].changed_in == 0


def test_repair_equal_to_a_measured_candidate_is_not_measured_again():
    w = world("good", ["bad", "good "], "bad", worth=WORTH)
    state, _ = run(w, opened())
    assert sorted(w.measured) == ["bad", "good"]
    assert winner(state) in (f"cd-{ONE}", f"cd-{TWO}")
    assert conclude(state).result == Decided(
        "P3", conclude(state).result.tally, winner=conclude(state).results[0].candidate_id
    )


@pytest.mark.rule("CN-41")
@pytest.mark.parametrize(("version", "fresh"), [(2, set[str]()), (3, {ONE, TWO})])
def test_where_nothing_passes_the_best_is_mended_and_the_other_authors_draft_anew(version: int, fresh: set[str]):
    state = CouncilState(opened(rounds=2, critiques=False, rule_version=version))
    failed = (GateCheck(name="given-1", ok=False), GateCheck(name="given-2", ok=False))
    half = (failed[0], GateCheck(name="given-2", ok=True))
    state = after(
        state,
        *[DeliveredDraft(m, f"cd-{m}", sha(m)) for m in (ONE, TWO, THREE)],
        MissingTests("qa-001", "model_timeout"),
        *[MeasuredCandidate(evidence(f"cd-{m}", ok=False, gates=failed, total=0, passed=0)) for m in (ONE, TWO)],
        MeasuredCandidate(evidence(f"cd-{THREE}", ok=False, gates=half, total=0, passed=0)),
    )
    repairs = [d for d in council_rounds.owed(state) if isinstance(d, OwedRepair)]
    assert {str(d.author.member_id) for d in repairs} == {ONE, TWO, THREE}
    assert {str(d.author.member_id) for d in repairs if d.is_fresh} == fresh


@pytest.mark.rule("CN-41")
def test_nobody_drafts_anew_once_something_passes():
    _, facts = run(world("good", ["bad", "good"], ["worse", "good"], worth=WORTH), opened(rule_version=3))
    assert any(isinstance(f, DeliveredRepair) for f in facts)
    state, _ = run(
        world("good", "bad", "worse", worth=WORTH),
        opened(rule_version=3),
        stop=lambda s: Interrupted("deadline") if _repairs_owed(s) else None,
    )
    owed = [d for d in council_rounds.owed(replace(state, interrupted=None, closed=None)) if isinstance(d, OwedRepair)]
    assert owed
    assert not any(d.is_fresh for d in owed)


@pytest.mark.rule("CN-43")
def test_rounds_stop_when_no_candidate_changed():
    _, facts = run(world("good", ["bad", "bad ", "good"], "worse", worth=WORTH), opened(rounds=2))
    assert {f.round for f in facts if isinstance(f, DeliveredRepair)} == {1}


@pytest.mark.rule("CN-42", "CN-128")
def test_version_that_is_measured_and_not_better_leaves_the_old_one():
    state = CouncilState(opened(rounds=1, critiques=False))
    state = after(
        state,
        *[DeliveredDraft(m, f"cd-{m}", sha(m)) for m in (ONE, TWO, THREE)],
        MissingTests("qa-001", "model_timeout"),
        *[MeasuredCandidate(evidence(f"cd-{m}", ok=m != TWO, total=0, passed=0)) for m in (ONE, TWO, THREE)],
    )
    (repair,) = council_rounds.owed(state)
    assert isinstance(repair, OwedRepair)
    kept_old = after(state, DeliveredRepair(1, f"cd-{TWO}", sha("new"), kept="old"))
    assert kinds(council_rounds.owed(kept_old)) == ["OwedBallot"] * 4
    measured = after(state, DeliveredRepair(1, f"cd-{TWO}", sha("new"), kept="new"))
    assert council_rounds.owed(measured) == (OwedEvidence(1, (f"cd-{TWO}",), filter_tests=False),)
    worse = after(measured, MeasuredCandidate(evidence(f"cd-{TWO}", round=1, ok=False, total=0, passed=0)))
    assert worse.versions()[1].digest == sha(TWO)
    better = after(measured, MeasuredCandidate(evidence(f"cd-{TWO}", round=1, total=0, passed=0)))
    assert better.versions()[1].digest == sha("new")


@pytest.mark.rule("CN-41")
def test_critique_comes_from_a_member_that_is_not_an_author_and_the_repair_is_shown_it():
    w = world("good", "bad", "bad ", worth=WORTH)
    state, _ = run(w, opened(), stop=lambda s: Interrupted("deadline") if _repairs_owed(s) else None)
    before = replace(state, interrupted=None, closed=None)
    repairs = [d for d in council_rounds.owed(before) if isinstance(d, OwedRepair)]
    assert {str(r.author.member_id) for r in repairs} == {TWO, THREE}
    assert all(r.critique == sha("critique") for r in repairs)
    (critique,) = before.critiques.values()
    assert critique.critic == ONE


def _repairs_owed(state: CouncilState) -> bool:
    return any(isinstance(d, OwedRepair) for d in council_rounds.owed(state))


def test_failed_critique_leaves_the_repair_without_one():
    w = world("good", "bad", "good ", worth=WORTH | {"good": {"passed": 1}})
    state, _ = run(w, opened(), stop=lambda s: Interrupted("deadline") if _critiques_owed(s) else None)
    before = replace(state, interrupted=None, closed=None)
    failed = [
        MissingCritique(d.round, d.candidate_id, str(d.critic.member_id), "model_timeout")
        for d in council_rounds.owed(before)
        if isinstance(d, OwedCritique)
    ]
    assert progress(before).phase == "repairing"
    repairs = council_rounds.owed(after(before, *failed))
    assert kinds(repairs) == ["OwedRepair"] * 3
    assert all(isinstance(r, OwedRepair) and r.critique is None for r in repairs)


def _critiques_owed(state: CouncilState) -> bool:
    return any(isinstance(d, OwedCritique) for d in council_rounds.owed(state))


def test_nobody_criticises_what_every_voter_wrote():
    _, facts = run(world("bad", "bad", "bad", worth=WORTH), opened())
    assert not any(isinstance(f, DeliveredCritique) for f in facts)


@pytest.mark.rule("CN-33")
def test_tests_are_filtered_in_the_first_round_in_which_something_passes_its_gates():
    w = world(["bad", "good"], "bad", "bad", worth=WORTH)
    state, facts = run(w, opened(critiques=False))
    assert isinstance(facts[4], MeasuredCandidate)
    assert not facts[4].evidence.gates_ok
    assert state.filtered is not None
    assert winner(state) == f"cd-{ONE}"


def test_filter_alone_is_owed_when_only_it_is_missing():
    drafts = [DeliveredDraft(m, f"cd-{m}", sha(m)) for m in (ONE, TWO, THREE)]
    known = [MeasuredCandidate(evidence(f"cd-{m}")) for m in (ONE, TWO, THREE)]
    state = after(CouncilState(opened()), *drafts, DeliveredTests("qa-001", sha("t"), 2), *known)
    assert council_rounds.owed(state) == (OwedEvidence(0, (), filter_tests=True),)


@pytest.mark.rule("CN-31", "CN-7")
def test_council_on_a_design_asks_for_no_tests_and_ends_in_ballots():
    state, facts = run(world("x", "y", "z"), opened(*voters(3), output_kind="design"))
    assert not any(isinstance(f, DeliveredTests | MissingTests) for f in facts)
    assert sum(isinstance(f, CastBallot) for f in facts) == 6
    conclusion = conclude(state)
    assert isinstance(conclusion.result, Decided)
    assert conclusion.results[0].score is None


@pytest.mark.rule("CN-46", "CN-127")
def test_each_voter_is_asked_twice_about_the_candidates_of_others():
    _, facts = run(world("x", "y", "z"), opened(rounds=0))
    ballots = [f.ballot for f in facts if isinstance(f, CastBallot)]
    assert sorted((b.voter, b.attempt) for b in ballots) == [(v, a) for v in (ONE, TWO, THREE) for a in (1, 2)]
    assert all(f"cd-{b.voter}" not in b.votes for b in ballots)
    _, once = run(world("x", "y", "z"), opened(rounds=0, double_ballot=False))
    assert sum(isinstance(f, CastBallot) for f in once) == 3


def test_single_candidate_is_voted_on_once_because_its_reverse_is_the_same_paper():
    _, facts = run(world("x", None, None), opened(rounds=0))
    assert sorted(f.ballot.voter for f in facts if isinstance(f, CastBallot)) == [TWO, THREE]


def refuse(which: str) -> Callable[[OwedBallot], Fact]:
    def vote(duty: OwedBallot) -> Fact:
        if duty.voter.member_id in which.split():
            return RefusedBallot(str(duty.voter.member_id), duty.paper.attempt, "invalid", tokens=3)
        return ballot(duty)

    return vote


@pytest.mark.rule("CN-47", "CN-111", "CN-112", "CN-123")
def test_voter_with_only_broken_ballots_is_invalid_and_the_quorum_stays_that_of_the_roster():
    state, _ = run(replace(world("x", "y", "z"), vote=refuse(ONE)), opened(rounds=0))
    tally = conclude(state).result.tally
    assert (tally.valid, tally.invalid, tally.missing) == (2, 1, 0)
    assert winner(state) is not None
    state, _ = run(replace(world("x", "y", "z"), vote=refuse(f"{ONE} {TWO}")), opened(rounds=0))
    result = conclude(state).result
    assert isinstance(result, NoDecision)
    assert (result.reason, result.tally.invalid) == ("no_quorum", 2)


def in_ballots() -> CouncilState:
    state, _ = run(
        world("x", "y", "z"), opened(rounds=0), stop=lambda s: Interrupted("deadline") if _voting(s) else None
    )
    return replace(state, interrupted=None, closed=None)


def _voting(state: CouncilState) -> bool:
    return progress(state).phase == "balloting"


@pytest.mark.rule("CN-48", "CN-110", "CN-109", "CN-108")
def test_foreign_and_repeated_ballots_change_nothing():
    state, _ = run(world("x", "y", "z"), opened(rounds=0))
    plain = conclude(state)
    first = next(iter(state.ballots.values()))
    foreign = first.ballot.model_copy(update={"voter": "developer-099"})
    more = after(state, RefusedBallot(ONE, 1, "invalid", tokens=2), first, CastBallot(foreign))
    assert conclude(more).decision_hash == plain.decision_hash
    assert conclude(more).result == plain.result
    assert after(in_ballots(), CastBallot(foreign)) == in_ballots()


@pytest.mark.rule("CN-57", "CN-119")
@pytest.mark.parametrize("cause", ["deadline", "budget_exhausted"])
def test_interruption_owes_the_decision_alone_and_gives_its_cause_when_nothing_was_decided(cause: Any):
    for number in range(4, 12):
        seen: list[int] = []

        def stop(state: CouncilState, seen: list[int] = seen, number: int = number) -> Fact | None:
            seen.append(0)
            return Interrupted(cause) if len(seen) > number else None

        state, facts = run(world("x", "bad", "z", worth=WORTH), opened(), stop=stop)
        result = conclude(state).result
        cast = sum(isinstance(f, CastBallot) for f in facts)
        if not cast:
            assert isinstance(result, NoDecision)
            assert result.reason == cause
        elif isinstance(result, NoDecision):
            assert result.reason == "no_quorum"


@pytest.mark.rule("CN-57", "CN-40")
def test_interruption_is_still_decided_where_the_evidence_agrees():
    w = world("x", "y", "bad", worth=WORTH | {"x": {"cluster_id": "cl-1"}, "y": {"cluster_id": "cl-1"}})
    state, _ = run(w, opened(), stop=lambda s: Interrupted("deadline") if s.evidence else None)
    assert state.interrupted is not None
    assert winner(state) is not None


def test_nothing_is_owed_or_taken_in_after_the_end():
    state = after(CouncilState(opened()), Closed("cancelled"))
    assert council_rounds.owed(state) == ()
    assert after(state, MissingDraft(ONE, "model_timeout")) == state
    assert progress(state).phase == "complete"


GATE: dict[str, Any] = {"kind": "gate", "output_kind": "text", "subject": sha("subject"), "rounds": 2}


@pytest.mark.rule("CN-50", "CN-10")
def test_gate_measures_its_subject_and_asks_every_voter_once():
    state, facts = run(World({}), opened(*voters(3), **GATE))
    assert [type(f).__name__ for f in facts] == ["MeasuredCandidate", *["CastBallot"] * 3, "Closed"]
    result = conclude(state).result
    assert isinstance(result, Decided)
    assert (result.verdict, conclude(state).counterfactuals) == ("approve", {})


@pytest.mark.rule("CN-129", "CN-117")
def test_gate_with_silent_voters_or_a_failing_subject_approves_nothing():
    seats = voters(3)
    silent = after(CouncilState(opened(*seats, **GATE)), MeasuredCandidate(evidence(SUBJECT_ID)))
    assert conclude(after(silent, Interrupted("deadline"))).result == NoDecision("deadline", Tally(missing=3))
    failing = World({}, {"subject": {"ok": False}})
    state, facts = run(failing, opened(*seats, **GATE))
    assert not any(isinstance(f, CastBallot) for f in facts)
    result = conclude(state).result
    assert isinstance(result, NoDecision)
    assert result.reason == "no_valid_candidate"
    unmeasured = conclude(CouncilState(opened(*seats, **GATE))).result
    assert isinstance(unmeasured, NoDecision)


def test_gate_is_rejected_by_a_veto():
    seats = (member("qa-001", veto=True), *voters(3)[:2])

    def vote(duty: OwedBallot) -> Fact:
        return ballot(duty, votes="reject" if duty.voter.veto else "approve")

    state, _ = run(World({}, vote=vote), opened(*seats, **GATE))
    result = conclude(state).result
    assert isinstance(result, Decided)
    assert result.verdict == "reject"
    assert [r.voter for r in conclude(state).minority.rejections] == ["qa-001"]


solutions = st.lists(
    st.one_of(st.none(), st.sampled_from(["good", "good ", "bad", "worse", "better", "other"])), min_size=0, max_size=3
)


def full_worth() -> dict[str, dict[str, Any]]:
    return WORTH | {"other": {"passed": 1, "cluster_id": "cl-better"}}


@pytest.mark.rule("CN-107", "CN-108", "CN-119", "CN-121", "CN-128")
@given(texts=st.lists(solutions, min_size=3, max_size=3), rounds=st.integers(0, 2), seed=st.integers(0, 999))
@FEW
def test_any_interleaving_ends_in_the_same_decision(texts: list[list[str | None]], rounds: int, seed: int):
    def deliberate(pick: Callable[[int], int]) -> tuple[CouncilState, list[Fact]]:
        return run(
            World(dict(zip((ONE, TWO, THREE), texts, strict=True)), full_worth()), opened(rounds=rounds), pick=pick
        )

    plain, _ = deliberate(lambda count: 0)
    state, facts = deliberate(random.Random(seed).randrange)
    assert conclude(state) == conclude(plain)
    assert {r.round for r in facts if isinstance(r, DeliveredRepair | MissingRepair)} <= set(range(1, rounds + 1))
    for before, later in ((0, 1), (1, 2)):
        for old, new in zip(state.versions(before), state.versions(later), strict=True):
            if old.evidence is not None and new is not old and new.digest != old.digest:
                assert new.evidence is not None
                assert is_better(new.evidence, old.evidence)


@pytest.mark.rule("CN-121", "CN-122")
@given(texts=st.lists(solutions, min_size=3, max_size=3), seed=st.integers(0, 999))
@FEW
def test_every_prefix_of_the_record_owes_what_is_missing_and_nothing_that_is_recorded(
    texts: list[list[str | None]], seed: int
):
    w = World(dict(zip((ONE, TWO, THREE), texts, strict=True)), full_worth())
    state, facts = run(w, opened(rounds=2), pick=random.Random(seed).randrange)
    prefix = CouncilState(opened(rounds=2))
    for fact in facts:
        assert council_rounds.owed(prefix)
        assert council_rounds.owed(after(prefix, fact)) != council_rounds.owed(prefix)
        prefix = evolve(prefix, fact)
        assert evolve(prefix, fact) == prefix or isinstance(fact, RefusedBallot)
    assert conclude(prefix) == conclude(state)


@pytest.mark.rule("CN-61", "CN-126")
def test_tokens_of_the_decision_are_the_sum_of_the_recorded_calls():
    state, facts = run(World(dict(zip((ONE, TWO, THREE), MIXED, strict=True)), WORTH), opened(rounds=2))
    tokens = conclude(state).tokens
    assert list(tokens) == ["draft", "tests", "critique", "repair", "ballots"]
    assert sum(tokens.values()) == sum(getattr(f, "tokens", 0) for f in facts)
    assert tokens["draft"] == 30


def test_seat_that_only_proposes_is_no_voter_and_seat_of_tests_is_neither():
    start = opened(*voters(3), member("data-001", can_vote=False), quality_seat())
    assert [str(m.member_id) for m in start.proposers][-1] == "data-001"
    assert len(start.voters) == 3


@pytest.mark.rule("CN-15")
def test_progress_goes_through_the_phases_in_order():
    seen: list[tuple[str, int]] = []

    def watch(state: CouncilState) -> None:
        found = progress(state)
        if (found.phase, found.round) not in seen:
            seen.append((found.phase, found.round))

    run(world("good", ["bad", "better"], "bad", worth=WORTH), opened(), stop=watch)
    phases = ["drafting", "evidence", "repairing", "balloting", "complete"]
    assert seen == list(zip(phases, (0, 0, 1, 1, 1), strict=True))


@pytest.mark.rule("CN-41", "CN-22")
def test_reviewed_candidates_on_the_ballot_get_a_critique_by_the_next_voter_before_anybody_votes():
    w = world("x", "y", "bad", worth=WORTH)
    state, facts = run(w, opened(*voters(3), output_kind="design", rounds=0, is_reviewed=True))
    critiques = [f for f in facts if isinstance(f, DeliveredCritique)]
    assert {(c.candidate_id, c.critic) for c in critiques} == {(f"cd-{ONE}", TWO), (f"cd-{TWO}", THREE)}
    first_ballot = next(n for n, f in enumerate(facts) if isinstance(f, CastBallot))
    assert all(facts.index(c) < first_ballot for c in critiques)
    assert winner(state) is not None
