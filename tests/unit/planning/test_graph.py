"""The plan graph: cycles, layers, critical path, start order, overlap, completeness and stalls."""

from __future__ import annotations

import fnmatch
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.planning.execution import is_plan_complete, ready_tasks, startable_tasks
from fleet.planning.graph import (
    PlanEdge,
    PlanNode,
    critical_path,
    find_cycle,
    is_repository_glob,
    paths_overlap,
    plan_layers,
    remaining_hours,
    validate_graph,
)


def nodes(*specs: str) -> list[PlanNode]:
    """`a`, or `a:priority:hours`."""
    found = []
    for spec in specs:
        name, priority, hours = (*spec.split(":"), "1", "1")[:3]
        found.append(PlanNode(name, int(priority), int(hours), role="developer", paths=(f"{name}.py",)))
    return found


def edges(*pairs: str) -> list[PlanEdge]:
    """`b<a`: b needs a."""
    return [PlanEdge(*pair.split("<")) for pair in pairs]


@pytest.mark.rule("PL-30")
def test_cycle_is_reported_with_its_tasks_in_order() -> None:
    (problem,) = validate_graph(nodes("c", "a", "b"), edges("a<b", "b<c", "c<a"))
    assert (problem.code, problem.ids) == ("plan_cycle", ("a", "b", "c"))


@pytest.mark.rule("PL-30")
def test_wrong_dependencies_are_all_named() -> None:
    found = validate_graph(nodes("a", "b"), edges("a<x", "y<a", "b<b", "a<b", "a<b"))
    assert [(p.code, p.ids) for p in found] == [
        ("task_dependency", ("a", "x")),
        ("task_dependency", ("y", "a")),
        ("task_dependency", ("b", "b")),
        ("task_dependency", ("a", "b")),
    ]
    assert validate_graph(nodes("a", "b", "c"), edges("a<b", "a<c", "b<c")) == []


def test_cycle_behind_a_long_chain_is_found_without_recursion() -> None:
    needs = {i: [i + 1] for i in range(5000)} | {5000: [4999]}
    assert find_cycle(range(5001), needs) == [4999, 5000]


@pytest.mark.rule("PL-31")
def test_layers_are_ordered_by_priority_and_id() -> None:
    found = plan_layers(nodes("d", "c:2", "b", "a:2", "e"), edges("e<c", "e<d"))
    assert found.layers == (("b", "d", "a", "c"), ("e",))
    assert found.cyclic == ()


@pytest.mark.rule("PL-31")
def test_tasks_on_or_behind_a_cycle_are_in_the_last_layer() -> None:
    found = plan_layers(nodes("a", "b", "c", "d", "s"), edges("b<c", "c<b", "d<c", "s<s", "a<gone"))
    assert found.layers == (("a",),)
    assert found.cyclic == ("b", "c", "d", "s")


@pytest.mark.rule("PL-31")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdefx")), max_size=12), st.randoms())
def test_layers_hold_every_task_once_and_do_not_depend_on_the_order(
    pairs: list[tuple[str, str]], random: object
) -> None:
    all_nodes, all_edges = nodes(*"abcdef"), [PlanEdge(a, b) for a, b in pairs]
    found = plan_layers(all_nodes, all_edges)
    assert sorted((*found.cyclic, *(i for layer in found.layers for i in layer))) == list("abcdef")
    random.shuffle(all_nodes)  # type: ignore[attr-defined]
    random.shuffle(all_edges)  # type: ignore[attr-defined]
    assert plan_layers(all_nodes, all_edges) == found
    has_cycle = any(p.code == "plan_cycle" or p.ids[0] == p.ids[-1] for p in validate_graph(all_nodes, all_edges))
    assert bool(found.cyclic) is has_cycle
    level = {i: n for n, layer in enumerate(found.layers) for i in layer}
    assert all(level[a] > level[b] for a, b in pairs if a in level and b in level)


@pytest.mark.rule("PL-32")
def test_critical_path_is_the_longest_chain_by_hours() -> None:
    plan = nodes("a:1:1", "b:1:5", "c:1:1", "d:1:2")
    assert critical_path(plan, edges("b<a", "c<a", "d<c")) == ("a", "b")
    assert remaining_hours(plan, edges("b<a", "c<a", "d<c")) == {"a": 6, "b": 5, "c": 3, "d": 2}


@pytest.mark.rule("PL-32")
def test_critical_path_breaks_ties_by_id_and_leaves_cycles_out() -> None:
    assert critical_path(nodes("c", "b", "a"), edges("b<a", "c<a")) == ("a", "b")
    assert critical_path(nodes("a", "b:1:9", "c:1:9"), edges("b<c", "c<b")) == ("a",)
    assert critical_path([], []) == ()


@pytest.mark.rule("PL-40")
def test_ready_tasks_come_by_priority_then_longest_chain_then_id() -> None:
    plan = nodes("a:2:9", "b:1:1", "c:1:1", "d:1:3", "e:1:1", "f:1:2")
    states = dict.fromkeys("abcdef", "todo")
    assert ready_tasks(plan, edges("e<c", "f<e"), states=states) == ("c", "d", "b", "a")
    assert ready_tasks(plan, edges("e<c", "f<e"), states=states | {"c": "done", "d": "implementing"}) == ("e", "b", "a")


