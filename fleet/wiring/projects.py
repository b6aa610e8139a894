"""What owns projects, and what people ask of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fleet.adapters.redis import RedisEventLog, RedisInbox, connect_redis
from fleet.models import ModelsConfig
from fleet.planning import CoachConfig, PlanningConfig
from fleet.ports import BlobStore, Clock, EventLog, Inbox, LeaseStore
from fleet.services.discovering import Discoverer
from fleet.services.planning_desk import PlanningDesk
from fleet.services.platform_view import PlatformView
from fleet.services.principals import PrincipalRegistry
from fleet.services.project_calls import ProjectCalls
from fleet.services.project_commands import Deciding
from fleet.services.project_desk import ProjectDesk
from fleet.services.project_owner import ProjectOwner
from fleet.services.reviewing import Reviewer
from fleet.story import FsmConfig
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.plugins import active_roles
from fleet.wiring.stores import make_blobs

__all__ = ["has_model", "make_project_desk", "make_project_owner", "open_project_desk"]


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
        deciding=Deciding(
            coach=coach,
            ceremony=ceremony,
            log=log,
            blobs=blobs,
            lifecycles=frozenset(fsm.lifecycles),
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
