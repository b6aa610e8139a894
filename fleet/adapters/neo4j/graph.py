"""The decision graph in Neo4j, or in any server that speaks Bolt and its Cypher (GR-3, GR-4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, LiteralString, cast
from urllib.parse import urlsplit

from neo4j import AsyncDriver, AsyncGraphDatabase, AsyncManagedTransaction, AsyncSession
from neo4j.exceptions import ConfigurationError, ConstraintError, TransientError

from fleet.adapters.neo4j.queries import cypher_of
from fleet.adapters.neo4j.statements import (
    ALL_NODES,
    ALL_RELATIONS,
    MOVE_CURSOR,
    READ_CURSOR,
    cursor_id,
    schema_statements,
    write_statements,
)
from fleet.adapters.neo4j.translation import translated
from fleet.errors import ConfigError
from fleet.events import GENESIS_HASH
from fleet.graph import PROJECTION_VERSION, Cursor, GraphChange, QueryPlan, fold, graph_digest, plan_query
from fleet.ids import StreamId

__all__ = ["Neo4jGraph"]

# The driver's HTTP form is a preview without managed transactions.
_SCHEMES = frozenset({"bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"})
_ATTEMPTS = 5
_PAUSE_S = 0.05


class Neo4jGraph:
    """Implements the port DecisionGraph. Constraints and indexes are created before its first call is answered.

    Args:
        driver: whoever made it closes it, or `close` does.
        database: name of the database.
    """

    def __init__(self, driver: AsyncDriver, *, database: str) -> None:
        self._driver = driver
        self._database = database
        # Held while the schema is created, so that it is created once for each object.
        self._preparing = asyncio.Lock()
        self._is_prepared = False

    @classmethod
    def connect(cls, uri: str, *, user: str, password: str, database: str, timeout_s: float = 5.0) -> Neo4jGraph:
        """A graph at this address. It connects at its first call; close it with `close()`.

        Args:
            timeout_s: longest wait for a connection; transactions are repeated for twice as long.

        Raises:
            ConfigError: `uri` has no form that the driver knows.
        """
        if urlsplit(uri).scheme not in _SCHEMES:
            raise _malformed()
        try:
            driver = AsyncGraphDatabase.driver(  # pyright: ignore[reportUnknownMemberType]
                uri,
                auth=(user, password),
                # The driver's first retry sleeps 1 s, which is what a conflict between two batches would cost.
                initial_retry_delay=0.03,
                max_transaction_retry_time=2 * timeout_s,
                connection_timeout=timeout_s,
                connection_acquisition_timeout=2 * timeout_s,
                notifications_min_severity="OFF",
            )
        except (ConfigurationError, ValueError):
            # The cause and the address are left out: they may hold the password.
            raise _malformed() from None
        return cls(driver, database=database)

    async def close(self) -> None:
        """Every connection is closed."""
        await self._driver.close()

    async def cursor(self, stream: StreamId) -> Cursor:
        """How far the stream is projected."""
        rows = await self._read(READ_CURSOR, {"id": cursor_id(stream)}, doing=f"read {stream}'s cursor")
        return Cursor(rows[0]["v"], rows[0]["h"]) if rows else Cursor(0, GENESIS_HASH)

    async def apply(
        self, stream: StreamId, changes: Sequence[GraphChange], *, expected: Cursor, reached: Cursor
    ) -> bool:
        """The changes and `reached` are stored in one transaction if the cursor still is `expected`."""
        statements = tuple(write_statements(fold(changes)))
        move = {
            "id": cursor_id(stream),
            "stream": str(stream),
            "projection": PROJECTION_VERSION,
            "genesis": GENESIS_HASH,
            "from_v": expected.version,
            "from_h": expected.hash,
            "to_v": reached.version,
            "to_h": reached.hash,
        }

        async def work(tx: AsyncManagedTransaction) -> bool:
            # Decided by the row of this statement: a batch without graph effects has no other one.
            if await (await tx.run(MOVE_CURSOR, move)).single() is None:
                return False
            for text, rows in statements:
                await (await tx.run(_trusted(text), rows=rows)).consume()
            return True

        await self._prepare()
        with translated(f"apply {stream} up to {reached.version}"):
            return await self._write(work)

    async def _write(self, work: Callable[[AsyncManagedTransaction], Awaitable[bool]]) -> bool:
        """What `work` returned. A writer that merged the same new node first costs a repetition, not an error."""
        attempt = 1
        while True:
            try:
                async with self._session() as session:
                    return await session.execute_write(work)
            except ConstraintError:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_S * 2**attempt)
                attempt += 1

    async def query(self, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of a named query (GR-80..GR-95)."""
        plan = plan_query(name, params)
        await self._require(plan)
        rows: list[dict[str, Any]] = []
        for statement in plan.statements:
            rows += await self._read(cypher_of(statement), plan.params, doing=f"answer {name}")
        return plan.answer(rows)

    async def _require(self, plan: QueryPlan) -> None:
        """NotFound unless the node that the query is about exists."""
        if plan.subject is None:
            return
        label, node_id = plan.subject
        text = f"MATCH (n:{label} {{id: $id}}) RETURN n.id AS id"
        if not await self._read(text, {"id": node_id}, doing=f"find {node_id}"):
            raise plan.not_found()

    async def digest(self) -> str:
        """64 hex digits over all nodes and relationships without cursors."""
        nodes = await self._read(ALL_NODES, {}, doing="read its nodes")
        relations = await self._read(ALL_RELATIONS, {}, doing="read its relationships")
        ends = ("type", "from_label", "from_id", "to_label", "to_id", "props")
        return graph_digest(
            [(n["label"], n["props"]) for n in nodes],
            [cast(tuple[str, str, str, str, str, dict[str, Any]], tuple(r[e] for e in ends)) for r in relations],
        )

    async def _read(self, text: str, params: dict[str, Any], *, doing: str) -> list[dict[str, Any]]:
        async def work(tx: AsyncManagedTransaction) -> list[dict[str, Any]]:
            return await (await tx.run(_trusted(text), params)).data()

        await self._prepare()
        with translated(doing):
            async with self._session() as session:
                return await session.execute_read(work)

    def _session(self) -> AsyncSession:
        return self._driver.session(database=self._database)  # pyright: ignore[reportUnknownMemberType]

    async def _prepare(self) -> None:
        """Every constraint and index of the schema exists (GR-33)."""
        if self._is_prepared:
            return
        async with self._preparing:
            if self._is_prepared:
                return
            with translated("create its constraints and indexes"):
                await self._create_schema()
            self._is_prepared = True

    async def _create_schema(self) -> None:
        wanted = schema_statements()
        async with self._session() as session:
            existing = await self._names(session)
            for name in wanted.keys() - existing:
                await _run_repeatedly(session, wanted[name])
            missing = sorted(wanted.keys() - await self._names(session))
        if missing:
            raise ConfigError(
                f"the graph has no {', '.join(missing)} although they were created: give its user the right to create "
                "constraints and indexes",
                missing=missing,
            )

    async def _names(self, session: AsyncSession) -> set[str]:
        found: set[str] = set()
        for what in ("CONSTRAINTS", "INDEXES"):
            result = await session.run(_trusted(f"SHOW {what} YIELD name"))
            found |= {row["name"] async for row in result}
        return found


async def _run_repeatedly(session: AsyncSession, text: str) -> None:
    """The statement was carried out; another process that creates the same gives way to it or it to that one."""
    for attempt in range(_ATTEMPTS):
        try:
            await (await session.run(_trusted(text))).consume()
            return
        except (TransientError, ConstraintError):
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(_PAUSE_S * 2**attempt)


def _malformed() -> ConfigError:
    return ConfigError("the address of the graph is malformed: write bolt://host:port or neo4j://host:port")


def _trusted(text: str) -> LiteralString:
    """Statements hold names of the schema only; values travel as parameters (GR-98)."""
    return cast(LiteralString, text)
