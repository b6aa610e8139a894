"""From the driver's exceptions to ours: one table, one context."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from redis import exceptions as driver

from fleet.errors import FleetError, StoreFull, StoreUnavailable

__all__ = ["is_reply_lost", "translated"]

# Most specific first. What is not named here is found by its base class.
_TABLE: tuple[tuple[type[Exception], type[FleetError], str], ...] = (
    (driver.OutOfMemoryError, StoreFull, "give the store more memory"),
    (driver.AuthenticationError, StoreUnavailable, "correct the password in the store's address"),
    (driver.AuthenticationWrongNumberOfArgsError, StoreUnavailable, "correct user and password in the store's address"),
    (driver.AuthorizationError, StoreUnavailable, "give this user the right to all keys of fleet:*"),
    (driver.NoPermissionError, StoreUnavailable, "give this user the right to all keys of fleet:*"),
    (driver.ExternalAuthProviderError, StoreUnavailable, "mend the provider of its credentials"),
    (driver.BusyLoadingError, StoreUnavailable, "wait until it has loaded its data"),
    (driver.MaxConnectionsError, StoreUnavailable, "wait, or raise its number of connections"),
    (driver.ReadOnlyError, StoreUnavailable, "name the primary, not a replica, in the store's address"),
    (driver.ClusterError, StoreUnavailable, "wait until the cluster is up"),
    (driver.AskError, StoreUnavailable, "name a single server, not a node of a cluster"),
    (driver.TryAgainError, StoreUnavailable, "wait until the cluster is up"),
    (driver.ClusterCrossSlotError, StoreUnavailable, "name a single server, not a node of a cluster"),
    (driver.InvalidPipelineStack, FleetError, "report this as a defect"),
    (driver.RedisClusterException, StoreUnavailable, "name a single server, not a node of a cluster"),
    (driver.ModuleError, StoreUnavailable, "use a server of Redis 7.2 or later"),
    (driver.NoScriptError, StoreUnavailable, "repeat: its scripts were flushed twice"),
    (driver.ExecAbortError, StoreUnavailable, "read the server's log, then repeat"),
    (driver.NoSuchFieldsetError, FleetError, "report this as a defect"),
    (driver.ResponseError, StoreUnavailable, "read the server's log, then repeat"),
    (driver.InvalidResponse, StoreUnavailable, "check that the address is that of a Redis server"),
    (driver.ConnectionError, StoreUnavailable, "check that it runs and that its address is right"),
    (driver.TimeoutError, StoreUnavailable, "check that it runs and is not overloaded"),
    (driver.DataError, FleetError, "report this as a defect"),
    (driver.PubSubError, FleetError, "report this as a defect"),
    (driver.WatchError, FleetError, "report this as a defect"),
    (driver.LockError, FleetError, "report this as a defect"),
    (driver.IncorrectPolicyType, FleetError, "report this as a defect"),
    (driver.ChildDeadlockedError, FleetError, "report this as a defect"),
    (driver.RedisError, StoreUnavailable, "read the server's log, then repeat"),
    (OSError, StoreUnavailable, "check that it runs and that its address is right"),
)

_CAUGHT: tuple[type[Exception], ...] = tuple(mapped for mapped, _, _ in _TABLE)

# Subclasses of the driver's ConnectionError that are answers all the same: the command was not carried out.
_REFUSALS = (
    driver.ResponseError,
    driver.BusyLoadingError,
    driver.AuthenticationError,
    driver.AuthorizationError,
    driver.MaxConnectionsError,
    driver.DataError,
)


@contextmanager
def translated(doing: str) -> Generator[None]:
    """A driver's exception leaves as one of ours that says what was being done, e.g. `append to story:st-1`."""
    try:
        yield
    except _CAUGHT as error:
        raise _translate(error, doing) from error


def _translate(error: Exception, doing: str) -> FleetError:
    if _is_full(error):
        return StoreFull(f"Redis has no room to {doing}: {error}; free memory and disk space, then repeat")
    cls, mend = next((cls, mend) for mapped, cls, mend in _TABLE if isinstance(error, mapped))
    return cls(f"Redis cannot {doing}: {type(error).__name__}: {error}; {mend}")


def _is_full(error: Exception) -> bool:
    """The server writes no more: out of memory, or its disk refuses (MISCONF)."""
    if isinstance(error, driver.OutOfMemoryError):
        return True
    return isinstance(error, driver.ResponseError) and str(error).startswith(("MISCONF", "OOM "))


def is_reply_lost(error: BaseException) -> bool:
    """Whether a command that was sent may have been carried out although this came back instead of its reply."""
    return isinstance(error, driver.RedisError | OSError) and not isinstance(error, _REFUSALS)
