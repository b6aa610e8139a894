"""The board of model figures in Redis: one key for each reporter on the cache instance, which ends by itself."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter
from redis.asyncio import Redis

from fleet.log.redis.connection import call, call_together
from fleet.log.redis.keys import model_board_key
from fleet.models.figures import ModelFigures

_ROWS = TypeAdapter(tuple[ModelFigures, ...])
_INDEX_S = 86_400


class RedisModelBoard:
    """Implements the port ModelBoard.

    Args:
        client: of the cache instance.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def post(self, reporter: str, figures: Sequence[ModelFigures], *, ttl_s: int) -> None:
        """This is what the reporter says, for `ttl_s` seconds."""
        commands = (
            ("SET", model_board_key(reporter), _ROWS.dump_json(tuple(figures)), "EX", ttl_s),
            ("SADD", model_board_key(), reporter),
            ("EXPIRE", model_board_key(), _INDEX_S),
        )
        await call_together(self._client, commands, doing="post model figures")

    async def read(self) -> list[ModelFigures]:
        """What all reporters said that is still good."""
        doing = "read model figures"
        names = sorted(name.decode() for name in await call(self._client, "SMEMBERS", model_board_key(), doing=doing))
        if not names:
            return []
        said = await call(self._client, "MGET", *map(model_board_key, names), doing=doing)
        if gone := [name for name, text in zip(names, said, strict=True) if text is None]:
            await call(self._client, "SREM", model_board_key(), *gone, doing=doing)
        return [row for text in said if text is not None for row in _ROWS.validate_json(text)]
