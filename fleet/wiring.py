"""The one composition root: settings and addresses become stores, models and services (STYLE.md 1, rule 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.clock import SystemClock
from fleet.adapters.redis import (
    RedisEventLog,
    RedisFeed,
    RedisInbox,
    RedisLeaseStore,
    RedisRunLedger,
    connect_redis,
)
from fleet.config import ConfigFiles, packaged_directory
from fleet.context import ContextConfig
from fleet.council import CouncilConfig
from fleet.digest import digest_of_json
from fleet.events import PolicyRef
from fleet.ids import StoryId
from fleet.models import load_models, parse_prompts
from fleet.planning import CoachConfig, PlanningConfig
from fleet.ports import Clock
from fleet.rigor import RigorConfig
from fleet.services.commands import CommandHandler
from fleet.services.context_service import ContextService
from fleet.services.council_shard import CouncilShard
from fleet.services.journal import Journal
from fleet.services.planning_desk import PlanningDesk
from fleet.services.principals import PrincipalEntry, PrincipalRegistry
from fleet.services.report import ReportService
from fleet.services.role_agent import RoleAgent
from fleet.services.tool_supervisor import ToolSupervisor
from fleet.services.workbench import Definitions, Workbench
from fleet.story import FsmConfig
from fleet.tools.roles import load_roles

if TYPE_CHECKING:
    from fleet.adapters.forge import LocalForge
    from fleet.adapters.sandbox import BubblewrapBackend
    from fleet.services.projector import Projector

__all__ = [
    "Endpoints",
    "SandboxParts",
    "load_definitions",
    "load_principals",
    "make_context_service",
    "make_council_shard",
    "make_desk",
    "make_forge",
    "make_projector",
    "make_report_service",
    "make_role_agent",
    "make_sandbox_parts",
    "make_supervisor",
]


_CODERS = frozenset({"developer", "devops", "data"})
"""Roles whose work is a change of files; tasks go to these."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the parts of a running fleet are; handed to every actor, so it holds plain values only."""

    home: str
    config: str | None
    redis_url: str
    cache_url: str
    neo4j_uri: str
    neo4j_user: str
    neo4j_password: str
    neo4j_database: str
    node: str
    pools: Mapping[str, int]
    council_shards: int
    lease_ttl_s: int
    sweep_s: int
    record_dir: str | None
    code_digest: str
    environ: Mapping[str, str]
    """The variables that engines of config/models.yaml name: addresses, model names, keys."""

    @property
    def files(self) -> ConfigFiles:
        """The config files: packaged ones, and those that replace them."""
        return ConfigFiles(packaged_directory(), Path(self.config) if self.config else None)

    @property
    def blob_root(self) -> Path:
        """Where blobs are."""
        return Path(self.home) / "blobs"

    @property
    def principals_file(self) -> Path:
        """The local token file."""
        return Path(self.home) / "principals.json"


def load_definitions(files: ConfigFiles) -> Definitions:
    """The rules that stories are worked on under; ConfigError names file, path and reason."""
    roles = load_roles(files.document("roles.yaml"))
    return Definitions(
        fsm=files.load("fsm.yaml", FsmConfig),
        rigor=files.load("rigor.yaml", RigorConfig),
        council=files.load("council.yaml", CouncilConfig),
        planning=files.load("planning.yaml", PlanningConfig),
        assignable_roles=tuple(r for r in roles.assignable if r in _CODERS),
    )


def load_principals(path: Path) -> PrincipalRegistry:
    """The principals of the local token file; nobody when there is none yet."""
    if not path.exists():
        return PrincipalRegistry(())
    return PrincipalRegistry(TypeAdapter(tuple[PrincipalEntry, ...]).validate_json(path.read_bytes()))


def make_desk(endpoints: Endpoints) -> PlanningDesk:
    """What the command line and the gateway use."""
    log, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    return PlanningDesk(
        log=RedisEventLog(log),
        inbox=RedisInbox(log, cache),
        feed=RedisFeed(log),
        clock=SystemClock(),
        fsm=endpoints.files.load("fsm.yaml", FsmConfig),
    )


