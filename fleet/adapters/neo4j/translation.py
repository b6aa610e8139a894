"""From the driver's exceptions to ours: one table, one context."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from neo4j import exceptions as driver

from fleet.errors import FleetError, StoreUnavailable

__all__ = ["translated"]

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
