"""Transactions over Bolt: repeated where that is safe, in a database that has its constraints and indexes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, LiteralString, TypeVar, cast
from urllib.parse import urlsplit

from neo4j import AsyncDriver, AsyncGraphDatabase, AsyncManagedTransaction, AsyncSession
from neo4j import exceptions as driver
from neo4j.exceptions import ConfigurationError, ConstraintError, TransientError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from fleet.graph.neo4j.statements import schema_statements
from fleet.kernel.errors import ConfigError, FleetError, StoreUnavailable

# Most specific first. What is not named here is found by its base class.
_TABLE: tuple[tuple[type[Exception], type[FleetError], str], ...] = (
    (driver.TokenExpired, StoreUnavailable, "give it a new token"),
    (driver.AuthError, StoreUnavailable, "correct user and password of the graph"),
    (driver.Forbidden, StoreUnavailable, "give this user the right to read, write and index the database"),
    # Two writers merged the same new node, or the optimistic store gave way: the batch comes again.
    (driver.ConstraintError, StoreUnavailable, "repeat: another writer was first"),
    (driver.CypherSyntaxError, FleetError, "report this as a defect"),
    (driver.CypherTypeError, FleetError, "report this as a defect"),
    (driver.ClientError, StoreUnavailable, "check that the named database exists, then read the server's log"),
    (driver.DatabaseUnavailable, StoreUnavailable, "wait until the database is up"),
    (driver.NotALeader, StoreUnavailable, "wait until the cluster has a leader"),
    (driver.ForbiddenOnReadOnlyDatabase, StoreUnavailable, "make the database writable"),
    (driver.TransientError, StoreUnavailable, "repeat"),
    (driver.DatabaseError, StoreUnavailable, "read the server's log, then repeat"),
    (driver.Neo4jError, StoreUnavailable, "read the server's log, then repeat"),
    (driver.ConnectionAcquisitionTimeoutError, StoreUnavailable, "wait, or raise the size of the pool"),
    (driver.ConnectionPoolError, StoreUnavailable, "wait, or raise the size of the pool"),
    # The commit may or may not have happened; the cursor decides when the batch comes again.
    (driver.IncompleteCommit, StoreUnavailable, "repeat: the cursor tells whether it was stored"),
    (driver.ServiceUnavailable, StoreUnavailable, "check that it runs and that its address is right"),
    (driver.SessionExpired, StoreUnavailable, "repeat"),
    (driver.UnsupportedServerProduct, StoreUnavailable, "check that the address is that of a Neo4j 5 server"),
    (driver.ConfigurationError, StoreUnavailable, "correct the address of the graph: bolt://host:port"),
    (driver.BrokenRecordError, FleetError, "report this as a defect"),
    (driver.ResultError, FleetError, "report this as a defect"),
    (driver.TransactionError, FleetError, "report this as a defect"),
    (driver.SessionError, FleetError, "report this as a defect"),
    (driver.DriverError, StoreUnavailable, "check that it runs and that its address is right"),
    (driver.GqlError, StoreUnavailable, "read the server's log, then repeat"),
    (OSError, StoreUnavailable, "check that it runs and that its address is right"),
)

_CAUGHT: tuple[type[Exception], ...] = tuple(mapped for mapped, _, _ in _TABLE)


@contextmanager
def translated(doing: str) -> Generator[None]:
    """A driver's exception leaves as one of ours that says what was being done, e.g. `apply story:st-1`."""
    try:
        yield
    except _CAUGHT as error:
        cls, mend = next((cls, mend) for mapped, cls, mend in _TABLE if isinstance(error, mapped))
        raise cls(f"the graph cannot {doing}: {type(error).__name__}: {error}; {mend}") from error


T = TypeVar("T")
Row = dict[str, Any]
Work = Callable[[AsyncManagedTransaction], Awaitable[T]]
"""What is done in one transaction; it may be done more than once."""

# The driver's HTTP form is a preview without managed transactions.
_SCHEMES = frozenset({"bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"})
_ATTEMPTS = 5
_PAUSE_S = 0.05


