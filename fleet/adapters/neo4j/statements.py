"""The statements that write a batch: portable Cypher, assembled from names of the schema alone (GR-98)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from fleet.graph import (
    INDEXES,
    NODES,
    PROJECTION_VERSION,
    Batch,
    Label,
    RelationKey,
    RelationsClosed,
    constraint_name,
)

__all__ = [
    "ALL_NODES",
    "ALL_RELATIONS",
    "MOVE_CURSOR",
    "READ_CURSOR",
    "Statement",
    "cursor_id",
    "schema_statements",
    "write_statements",
]

# The lock property is set before the condition is read: Neo4j is read-committed, and only a write takes the lock.
MOVE_CURSOR = """
MERGE (c:Cursor {id: $id})
ON CREATE SET c.stub = false, c.stream = $stream, c.projection_version = $projection, c.v = 0, c.h = $genesis
SET c.lock = coalesce(c.lock, 0) + 1
WITH c WHERE c.v = $from_v AND c.h = $from_h
SET c.v = $to_v, c.h = $to_h
RETURN c.v AS v
"""

READ_CURSOR = "MATCH (c:Cursor {id: $id}) RETURN c.v AS v, c.h AS h"

ALL_NODES = "MATCH (n) RETURN labels(n)[0] AS label, properties(n) AS props"

ALL_RELATIONS = """
MATCH (a)-[r]->(b)
RETURN type(r) AS type, labels(a)[0] AS from_label, a.id AS from_id, labels(b)[0] AS to_label, b.id AS to_id,
       properties(r) AS props
"""


class Statement(NamedTuple):
    """One statement with its rows."""

    text: str
    rows: list[dict[str, Any]]


def cursor_id(stream: str) -> str:
    """Id of a stream's cursor in this version of the projection (GR-7)."""
    return f"{PROJECTION_VERSION}/{stream}"


def schema_statements() -> dict[str, str]:
    """Name of each constraint and index -> the statement that creates it if it is missing (GR-33)."""
    unique = {
        constraint_name(
            label
        ): f"CREATE CONSTRAINT {constraint_name(label)} IF NOT EXISTS FOR (n:{label}) REQUIRE n.id IS UNIQUE"
        for label in NODES
    }
    indexes = {
        index.name: f"CREATE INDEX {index.name} IF NOT EXISTS FOR (n:{index.label}) "
        f"ON ({', '.join(f'n.{prop}' for prop in index.props)})"
        for index in INDEXES
    }
    return unique | indexes


def write_statements(batch: Batch) -> Iterator[Statement]:
    """What writes the batch, one statement for each label and each form of relationship; the order matters."""
    for text, closed in groupby(batch.closed, key=_closing):
        yield Statement(text, [_closing_row(one) for one in closed])
    by_label: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for node, props in batch.nodes.items():
        by_label[Label(node.label)].append({"id": str(node.id), "props": props})
    for label, rows in by_label.items():
        yield Statement(
            f"UNWIND $rows AS row MERGE (n:{label} {{id: row.id}}) ON CREATE SET n.stub = true SET n += row.props",
            rows,
        )
    yield from _relations(batch)


def _relations(batch: Batch) -> Iterator[Statement]:
    by_form: defaultdict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for relation, props in batch.relations.items():
        by_form[_form(relation)].append(
            {
                "start": str(relation.start.id),
                "end": str(relation.end.id),
                "key": dict(relation.key),
                "props": props,
            }
        )
    for (kind, start, end, *key), rows in by_form.items():
        keys = f" {{{', '.join(f'{name}: row.key.{name}' for name in key)}}}" if key else ""
        yield Statement(
            f"UNWIND $rows AS row MATCH (a:{start} {{id: row.start}}) MATCH (b:{end} {{id: row.end}}) "
            f"MERGE (a)-[r:{kind}{keys}]->(b) SET r += row.props",
            rows,
        )


def _form(relation: RelationKey) -> tuple[str, ...]:
    return relation.type, relation.start.label, relation.end.label, *(name for name, _ in relation.key)


def _closing(closed: RelationsClosed) -> str:
    ends = f"(other)-[r:{closed.type}]->(n)" if closed.incoming else f"(n)-[r:{closed.type}]->(other)"
    return (
        f"UNWIND $rows AS row MATCH (n:{closed.label} {{id: row.id}}) MATCH {ends} "
        "WHERE (row.any OR other.id IN row.only) AND NOT other.id IN row.keep "
        f"AND r.{closed.mark} IS NULL SET r.{closed.mark} = row.value"
    )


def _closing_row(closed: RelationsClosed) -> dict[str, Any]:
    return {
        "id": str(closed.id),
        "any": closed.only is None,
        "only": list(closed.only or ()),
        "keep": list(closed.keep),
        "value": closed.value,
    }
