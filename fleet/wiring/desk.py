"""What commands and the HTTP front ask of a fleet; `open_` closes its connections at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fleet.adapters.clock import SystemClock
from fleet.adapters.redis import (
    RedisClient,
    RedisDeadLetters,
    RedisEventLog,
    RedisFeed,
    RedisInbox,
    RedisLeaseStore,
    connect_redis,
)
from fleet.ports import DeadLetters
from fleet.services.planning_desk import PlanningDesk
from fleet.services.report import ReportService
from fleet.story import FsmConfig
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores import make_blobs, make_graph

if TYPE_CHECKING:
    from fleet.services.archive import Archivist

__all__ = ["make_desk", "open_desk", "open_reports", "open_dead_letters", "open_archivist"]


def make_desk(endpoints: Endpoints) -> PlanningDesk:
    """What the gateway uses for as long as it lives."""
    return _desk(endpoints, connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url))


def _desk(endpoints: Endpoints, log: RedisClient, cache: RedisClient) -> PlanningDesk:
    return PlanningDesk(
        log=RedisEventLog(log),
        inbox=RedisInbox(log, cache),
        feed=RedisFeed(log),
        clock=SystemClock(),
        fsm=endpoints.files.load("fsm.yaml", FsmConfig),
    )


@asynccontextmanager
async def open_desk(endpoints: Endpoints) -> AsyncGenerator[PlanningDesk]:
    """The desk for one command; its connections are closed at the end."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    try:
        yield _desk(endpoints, log, cache)
    finally:
        await log.aclose()
        await cache.aclose()


@asynccontextmanager
async def open_reports(endpoints: Endpoints) -> AsyncGenerator[ReportService]:
    """Reports from the log alone, for one command; its connection is closed at the end."""
    log = connect_redis(endpoints.redis_url)
    try:
        yield ReportService(RedisEventLog(log), make_blobs(endpoints, log))
    finally:
        await log.aclose()


@asynccontextmanager
async def open_dead_letters(endpoints: Endpoints) -> AsyncGenerator[DeadLetters]:
    """What was set aside, for one command; its connections are closed at the end."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    try:
        yield RedisDeadLetters(log, cache)
    finally:
        await log.aclose()
        await cache.aclose()


@asynccontextmanager
async def open_archivist(endpoints: Endpoints, *, owner: str) -> AsyncGenerator[Archivist]:
    """What archives stories, for one command; its connections are closed at the end."""
    from fleet.services.archive import Archivist

    redis, graph = connect_redis(endpoints.redis_url), make_graph(endpoints)
    try:
        yield Archivist(
            log=RedisEventLog(redis),
            leases=RedisLeaseStore(redis),
            blobs=make_blobs(endpoints, redis),
            clock=SystemClock(),
            owner=owner,
            graph=graph,
        )
    finally:
        await redis.aclose()
        await graph.close()
