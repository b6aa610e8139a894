"""Two projections in one database: the same statements over labels of two places."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from fleet.graph.neo4j.slots import SUFFIXES, in_slot, label_of, labels_of, suffix_of
from fleet.graph.neo4j.statements import FIRST_CURSOR, schema_statements
from fleet.graph.schema import NODES, Label

QUERIES = [path.read_text() for path in files("fleet.graph.neo4j.queries").iterdir() if path.name.endswith(".cypher")]


@pytest.mark.rule("GR-7")
def test_neighbouring_projections_have_places_of_their_own() -> None:
    assert [suffix_of(number) for number in (1, 2, 3)] == ["", "_b", ""]
    assert not set(labels_of("")) & set(labels_of("_b"))
    assert {label_of(label) for label in labels_of("_b")} == set(NODES) - {Label.PROJECTION}


@pytest.mark.rule("GR-7", "GR-98")
@pytest.mark.parametrize("text", QUERIES)
def test_query_of_the_second_place_names_no_label_of_the_first(text: str) -> None:
    moved = in_slot(text, "_b")
    assert set(re.findall(r"\(\w*:([A-Z]\w+)", moved)) <= set(labels_of("_b"))
    assert in_slot(text, "") == text
    assert moved.replace("_b", "").count("labels(") == text.count("labels(")


def test_pointer_is_shared_and_relationships_keep_their_types() -> None:
    moved = in_slot(FIRST_CURSOR, "_b")
    assert "(p:Projection {" in moved
    assert "(c:Cursor_b {" in moved
    assert in_slot("MATCH (t:Task)-[:FOR|IN]->(r:Run)", "_b") == "MATCH (t:Task_b)-[:FOR|IN]->(r:Run_b)"


@pytest.mark.rule("GR-33", "GR-7")
def test_each_place_has_its_constraints_and_indexes() -> None:
    first, second = (schema_statements(suffix) for suffix in SUFFIXES)
    assert first.keys() & second.keys() == {"projection_id"}
    assert len(first) == len(second)
