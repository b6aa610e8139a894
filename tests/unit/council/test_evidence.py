"""Evidence: its order, the test filter, merging and clusters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.council.candidate import Version, cluster_id_of, cluster_sizes, contenders_of, merge_equal
from fleet.council.evidence import GateCheck, early_exit, has_failure, is_better, on_ballot, order_key
from fleet.council.tests_filter import TestRuns, filter_tests
from tests.support.council import contender, evidence, sha

FEW = settings(max_examples=60, deadline=None)


@pytest.mark.rule("CN-36")
def test_evidence_that_contradicts_itself_is_refused():
    with pytest.raises(ValidationError, match="contradicts its gates"):
        evidence("cd-a1", gates=(GateCheck(name="build", ok=False),))
    with pytest.raises(ValidationError, match="more trusted tests"):
        evidence("cd-a1", passed=3, total=2)
    with pytest.raises(ValidationError):
        evidence("cd-a1", gates=())


@pytest.mark.rule("CN-42")
@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        ({"ok": True, "passed": 0}, {"ok": False, "passed": 2}, True),
        ({"passed": 2}, {"passed": 1}, True),
        ({"lint_errors": 0}, {"lint_errors": 1}, True),
        ({"passed": 2, "lint_errors": 5}, {"passed": 1, "lint_errors": 0}, True),
        ({"diff_lines": 1}, {"diff_lines": 99}, False),
        ({"cluster_size": 3}, {"cluster_size": 1}, False),
        ({}, {}, False),
    ],
)
def test_version_is_better_only_by_gates_tests_or_lint(new: dict[str, int], old: dict[str, int], better: bool):
    assert is_better(evidence("cd-a1", **new), evidence("cd-a1", **old)) is better


def test_one_more_gate_is_better_while_others_still_fail():
    gates = [GateCheck(name=n, ok=n == "applies") for n in ("applies", "build")]
    fewer = evidence("cd-a1", ok=False, gates=(GateCheck(name="applies", ok=False), gates[1]))
    assert is_better(evidence("cd-a1", ok=False, gates=tuple(gates)), fewer)


@pytest.mark.rule("CN-43")
def test_failure_is_a_failed_gate_or_a_failed_trusted_test():
    assert has_failure(evidence("cd-a1", ok=False))
    assert has_failure(evidence("cd-a1", passed=1))
    assert not has_failure(evidence("cd-a1", lint_errors=3))


@pytest.mark.rule("CN-44")
def test_ballot_holds_what_nothing_beats_in_tests_and_cluster():
    names = on_ballot(
        [
            contender("a", trusted_passed=3, cluster_size=1),
            contender("b", trusted_passed=1, cluster_size=2),
            contender("c", trusted_passed=1, cluster_size=1),
            contender("d", trusted_passed=3, cluster_size=1, diff_lines=5),
            contender("e", gates_ok=False, trusted_passed=3, cluster_size=3),
        ]
    )
    assert [c.candidate_id for c in names] == ["d", "a", "b"]


@pytest.mark.rule("CN-44")
@given(count=st.integers(1, 8), limit=st.integers(1, 5))
@FEW
def test_ballot_is_cut_to_its_size_by_the_evidence_keys(count: int, limit: int):
    contenders = [contender(f"c{n}", diff_lines=n) for n in range(count)]
    assert [c.diff_lines for c in on_ballot(contenders, max_on_ballot=limit)] == list(range(min(count, limit)))


@pytest.mark.rule("CN-40")
@pytest.mark.parametrize(
    ("changes", "decides"),
    [
        ({}, True),
        ({"gates_ok": False}, False),
        ({"trusted_passed": 2}, False),
        ({"trusted_passed": 0, "trusted_total": 0}, False),
        ({"cluster_size": 1}, False),
    ],
)
def test_early_exit_needs_gates_all_trusted_tests_and_a_majority(changes: dict[str, int], decides: bool):
    found = early_exit([contender("a", **({"cluster_size": 2} | changes))], invited=3)
    assert bool(found) is decides
    assert early_exit([contender("a", cluster_size=2)], invited=4) == ()


@pytest.mark.rule("CN-53", "CN-114")
def test_order_key_goes_down_the_chain_and_ignores_authors():
    better = [{"gates_ok": True}, {"trusted_passed": 4}, {"cluster_size": 2}, {"diff_lines": 9}, {"digest": "sha256:A"}]
    worse = [{"gates_ok": False}, {}, {}, {}, {}]
    for good, bad in zip(better, worse, strict=True):
        assert order_key(contender("m", **good)) < order_key(contender("m", **bad))
    assert order_key(contender("a"), 1) > order_key(contender("b"), 0)
    assert order_key(contender("a", authors=frozenset({"v1"}))) == order_key(contender("a"))


def runs(name: str, *outcomes: tuple[str, str], **changes: bool) -> TestRuns:
    known = {f"cd-{n}": pair for n, pair in enumerate(outcomes)}
    return TestRuns(name, changes.pop("is_collected", True), known, **changes)


GOOD = ("passed", "passed")
BAD = ("failed", "failed")


@pytest.mark.rule("CN-33")
@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (runs("t", GOOD, BAD), None),
        (runs("t", GOOD, is_collected=False), "not_collected"),
        (runs("t", GOOD, contradicts_example=True), "contradicts_example"),
        (runs("t"), "not_run"),
        (runs("t", GOOD, ("passed", "failed")), "unstable"),
        (runs("t", BAD, BAD), "failed_by_all"),
    ],
)
def test_test_is_dropped_with_its_reason(test: TestRuns, reason: str | None):
    found = filter_tests([test, runs("ok1", GOOD), runs("ok2", GOOD)])
    assert [d.reason for d in found.dropped if d.test == "t"] == ([reason] if reason else [])
    assert found.trusted
    assert ("t" in found.kept) is (reason is None)


@pytest.mark.rule("CN-33")
def test_more_than_half_dropped_means_that_none_is_trusted():
    half = filter_tests([runs("a", GOOD), runs("b", BAD)])
    most = filter_tests([runs("a", GOOD), runs("b", BAD), runs("c", BAD)])
    assert (half.trusted, half.kept, half.questions) == (True, ("a",), ("b",))
    assert (most.trusted, most.kept, most.questions) == (False, (), ("b", "c"))
    assert filter_tests([]).trusted is False
    assert half.score({"a": "passed", "b": "passed"}) == 1


def version(author: str, text: str, *, cluster: str = "x", ok: bool = True, measured: bool = True) -> Version:
    found = evidence(f"cd-{author}", cluster_id=cluster, ok=ok) if measured else None
    return Version(f"cd-{author}", author, sha(text), sha(text.strip()), found)


@pytest.mark.rule("CN-34")
@given(order=st.permutations([version("a", "x"), version("b", "x "), version("c", "y")]))
@FEW
def test_equal_normal_forms_are_one_candidate_with_all_authors(order: list[Version]):
    merged = merge_equal(order)
    assert sorted(c.authors for c in merged) == [("a", "b"), ("c",)]
    assert merged == merge_equal(sorted(order, key=lambda v: v.author))
    pair = next(c for c in merged if len(c.authors) == 2)
    assert pair.digest == min(sha("x"), sha("x "))


@pytest.mark.rule("CN-35", "CN-36")
def test_cluster_counts_the_authors_of_equal_behaviour_that_pass_the_gates():
    merged = merge_equal(
        [version("a", "x"), version("b", "x "), version("c", "y"), version("d", "z", ok=False), version("e", "w")]
    )
    assert set(cluster_sizes(merged).values()) == {4, 1}
    assert {c.cluster_size for c in contenders_of(merged) if c.gates_ok} == {4}
    assert contenders_of(merge_equal([version("a", "x", measured=False)])) == ()


@pytest.mark.rule("CN-35")
def test_candidate_without_shared_inputs_is_a_cluster_of_its_own():
    assert cluster_id_of("cd-a", {}) != cluster_id_of("cd-b", {})
    assert cluster_id_of("cd-a", {"f(1)": "2"}) == cluster_id_of("cd-b", {"f(1)": "2"})
    assert cluster_id_of("cd-a", {"f(1)": "2"}) != cluster_id_of("cd-a", {"f(1)": "ValueError"})
