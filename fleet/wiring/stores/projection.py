"""The writer of the decision graph."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fleet.graph.port import DecisionGraph
from fleet.kernel.clock import SystemClock
from fleet.log.redis.connection import RedisClient, connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores.stores import make_blobs, make_graph

if TYPE_CHECKING:
    from fleet.graph.service.projector import Projector


def make_projector(endpoints: Endpoints, *, consumer: str) -> Projector:
    """The service behind actor `projector`; `consumer` tells its processes apart."""
    redis, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    return _projector(endpoints, redis, cache, make_graph(endpoints), consumer=consumer)


@asynccontextmanager
async def open_projector(endpoints: Endpoints) -> AsyncGenerator[Projector]:
    """What the command line asks about the graph; its connections are closed at the end."""
    redis, cache, graph = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url), make_graph(endpoints)
    try:
        yield _projector(endpoints, redis, cache, graph, consumer="command-line")
    finally:
        await redis.aclose()
        await cache.aclose()
        await graph.close()


def _projector(
    endpoints: Endpoints, redis: RedisClient, cache: RedisClient, graph: DecisionGraph, *, consumer: str
) -> Projector:
    from fleet.graph.service.projector import Projector

    return Projector(
        RedisEventLog(redis),
        graph,
        feed=RedisFeedGroup(redis),
        letters=RedisDeadLetters(redis, cache),
        clock=SystemClock(),
        blobs=make_blobs(endpoints, redis),
        consumer=consumer,
    )
