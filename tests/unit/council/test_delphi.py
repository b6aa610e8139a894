"""Estimates of a council: rounds of blind values, what is owed, what they come to (CN-70, PL-80..PL-83)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.council.delphi import OwedEstimate, conclude_estimate, estimate_rounds
from fleet.council.facts import CastEstimate, Fact, Interrupted, RefusedBallot
from fleet.council.rounds import OwedDecision, owed, progress
from fleet.council.state import CouncilState, evolve
from fleet.planning.estimates import Estimated
from tests.support.council import opened, sha, voters
from tests.support.mock_members import MockCall, MockFixture, MockReply, mock_reply

SCALE = (1, 2, 3, 5, 8, 13, 21)
Answers = Mapping[str, Sequence[int | None]]
"""Member -> its values by round; None is an answer that cannot be used."""


def start(size: int = 3, **changes: Any) -> CouncilState:
    known: dict[str, Any] = {"kind": "estimate", "output_kind": "text", "rounds": 3, "scale": SCALE}
    return CouncilState(opened(*voters(size, can_propose=False), **(known | changes)))


def fact(member: str, number: int, value: int | None) -> Fact:
    if value is None:
        return RefusedBallot(member, number, "invalid")
    return CastEstimate(member, number, value, sha(f"{member} says {value} in {number}"))


def played(
    state: CouncilState, answers: Callable[[str, int], int | None], *, pick: int = 0
) -> tuple[CouncilState, int]:
    """The council once only its decision is owed, and how often a member was asked."""
    for count in range(50):
        duties = owed(state)
        if isinstance(duties[0], OwedDecision):
            return state, count
        duty = duties[pick % len(duties)]
        assert isinstance(duty, OwedEstimate)
        name = str(duty.member.member_id)
        state = evolve(state, fact(name, duty.round, answers(name, duty.round)))
    raise AssertionError("no end")


def by(*rounds: Sequence[int | None]) -> Callable[[str, int], int | None]:
    """Values of developer-001, -002, ... in each round; the last row holds for later rounds."""
    return lambda name, number: rounds[min(number, len(rounds)) - 1][int(name[-3:]) - 1]


@pytest.mark.rule("CN-70", "PL-81", "CN-119")
def test_equal_values_end_after_one_round():
    state, asked = played(start(), by((3, 3, 5)))
    found = conclude_estimate(state)
    assert asked == 3
    assert found.result == Estimated(3, 2, 1, True, (3, 3, 5))
    assert progress(state).phase == "complete"


@pytest.mark.rule("CN-70", "PL-80", "CN-125")
def test_next_round_shows_the_median_and_reasons_that_say_nothing_of_whose_they_are():
    state = start()
    for name, value in (("developer-001", 1), ("developer-002", 21), ("developer-003", 5)):
        assert all(isinstance(d, OwedEstimate) and d.before is None for d in owed(state))
        state = evolve(state, fact(name, 1, value))
    duties = owed(state)
    assert len(duties) == 3
    for duty in duties:
        assert isinstance(duty, OwedEstimate)
        before = duty.before
        assert before is not None
        assert (duty.round, before.median, before.values) == (2, 5, (1, 5, 21))
        assert list(before.reasons) == sorted(before.reasons)
    assert progress(state).round == 2
    assert len(progress(state).members) == 3


@pytest.mark.rule("PL-80", "PL-82", "CN-119")
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_values_that_never_meet_stop_at_the_cap_and_stand_unconverged(rounds: int):
    state, asked = played(start(rounds=rounds), by((1, 8, 21)))
    found = conclude_estimate(state)
    assert asked == 3 * rounds
    assert found.result == Estimated(8, 20, rounds, False, (1, 8, 21))
    assert [r.number for r in found.rounds] == list(range(1, rounds + 1))


@pytest.mark.rule("PL-83", "CN-113")
def test_too_few_values_give_no_estimate_even_after_a_good_round():
    state, _ = played(start(), by((1, 8, 21), (8, None, None)))
    found = conclude_estimate(state)
    assert found.result == "no_quorum"
    assert [r.absent for r in found.rounds] == [0, 2]


@pytest.mark.rule("PL-83")
def test_member_without_a_value_is_absent_in_that_round_and_asked_again_in_the_next():
    state, asked = played(start(5), by((1, 1, 21, 21, None), (3, 3, 3, 5, 5)))
    found = conclude_estimate(state)
    assert asked == 10
    assert found.result == Estimated(3, 2, 2, True, (3, 3, 3, 5, 5))
    assert found.rounds[0].absent == 1


@pytest.mark.rule("PL-83", "CN-111")
def test_value_off_the_scale_counts_for_nothing():
    state = start()
    for name, value in (("developer-001", 3), ("developer-002", 4), ("developer-003", 3)):
        state = evolve(state, fact(name, 1, value))
    found = conclude_estimate(state)
    assert isinstance(found.result, Estimated)
    assert found.result.values == (3, 3)
    assert found.rounds[0].absent == 1


@pytest.mark.rule("CN-109", "CN-110", "CN-48")
def test_second_and_foreign_answers_change_nothing():
    state = evolve(start(), fact("developer-001", 1, 3))
    for late in (fact("developer-001", 1, 21), fact("developer-001", 1, None), fact("developer-009", 1, 3)):
        assert evolve(state, late) == state
    refused = evolve(start(), fact("developer-001", 1, None))
    assert evolve(refused, fact("developer-001", 1, 3)) == refused


@pytest.mark.rule("CN-57", "CN-123")
@pytest.mark.parametrize("cause", ["deadline", "budget_exhausted"])
def test_interrupted_council_takes_the_last_round_that_enough_answered(cause: Any):
    open_round = start()
    for number, name, value in ((1, 1, 1), (1, 2, 8), (1, 3, 21), (2, 1, 13)):
        open_round = evolve(open_round, fact(f"developer-00{name}", number, value))
    state = evolve(open_round, Interrupted(cause))
    assert owed(state) == (OwedDecision(),)
    assert conclude_estimate(state).result == Estimated(8, 20, 1, False, (1, 8, 21))
    most = evolve(evolve(open_round, fact("developer-002", 2, 8)), Interrupted(cause))
    assert conclude_estimate(most).result == Estimated(13, 5, 2, True, (8, 13))
    few = evolve(evolve(start(), fact("developer-001", 1, 3)), Interrupted(cause))
    assert conclude_estimate(few).result == cause


@pytest.mark.rule("CN-70")
def test_round_that_is_open_is_not_shown():
    state = evolve(start(), fact("developer-001", 1, 3))
    assert estimate_rounds(state) == ()
    assert [r.values for r in estimate_rounds(state, with_open=True)] == [(3,)]


VALUES = st.sampled_from([*SCALE, None])


@pytest.mark.rule("CN-107", "CN-108", "CN-121", "CN-100")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=3, max_size=3), st.integers(0, 4))
def test_order_of_answers_decides_nothing_and_members_are_alike(rounds: list[Any], pick: int):
    first, _ = played(start(), by(*rounds))
    other, _ = played(start(), by(*rounds), pick=pick)
    assert conclude_estimate(other) == conclude_estimate(first)
    turned, _ = played(start(), by(*[(c, a, b) for a, b, c in rounds]))
    assert conclude_estimate(turned).result == conclude_estimate(first).result


def modes(*names: Any, seed: int = 1) -> Callable[[str, int], int | None]:
    """Mock members; one that fails counts as absent in the round."""

    def answer(name: str, number: int) -> int | None:
        mode = names[int(name[-3:]) - 1]
        reply = mock_reply(
            MockCall(mode, seed, "co-test1", name, "estimate", number, MockFixture(correct="x", wrong="y"))
        )
        is_value = isinstance(reply, MockReply) and isinstance(reply.content, dict)
        return reply.content["value"] if is_value else None  # pyright: ignore

    return answer


@pytest.mark.rule("CN-80", "CN-81", "CN-82", "CN-83", "CN-84", "CN-85", "CN-86", "PL-81")
@pytest.mark.parametrize(
    ("team", "points"),
    [
        (("excellent", "verbose", "concise"), 3),
        (("excellent", "excellent", "poor"), 3),
        (("poor", "poor", "excellent"), 21),
        (("excellent", "concise", "stubborn"), 3),
        (("excellent", "verbose", "inconsistent"), 3),
        (("excellent", "concise", "error_prone"), 3),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_mock_members_estimate_as_their_mode_says(team: tuple[Any, ...], points: int, seed: int):
    state, asked = played(start(), modes(*team, seed=seed))
    found = conclude_estimate(state)
    assert isinstance(found.result, Estimated)
    assert found.result.points == points
    assert asked <= 9


@pytest.mark.rule("CN-82", "CN-83", "CN-84")
def test_stubborn_mock_never_moves_and_a_verbose_one_says_more():
    assert len({modes("stubborn", seed=4)("developer-001", number) for number in (1, 2, 3)}) == 1
    long, short = (
        mock_reply(MockCall(m, 1, "co-1", "m-001", "estimate", 1, MockFixture("x" * 40, "y")))
        for m in ("verbose", "concise")
    )
    assert isinstance(long, MockReply)
    assert isinstance(short, MockReply)
    assert long.tokens > short.tokens
    assert len(long.content["reason"]) == 400  # pyright: ignore
