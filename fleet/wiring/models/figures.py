"""Where processes tell how models are doing, and where the status page reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fleet.kernel.clock import SystemClock
from fleet.log.redis.connection import connect_redis
from fleet.models.figures import EngineFigures, ModelFigures, sum_figures
from fleet.models.redis import RedisModelBoard
from fleet.models.service.model_reporter import ModelReporter
from fleet.wiring.endpoints import Endpoints


def make_model_reporter(
    endpoints: Endpoints,
    reporter: str,
    *,
    look: Callable[[], Awaitable[Sequence[ModelFigures]]],
    show: Callable[[str, Sequence[ModelFigures]], None],
) -> ModelReporter:
    """What tells the figures of one process; nothing is connected yet."""
    board = RedisModelBoard(connect_redis(endpoints.cache_url))
    return ModelReporter(reporter, look, board, show, SystemClock())


async def read_model_figures(endpoints: Endpoints) -> tuple[EngineFigures, ...]:
    """The engines that somebody called or ran in the last half minute. StoreUnavailable."""
    client = connect_redis(endpoints.cache_url)
    try:
        return sum_figures(await RedisModelBoard(client).read())
    finally:
        await client.aclose()