@pytest.mark.rule("PL-46")
def test_task_behind_a_cancelled_or_unknown_dependency_is_not_ready() -> None:
    states = {"a": "cancelled", "b": "todo", "c": "todo"}
    assert ready_tasks(nodes("a", "b", "c"), edges("b<a", "c<gone"), states=states) == ()


@pytest.mark.rule("PL-40", "PL-41")
def test_startable_tasks_respect_agents_parallelism_and_paths() -> None:
    plan = [
        PlanNode("a", 1, 1, role="developer", paths=("src/a/**",)),
        PlanNode("b", 1, 1, role="developer", paths=("src/*/x.py",)),
        PlanNode("c", 1, 1, role="qa", paths=("tests",)),
        PlanNode("d", 1, 1, role="developer", paths=("docs",)),
    ]
    states = dict.fromkeys("abcd", "todo")

    def start(**more: object) -> tuple[str, ...]:
        given_ = {"states": states, "free_agents": {"developer": 3, "qa": 1}, "max_parallel_tasks": 4, **more}
        return startable_tasks(plan, [], **given_)  # type: ignore[arg-type]

    assert start() == ("a", "c", "d")
    assert start(max_parallel_tasks=1) == ("a",)
    assert start(free_agents={"developer": 1}) == ("a",)
    assert start(states=states | {"d": "implementing", "a": "done"}) == ("b", "c")
    assert start(states=states | {"b": "qa_testing"}) == ("c", "d")


@pytest.mark.rule("PL-41")
def test_task_without_paths_runs_alone_unless_optimistic() -> None:
    plan = [PlanNode("a", 1, 1, role="r", paths=("a",)), PlanNode("b", 1, 1, role="r")]
    states, free = {"a": "todo", "b": "todo"}, {"r": 2}
    assert startable_tasks(plan, [], states=states, free_agents=free, max_parallel_tasks=4) == ("a",)
    both = startable_tasks(plan, [], states=states, free_agents=free, max_parallel_tasks=4, optimistic=True)
    assert both == ("a", "b")


@pytest.mark.rule("PL-41")
@pytest.mark.parametrize(
    ("a", "b", "overlap"),
    [
        ("src/a.py", "src/a.py", True),
        ("src/a.py", "src/b.py", False),
        ("src", "src/b.py", True),
        ("src/", "src/x/y.py", True),
        ("src/*.py", "src/a*", True),
        ("src/*.py", "src/*.md", False),
        ("src/a?.py", "src/ab.py", True),
        ("src/a?.py", "src/a.py", False),
        ("**/test_*.py", "tests/unit/test_a.py", True),
        ("**/*.md", "docs/**", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "c/**", False),
        ("a/*/c", "a/b/d", False),
        ("a/[xyz].py", "a/b.py", True),
        ("*a*b*", "xbxa", False),
        ("*a*b*", "ab", True),
        ("ab*", "*bc", True),
        ("ab*c", "d*", False),
        ("a/**/**/**/**/**/**/**/**/z", "a/**/**/**/**/**/**/**/**/y", True),
    ],
)
def test_globs_overlap_unless_no_file_can_match_both(a: str, b: str, overlap: bool) -> None:
    assert paths_overlap([a], [b]) is overlap
    assert paths_overlap([b], ["zzz", a]) is overlap


@pytest.mark.rule("PL-41")
@settings(max_examples=150, deadline=None)
@given(st.text("ab*?", min_size=1, max_size=4), st.text("ab*?", min_size=1, max_size=4))
def test_overlap_of_one_part_agrees_with_trying_every_name(a: str, b: str) -> None:
    names = ["".join(n) for size in range(1, 8) for n in product("ab", repeat=size)]
    common = any(fnmatch.fnmatchcase(n, a) and fnmatch.fnmatchcase(n, b) for n in names)
    if "**" not in (a, b):
        assert paths_overlap([a], [b]) is common


@pytest.mark.rule("PL-20")
@pytest.mark.parametrize(
    ("glob", "is_allowed"),
    [
        ("src/**/*.py", True), ("docs/", True), ("ä b.md", True), ("", False), ("/abs", False), ("a/../b", False),
        ("a//b", False), ("./a", False), (".GIT/hooks", False), ("a\nb", False), ("a\\b", False), (" a", False),
        ("x" * 201, False), ("..hidden", True),
    ],
)  # fmt: skip
def test_glob_must_stay_inside_the_repository(glob: str, is_allowed: bool) -> None:
    assert is_repository_glob(glob) is is_allowed


@pytest.mark.rule("PL-44")
@pytest.mark.parametrize(
    ("states", "is_complete"),
    [
        (["done", "cancelled"], True),
        (["done", "qa_testing"], False),
        (["cancelled"], False),
        ([], False),
    ],
)
def test_plan_is_complete_when_all_are_terminal_and_one_is_done(states: list[str], is_complete: bool) -> None:
    assert is_plan_complete({str(i): s for i, s in enumerate(states)}) is is_complete
