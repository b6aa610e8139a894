"""Cycles, layers and likeness of decisions, put together from rows of any store."""

from __future__ import annotations

import time

import pytest

from fleet.graph.queries import plan_query
from fleet.graph.structure import cycles_of
from fleet.kernel.errors import InvalidInput


@pytest.mark.rule("GR-83")
def test_cycles_of_a_dense_graph_are_bounded_in_number_and_time() -> None:
    nodes = [f"de-{n:03}" for n in range(200)]
    dense = {node: nodes for node in nodes}
    began = time.process_time()
    assert len(cycles_of(dense, limit=20)) == 20
    forward = {node: nodes[n + 1 :] for n, node in enumerate(nodes)}
    assert cycles_of(forward, limit=20) == []
    assert time.process_time() - began < 20


@pytest.mark.rule("GR-83")
def test_two_cycles_through_one_decision_are_two() -> None:
    assert cycles_of({"a": ["b", "c"], "b": ["a"], "c": ["a"]}, limit=20) == [("a", "b"), ("a", "c")]


@pytest.mark.rule("GR-98")
@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("critical_decisions", {"story_id": "st-a", "limit": 11}, "limit"),
        ("decision_cycles", {"story_id": "st-a", "limit": 0}, "limit"),
        ("plan_layers", {}, "plan_id"),
        ("path_history", {"path": "", "limit": 1}, "path"),
        ("similar_decisions", {"category": "DATA", "keywords": "x" * 1001}, "keywords"),
    ],
)
def test_structure_query_out_of_its_bounds_is_invalid_input(name: str, params: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        plan_query(name, params)


def test_decisions_without_text_are_like_none() -> None:
    plan = plan_query("similar_decisions", {"category": "DATA", "keywords": "carts"})
    bare = {"id": "de-a", "title": None, "rationale": None, "alternatives": None, "decided_at": None}
    assert plan.answer([bare]) == []
    assert plan_query("similar_decisions", {"category": "DATA"}).answer([bare]) == [{**bare, "matches": 0}]
