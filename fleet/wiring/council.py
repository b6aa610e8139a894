"""The service behind the actors `council`."""

from __future__ import annotations

from fleet.adapters.clock import SystemClock
from fleet.adapters.redis import RedisEventLog, RedisInbox, RedisLeaseStore, RedisSnapshotStore, connect_redis
from fleet.digest import digest_of_json
from fleet.events import PolicyRef
from fleet.ids import StoryId
from fleet.planning import CoachConfig
from fleet.services.commands import CommandHandler
from fleet.services.council_shard import CouncilShard
from fleet.services.journal import Journal
from fleet.services.report import ReportService
from fleet.services.workbench import Workbench
from fleet.wiring.endpoints import Endpoints, load_definitions, load_principals
from fleet.wiring.stores import make_blobs, make_witness

__all__ = ["make_council_shard"]


def make_council_shard(endpoints: Endpoints, *, name: str, incarnation: str) -> CouncilShard:
    """The service behind actor `council:<shard>`."""
    # Only council actors call other actors; the command line must not import Ray before it has set Ray's variables.
    from fleet.adapters.ray import ActorResolver, RayAgents, RayForge, RayPacks, RaySandbox

    files, clock = endpoints.files, SystemClock()
    redis, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    log, blobs, resolver = RedisEventLog(redis), make_blobs(endpoints, redis), ActorResolver()
    snapshots = RedisSnapshotStore(redis)
    rules, digests = load_definitions(files), files.digests()
    policy = PolicyRef(rule_id="RT-30", digest=digest_of_json({"roles": digests["roles.yaml"]}))
    registry = load_principals(endpoints.principals_file)

    async def make_bench(story_id: StoryId, epoch: int) -> Workbench:
        journal = Journal(
            log=log,
            blobs=blobs,
            clock=clock,
            sandbox=RaySandbox(resolver, endpoints.node),
            agents=RayAgents(resolver, endpoints.pools),
            story_id=story_id,
            epoch=epoch,
            policy=policy,
            snapshots=snapshots,
        )
        await journal.load()
        return Workbench(
            journal=journal,
            rules=rules,
            packs=RayPacks(resolver),
            forge=RayForge(resolver, endpoints.node),
            blobs=blobs,
            clock=clock,
            reports=ReportService(log, blobs),
        )

    return CouncilShard(
        name=name,
        incarnation=incarnation,
        log=log,
        leases=RedisLeaseStore(redis),
        inbox=RedisInbox(redis, cache),
        clock=clock,
        make_bench=make_bench,
        commands=CommandHandler(
            roles_of=registry.roles_of, coach=files.load("coach.yaml", CoachConfig), config_digests=digests
        ),
        ttl_s=endpoints.lease_ttl_s,
        sweep_s=endpoints.sweep_s,
        witness=make_witness(endpoints),
    )
