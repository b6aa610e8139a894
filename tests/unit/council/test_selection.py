"""Choosing among candidates: worked examples and the properties that any rule of voting must have (CN-50..CN-62)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, permutations
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fleet.council.ballot import CountedBallot as VoterBallot
from fleet.council.evidence import Contender, order_key
from fleet.council.tally import Decided, lock_pairs, tally_selection
from tests.support.council import counted

FEW = settings(max_examples=80, deadline=None)
NAMES = ("a", "b", "c", "d")


def contender(name: str, *, diff: int = 10, authors: frozenset[str] = frozenset(), **changes: object) -> Contender:
    known = Contender(
        candidate_id=name,
        digest=f"sha256:{name}",
        authors=authors,
        gates_ok=True,
        trusted_passed=3,
        cluster_size=1,
        diff_lines=diff,
    )
    return replace(known, **changes)  # pyright: ignore[reportArgumentType]


def ballot(voter: str, ranking: str, *, reject: str = "", abstain: str = "", veto: bool = False) -> VoterBallot:
    return counted(voter, ranking, reject=reject, abstain=abstain, has_veto=veto)


@dataclass(frozen=True)
class Choice:
    """What was chosen, or why nothing was, with each pair's margin from the first letter's side."""

    winner: str | None
    reason: str | None
    ranking: tuple[str, ...]
    removed: dict[str, str]
    margins: dict[str, int]
    valid: int


def signed(margins: Mapping[str, int]) -> dict[str, int]:
    """`b>a` with 1 as `a>b` with -1."""
    return dict(sorted((n, m) if n[0] < n[-1] else (f"{n[-1]}>{n[0]}", -m) for n, m in margins.items()))


def choose(
    contenders: Sequence[Contender], ballots: Sequence[VoterBallot], *, weights: Mapping[str, int], quorum: int
) -> Choice:
    # Of several ballots of one voter the first counts, as `count_ballots` sees to it; its own candidates are left out.
    first: dict[str, VoterBallot] = {}
    for b in ballots:
        own = {c.candidate_id for c in contenders if b.voter in c.authors}
        votes = {c: v for c, v in b.votes.items() if c not in own}
        first.setdefault(b.voter, replace(b, votes=votes, pairs=frozenset(p for p in b.pairs if not own & {*p})))
    found = tally_selection(contenders, list(first.values()), weights=weights, quorum=quorum)
    removed = {r.candidate_id: r.why for r in found.tally.removed}
    winner, reason = (found.winner, None) if isinstance(found, Decided) else (None, found.reason)
    return Choice(winner, reason, found.tally.ranking, removed, signed(found.tally.margins), found.tally.valid)


def roster(count: int) -> dict[str, int]:
    return {f"v{n}": 1 for n in range(1, count + 1)}


def elect(contenders: list[Contender], rankings: list[str], *, voters: int | None = None, quorum: int = 0) -> Choice:
    weights = roster(voters or len(rankings))
    ballots = [ballot(f"v{n}", r) for n, r in enumerate(rankings, start=1)]
    return choose(contenders, ballots, weights=weights, quorum=quorum or len(weights) // 2 + 1)


EXAMPLE = [contender("a", diff=40), contender("b", diff=55), contender("c", diff=60)]
RANKINGS = ["abc", "abc", "bca", "bca", "cab"]


@pytest.mark.rule("CN-130", "CN-52")
def test_worked_example_locks_by_margin_and_skips_the_cycle():
    choice = elect(EXAMPLE, RANKINGS)
    assert choice.margins == {"a>b": 1, "a>c": -1, "b>c": 3}
    assert (choice.winner, choice.ranking, choice.reason, choice.valid) == ("a", ("a", "b", "c"), None, 5)


@pytest.mark.rule("CN-131")
def test_worked_example_without_c_is_won_by_a():
    gone = [*EXAMPLE[:2], replace(EXAMPLE[2], gates_ok=False)]
    choice = elect(gone, ["ab", "ab", "ba", "ba", "ab"])
    assert (choice.winner, choice.margins, choice.ranking) == ("a", {"a>b": 1}, ("a", "b"))


@pytest.mark.rule("CN-131", "CN-123")
def test_worked_example_with_two_silent_voters_is_won_by_b():
    gone = [*EXAMPLE[:2], replace(EXAMPLE[2], gates_ok=False)]
    ballots = [ballot("v3", "ba"), ballot("v4", "ba"), ballot("v5", "ab")]
    assert choose(gone, ballots, weights=roster(5), quorum=3).winner == "b"


@pytest.mark.rule("CN-131", "CN-113")
def test_worked_example_with_three_silent_voters_has_no_quorum():
    ballots = [ballot("v4", "bca"), ballot("v5", "cab")]
    choice = choose(EXAMPLE, ballots, weights=roster(5), quorum=3)
    assert (choice.winner, choice.reason, choice.valid) == (None, "no_quorum", 2)


@pytest.mark.rule("CN-113", "CN-129")
@given(silent=st.integers(3, 5), passed=st.lists(st.integers(0, 5), min_size=1, max_size=4))
@FEW
def test_no_quorum_never_gives_a_winner_whatever_the_evidence(silent: int, passed: list[int]):
    contenders = [contender(n, trusted_passed=p) for n, p in zip(NAMES, passed, strict=False)]
    ranking = "".join(c.candidate_id for c in contenders)
    ballots = [ballot(f"v{n}", ranking) for n in range(1, 6 - silent)]
    assert choose(contenders, ballots, weights=roster(5), quorum=3).winner is None


@pytest.mark.rule("CN-112", "CN-109")
def test_repeated_ballot_of_one_voter_counts_once_and_makes_no_quorum():
    ballots = [ballot("v1", "abc"), ballot("v1", "abc"), ballot("v1", "cba")]
    choice = choose(EXAMPLE, ballots, weights=roster(5), quorum=3)
    assert (choice.reason, choice.valid) == ("no_quorum", 1)
    once = choose(EXAMPLE, [ballot("v1", "abc"), ballot("v2", "bca")], weights=roster(3), quorum=2)
    again = choose(
        EXAMPLE, [ballot("v1", "abc"), ballot("v2", "bca"), ballot("v2", "cab")], weights=roster(3), quorum=2
    )
    assert once == again


@pytest.mark.rule("CN-110", "CN-112")
def test_ballot_of_somebody_outside_the_roster_changes_nothing():
    known = [ballot("v1", "abc"), ballot("v2", "bca"), ballot("v3", "abc")]
    foreign = [ballot("x1", "cba", reject="a", veto=True), ballot("x2", "cba", reject="ab")]
    assert choose(EXAMPLE, known + foreign, weights=roster(3), quorum=2) == choose(
        EXAMPLE, known, weights=roster(3), quorum=2
    )
    assert choose(EXAMPLE, foreign, weights=roster(3), quorum=2).reason == "no_quorum"


@pytest.mark.rule("CN-117", "CN-30")
@given(rankings=st.lists(st.permutations(["a", "b", "c"]), min_size=3, max_size=5))
@FEW
def test_candidate_that_failed_a_hard_gate_never_wins(rankings: list[list[str]]):
    contenders = [contender("a", gates_ok=False, trusted_passed=9, cluster_size=9, diff=1), *EXAMPLE[1:]]
    choice = elect(contenders, ["".join(r) for r in rankings])
    assert choice.winner in ("b", "c")
    assert "a" not in choice.ranking


@pytest.mark.rule("CN-44")
def test_no_candidate_that_passes_the_gates_is_no_valid_candidate():
    assert elect([contender("a", gates_ok=False)], ["a", "a", "a"]).reason == "no_valid_candidate"
    assert elect([], [""], voters=1).reason == "no_valid_candidate"


@pytest.mark.rule("CN-51")
def test_candidate_that_a_majority_rejects_is_removed_and_all_removed_is_undecided():
    ballots = [ballot("v1", "abc", reject="a"), ballot("v2", "abc", reject="a"), ballot("v3", "abc")]
    choice = choose(EXAMPLE, ballots, weights=roster(3), quorum=2)
    assert (choice.winner, choice.removed) == ("b", {"a": "rejected"})
    every = [ballot(f"v{n}", "abc", reject="abc") for n in (1, 2, 3)]
    none = choose(EXAMPLE, every, weights=roster(3), quorum=2)
    assert (none.winner, none.reason, set(none.removed)) == (None, "all_rejected", {"a", "b", "c"})


@pytest.mark.rule("CN-51")
def test_rejections_are_measured_against_all_eligible_voters_not_those_who_voted():
    ballots = [ballot("v1", "ab", reject="a"), ballot("v2", "ab", reject="a"), ballot("v3", "ab")]
    contenders = EXAMPLE[:2]
    assert choose(contenders, ballots, weights=roster(5), quorum=3).removed == {}
    authored = [replace(EXAMPLE[0], authors=frozenset({"v4", "v5"})), EXAMPLE[1]]
    assert choose(authored, ballots, weights=roster(5), quorum=3).winner == "b"


@pytest.mark.rule("CN-111")
def test_abstaining_and_rejecting_are_different():
    abstained = [ballot(f"v{n}", "ab", abstain="a") for n in (1, 2, 3)]
    rejected = [ballot(f"v{n}", "ab", reject="a") for n in (1, 2, 3)]
    assert choose(EXAMPLE[:2], abstained, weights=roster(3), quorum=2).winner == "a"
    assert choose(EXAMPLE[:2], rejected, weights=roster(3), quorum=2).winner == "b"


@pytest.mark.rule("CN-115")
def test_only_a_member_with_veto_vetoes():
    for veto, winner in ((True, "b"), (False, "a")):
        ballots = [ballot("v1", "ab", reject="a", veto=veto), ballot("v2", "ab"), ballot("v3", "ab")]
        assert choose(EXAMPLE[:2], ballots, weights=roster(3), quorum=2).winner == winner


@pytest.mark.rule("CN-127", "CN-46")
def test_vote_of_a_member_on_its_own_candidate_is_not_counted():
    mine = [replace(EXAMPLE[0], authors=frozenset({"v1"}), diff_lines=99), EXAMPLE[1]]
    own = ballot("v1", "ab", reject="a", veto=True)
    others = [ballot("v2", "ab"), ballot("v3", "ba")]
    choice = choose(mine, [own, *others], weights=roster(3), quorum=2)
    assert (choice.removed, choice.margins) == ({}, {"a>b": 0})
    assert choice.winner == "b"


@pytest.mark.rule("CN-53", "CN-54")
@given(rankings=st.lists(st.permutations(["a", "b", "c"]), min_size=3, max_size=5))
@FEW
def test_ballots_never_overrule_trusted_tests(rankings: list[list[str]]):
    best = [EXAMPLE[0], EXAMPLE[1], replace(EXAMPLE[2], trusted_passed=4, diff_lines=999)]
    assert elect(best, ["".join(r) for r in rankings]).winner == "c"


@pytest.mark.rule("CN-53")
@pytest.mark.parametrize(
    ("changes", "winner"),
    [
        ({"trusted_passed": 4}, "b"),
        ({"cluster_size": 2}, "b"),
        ({"diff_lines": 1}, "b"),
        ({"digest": "sha256:0"}, "b"),
        ({}, "a"),
    ],
)
def test_equal_candidates_are_ordered_by_the_chain_of_keys(changes: dict[str, Any], winner: str):
    contenders = [contender("a"), contender("b", **changes)]
    assert elect(contenders, ["ab", "ba"], voters=2).winner == winner


@pytest.mark.rule("CN-114")
@given(order=st.permutations(list(range(3))))
@FEW
def test_tie_ends_by_keys_and_never_by_the_order_of_the_list(order: list[int]):
    contenders = [EXAMPLE[n] for n in order]
    assert elect(contenders, ["abc", "cba"], voters=2).winner == "a"


rankings3 = st.lists(st.permutations(["a", "b", "c"]).map("".join), min_size=3, max_size=7)


@pytest.mark.rule("CN-100", "CN-107", "CN-108")
@given(rankings=rankings3, data=st.data())
@FEW
def test_who_votes_and_when_does_not_matter(rankings: list[str], data: st.DataObject):
    shuffled = data.draw(st.permutations(rankings))
    assert elect(EXAMPLE, list(shuffled)) == elect(EXAMPLE, rankings)
    ballots = [ballot(f"v{n}", r) for n, r in enumerate(rankings, start=1)]
    late = data.draw(st.permutations(ballots))
    weights = roster(len(rankings))
    assert choose(EXAMPLE, late, weights=weights, quorum=2) == choose(EXAMPLE, ballots, weights=weights, quorum=2)


@pytest.mark.rule("CN-101")
@given(rankings=rankings3)
@FEW
def test_renaming_the_candidates_renames_the_outcome_only(rankings: list[str]):
    table = str.maketrans("abc", "zxy")
    renamed = [replace(c, candidate_id=c.candidate_id.translate(table)) for c in EXAMPLE]
    other = elect(renamed, [r.translate(table) for r in rankings])
    choice = elect(EXAMPLE, rankings)
    assert choice.winner is not None
    assert (other.winner, other.ranking) == (
        choice.winner.translate(table),
        tuple(c.translate(table) for c in choice.ranking),
    )


@pytest.mark.rule("CN-102")
@given(rankings=st.lists(st.permutations(list(NAMES)).map("".join), min_size=3, max_size=7))
@FEW
def test_candidate_that_everybody_ranks_below_another_does_not_win(rankings: list[str]):
    contenders = [contender(n, diff=d) for n, d in zip(NAMES, (4, 3, 2, 1), strict=True)]
    winner = elect(contenders, rankings).winner
    for a, b in permutations(NAMES, 2):
        if all(r.index(a) < r.index(b) for r in rankings):
            assert winner != b


@pytest.mark.rule("CN-103", "CN-104")
@given(rankings=st.lists(st.permutations(list(NAMES)).map("".join), min_size=3, max_size=9))
@FEW
def test_condorcet_winner_wins_and_condorcet_loser_never_does(rankings: list[str]):
    assume(len(rankings) % 2)
    contenders = [contender(n, diff=d) for n, d in zip(NAMES, (4, 3, 2, 1), strict=True)]
    winner = elect(contenders, rankings).winner

    def beats(a: str, b: str) -> bool:
        return sum(r.index(a) < r.index(b) for r in rankings) * 2 > len(rankings)

    for name in NAMES:
        others = [n for n in NAMES if n != name]
        if all(beats(name, o) for o in others):
            assert winner == name
        if all(beats(o, name) for o in others):
            assert winner != name


@pytest.mark.rule("CN-105")
@given(rankings=rankings3, voter=st.integers(0, 6))
@FEW
def test_raising_the_winner_on_a_ballot_never_makes_it_lose(rankings: list[str], voter: int):
    winner = elect(EXAMPLE, rankings).winner
    assert winner is not None
    at = voter % len(rankings)
    place = rankings[at].index(winner)
    assume(place)
    rest = rankings[at].replace(winner, "")
    raised = rest[: place - 1] + winner + rest[place - 1 :]
    assert elect(EXAMPLE, [*rankings[:at], raised, *rankings[at + 1 :]]).winner == winner


@pytest.mark.rule("CN-105")
@given(rankings=rankings3, changes=st.sampled_from([{"trusted_passed": 4}, {"cluster_size": 2}, {"diff_lines": 0}]))
@FEW
def test_better_evidence_for_the_winner_never_makes_it_lose(rankings: list[str], changes: dict[str, int]):
    winner = elect(EXAMPLE, rankings).winner
    better = [replace(c, **changes) if c.candidate_id == winner else c for c in EXAMPLE]
    assert elect(better, rankings).winner == winner


@pytest.mark.rule("CN-106")
@pytest.mark.parametrize("above", [(True,) * 5, (False,) * 5, (True, False, True, False, True)])
def test_near_equal_of_a_candidate_does_not_hand_the_win_to_a_third_one(above: tuple[bool, ...]):
    contenders = [contender(n) for n in "abc"]
    checked = 0
    for rankings in combinations_with_replacement(["".join(p) for p in permutations("abc")], 5):
        plain = elect(contenders, list(rankings))
        if len({abs(m) for m in plain.margins.values()}) < 3:
            continue
        cloned = [r.replace("c", "cd" if up else "dc") for r, up in zip(rankings, above, strict=True)]
        found = elect([*contenders, contender("d")], cloned).winner
        assert found in (("c", "d") if plain.winner == "c" else (plain.winner,)), rankings
        checked += 1
    assert checked > 20


@pytest.mark.rule("CN-118")
@given(rankings=rankings3)
@FEW
def test_failing_or_rejected_candidate_on_the_ballots_never_changes_the_winner(rankings: list[str]):
    plain = elect(EXAMPLE, rankings).winner
    failed = contender("d", gates_ok=False, trusted_passed=9)
    longer = [f"d{r}" for r in rankings]
    assert elect([*EXAMPLE, failed], longer).winner == plain
    rejected = [ballot(f"v{n}", r, reject="d") for n, r in enumerate(longer, start=1)]
    weights = roster(len(rankings))
    assert choose([*EXAMPLE, contender("d")], rejected, weights=weights, quorum=2).winner == plain


@pytest.mark.rule("CN-124")
@given(ranking=st.permutations(["a", "b", "c"]).map("".join), reject=st.sampled_from(["", "a", "ab", "abc"]))
@FEW
def test_one_voter_of_five_cannot_flip_what_evidence_decides(ranking: str, reject: str):
    best = [replace(EXAMPLE[0], trusted_passed=4), *EXAMPLE[1:]]
    ballots = [ballot("v1", ranking, reject=reject), *(ballot(f"v{n}", "abc") for n in range(2, 6))]
    assert choose(best, ballots, weights=roster(5), quorum=3).winner == "a"


@pytest.mark.rule("CN-52", "CN-46")
def test_pair_that_a_voter_left_out_of_its_ranking_is_an_abstention():
    ballots = [ballot("v1", "ab"), ballot("v2", ""), ballot("v3", "cb")]
    pairs = lock_pairs(EXAMPLE, ballots)
    assert signed(pairs.margins) == {"a>b": 1, "a>c": 0, "b>c": -1}
    order = sorted(EXAMPLE, key=lambda c: (pairs.positions[c.candidate_id], order_key(c)))
    assert [c.candidate_id for c in order] == ["a", "c", "b"]


@pytest.mark.rule("CN-55")
def test_weight_of_a_voter_counts_in_margins_and_rejections():
    heavy = replace(ballot("v1", "ba", reject="a"), weight=3)
    light = [ballot("v2", "ab"), ballot("v3", "ab")]
    choice = choose(EXAMPLE[:2], [heavy, *light], weights={"v1": 3, "v2": 1, "v3": 1}, quorum=2)
    assert (choice.winner, choice.removed) == ("b", {"a": "rejected"})
