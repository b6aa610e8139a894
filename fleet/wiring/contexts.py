"""Context packs and their figures, for the actor `context` and for a front."""

from __future__ import annotations

from fleet.adapters.clock import SystemClock
from fleet.adapters.redis import RedisBundleStore, RedisEventLog, RedisSnapshotStore, connect_redis
from fleet.context import ContextConfig
from fleet.ports import DecisionGraph
from fleet.services.context_service import ContextService
from fleet.services.context_statistics import ContextStatistics
from fleet.services.planning_desk import PlanningDesk
from fleet.services.rehydrating import Rehydrator
from fleet.story import FsmConfig
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores import make_blobs
from fleet.wiring.tokenizers import check_tokenizers, make_pack_readers, make_tokenizers

__all__ = ["make_context_service", "make_context_statistics", "make_rehydrator"]


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
        endpoints.files.load("context.yaml", ContextConfig),
        clock=SystemClock(),
        snapshots=RedisSnapshotStore(client),
        tokenizers=make_tokenizers(endpoints),
        readers=make_pack_readers(endpoints),
    )


def make_context_statistics(endpoints: Endpoints, graph: DecisionGraph) -> ContextStatistics:
    """Figures over many stories for a front, for as long as it lives; no store is asked before somebody wants them."""
    from fleet.adapters.ray import ActorResolver, RayPacks

    log = RedisEventLog(connect_redis(endpoints.redis_url))
    return ContextStatistics(log=log, graph=graph, builder=RayPacks(ActorResolver()))


def make_rehydrator(endpoints: Endpoints, planning: PlanningDesk) -> Rehydrator:
    """Bundles for a front, for as long as it lives; kept ones are on the cache instance."""
    return Rehydrator(
        planning=planning,
        blobs=make_blobs(endpoints),
        kept=RedisBundleStore(connect_redis(endpoints.cache_url)),
        config=endpoints.files.load("context.yaml", ContextConfig),
        fsm=endpoints.files.load("fsm.yaml", FsmConfig),
        clock=SystemClock(),
    )
