"""The decision graph in Neo4j, or in any server that speaks Bolt and its Cypher (GR-3, GR-4, GR-7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from neo4j import AsyncDriver, AsyncManagedTransaction

from fleet.events.envelope import GENESIS_HASH
from fleet.graph.batch import fold
from fleet.graph.changes import Cursor, GraphChange
from fleet.graph.digest import GraphDigest
from fleet.graph.neo4j.bolt import Bolt, Row, connect_bolt, rows_of, trusted
from fleet.graph.neo4j.queries import cypher_of
from fleet.graph.neo4j.slots import in_slot, label_of, labels_of, suffix_of
from fleet.graph.neo4j.statements import (
    ALL_CURSORS,
    CREATE_STATE,
    FIRST_CURSOR,
    HELD_CURSORS,
    HOLD_CURSOR,
    MOVE_STATE,
    NEXT_CURSOR,
    READ_ACTIVE,
    READ_CURSOR,
    READ_STATE,
    clear_statement,
    cursor_id,
    nodes_statement,
    relations_statement,
    write_statements,
)
from fleet.graph.projection import Comparison, ProjectionState, Spare
from fleet.graph.queries import QueryPlan, plan_query
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StreamId

_ATTEMPTS = 5


class Neo4jGraph:
    """Implements the port DecisionGraph. Constraints and indexes are created before its first call is answered.

    Args:
        driver: whoever made it closes it, or `close` does.
        database: name of the database.
        state: what a graph that has none yet starts with.
    """

    def __init__(self, driver: AsyncDriver | Bolt, *, database: str, state: ProjectionState | None = None) -> None:
        self._bolt = driver if isinstance(driver, Bolt) else Bolt(driver, database=database)
        self._initial = state or ProjectionState()
        self._has_state = False

    @classmethod
    def connect(
        cls,
        uri: str,
        *,
        user: str,
        password: str,
        database: str,
        timeout_s: float = 5.0,
        state: ProjectionState | None = None,
    ) -> Neo4jGraph:
        """A graph at this address. It connects at its first call; close it with `close()`.

        Args:
            timeout_s: longest wait for a connection; transactions are repeated for twice as long.

        Raises:
            ConfigError: `uri` has no form that the driver knows.
        """
        bolt = connect_bolt(uri, user=user, password=password, database=database, timeout_s=timeout_s)
        return cls(bolt, database=database, state=state)

    async def close(self) -> None:
        """Every connection is closed."""
        await self._bolt.close()

    async def projection(self) -> ProjectionState:
        """Which projection is active, and which is wanted."""
        await self._bolt.prepare(suffix_of(self._initial.active))
        rows = await self._bolt.rows(READ_STATE, {}, doing="read which projection is active")
        if not rows:
            await self._bolt.write(self._create_state, doing="create its first projection")
            rows = await self._bolt.rows(READ_STATE, {}, doing="read which projection is active")
        return _state(rows[0])

    async def _create_state(self, tx: AsyncManagedTransaction) -> None:
        await (await tx.run(CREATE_STATE, asdict(self._initial))).consume()

    async def move_projection(self, expected: ProjectionState, to: ProjectionState) -> bool:
        """The state is `to`, in one statement, if it still was `expected`."""
        if await self.projection() != expected:
            return False
        await self._bolt.prepare(suffix_of(to.active))
        params = {"from": asdict(expected), "to": asdict(to)}

        async def work(tx: AsyncManagedTransaction) -> bool:
            return bool(await rows_of(tx, MOVE_STATE, params))

        if await self._bolt.write(work, doing=f"move to projection {to.wanted}"):
            return True
        # The reply to a first try may have been lost after its commit.
        return expected != to and await self.projection() == to

    async def clear_spare(self, *, limit: int) -> int:
        """At most `limit` nodes of the place beside the active projection are gone; how many."""
        active = (await self.projection()).active

        async def work(tx: AsyncManagedTransaction) -> int:
            gone = 0
            for label in labels_of(suffix_of(active + 1)):
                if gone == limit:
                    break
                rows = await rows_of(tx, clear_statement(label), {"active": active, "limit": limit - gone})
                gone += rows[0]["gone"] if rows else 0
            return gone

        return await self._bolt.write(work, doing="drop a projection")

    async def cursor(self, stream: StreamId, *, projection: int | None = None) -> Cursor:
        """How far the stream is projected."""
        number = await self._number(projection)
        text = in_slot(READ_CURSOR, suffix_of(number))
        rows = await self._bolt.rows(text, {"id": cursor_id(stream, number)}, doing=f"read {stream}'s cursor")
        return Cursor(rows[0]["v"], rows[0]["h"]) if rows else Cursor(0, GENESIS_HASH)

    async def cursors(self, *, projection: int | None = None) -> dict[StreamId, Cursor]:
        """The cursor of every stream that has one."""
        number = await self._number(projection)
        text = in_slot(ALL_CURSORS, suffix_of(number))
        rows = await self._bolt.rows(text, {"projection": number}, doing="read its cursors")
        return {StreamId(row["stream"]): Cursor(row["v"], row["h"]) for row in rows}

    async def hold(self, stream: StreamId, *, reason: str) -> None:
        """The stream waits for a rebuild; the first reason stays."""
        number = await self._number(None)
        text = in_slot(HOLD_CURSOR, suffix_of(number))

        async def work(tx: AsyncManagedTransaction) -> None:
            await (await tx.run(trusted(text), id=cursor_id(stream, number), reason=reason)).consume()

        await self._bolt.write(work, doing=f"hold {stream}")

    async def held(self) -> dict[StreamId, str]:
        """Streams of the active projection that wait for a rebuild, and why."""
        number = await self._number(None)
        text = in_slot(HELD_CURSORS, suffix_of(number))
        rows = await self._bolt.rows(text, {"projection": number}, doing="read which streams are held")
        return {StreamId(row["stream"]): row["reason"] for row in rows}

    async def apply(
        self,
        stream: StreamId,
        changes: Sequence[GraphChange],
        *,
        expected: Cursor,
        reached: Cursor,
        projection: int | None = None,
    ) -> bool:
        """The changes and `reached` are stored in one transaction if the cursor still is `expected`."""
        number = await self._number(projection)
        suffix = suffix_of(number)
        statements = tuple((in_slot(text, suffix), rows) for text, rows in write_statements(fold(changes)))
        move = trusted(in_slot(NEXT_CURSOR if expected.version else FIRST_CURSOR, suffix))
        params = _move(stream, number, expected, reached)

        async def work(tx: AsyncManagedTransaction) -> bool:
            # Decided by the row of this statement: a batch without graph effects has no other one.
            if await (await tx.run(move, params)).single() is None:
                return False
            for text, rows in statements:
                await (await tx.run(trusted(text), rows=rows)).consume()
            return True

        return await self._bolt.write(work, doing=f"apply {stream} up to {reached.version}")

    async def _number(self, projection: int | None) -> int:
        """The projection that is meant, whose place has its constraints and indexes."""
        if projection is None or not self._has_state:
            active = (await self.projection()).active
            self._has_state = True
            projection = active if projection is None else projection
        await self._bolt.prepare(suffix_of(projection))
        return projection

    async def query(self, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of a named query (GR-80..GR-95), all of them from one projection."""
        plan = plan_query(name, params)
        for _ in range(_ATTEMPTS):
            active = await self._number(None)
            rows = await self._bolt.read(lambda tx, n=active: _answer(tx, plan, n), doing=f"answer {name}")
            if rows is not None:
                return plan.answer(rows)
        raise StoreUnavailable(f"the graph was rebuilt {_ATTEMPTS} times during query {name}: ask again")

    async def digest(self, *, projection: int | None = None) -> str:
        """64 hex digits over all nodes and relationships without cursors."""
        number = await self._number(projection)
        return await self._bolt.read(lambda tx: _digest(tx, suffix_of(number)), doing="read all of it")


