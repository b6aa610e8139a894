"""The service behind the actors `council`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fleet.context.service.counts import PromptCounts
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StoryId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeed
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog
from fleet.log.redis.snapshots import RedisSnapshotStore
from fleet.log.service import SharedFeed
from fleet.owner.brief_claims import BriefClaims
from fleet.owner.budgets import Budgeting
from fleet.owner.commands.handler import CommandHandler
from fleet.owner.council_pools import PoolRules
from fleet.owner.journal.journal import Journal
from fleet.owner.platform_view import PlatformView
from fleet.owner.shard import CouncilShard
from fleet.owner.spending.redis import RedisDaySpending
from fleet.owner.workbench import Workbench
from fleet.planning.coach_config import CoachConfig
from fleet.projects.brief_owners import BriefOwners
from fleet.projects.platform_commands import DelegationRules, agent_roles
from fleet.projects.platform_owner import PlatformOwner
from fleet.projects.project_calls import ProjectCalls
from fleet.projects.project_owner import project_state
from fleet.remote.observed_log import ObservedLog
from fleet.remote.shard_figures import ShardFigures
from fleet.remote.traced_ports import TracedAgents, TracedPacks, TracedSandbox, TracedToolHost
from fleet.report.service.reports import ReportService
from fleet.wiring.change_requests import change_target
from fleet.wiring.deployments import deploy_targets
from fleet.wiring.desk.projects import make_project_owner
from fleet.wiring.endpoints import Endpoints, kept_definitions, load_principals
from fleet.wiring.models.engines import engine_usage, is_there
from fleet.wiring.models.probes import probed_models
from fleet.wiring.models.tokenizers import make_pack_readers
from fleet.wiring.sandbox.plugins import active_roles
from fleet.wiring.sandbox.spread import make_sandbox
from fleet.wiring.stores.knowledge import make_knowledge
from fleet.wiring.stores.stores import make_blobs, make_witness
from fleet.wiring.telemetry import NO_TELEMETRY, Telemetry


@dataclass(frozen=True, slots=True)
class CouncilParts:
    """What a council actor holds."""

    shard: CouncilShard
    figures: ShardFigures


def make_council_parts(
    endpoints: Endpoints, *, name: str, incarnation: str, telemetry: Telemetry = NO_TELEMETRY
) -> CouncilParts:
    """What is behind actor `council:<shard>`."""
    # Only council actors call other actors; the command line must not import Ray before it has set Ray's variables.
    from fleet.remote.deployments import RayDeployments, RayEnvironments
    from fleet.remote.losses import RayLosses
    from fleet.remote.ports import RayAgents, RayChangeRequests, RayForge, RayPacks, RayToolHost
    from fleet.remote.resolver import ActorResolver

    files, clock = endpoints.files, SystemClock()
    redis, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    log = ObservedLog(RedisEventLog(redis), meter=telemetry.meter, clock=clock, tracer=telemetry.tracer)
    blobs, resolver = make_blobs(endpoints, redis), ActorResolver()
    # One for all stories: they share what is known of the supervisors.
    sandbox = make_sandbox(endpoints, resolver)
    snapshots = RedisSnapshotStore(redis)
    definitions = kept_definitions(files, blobs, targets=deploy_targets(endpoints))
    rules, digests = definitions.present[0], {**files.digests(), **definitions.digests}
    registry = load_principals(endpoints.principals_file)
    models = probed_models(files, Path(endpoints.home))
    usage, readers = engine_usage(endpoints), make_pack_readers(endpoints)
    knowledge = make_knowledge(endpoints, blobs)
    staffed = frozenset(role for role, size in endpoints.pools.items() if size)
    platform = PlatformView(log, SharedFeed(RedisFeed(redis)))
    budgeting = Budgeting(limits=models.budgets, models=models, spending=RedisDaySpending(redis))

    async def make_bench(story_id: StoryId, epoch: int) -> Workbench:
        packs = TracedPacks(RayPacks(resolver), log)
        await definitions.keep()
        journal = Journal(
            log=log,
            blobs=blobs,
            clock=clock,
            sandbox=TracedSandbox(sandbox, log),
            agents=TracedAgents(RayAgents(resolver, endpoints.pools), log),
            story_id=story_id,
            epoch=epoch,
            policy=definitions.present[1],
            snapshots=snapshots,
            budgeting=budgeting,
            platform=platform,
            packs=packs,
        )
        await journal.load()
        own = rules
        if journal.exists:
            await definitions.learn(journal.state.config)
            own, journal.policy = definitions.of(journal.state.config)
        return Workbench(
            journal=journal,
            rules=own,
            definitions=definitions,
            packs=packs,
            forge=RayForge(resolver, endpoints.node),
            blobs=blobs,
            clock=clock,
            reports=ReportService(log, blobs),
            tools=TracedToolHost(RayToolHost(resolver, endpoints.node), log),
            target=change_target(endpoints, RayChangeRequests(resolver, endpoints.node)),
            deployments=RayDeployments(resolver, endpoints.node),
            environments=RayEnvironments(resolver, endpoints.node),
            usage=usage,
            knowledge=knowledge,
            holders=registry.holders_of,
            staffed=staffed,
        )

    leases, inbox = RedisLeaseStore(redis), RedisInbox(redis, cache)
    projects = make_project_owner(
        endpoints,
        owner=f"{name}/{incarnation}",
        log=log,
        leases=leases,
        inbox=inbox,
        blobs=blobs,
        calls=ProjectCalls(
            RayAgents(resolver, endpoints.pools),
            clock,
            budgeting=budgeting,
            owner=f"{name}/{incarnation}",
            prompts=PromptCounts(RayPacks(resolver), readers),
        ),
        models=models,
        registry=registry,
        clock=clock,
        platform=platform,
    )
    claims = BriefClaims(log, leases, clock, f"{name}/{incarnation}", endpoints.lease_ttl_s)
    roles = active_roles(files)
    pools = PoolRules(rules.council, models, roles, staffed)
    terms = DelegationRules(rules.fsm, agent_roles(roles), clock.now_ms, pools)
    fleet = PlatformOwner(
        log=log,
        claims=claims,
        view=platform,
        rules=terms,
        roles_of=registry.roles_of,
        losses=RayLosses(resolver),
    )
    shard = CouncilShard(
        name=name,
        incarnation=incarnation,
        log=log,
        leases=leases,
        inbox=inbox,
        clock=clock,
        make_bench=make_bench,
        commands=CommandHandler(
            roles_of=registry.roles_of,
            coach=files.load("coach.yaml", CoachConfig),
            config_digests=digests,
            projects=partial(project_state, log),
            readers=readers,
            models=models,
            absent_engines=[e.engine_id for e in models.engines if not is_there(e, endpoints)],
        ),
        projects=BriefOwners(projects, fleet),
        ttl_s=endpoints.lease_ttl_s,
        sweep_s=endpoints.sweep_s,
        witness=make_witness(endpoints),
    )
    figures = ShardFigures(
        shard.status,
        log,
        meter=telemetry.meter,
        clock=clock,
        inbox=inbox,
        letters=RedisDeadLetters(redis, cache),
    )
    return CouncilParts(shard, figures)
