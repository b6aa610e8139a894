"""What owns projects, and what people ask of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fleet.desk.planning import PlanningDesk
from fleet.desk.principals import PrincipalRegistry
from fleet.desk.projects import ProjectDesk
from fleet.kernel.clock import Clock
from fleet.log.port import EventLog, Inbox, LeaseStore
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.log import RedisEventLog
from fleet.models.profiles import ModelsConfig
from fleet.owner.platform_view import PlatformView
from fleet.planning.coach_config import CoachConfig
from fleet.planning.planning_config import PlanningConfig
from fleet.projects.discover import Discoverer
from fleet.projects.project_calls import ProjectCalls
from fleet.projects.project_commands import ProjectRules
from fleet.projects.project_owner import ProjectOwner
from fleet.projects.review import Reviewer
from fleet.story.lifecycle import FsmConfig
from fleet.trees.port import BlobStore
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.sandbox.plugins import active_roles
from fleet.wiring.stores.stores import make_blobs


def has_model(models: ModelsConfig, profile: str | None) -> bool:
    """Whether a planner has any engine, when a request names this profile or none."""
    if profile is not None:
        return profile.startswith("recorded:") or profile in models.profiles
    return any(entry.engine_id != "profile" for entry in models.policy_for("planner").chain)


def make_project_owner(
    endpoints: Endpoints,
    *,
    owner: str,
    log: EventLog,
    leases: LeaseStore,
    inbox: Inbox,
    blobs: BlobStore,
    calls: ProjectCalls,
    models: ModelsConfig,
    registry: PrincipalRegistry,
    clock: Clock,
    platform: PlatformView | None = None,
) -> ProjectOwner:
    """The part of a council shard that answers commands on projects."""
    files = endpoints.files
    coach, fsm = files.load("coach.yaml", CoachConfig), files.load("fsm.yaml", FsmConfig)
    planning = files.load("planning.yaml", PlanningConfig)
    ceremony = planning.ceremonies["backlog_review"]
    return ProjectOwner(
        log=log,
        leases=leases,
        inbox=inbox,
        clock=clock,
        owner=owner,
        roles_of=registry.roles_of,
        blobs=blobs,
        rules=ProjectRules(
            coach=coach,
            ceremony=ceremony,
            lifecycles=fsm.lifecycles,
            has_model=lambda profile: has_model(models, profile),
            assignable_roles=active_roles(files).assignable,
        ),
        discoverer=Discoverer(calls, blobs, coach),
        reviewer=Reviewer(
            calls,
            log,
            blobs,
            clock,
            ceremony=ceremony,
            estimates=planning.estimates,
            hours=planning.derivation.estimated_hours,
        ),
        platform=platform,
        ttl_s=endpoints.lease_ttl_s,
    )


def make_project_desk(endpoints: Endpoints, planning: PlanningDesk) -> ProjectDesk:
    """Projects for a front; its connections live as long as the process."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    return ProjectDesk(
        log=RedisEventLog(log), inbox=RedisInbox(log, cache), blobs=make_blobs(endpoints, log), planning=planning
    )


@asynccontextmanager
async def open_project_desk(endpoints: Endpoints, planning: PlanningDesk) -> AsyncGenerator[ProjectDesk]:
    """Projects for one command; nothing is left open afterwards."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    try:
        inbox, blobs = RedisInbox(log, cache), make_blobs(endpoints, log)
        yield ProjectDesk(log=RedisEventLog(log), inbox=inbox, blobs=blobs, planning=planning)
    finally:
        await log.aclose()
        await cache.aclose()
