"""PostgreSQL by the asyncpg driver: one statement in one transaction (RT-60)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg as _asyncpg  # pyright: ignore[reportMissingTypeStubs]

from fleet.extensions.operations.arguments import text_of
from fleet.extensions.operations.database import STATEMENT_S, Rejected, Rows
from fleet.kernel.errors import ToolFailed, ToolTimeout
from fleet.policy.commands.sql import ClassifiedStatement, classify_sql
from fleet.policy.rules.calls import ToolCall

# The driver has no types.
asyncpg: Any = _asyncpg
_Connection = Any


_CONNECT_S = 5.0
_FETCH = 100
_READ_ONLY = "25006"
_CANCELLED = "57014"


class PostgresqlDatabase:
    """Connects once per statement: nothing of a session outlives it.

    Args:
        statement_s: seconds that the server gives to one statement.
    """

    def __init__(self, *, statement_s: float = STATEMENT_S) -> None:
        self._statement_s = statement_s

    def classify(self, call: ToolCall) -> ClassifiedStatement:
        """By the text of the statement."""
        return classify_sql(text_of(call, "statement"))

    async def read(self, url: str, call: ToolCall) -> Rows:
        """In a read-only transaction that is always rolled back."""
        async with self._connected(url, is_reading=True) as connection:
            transaction = connection.transaction(readonly=True)
            await transaction.start()
            try:
                return await _rows(connection, text_of(call, "statement"))
            finally:
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await transaction.rollback()

    async def write(self, url: str, call: ToolCall) -> Rows:
        """In a transaction that is committed once the statement is done."""
        async with self._connected(url, is_reading=False) as connection, connection.transaction():
            return await _rows(connection, text_of(call, "statement"))

    @asynccontextmanager
    async def _connected(self, url: str, *, is_reading: bool) -> AsyncGenerator[_Connection]:
        settings = {
            "application_name": "swe-fleet",
            "statement_timeout": str(int(self._statement_s * 1000)),
            "idle_in_transaction_session_timeout": str(int(self._statement_s * 2000)),
            "default_transaction_read_only": "on" if is_reading else "off",
        }
        connection = await _connect(url, settings)
        try:
            async with asyncio.timeout(self._statement_s + _CONNECT_S):
                yield connection
        except TimeoutError as error:
            raise ToolTimeout("PostgreSQL did not answer in time; whether it acted is not known") from error
        except asyncpg.PostgresConnectionError as error:
            raise _lost(error, is_reading=is_reading) from error
        except asyncpg.PostgresError as error:
            raise _rejected(error) from error
        except (asyncpg.InterfaceError, OSError) as error:
            raise _lost(error, is_reading=is_reading) from error
        finally:
            connection.terminate()


async def _connect(url: str, settings: dict[str, str]) -> _Connection:
    try:
        return await asyncpg.connect(url, timeout=_CONNECT_S, server_settings=settings, statement_cache_size=0)
    # The messages of the driver may hold parts of the address, and with it the password.
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        kind = type(error).__name__
    raise ToolFailed(f"PostgreSQL cannot be connected to ({kind}); check the database's address and account")


async def _rows(connection: _Connection, statement: str) -> Rows:
    # The extended protocol takes one statement only, so the server itself refuses a second one.
    prepared = await connection.prepare(statement)
    found = Rows(columns=tuple(a.name for a in prepared.get_attributes()))
    if not found.columns:
        await prepared.fetch()
        found.status = str(prepared.get_statusmsg() or "")
        return found
    cursor = await prepared.cursor()
    while batch := await cursor.fetch(_FETCH):
        if not all(found.add(tuple(record.values())) for record in batch):
            break
    return found


def _rejected(error: Exception) -> Rejected:
    state = str(getattr(error, "sqlstate", "") or "")
    reason = {_READ_ONLY: "read_only", _CANCELLED: "timeout"}.get(state, "statement_failed")
    return Rejected(reason, f"{state} {error}".strip())


def _lost(error: Exception, *, is_reading: bool) -> ToolFailed | ToolTimeout:
    kind = type(error).__name__
    if is_reading:
        return ToolFailed(f"PostgreSQL broke the connection off ({kind}); try again")
    return ToolTimeout(f"PostgreSQL broke the connection off ({kind}); whether it acted is not known")
