"""Context packs and their figures, for the actor `context` and for a front."""

from __future__ import annotations

from fleet.context.redis import RedisBundleStore
from fleet.context.service.packs import ContextService
from fleet.desk.context.rehydrate import Rehydrator
from fleet.desk.context.statistics import ContextStatistics
from fleet.desk.planning import PlanningDesk
from fleet.graph.port import DecisionGraph
from fleet.kernel.clock import SystemClock
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from fleet.log.redis.snapshots import RedisSnapshotStore
from fleet.wiring.endpoints import Endpoints, load_context
from fleet.wiring.models.tokenizers import check_tokenizers, make_pack_readers, make_tokenizers
from fleet.wiring.stores.stores import make_blobs


def make_context_service(endpoints: Endpoints) -> ContextService:
    """Packs of every story, from its newest snapshot on.

    Raises:
        ConfigError: a tokenizer that the chains of config/models.yaml need is missing or another one.
    """
    check_tokenizers(endpoints)
    client = connect_redis(endpoints.redis_url)
    return ContextService(
        RedisEventLog(client),
        make_blobs(endpoints),
        load_context(endpoints.files),
        clock=SystemClock(),
        snapshots=RedisSnapshotStore(client),
        tokenizers=make_tokenizers(endpoints),
        readers=make_pack_readers(endpoints),
    )


def make_context_statistics(endpoints: Endpoints, graph: DecisionGraph) -> ContextStatistics:
    """Figures over many stories for a front, for as long as it lives. No store is asked before somebody wants them."""
    from fleet.remote.ports import RayPacks
    from fleet.remote.resolver import ActorResolver

    log = RedisEventLog(connect_redis(endpoints.redis_url))
    return ContextStatistics(log=log, graph=graph, builder=RayPacks(ActorResolver()))


def make_rehydrator(endpoints: Endpoints, planning: PlanningDesk) -> Rehydrator:
    """Bundles for a front, for as long as it lives; kept ones are on the cache instance."""
    return Rehydrator(
        planning=planning,
        blobs=make_blobs(endpoints),
        kept=RedisBundleStore(connect_redis(endpoints.cache_url)),
        config=load_context(endpoints.files),
        clock=SystemClock(),
    )
