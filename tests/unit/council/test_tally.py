"""The tally: gates, turnout, and what holds when evidence differs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.council.ballot import CountedBallot
from fleet.council.tally import Decided, NoDecision, Result, lock_pairs, tally_gate, tally_selection
from tests.support.council import contender, counted

FEW = settings(max_examples=60, deadline=None)
FIVE = {f"v{n}": 1 for n in range(1, 6)}
SUBJECT = contender("s")


def gate(votes: str, **changes: Any) -> Result:
    """A gate of five; one letter a voter: y approves, n rejects, - abstains, . is silent, V vetoes."""
    ballots = [
        counted(f"v{n}", "s", reject="s" if v in "nV" else "", abstain="s" if v == "-" else "", has_veto=v == "V")
        for n, v in enumerate(votes, start=1)
        if v != "."
    ]
    known: dict[str, Any] = {"weights": FIVE, "quorum": 4, "threshold": "majority"}
    return tally_gate(changes.pop("subject", SUBJECT), ballots, **(known | changes))


@pytest.mark.rule("CN-50", "CN-21")
@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ("yyyyy", "approve"),
        ("yyynn", "approve"),
        ("yynnn", "reject"),
        ("yyyy.", "approve"),
        ("yy---", "no_majority"),
        ("yynn-", "no_majority"),
        ("yyy..", "no_quorum"),
        ("yyyyV", "reject"),
        ("yyyV.", "reject"),
        ("V....", "no_quorum"),
        (".....", "no_quorum"),
        ("-----", "no_majority"),
    ],
)
def test_gate_is_decided_by_quorum_then_veto_then_weight(votes: str, outcome: str):
    found = gate(votes)
    assert (found.verdict if isinstance(found, Decided) else found.reason) == outcome


@pytest.mark.rule("CN-21")
def test_gate_of_highest_rigor_needs_two_thirds():
    assert isinstance(gate("yyynn", threshold="two_thirds"), NoDecision)
    assert isinstance(gate("yyyyn", threshold="two_thirds"), Decided)


@pytest.mark.rule("CN-129", "CN-113")
@given(votes=st.text("n-.", min_size=5, max_size=5))
@FEW
def test_silence_abstention_and_rejection_never_approve(votes: str):
    found = gate(votes)
    assert not isinstance(found, Decided) or found.verdict == "reject"


@pytest.mark.rule("CN-117", "CN-54")
@given(votes=st.text("yn-.V", min_size=5, max_size=5))
@FEW
def test_subject_that_failed_a_hard_gate_is_never_approved(votes: str):
    found = gate(votes, subject=contender("s", gates_ok=False))
    assert isinstance(found, NoDecision)
    assert found.reason == "no_valid_candidate"


@pytest.mark.rule("CN-111", "CN-112")
def test_tally_tells_abstained_rejected_invalid_and_missing_apart():
    tally = gate("yn-..", invalid={"v4"}).tally
    assert (tally.valid, tally.abstained, tally.invalid, tally.missing) == (3, 1, 1, 1)
    assert (tally.approve, tally.reject, tally.abstain) == ({"s": 1}, {"s": 1}, {"s": 1})


@pytest.mark.rule("CN-115")
def test_rejection_by_a_member_without_veto_is_one_rejection():
    assert isinstance(gate("yyyyn"), Decided)
    assert gate("yyyyn").verdict == "approve"  # pyright: ignore[reportAttributeAccessIssue]


def select(contenders: list[Any], ballots: list[CountedBallot], **changes: Any) -> Result:
    known: dict[str, Any] = {"weights": FIVE, "quorum": 3}
    return tally_selection(contenders, ballots, **(known | changes))


def everybody(ranking: str, **changes: Any) -> list[CountedBallot]:
    return [counted(v, ranking, **changes) for v in FIVE]


@pytest.mark.rule("CN-49")
def test_authors_of_everything_on_the_ballot_are_excused_and_do_not_break_the_quorum():
    ours = contender("a", authors=frozenset({"v1", "v2", "v3"}))
    found = select([ours], [counted("v4", "a")])
    assert isinstance(found, Decided)
    assert (found.winner, found.tally.valid, found.tally.excused, found.tally.missing) == ("a", 1, 3, 1)


@pytest.mark.rule("CN-113", "CN-49")
def test_excused_authors_alone_are_no_quorum_while_others_are_silent():
    ours = contender("a", authors=frozenset({"v1", "v2", "v3"}))
    found = select([ours], [])
    assert isinstance(found, NoDecision)
    assert found.reason == "no_quorum"


def test_candidate_that_every_voter_wrote_needs_no_ballot():
    found = select([contender("a", authors=frozenset(FIVE))], [])
    assert isinstance(found, Decided)
    assert found.tally.excused == 5


@pytest.mark.rule("CN-54", "CN-105")
def test_candidate_with_less_evidence_does_not_turn_the_order_of_two_better_ones():
    best = [contender(n, trusted_passed=3, cluster_size=1, diff_lines=9) for n in "ab"]
    weak = contender("c", trusted_passed=1, cluster_size=2, diff_lines=1)
    rankings = ["abc", "abc", "bca", "bca", "cab"]
    ballots = [counted(f"v{n}", r) for n, r in enumerate(rankings, start=1)]
    found = select([*best, weak], ballots)
    assert isinstance(found, Decided)
    assert (found.winner, found.tally.locked) == ("a", ("a>b",))
    assert found.tally.margins == {"a>b": 1, "b>c": 3, "c>a": 1}
    assert found.tally.ranking == ("a", "b", "c")


@pytest.mark.rule("CN-51")
def test_vetoed_candidate_is_removed_and_the_next_one_wins():
    ballots = [counted("v1", "ab", reject="a", has_veto=True), *everybody("ab")[1:]]
    found = select([contender("a"), contender("b")], ballots)
    assert isinstance(found, Decided)
    assert found.winner == "b"
    assert [(r.candidate_id, r.why) for r in found.tally.removed] == [("a", "vetoed")]


@pytest.mark.rule("CN-44", "CN-51")
def test_candidate_off_the_ballot_does_not_win_when_all_on_it_are_rejected():
    found = select([contender("a", trusted_passed=3), contender("b", trusted_passed=2)], everybody("a", reject="a"))
    assert isinstance(found, NoDecision)
    assert found.reason == "all_rejected"


@pytest.mark.rule("CN-124")
@given(ranking=st.permutations("abc").map("".join), reject=st.sampled_from(["", "a", "abc"]), voter=st.integers(1, 5))
@FEW
def test_one_voter_of_five_never_flips_what_evidence_decides(ranking: str, reject: str, voter: int):
    contenders = [contender("a", trusted_passed=4), contender("b", cluster_size=2), contender("c", cluster_size=2)]
    ballots = everybody("cba")
    ballots[voter - 1] = counted(f"v{voter}", ranking, reject=reject)
    found = select(contenders, ballots)
    assert isinstance(found, Decided)
    assert found.winner == "a"


@pytest.mark.rule("CN-114", "CN-101")
@given(order=st.permutations("abcd").map("".join), diffs=st.lists(st.integers(1, 2), min_size=4, max_size=4))
@FEW
def test_tie_is_broken_by_size_then_digest_and_never_by_the_order_of_the_list(order: str, diffs: list[int]):
    contenders = {n: contender(n, diff_lines=d) for n, d in zip("abcd", diffs, strict=True)}
    ballots = [counted("v1", "abcd"), counted("v2", "dcba"), counted("v3", "", pairs=frozenset())]
    found = select([contenders[n] for n in order], ballots)
    assert isinstance(found, Decided)
    assert found.winner == min("abcd", key=lambda n: (contenders[n].diff_lines, n))


@pytest.mark.rule("CN-52")
def test_equal_margins_lock_by_winning_weight_then_size_then_digest():
    same = [contender(n) for n in "abc"]
    cycle = [counted("v1", "abc"), counted("v2", "bca"), counted("v3", "cab")]
    assert [p.name for p in lock_pairs(same, cycle).locked] == ["a>b", "b>c"]
    small = [contender("a"), contender("b"), contender("c", diff_lines=1)]
    assert [p.name for p in lock_pairs(small, cycle).locked] == ["c>a", "a>b"]
    heavy = [*cycle, counted("v4", "ca"), counted("v5", "ac")]
    assert [p.name for p in lock_pairs(same, heavy).locked] == ["c>a", "a>b"]


@pytest.mark.rule("CN-46", "CN-40")
def test_candidate_that_every_voter_wrote_is_decided_by_its_evidence_alone():
    seats = {f"v{n}": 1 for n in range(1, 4)}
    found = tally_selection([contender("a", authors=frozenset(seats))], [], weights=seats, quorum=2)
    assert isinstance(found, Decided)
    assert (found.decided_in, found.winner, found.tally.excused) == ("P3", "a", 3)
    failing = tally_selection([contender("a", authors=frozenset(seats), gates_ok=False)], [], weights=seats, quorum=2)
    assert isinstance(failing, NoDecision)
