"""The schema, the folding of a batch, the digest, and the names that the queries use."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from fleet.graph.batch import fold
from fleet.graph.changes import NodeChange, RelationChange, RelationsClosed
from fleet.graph.digest import graph_digest
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.memory.queries import ANSWERS
from fleet.graph.neo4j.statements import schema_statements, write_statements
from fleet.graph.queries import QUERIES, plan_query
from fleet.graph.schema import COMMON, NODES, RELATIONS, Label, schema_problems
from fleet.kernel.errors import InvalidInput

CYPHER = {
    path.name.removesuffix(".cypher"): path.read_text()
    for path in files("fleet.graph.neo4j.queries").iterdir()
    if path.name.endswith(".cypher")
}
KNOWN = set().union(COMMON, *NODES.values(), *(kind.props for kind in RELATIONS.values()))


@pytest.mark.rule("GR-1")
@pytest.mark.parametrize("name", sorted(CYPHER))
def test_query_uses_only_names_of_the_schema(name: str) -> None:
    text = CYPHER[name]
    types = {t for group in re.findall(r"\[\w*:([A-Z_|]+)", text) for t in group.split("|")}
    labels = set(re.findall(r"\(\w*:([A-Z]\w+)", text))
    props = set(re.findall(r"\b[a-z]\w*\.(\w+)", text)) | set(re.findall(r"[{,]\s*(\w+): [$']", text))
    assert labels
    assert labels <= set(NODES)
    assert types <= set(RELATIONS)
    assert props <= KNOWN


@pytest.mark.rule("GR-98")
def test_every_statement_has_a_file_and_an_answer_in_memory() -> None:
    assert set(CYPHER) == set(ANSWERS)


@pytest.mark.rule("GR-33")
def test_every_label_has_a_unique_id_and_every_index_its_label_knows() -> None:
    statements = schema_statements()
    assert {f"{label.lower()}_id" for label in Label} <= set(statements)
    assert len(statements) == len(Label) + 14
    assert all("IF NOT EXISTS" in text for text in statements.values())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (NodeChange("Task", "tk-a", {"title": "a", "colour": "red"}), "Task.colour"),
        (NodeChange("Robot", "r-a"), "label Robot"),
        (RelationChange("LIKES", "Task", "a", "Task", "b"), "relationship LIKES"),
        (RelationChange("AFFECTS", "Task", "a", "Decision", "b"), "(Task)-[:AFFECTS]->(Decision)"),
        (RelationChange("AFFECTS", "Decision", "a", "Task", "b", key={"why": 1}), "AFFECTS.why"),
        (
            RelationsClosed("AFFECTS", "Decision", "a", mark="at", value=1),
            "AFFECTS of Decision has no at",
        ),
    ],
)
def test_change_outside_the_schema_is_named(change: NodeChange, problem: str) -> None:
    assert schema_problems(change) == [problem]


def test_folded_batch_holds_each_node_and_relation_once() -> None:
    link = RelationChange("TOUCHED", "Task", "a", "File", "f", key={"v": 1}, props={"change": "added"})
    batch = fold([NodeChange("Task", "a", {"title": "x"}), NodeChange("Task", "a", {"state": "todo"}), link, link])
    assert [dict(props) for props in batch.nodes.values()] == [{"title": "x", "state": "todo"}, {}]
    texts = [s.text for s in write_statements(batch)]
    assert len(texts) == 3
    assert "MERGE (a)-[r:TOUCHED {v: row.key.v}]->(b)" in texts[-1]


@pytest.mark.rule("GR-3", "GR-7")
async def test_digest_leaves_out_cursors_and_absent_values() -> None:
    node = ("Task", {"id": "a", "title": None, "stub": True})
    assert graph_digest([node, ("Cursor", {"id": "c", "v": 3})], []) == graph_digest(
        [("Task", {"id": "a", "stub": True})], []
    )
    assert graph_digest([node], []) != graph_digest([("Task", {"id": "b", "stub": True})], [])
    assert await MemoryGraph().digest() == graph_digest([], [])


@pytest.mark.rule("GR-98")
@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("no_such_query", {}, "choose one of"),
        ("decision_trail", {}, "exactly one of"),
        ("decision_trail", {"story_id": "st-a", "path": "x"}, "exactly one of"),
        ("decision_trail", {"story_id": "st-a", "limit": 201}, "limit"),
        ("decision_trail", {"story_id": "st-a", "skip": -1}, "skip"),
        ("decision_trail", {"story_id": "st-a", "status": "OPEN"}, "status"),
        ("decision_impact", {"decision_id": "de-a", "depth": 0}, "depth"),
        ("decision_impact", {"decision_id": "de-a", "depth": "3"}, "depth"),
        ("decision_impact", {"decision_id": "de-a", "limit": 501}, "limit"),
        ("who_approved", {"story_id": ""}, "story_id"),
        ("council_record", {"council_id": "co-a", "cypher": "RETURN 1"}, "cypher"),
        ("unanswered_questions", {}, "now_ms"),
    ],
)
def test_query_out_of_its_bounds_is_invalid_input(name: str, params: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan_query(name, params)
    assert said in caught.value.message


def test_every_query_is_documented() -> None:
    assert all(query.__doc__ for query in QUERIES.values())
