"""Redis by its driver: one command of the closed lists (RT-60)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import redis.asyncio
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.retry import Retry

from fleet.extensions.operations.arguments import lines_of
from fleet.extensions.operations.database import STATEMENT_S, Rejected, Rows, as_json_value
from fleet.kernel.errors import ToolFailed, ToolTimeout
from fleet.policy.commands.redis import classify_redis
from fleet.policy.commands.sql import ClassifiedStatement
from fleet.policy.rules.calls import ToolCall

_CONNECT_S = 5.0


class RedisDatabase:
    """Connects once per command, and sends it once: a command whose reply was lost is never repeated."""

    def classify(self, call: ToolCall) -> ClassifiedStatement:
        """By the name of the command."""
        return classify_redis(lines_of(call, "command"))

    async def read(self, url: str, call: ToolCall) -> Rows:
        """The reply; its parts are rows of one column."""
        return await self._sent(url, lines_of(call, "command"), is_reading=True)

    async def write(self, url: str, call: ToolCall) -> Rows:
        """The reply."""
        return await self._sent(url, lines_of(call, "command"), is_reading=False)

    async def _sent(self, url: str, command: tuple[str, ...], *, is_reading: bool) -> Rows:
        client = _client(url)
        try:
            await _answering(client)
            async with asyncio.timeout(STATEMENT_S):
                reply = await client.execute_command(*command)
        except (TimeoutError, driver.TimeoutError) as error:
            raise ToolTimeout("Redis did not answer in time; whether it acted is not known") from error
        except driver.ResponseError as error:
            raise Rejected("statement_failed", str(error)) from error
        except (driver.RedisError, OSError) as error:
            kind = type(error).__name__
            if is_reading:
                raise ToolFailed(f"Redis broke the exchange off ({kind}); try again") from error
            raise ToolTimeout(f"Redis broke the exchange off ({kind}); whether it acted is not known") from error
        finally:
            await client.aclose()
        return _rows(reply)


def _client(url: str) -> Any:
    try:
        return cast(Any, redis.asyncio.Redis).from_url(
            url, socket_connect_timeout=_CONNECT_S, socket_timeout=STATEMENT_S, retry=Retry(NoBackoff(), 0)
        )
    except (ValueError, driver.RedisError) as error:
        kind = type(error).__name__
    raise ToolFailed(f"the address of this Redis is wrong ({kind}); correct it in targets.databases")


async def _answering(client: Any) -> None:
    """Return when it answers us; what fails before this point was not carried out."""
    try:
        await client.ping()
    # The message of the driver may hold the address, and with it the password.
    except (driver.RedisError, OSError, TimeoutError) as error:
        kind = type(error).__name__
    else:
        return
    raise ToolFailed(f"Redis cannot be connected to ({kind}); check the database's address and account")


def _rows(reply: object) -> Rows:
    found = Rows(columns=("reply",))
    match reply:
        case dict():
            parts: list[object] = [[k, v] for k, v in cast(dict[object, object], reply).items()]
        case list() | set() | tuple():
            parts = list(cast(list[object], reply))
        case _:
            parts = [reply]
    for part in parts:
        if not found.add((as_json_value(part),)):
            break
    return found
