"""The statements that write a batch: portable Cypher, assembled from names of the schema alone (GR-98)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from fleet.graph.batch import Batch, RelationKey
from fleet.graph.changes import RelationsClosed
from fleet.graph.neo4j.slots import in_slot
from fleet.graph.schema import INDEXES, NODES, Label, constraint_name

READ_STATE = """
MATCH (p:Projection {id: 'main'})
RETURN p.active AS active, p.wanted AS wanted, p.spare AS spare, p.version AS version,
       p.spare_version AS spare_version, p.comparison AS comparison
"""

CREATE_STATE = """
MERGE (p:Projection {id: 'main'})
ON CREATE SET p.stub = false, p.active = $active, p.wanted = $wanted, p.spare = $spare, p.version = $version,
              p.spare_version = $spare_version, p.comparison = $comparison
"""

READ_ACTIVE = "MATCH (p:Projection {id: 'main'}) RETURN p.active AS active"

# Every statement that depends on a condition sets a lock property first: Neo4j is read-committed, and only a write
# takes the lock.
MOVE_STATE = """
MATCH (p:Projection {id: 'main'})
SET p.lock = coalesce(p.lock, 0) + 1
WITH p WHERE p.active = $from.active AND p.wanted = $from.wanted AND p.spare = $from.spare
  AND p.version = $from.version AND p.spare_version = $from.spare_version AND p.comparison = $from.comparison
SET p.active = $to.active, p.wanted = $to.wanted, p.spare = $to.spare, p.version = $to.version,
    p.spare_version = $to.spare_version, p.comparison = $to.comparison
RETURN p.active AS active
"""

# The first batch of a stream asks whether its projection still takes changes. Later ones need not: their cursor is the
# first thing to go when a projection is dropped.
FIRST_CURSOR = """
MATCH (p:Projection {id: 'main'})
SET p.lock = coalesce(p.lock, 0) + 1
WITH p WHERE p.active = $projection OR (p.wanted = $projection AND p.spare = 'building')
MERGE (c:Cursor {id: $id})
ON CREATE SET c.stub = false, c.stream = $stream, c.projection_version = $projection, c.v = 0, c.h = $genesis
SET c.lock = coalesce(c.lock, 0) + 1
WITH c WHERE c.v = $from_v AND c.h = $from_h
SET c.v = $to_v, c.h = $to_h
RETURN c.v AS v
"""

NEXT_CURSOR = """
MATCH (c:Cursor {id: $id})
SET c.lock = coalesce(c.lock, 0) + 1
WITH c WHERE c.v = $from_v AND c.h = $from_h
SET c.v = $to_v, c.h = $to_h
RETURN c.v AS v
"""

READ_CURSOR = "MATCH (c:Cursor {id: $id}) RETURN c.v AS v, c.h AS h"

ALL_CURSORS = """
MATCH (c:Cursor) WHERE c.projection_version = $projection AND c.v > 0 RETURN c.stream AS stream, c.v AS v, c.h AS h
"""

HOLD_CURSOR = "MATCH (c:Cursor {id: $id}) SET c.held = coalesce(c.held, $reason)"

HELD_CURSORS = """
MATCH (c:Cursor) WHERE c.projection_version = $projection AND c.held IS NOT NULL
RETURN c.stream AS stream, c.held AS reason
"""


def clear_statement(label: str) -> str:
    """Removes at most `limit` nodes of this label while the state calls their place dirty."""
    return (
        "MATCH (p:Projection {id: 'main'}) SET p.lock = coalesce(p.lock, 0) + 1 "
        "WITH p WHERE p.active = $active AND p.spare = 'dirty' "
        f"MATCH (n:{label}) WITH n LIMIT $limit DETACH DELETE n RETURN count(*) AS gone"
    )


def nodes_statement(label: str) -> str:
    """Every node of this label."""
    return f"MATCH (n:{label}) RETURN properties(n) AS props"


def relations_statement(label: str) -> str:
    """Every relationship that starts at a node of this label."""
    return (
        f"MATCH (a:{label})-[r]->(b) RETURN type(r) AS type, a.id AS from_id, labels(b)[0] AS to_label, "
        "b.id AS to_id, properties(r) AS props"
    )


class Statement(NamedTuple):
    """One statement with its rows."""

    text: str
    rows: list[dict[str, Any]]


def cursor_id(stream: str, projection: int) -> str:
    """Id of a stream's cursor in this projection (GR-7)."""
    return f"{projection}/{stream}"


def schema_statements(suffix: str = "") -> dict[str, str]:
    """Name of each constraint and index of one place -> the statement that creates it if it is missing (GR-33)."""
    unique = {_name(label, suffix): label for label in NODES}
    statements = {
        name: f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{label}) REQUIRE n.id IS UNIQUE"
        for name, label in unique.items()
    } | {
        f"{index.name}{suffix}": f"CREATE INDEX {index.name}{suffix} IF NOT EXISTS FOR (n:{index.label}) "
        f"ON ({', '.join(f'n.{prop}' for prop in index.props)})"
        for index in INDEXES
    }
    return {name: in_slot(text, suffix) for name, text in statements.items()}


def _name(label: Label, suffix: str) -> str:
    return constraint_name(label) + ("" if label is Label.PROJECTION else suffix)


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
