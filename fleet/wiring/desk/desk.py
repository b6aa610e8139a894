"""What commands and the HTTP front ask of a fleet; `open_` closes its connections at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fleet.desk.planning import PlanningDesk
from fleet.desk.platform import PlatformDesk
from fleet.graph.port import DecisionGraph
from fleet.kernel.clock import SystemClock
from fleet.log.port import DeadLetters, Feed, HasBacklog
from fleet.log.redis.connection import RedisClient, connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeed, RedisFeedGroup
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog
from fleet.log.service import SharedFeed
from fleet.owner.definitions import KeptDefinitions
from fleet.owner.platform_view import PlatformView
from fleet.story.lifecycle import FsmConfig
from fleet.wiring.endpoints import Endpoints, load_definitions, load_principals
from fleet.wiring.stores.stores import make_blobs, make_graph

# What one desk alone needs is imported where it is made: a command opens one of them.
if TYPE_CHECKING:
    from fleet.desk.archive import Archivist
    from fleet.desk.audit import AuditDesk
    from fleet.desk.budgets import BudgetDesk
    from fleet.desk.coach import CoachDesk
    from fleet.desk.decisions import DecisionDesk
    from fleet.desk.gates import GateDesk
    from fleet.desk.stories import StoryDesk
    from fleet.desk.tools.desk import ToolDesk
    from fleet.report.service.reports import ReportService


def make_desk(endpoints: Endpoints) -> PlanningDesk:
    """What the gateway uses for as long as it lives."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    return _desk(endpoints, log, cache, feed=SharedFeed(RedisFeed(log)))


def make_tool_desk(endpoints: Endpoints) -> ToolDesk:
    """Tool sessions, calls and runs for a front, for as long as it lives."""
    from fleet.desk.tools.desk import ToolDesk
    from fleet.remote.resolver import ActorResolver
    from fleet.tools.redis import RedisToolSessions
    from fleet.wiring.sandbox.plugins import active_policy
    from fleet.wiring.sandbox.spread import make_sandbox

    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    return ToolDesk(
        planning=_desk(endpoints, log, cache),
        sessions=RedisToolSessions(cache),
        blobs=make_blobs(endpoints, log),
        sandbox=make_sandbox(endpoints, ActorResolver()),
        clock=SystemClock(),
        policy=active_policy(endpoints.files),
        roles_of=load_principals(endpoints.principals_file).roles_of,
    )


def make_platform_desk(endpoints: Endpoints) -> PlatformDesk:
    """The fleet as a whole for a front, for as long as it lives."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    return _platform_desk(log, cache)


@asynccontextmanager
async def open_platform_desk(endpoints: Endpoints) -> AsyncGenerator[PlatformDesk]:
    """The fleet as a whole for one command; its connections are closed at the end."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    try:
        yield _platform_desk(log, cache)
    finally:
        await log.aclose()
        await cache.aclose()


def _platform_desk(log: RedisClient, cache: RedisClient) -> PlatformDesk:
    view = PlatformView(RedisEventLog(log), RedisFeed(log))
    return PlatformDesk(view=view, inbox=RedisInbox(log, cache), clock=SystemClock())