class Bolt:
    """One database. Every method translates the driver's exceptions; `doing` says what they broke into.

    Args:
        driver: `close` closes it.
        database: name of the database.
    """

    def __init__(self, driver: AsyncDriver, *, database: str) -> None:
        self._driver = driver
        self._database = database
        # Held while a schema is created, so that it is created once for each object.
        self._preparing = asyncio.Lock()
        self._prepared: set[str] = set()

    async def close(self) -> None:
        """Every connection is closed."""
        await self._driver.close()

    async def read(self, work: Work[T], *, doing: str) -> T:
        """What `work` returned in a transaction that only reads."""
        with translated(doing):
            async with self._session() as session:
                return await session.execute_read(work)

    async def write(self, work: Work[T], *, doing: str) -> T:
        """What `work` returned. A writer that merged the same new node first costs a repetition, not an error."""

        async def once() -> T:
            async with self._session() as session:
                return await session.execute_write(work)

        with translated(doing):
            return await _again(ConstraintError)(once)

    async def rows(self, text: str, params: Row, *, doing: str) -> list[Row]:
        """The rows of one statement that only reads."""
        return await self.read(lambda tx: rows_of(tx, text, params), doing=doing)

    async def prepare(self, suffix: str) -> None:
        """Every constraint and index of this place exists (GR-33). ConfigError when they cannot be created."""
        if suffix in self._prepared:
            return
        async with self._preparing:
            if suffix in self._prepared:
                return
            with translated("create its constraints and indexes"):
                await self._create_schema(schema_statements(suffix))
            self._prepared.add(suffix)

    async def _create_schema(self, statements: dict[str, str]) -> None:
        async with self._session() as session:
            missing = statements.keys() - await self._names(session)
            # A server that was killed while it created them may list one and lose it again when it recovers.
            for attempt in range(_ATTEMPTS):
                for name in missing:
                    await _run_repeatedly(session, statements[name])
                missing = sorted(statements.keys() - await self._names(session))
                if not missing:
                    return
                await asyncio.sleep(_PAUSE_S * 2**attempt)
        if missing:
            raise ConfigError(
                f"the graph has no {', '.join(missing)} although they were created: give its user the right to create "
                "constraints and indexes",
                missing=missing,
            )

    async def _names(self, session: AsyncSession) -> set[str]:
        names: set[str] = set()
        for what in ("CONSTRAINTS", "INDEXES"):
            result = await session.run(trusted(f"SHOW {what} YIELD name"))
            names |= {row["name"] async for row in result}
        return names

    def _session(self) -> AsyncSession:
        return self._driver.session(database=self._database)  # pyright: ignore[reportUnknownMemberType]


def connect_bolt(uri: str, *, user: str, password: str, database: str, timeout_s: float) -> Bolt:
    """A database at this address, connected at its first call; ConfigError for an address of no known form."""
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
    return Bolt(driver, database=database)


async def rows_of(tx: AsyncManagedTransaction, text: str, params: Row) -> list[Row]:
    """The rows of one statement within a transaction."""
    return await (await tx.run(trusted(text), params)).data()


async def _run_repeatedly(session: AsyncSession, text: str) -> None:
    """The statement was carried out; another process that creates the same gives way to it or it to that one."""

    async def once() -> None:
        await (await session.run(trusted(text))).consume()

    await _again(TransientError, ConstraintError)(once)


def _again(*reasons: type[Exception]) -> AsyncRetrying:
    # By chance, so that two who hindered each other do not come back at the same moment.
    return AsyncRetrying(
        retry=retry_if_exception_type(reasons),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(multiplier=_PAUSE_S) + wait_random(0, _PAUSE_S),
        reraise=True,
    )


def _malformed() -> ConfigError:
    return ConfigError("the address of the graph is malformed: write bolt://host:port or neo4j://host:port")


def trusted(text: str) -> LiteralString:
    """Statements hold names of the schema only; values travel as parameters (GR-98)."""
    return cast(LiteralString, text)
