"""How the adapters talk to a server: once, several commands together, or again until the answer is definite."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import Any, TypeAlias, TypeVar, cast

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError

from fleet.kernel.errors import CommitUnknown, ConfigError, FleetError, StoreFull, StoreUnavailable
from fleet.log.port import Answer

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
    # A log store that cannot write its file ends by itself.
    (driver.ConnectionError, StoreUnavailable, "check that it runs, that its disk has room, and its address"),
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


def encode_answer(answer: Answer) -> str:
    """The answer as JSON."""
    return json.dumps(asdict(answer))


def decode_answer(stored: bytes) -> Answer:
    """The answer of such JSON."""
    return Answer(**json.loads(stored))


T = TypeVar("T")
RedisClient: TypeAlias = Redis
"""What `connect_redis` returns, for those above that only hand it on."""
Word: TypeAlias = str | bytes | int
Send: TypeAlias = Callable[..., Awaitable[Any]]
"""Sends one command, given as words, over one connection and returns its raw reply."""

_CONNECTIONS = 10_000
"""Most connections of one client, as many as a server takes. Who waits for an event or an answer holds one, and the
driver's own limit of 100 would refuse the hundred and first reader of a front."""
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


def connect_redis(url: str, *, timeout_s: float = 5.0) -> Redis:
    """A client of the server at `url` (redis://, rediss:// or unix://). It connects at its first call; close it with
    `aclose()`.

    The driver's own retries are off: what may be repeated is decided here, call by call.

    Args:
        timeout_s: longest wait for a connection and for each reply.

    Raises:
        ConfigError: `url` has no form that the driver knows.
    """
    try:
        return Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            protocol=2,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
            max_connections=_CONNECTIONS,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
        )
    except ValueError:
        # The cause and the address are left out: they may hold the password.
        raise ConfigError(
            "the address of Redis is malformed: write redis://[:password@]host:port[/db] or unix://[:password@]/path"
        ) from None


async def call(client: Redis, *words: Word, doing: str) -> Any:
    """The raw reply to one command, sent once. Raises StoreUnavailable or StoreFull."""
    with translated(doing):
        async with _connection(client) as connection:
            return await _sender(connection)(*words)


async def call_together(client: Redis, commands: Sequence[Sequence[Word]], *, doing: str) -> list[Any]:
    """The raw replies to several commands in one round trip; not a transaction. Raises like `call`."""
    with translated(doing):
        async with _connection(client) as connection:
            async with _undivided(connection):
                await connection.send_packed_command(connection.pack_commands(commands))
            try:
                return [await connection.read_response() for _ in commands]
            except ResponseError:
                # The replies that follow must not be taken for those of the next command.
                await connection.disconnect()
                raise


async def repeat(client: Redis, attempt: Callable[[Send], Awaitable[T]], *, doing: str, margin_s: float) -> T:
    """What `attempt` returns, called again after each lost reply; only for commands that may be carried out twice.

    Raises:
        StoreUnavailable: the server could not be reached, or it refused the first attempt; nothing was written.
        StoreFull: the server had no room at the first attempt; nothing was written.
        CommitUnknown: a reply was lost, and none came within `margin_s` (EV-18).
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + margin_s
    pause_s = _FIRST_PAUSE_S
    lost: _ReplyLost | None = None
    while True:
        try:
            return await _attempt(client, attempt, doing=doing, deadline=deadline)
        except _ReplyLost as error:
            lost = error
        except FleetError:
            # Once a reply was lost, a refusal or a server that is down says nothing about the attempt before it.
            if lost is None:
                raise
        if loop.time() + pause_s >= deadline:
            raise CommitUnknown(
                f"the reply was lost when it was time to {doing}, and none came in {margin_s} s: "
                "repeat with the same command id"
            ) from lost
        # By chance, so that those who lost the same server do not come back at the same moment.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class _ReplyLost(Exception):
    """A command was sent, and its reply did not come."""


async def _attempt(client: Redis, attempt: Callable[[Send], Awaitable[T]], *, doing: str, deadline: float) -> T:
    is_connected = False
    with translated(doing):
        try:
            async with asyncio.timeout_at(deadline), _connection(client) as connection:
                is_connected = True
                return await attempt(_sender(connection))
        except Exception as error:
            if is_connected and is_reply_lost(error):
                raise _ReplyLost(f"{type(error).__name__}: {error}") from error
            raise


@asynccontextmanager
async def _connection(client: Redis) -> AsyncGenerator[AbstractConnection]:
    """A connection that stands. An error before it is handed out means that nothing was sent."""
    pool, connection = client.connection_pool, None
    try:
        with _cancellation_kept():
            connection = await pool.get_connection()
        with _cancellation_kept():
            yield connection
    finally:
        if connection is not None:
            await pool.release(connection)


@asynccontextmanager
async def _undivided(connection: AbstractConnection) -> AsyncGenerator[None]:
    """What is sent inside has a reply that this task waits for; a cancelled one leaves no reply behind."""
    try:
        with _cancellation_kept():
            yield
    except asyncio.CancelledError:
        await connection.disconnect(nowait=True)
        raise


@contextmanager
def _cancellation_kept() -> Generator[None]:
    """A task that is cancelled inside is cancelled afterwards.

    The driver sends through `asyncio.wait_for`, which in Python 3.11 drops a cancellation that comes in the same turn
    of the loop as the end of what it waits for: the task would run on, and whoever cancelled it would wait for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except asyncio.CancelledError:
        raise
    except Exception as error:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task and task.cancelling() > before:
        raise asyncio.CancelledError


def _sender(connection: AbstractConnection) -> Send:
    async def send(*words: Word) -> Any:
        async with _undivided(connection):
            await connection.send_command(*words)
        return cast(Any, await connection.read_response())

    return send


def pairs(flat: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """The fields of an entry, which a raw reply lists as name, value, name, value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Script:
    """One script. It runs whole or, when a check of its own refuses, without any write."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, send: Send, keys: Sequence[str], words: Sequence[Word]) -> Any:
        """The script's reply; a server whose scripts were flushed gets it anew."""
        try:
            return await send("EVALSHA", self._sha, len(keys), *keys, *words)
        except NoScriptError:
            return await send("EVAL", self._text, len(keys), *keys, *words)