def make_consumers(endpoints: Endpoints) -> dict[str, HasBacklog]:
    """Groups of consumers by name, for a front that tells what waits for them."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    return {"council": RedisInbox(log, cache), "projector": RedisFeedGroup(log)}


def make_story_desk(endpoints: Endpoints, planning: PlanningDesk) -> StoryDesk:
    """Reads of stories for a front, for as long as it lives."""
    from fleet.desk.stories import StoryDesk
    from fleet.report.service.reports import ReportService
    from fleet.wiring.desk.contexts import make_context_service

    log, blobs, clock = RedisEventLog(connect_redis(endpoints.redis_url)), make_blobs(endpoints), SystemClock()
    rules = load_definitions(endpoints.files)
    return StoryDesk(
        planning=planning,
        blobs=blobs,
        packs=make_context_service(endpoints),
        reports=ReportService(log, blobs),
        rules=rules,
        context=rules.context,
        clock=clock,
        digests=endpoints.files.digests(),
    )


def make_gate_desk(endpoints: Endpoints, planning: PlanningDesk) -> GateDesk:
    """The gates inbox for a front, for as long as it lives."""
    from fleet.desk.gates import GateDesk

    return GateDesk(planning=planning, blobs=make_blobs(endpoints))


def make_decision_desk(planning: PlanningDesk, graph: DecisionGraph) -> DecisionDesk:
    """Decisions and what hangs on them for a front, for as long as it lives."""
    from fleet.desk.decisions import DecisionDesk

    return DecisionDesk(planning=planning, graph=graph, clock=SystemClock())


def make_dead_letters(endpoints: Endpoints) -> DeadLetters:
    """Dead letters for a front, for as long as it lives."""
    return RedisDeadLetters(connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url))


def make_coach_desk(endpoints: Endpoints) -> CoachDesk:
    """The story coach for a front."""
    from fleet.desk.coach import CoachDesk
    from fleet.planning.coach_config import CoachConfig
    from fleet.workspace.levels import RigorConfig

    files = endpoints.files
    return CoachDesk(files.load("coach.yaml", CoachConfig), files.load("rigor.yaml", RigorConfig))


def make_audit_desk(endpoints: Endpoints) -> AuditDesk:
    """The audit for a front, for as long as it lives."""
    from fleet.desk.audit import AuditDesk
    from fleet.wiring.audit import open_auditor

    log = RedisEventLog(connect_redis(endpoints.redis_url))
    return AuditDesk(log=log, clock=SystemClock(), auditor=partial(open_auditor, endpoints))


def _desk(endpoints: Endpoints, log: RedisClient, cache: RedisClient, *, feed: Feed | None = None) -> PlanningDesk:
    files = endpoints.files

    def read(kept: Mapping[str, bytes]) -> FsmConfig:
        return replace(files, kept=kept).load("fsm.yaml", FsmConfig)

    definitions = KeptDefinitions({"fsm.yaml": files.read("fsm.yaml")}, read, make_blobs(endpoints, log))
    return PlanningDesk(
        log=RedisEventLog(log),
        inbox=RedisInbox(log, cache),
        feed=feed or RedisFeed(log),
        clock=SystemClock(),
        fsm=definitions.present,
        definitions=definitions,
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


def make_budget_desk(endpoints: Endpoints, client: RedisClient | None = None) -> BudgetDesk:
    """Budgets and usage, for a front, for as long as it lives."""
    from fleet.desk.budgets import BudgetDesk
    from fleet.models.profiles import load_models
    from fleet.owner.spending.redis import RedisDaySpending

    redis = client or connect_redis(endpoints.redis_url)
    return BudgetDesk(
        log=RedisEventLog(redis),
        spending=RedisDaySpending(redis),
        limits=load_models(endpoints.files.document("models.yaml")).budgets,
        clock=SystemClock(),
    )


@asynccontextmanager
async def open_budget_desk(endpoints: Endpoints) -> AsyncGenerator[BudgetDesk]:
    """Budgets and usage, for one command; its connection is closed at the end."""
    redis = connect_redis(endpoints.redis_url)
    try:
        yield make_budget_desk(endpoints, redis)
    finally:
        await redis.aclose()


@asynccontextmanager
async def open_reports(endpoints: Endpoints) -> AsyncGenerator[ReportService]:
    """Reports from the log alone, for one command; its connection is closed at the end."""
    from fleet.report.service.reports import ReportService

    log = connect_redis(endpoints.redis_url)
    try:
        yield ReportService(RedisEventLog(log), make_blobs(endpoints, log))
    finally:
        await log.aclose()


@asynccontextmanager
async def open_gate_desk(endpoints: Endpoints, planning: PlanningDesk) -> AsyncGenerator[GateDesk]:
    """Gates with what their deciders need, for one command; its connection is closed at the end."""
    from fleet.desk.gates import GateDesk

    log = connect_redis(endpoints.redis_url)
    try:
        yield GateDesk(planning=planning, blobs=make_blobs(endpoints, log))
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
    from fleet.desk.archive import Archivist

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
