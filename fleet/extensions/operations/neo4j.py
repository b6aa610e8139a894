"""A graph behind Bolt by the official driver: one statement in one transaction (RT-60)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import neo4j
from neo4j import exceptions as driver

from fleet.extensions.operations.arguments import text_of
from fleet.extensions.operations.database import STATEMENT_S, Rejected, Rows
from fleet.kernel.errors import ToolFailed, ToolTimeout
from fleet.policy.commands.cypher import classify_cypher
from fleet.policy.commands.sql import ClassifiedStatement
from fleet.policy.rules.calls import ToolCall

_CONNECT_S = 5.0


class Neo4jDatabase:
    """Connects once per statement. Addresses are `bolt://user:password@host:port[?database=name]`."""

    def classify(self, call: ToolCall) -> ClassifiedStatement:
        """By the text of the statement."""
        return classify_cypher(text_of(call, "statement"))

    async def read(self, url: str, call: ToolCall) -> Rows:
        """In a transaction with read access that is always rolled back."""
        async with _session(url, is_reading=True) as session:
            transaction = await session.begin_transaction(timeout=STATEMENT_S)
            try:
                return await _rows(transaction, text_of(call, "statement"))
            finally:
                with suppress(driver.DriverError, driver.Neo4jError, OSError):
                    await transaction.rollback()

    async def write(self, url: str, call: ToolCall) -> Rows:
        """In a transaction that is committed once the statement is done."""
        async with _session(url, is_reading=False) as session:
            transaction = await session.begin_transaction(timeout=STATEMENT_S)
            try:
                found = await _rows(transaction, text_of(call, "statement"))
                await transaction.commit()
                return found
            finally:
                await transaction.close()


@asynccontextmanager
async def _session(url: str, *, is_reading: bool) -> AsyncGenerator[neo4j.AsyncSession]:
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    access = neo4j.READ_ACCESS if is_reading else neo4j.WRITE_ACCESS
    name = parse_qs(parts.query).get("database", ["neo4j"])[0]
    async with await _connected(address, (user, password) if user else None) as connected:
        try:
            async with (
                asyncio.timeout(STATEMENT_S + _CONNECT_S),
                cast(Any, connected).session(database=name, default_access_mode=access) as session,
            ):
                yield session
        except TimeoutError as error:
            raise ToolTimeout("the graph did not answer in time; whether it acted is not known") from error
        except (driver.ServiceUnavailable, driver.SessionExpired, driver.IncompleteCommit, OSError) as error:
            kind = type(error).__name__
            if is_reading:
                raise ToolFailed(f"the graph broke the exchange off ({kind}); try again") from error
            raise ToolTimeout(f"the graph broke the exchange off ({kind}); whether it acted is not known") from error
        except (driver.Neo4jError, driver.DriverError) as error:
            raise Rejected("statement_failed", str(error)) from error


async def _connected(address: str, auth: tuple[str, str] | None) -> neo4j.AsyncDriver:
    connected: Any = None
    try:
        connected = cast(Any, neo4j.AsyncGraphDatabase).driver(
            address,
            auth=auth,
            connection_timeout=_CONNECT_S,
            connection_acquisition_timeout=_CONNECT_S,
            max_transaction_retry_time=0,
        )
        await connected.verify_connectivity()
    except (driver.Neo4jError, driver.DriverError, OSError, ValueError) as error:
        kind = type(error).__name__
    else:
        return cast(neo4j.AsyncDriver, connected)
    if connected is not None:
        await connected.close()
    raise ToolFailed(f"the graph cannot be connected to ({kind}); check the database's address and account")


async def _rows(transaction: neo4j.AsyncTransaction, statement: str) -> Rows:
    # The driver wants a literal, so that nobody builds statements of parts; ours is a person's or a model's as it is.
    result = await transaction.run(cast(Any, statement))
    found = Rows(columns=tuple(result.keys()))
    async for record in result:
        if not found.add([_plain(value) for value in record.values()]):
            break
    if not found.is_cut:
        counters = (await result.consume()).counters
        found.status = ", ".join(f"{k} {v}" for k, v in sorted(vars(counters).items()) if isinstance(v, int) and v)
    return found


def _plain(value: object) -> object:
    match value:
        case neo4j.graph.Node():
            return {"labels": sorted(value.labels), "properties": dict(value.items())}
        case neo4j.graph.Relationship():
            return {"type": value.type, "properties": dict(value.items())}
        case neo4j.graph.Path():
            return [_plain(part) for part in (*value.nodes, *value.relationships)]
        case list():
            return [_plain(item) for item in cast(list[object], value)]
        case _:
            return value