def _state(row: Row) -> ProjectionState:
    return ProjectionState(
        active=row["active"],
        wanted=row["wanted"],
        spare=Spare(row["spare"]),
        version=row["version"],
        spare_version=row["spare_version"],
        comparison=Comparison(row["comparison"]),
    )


def _move(stream: StreamId, projection: int, expected: Cursor, reached: Cursor) -> Row:
    return {
        "id": cursor_id(stream, projection),
        "stream": str(stream),
        "projection": projection,
        "genesis": GENESIS_HASH,
        "from_v": expected.version,
        "from_h": expected.hash,
        "to_v": reached.version,
        "to_h": reached.hash,
    }


async def _answer(tx: AsyncManagedTransaction, plan: QueryPlan, projection: int) -> list[Row] | None:
    """The rows of the plan; None when the projection did not stay the active one while they were read."""
    suffix = suffix_of(projection)
    rows: list[Row] = []
    is_known = plan.subject is None or await _exists(tx, *plan.subject, suffix=suffix)
    if is_known:
        for statement in plan.statements:
            rows += await rows_of(tx, in_slot(cypher_of(statement), suffix), plan.params)
    # A projection is dropped only after another one became active, so what was read before that is whole.
    state = await rows_of(tx, READ_ACTIVE, {})
    if not state or state[0]["active"] != projection:
        return None
    if not is_known:
        raise plan.not_found()
    return rows


async def _exists(tx: AsyncManagedTransaction, label: str, node_id: str, *, suffix: str) -> bool:
    text = in_slot(f"MATCH (n:{label} {{id: $id}}) RETURN n.id AS id", suffix)
    return bool(await rows_of(tx, text, {"id": node_id}))


async def _digest(tx: AsyncManagedTransaction, suffix: str) -> str:
    digest = GraphDigest()
    for stored in labels_of(suffix)[1:]:
        label = label_of(stored)
        async for row in await tx.run(trusted(nodes_statement(stored))):
            digest.node(label, row["props"])
        async for row in await tx.run(trusted(relations_statement(stored))):
            ends = (row["type"], label, row["from_id"], label_of(row["to_label"]), row["to_id"])
            digest.relation(*ends, props=row["props"])
    return digest.hexdigest()
