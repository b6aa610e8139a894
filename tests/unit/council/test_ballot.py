"""Ballots: what a voter sees, what it may answer, and what of it counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.council.ballot import (
    Ballot,
    BallotPaper,
    CountedBallot,
    ballot_paper,
    ballot_schema,
    count_ballots,
    read_ballot,
)
from fleet.kernel.errors import ReplyMalformed
from fleet.models.replies.json_schema import schema_problems
from tests.support.council import contender, member, voters

FEW = settings(max_examples=60, deadline=None)
FOUR = [contender(f"cd-{n}") for n in "abcd"]
V1 = "developer-001"


def paper(attempt: Any = 1, *, voter: str = V1, contenders: Any = FOUR, seed: int = 1, round: int = 0) -> BallotPaper:
    found = ballot_paper(contenders, council_id="co-one1", round=round, voter=voter, attempt=attempt, seed=seed)
    assert found is not None
    return found


def answer(on: BallotPaper, **changes: Any) -> dict[str, Any]:
    votes = [{"label": label, "vote": "approve", "reason": "It passes."} for label in on.labels]
    return {"votes": votes, "ranking": list(on.labels)} | changes


@pytest.mark.rule("CN-45", "CN-101")
@given(order=st.permutations(FOUR), seed=st.integers(0, 2**31 - 1))
@FEW
def test_paper_depends_on_seed_and_voter_and_not_on_the_order_given(order: list[Any], seed: int):
    assert paper(contenders=order, seed=seed) == paper(seed=seed)
    assert paper().labels == ("A", "B", "C", "D")
    assert {paper(seed=s).candidates for s in range(12)} != {paper().candidates}
    assert {paper(voter=f"developer-{n:03d}").candidates for n in range(12)} != {paper().candidates}


@pytest.mark.rule("CN-46")
def test_second_paper_shows_the_candidates_in_reverse_under_the_labels_of_their_places():
    assert paper(2).candidates == paper(1).candidates[::-1]
    assert paper(2).labels == paper(1).labels
    assert paper(2).order_seed == paper(1).order_seed


@pytest.mark.rule("CN-46", "CN-127")
def test_own_candidate_is_not_on_the_paper_and_nothing_else_is_no_paper():
    mine = contender("cd-m", authors=frozenset({V1, "developer-002"}))
    assert "cd-m" not in paper(contenders=[*FOUR, mine]).candidates
    assert ballot_paper([mine], council_id="co-one1", round=0, voter=V1, attempt=1, seed=1) is None


@pytest.mark.rule("CN-45")
def test_schema_takes_what_is_valid_and_bounds_the_rest():
    schema, on = ballot_schema(paper().labels), paper()
    assert schema_problems(answer(on), schema) == ()
    assert schema_problems(answer(on, ranking=["A", "B", "C", "E"]), schema)
    long = {"label": "A", "vote": "approve", "reason": "x" * 401}
    assert schema_problems(answer(on, votes=[long] + answer(on)["votes"][1:]), schema)


@pytest.mark.rule("CN-45", "CN-47")
def test_single_candidate_is_voted_on_and_not_ranked():
    one = paper(contenders=FOUR[:1])
    schema, votes = ballot_schema(one.labels), answer(one)["votes"]
    assert list(schema["properties"]) == ["votes"]
    assert schema_problems({"votes": votes}, schema) == ()
    assert read_ballot({"votes": votes}, one).ranking == one.candidates
    with pytest.raises(ReplyMalformed, match="votes must name each"):
        read_ballot({"votes": []}, one)


@pytest.mark.rule("CN-47", "CN-45")
def test_answer_becomes_a_ballot_in_candidate_ids():
    on = paper()
    cast = read_ballot(answer(on, ranking=["D", "C", "B", "A"]), on)
    assert cast.ranking == on.candidates[::-1]
    assert set(cast.votes) == set(on.candidates)
    assert cast.reasons[on.candidates[0]] == "It passes."


def changed_vote(on: BallotPaper, **changes: Any) -> list[dict[str, Any]]:
    first, *rest = answer(on)["votes"]
    return [first | changes, *rest]


@pytest.mark.rule("CN-47")
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"ranking": ["A", "B", "C"]}, "ranking must name each"),
        ({"ranking": ["A", "B", "C", "C"]}, "ranking must name each"),
        ({"ranking": None}, "not nothing"),
        ({"votes": []}, "votes must name each"),
        ({"votes": ["A"]}, "votes must name each"),
        ({"votes": changed_vote(paper(), vote="maybe")}, "must be one of approve"),
        ({"votes": changed_vote(paper(), reason="  ")}, "needs a reason"),
        ({"votes": changed_vote(paper(), reason="x" * 401)}, "longer than 400"),
    ],
)
def test_broken_answer_names_every_problem(changes: dict[str, Any], part: str):
    with pytest.raises(ReplyMalformed, match="cannot be counted") as caught:
        read_ballot(answer(paper(), **changes), paper())
    assert any(part in problem for problem in caught.value.details["problems"])


def cast(voter: str, ranking: str, attempt: Any = 1, *, reject: str = "") -> Ballot:
    votes = {f"cd-{c}": "reject" if c in reject else "approve" for c in ranking}
    return Ballot(
        council_id="co-one1",  # pyright: ignore[reportArgumentType]
        round=0,
        voter=voter,  # pyright: ignore[reportArgumentType]
        attempt=attempt,
        votes=votes,  # pyright: ignore[reportArgumentType]
        ranking=tuple(f"cd-{c}" for c in ranking),
    )


def count(*ballots: Ballot, contenders: Any = FOUR, **changes: Any) -> tuple[CountedBallot, ...]:
    return count_ballots(ballots, (member(V1, **changes), *voters(3)[1:]), contenders)


@pytest.mark.rule("CN-46")
def test_pair_ranked_differently_in_the_two_orders_is_an_abstention_on_that_pair():
    (found,) = count(cast(V1, "abcd"), cast(V1, "bacd", 2))
    assert ("cd-a", "cd-b") not in found.pairs
    assert ("cd-b", "cd-a") not in found.pairs
    assert ("cd-a", "cd-d") in found.pairs
    assert len(found.pairs) == 5
    assert found.first is None


@pytest.mark.rule("CN-46", "CN-111")
def test_vote_that_differs_in_the_two_orders_is_an_abstention():
    (found,) = count(cast(V1, "abcd", reject="ab"), cast(V1, "abcd", 2, reject="b"))
    assert (found.votes["cd-a"], found.votes["cd-b"], found.votes["cd-c"]) == ("abstain", "reject", "approve")
    assert not found.is_abstention
    (silent,) = count(cast(V1, "abcd", reject="abcd"), cast(V1, "dcba", 2))
    assert silent.is_abstention


@pytest.mark.rule("CN-48", "CN-109")
def test_repeated_ballot_changes_nothing():
    assert count(cast(V1, "abcd"), cast(V1, "dcba", reject="a")) == count(cast(V1, "abcd"))


TWICE = ("abcd", "bacd")


@pytest.mark.rule("CN-107")
@given(
    order=st.permutations([cast(f"developer-00{n}", r, a) for n in (1, 2, 3) for a, r in ((1, "abcd"), (2, "bacd"))])
)
@FEW
def test_order_of_arrival_does_not_matter(order: list[Ballot]):
    assert count(*order) == count(*sorted(order, key=lambda b: (b.attempt, b.voter)))


@pytest.mark.rule("CN-110", "CN-127")
def test_foreign_voters_and_votes_on_own_candidates_are_not_counted():
    assert count(cast("developer-099", "abcd")) == ()
    mine = [contender("cd-a", authors=frozenset({V1})), *FOUR[1:]]
    (found,) = count(cast(V1, "abcd", reject="a"), contenders=mine, veto=True)
    assert "cd-a" not in found.votes
    assert not any("cd-a" in pair for pair in found.pairs)
    assert (found.first, found.has_veto) == ("cd-b", True)