def make_report_service(endpoints: Endpoints) -> ReportService:
    """Reports from the log alone."""
    return ReportService(RedisEventLog(connect_redis(endpoints.redis_url)), FileBlobStore(endpoints.blob_root))


def make_context_service(endpoints: Endpoints) -> ContextService:
    """The service behind actor `context`."""
    return ContextService(
        RedisEventLog(connect_redis(endpoints.redis_url)),
        FileBlobStore(endpoints.blob_root),
        endpoints.files.load("context.yaml", ContextConfig),
        clock=SystemClock(),
    )


def make_role_agent(endpoints: Endpoints, *, role: str) -> RoleAgent:
    """The service behind actor `role:<role>:<n>`."""
    # Drivers are imported by the one process that uses them: fifteen actors start faster and stay small.
    from fleet.adapters.llm import ChatModels

    files = endpoints.files
    models = load_models(files.document("models.yaml"))
    texts = {n: files.read(n).decode() for n in files.names() if n.startswith("prompts/") and n.endswith(".md")}
    return RoleAgent(
        load_roles(files.document("roles.yaml")).role(role),
        models=ChatModels(
            models,
            environ=endpoints.environ,
            record_dir=Path(endpoints.record_dir) if endpoints.record_dir else None,
        ),
        policies=models,
        prompts=parse_prompts(texts),
        blobs=FileBlobStore(endpoints.blob_root),
        clock=SystemClock(),
    )


def make_projector(endpoints: Endpoints) -> Projector:
    """The service behind actor `projector`."""
    from fleet.adapters.neo4j import Neo4jGraph
    from fleet.services.projector import Projector

    redis = connect_redis(endpoints.redis_url)
    graph = Neo4jGraph.connect(
        endpoints.neo4j_uri,
        user=endpoints.neo4j_user,
        password=endpoints.neo4j_password,
        database=endpoints.neo4j_database,
    )
    return Projector(log=RedisEventLog(redis), feed=RedisFeed(redis), graph=graph, clock=SystemClock())


@dataclass(frozen=True, slots=True)
class SandboxParts:
    """What the sandbox supervisor and the forge of one node share."""

    backend: BubblewrapBackend
    blobs: FileBlobStore
    state_root: Path
    clock: Clock


def make_sandbox_parts(endpoints: Endpoints) -> SandboxParts:
    """The sandbox backend of this node; its state lies where the sandbox's own user can reach it."""
    from fleet.adapters.sandbox import BubblewrapBackend, reachable_state_root

    blobs = FileBlobStore(endpoints.blob_root)
    root = reachable_state_root(Path(endpoints.home) / "sandbox")
    return SandboxParts(BubblewrapBackend(root, blobs), blobs, root, SystemClock())


def make_supervisor(endpoints: Endpoints, parts: SandboxParts, *, name: str) -> ToolSupervisor:
    """The service behind actor `sandbox:<node>`."""
    ledger = RedisRunLedger(connect_redis(endpoints.redis_url))
    return ToolSupervisor(parts.backend, ledger, parts.blobs, parts.clock, name)


def make_forge(endpoints: Endpoints, parts: SandboxParts) -> LocalForge:
    """Local repositories, as the sandbox's node sees them."""
    from fleet.adapters.forge import LocalForge

    return LocalForge(state_root=parts.state_root, blobs=parts.blobs)


def make_council_shard(endpoints: Endpoints, *, name: str, incarnation: str) -> CouncilShard:
    """The service behind actor `council:<shard>`."""
    # Only council actors call other actors; the command line must not import Ray before it has set Ray's variables.
    from fleet.adapters.ray import ActorResolver, RayAgents, RayForge, RayPacks, RaySandbox

    files, clock = endpoints.files, SystemClock()
    redis, cache = connect_redis(endpoints.redis_url), connect_redis(endpoints.cache_url)
    log, blobs, resolver = RedisEventLog(redis), FileBlobStore(endpoints.blob_root), ActorResolver()
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
    )
