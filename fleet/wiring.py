"""The one composition root: settings and addresses become stores, models and services (STYLE.md 1, rule 7)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.clock import SystemClock
from fleet.adapters.redis import (
    RedisBlobStore,
    RedisCheckpointStore,
    RedisClient,
    RedisDeadLetters,
    RedisEventLog,
    RedisFeed,
    RedisFeedGroup,
    RedisInbox,
    RedisLeaseStore,
    RedisRawLog,
    RedisRunLedger,
    RedisSnapshotStore,
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
from fleet.ports import BlobStore, Clock, DeadLetters, DecisionGraph
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
    from fleet.adapters.neo4j import Neo4jGraph
    from fleet.adapters.sandbox import BubblewrapBackend
    from fleet.adapters.witness import FolderWitness
    from fleet.audit import NoteKey
    from fleet.services.archive import Archivist
    from fleet.services.auditor import Auditor
    from fleet.services.losses import LossDesk
    from fleet.services.notary import Notary
    from fleet.services.projector import Projector

__all__ = [
    "AuditPlaces",
    "Endpoints",
    "SandboxParts",
    "audit_places",
    "load_definitions",
    "load_principals",
    "make_blobs",
    "make_context_service",
    "make_council_shard",
    "make_desk",
    "make_forge",
    "make_graph",
    "make_notary",
    "make_projector",
    "make_role_agent",
    "make_sandbox_parts",
    "make_supervisor",
    "make_witness",
    "open_archivist",
    "open_auditor",
    "open_dead_letters",
    "open_desk",
    "open_loss_desk",
    "open_projector",
    "open_reports",
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
    audit_export: str | None = None
    """Where checkpoints are exported to; None is below the home."""
    audit_interval_s: int = 60
    blobs: str = "file"
    """Where blobs are: `file` or `redis`."""

    @property
    def files(self) -> ConfigFiles:
        """The config files: packaged ones, and those that replace them."""
        return ConfigFiles(packaged_directory(), Path(self.config) if self.config else None)

    @property
    def blob_root(self) -> Path:
        """Where blobs are."""
        return Path(self.home) / "blobs"

    @property
    def audit(self) -> AuditPlaces:
        """Where the audit keeps its key and its copies."""
        return audit_places(Path(self.home), self.audit_export)

    @property
    def principals_file(self) -> Path:
        """The local token file."""
        return Path(self.home) / "principals.json"


@dataclass(frozen=True, slots=True)
class AuditPlaces:
    """Files of the audit: the notary's key, its public half, and the folder of exported checkpoints."""

    key: Path
    public: Path
    folder: Path


def audit_places(home: Path, export: str | Path | None = None) -> AuditPlaces:
    """The places below the home, but for a folder that is given; usable without a running fleet."""
    root = home / "audit"
    return AuditPlaces(root / "notary.key", root / "notary.pub", Path(export) if export else root / "exported")


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


def make_blobs(endpoints: Endpoints, client: RedisClient | None = None) -> BlobStore:
    """The blobs of this fleet, through `client` when they are in the log store."""
    if endpoints.blobs == "redis":
        return RedisBlobStore(client or connect_redis(endpoints.redis_url))
    return FileBlobStore(endpoints.blob_root)


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


def make_context_service(endpoints: Endpoints) -> ContextService:
    """The service behind actor `context`."""
    return ContextService(
        RedisEventLog(connect_redis(endpoints.redis_url)),
        make_blobs(endpoints),
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
        blobs=make_blobs(endpoints),
        clock=SystemClock(),
    )


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


def make_graph(endpoints: Endpoints) -> Neo4jGraph:
    """The decision graph; whoever asked for it closes it."""
    from fleet.adapters.neo4j import Neo4jGraph

    return Neo4jGraph.connect(
        endpoints.neo4j_uri,
        user=endpoints.neo4j_user,
        password=endpoints.neo4j_password,
        database=endpoints.neo4j_database,
    )


def _projector(
    endpoints: Endpoints, redis: RedisClient, cache: RedisClient, graph: DecisionGraph, *, consumer: str
) -> Projector:
    from fleet.services.projector import Projector

    return Projector(
        RedisEventLog(redis),
        graph,
        feed=RedisFeedGroup(redis),
        letters=RedisDeadLetters(redis, cache),
        clock=SystemClock(),
        blobs=make_blobs(endpoints, redis),
        consumer=consumer,
    )


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


def make_notary(endpoints: Endpoints) -> Notary:
    """The service behind actor `notary`."""
    from fleet.adapters.signing import Ed25519Verifier, KeyFile
    from fleet.adapters.witness import CheckpointFolder
    from fleet.services.notary import Notary

    redis, places = connect_redis(endpoints.redis_url), endpoints.audit
    return Notary(
        RedisEventLog(redis),
        RedisRawLog(redis),
        RedisCheckpointStore(redis),
        CheckpointFolder(places.folder, announce=_announce),
        signer=KeyFile(places.key),
        verifier=Ed25519Verifier(),
        clock=SystemClock(),
        interval_s=endpoints.audit_interval_s,
        announce=_announce,
    )


def _announce(line: str) -> None:
    # Checkpoints leave the machine with the actor's output too, wherever that is collected.
    print(f"audit {line}", flush=True)


@asynccontextmanager
async def open_auditor(endpoints: Endpoints, key: NoteKey | None = None) -> AsyncGenerator[Auditor]:
    """What `fleet audit verify` and `fleet audit proof` run; the key is the one in the home unless one is given."""
    from fleet.adapters.signing import Ed25519Verifier, read_public_key
    from fleet.adapters.witness import CheckpointFolder
    from fleet.services.auditor import Auditor

    redis, places = connect_redis(endpoints.redis_url), endpoints.audit
    try:
        yield Auditor(
            RedisRawLog(redis),
            RedisCheckpointStore(redis),
            CheckpointFolder(places.folder),
            key=key or read_public_key(places.public),
            verifier=Ed25519Verifier(),
        )
    finally:
        await redis.aclose()


@asynccontextmanager
async def open_loss_desk(endpoints: Endpoints) -> AsyncGenerator[LossDesk]:
    """What `fleet accept-loss` runs."""
    from fleet.adapters.signing import Ed25519Verifier, KeyFile
    from fleet.adapters.witness import CheckpointFolder
    from fleet.services.losses import LossDesk

    redis, places = connect_redis(endpoints.redis_url), endpoints.audit
    try:
        yield LossDesk(
            RedisEventLog(redis),
            RedisRawLog(redis),
            RedisCheckpointStore(redis),
            CheckpointFolder(places.folder),
            signer=KeyFile(places.key),
            verifier=Ed25519Verifier(),
            clock=SystemClock(),
        )
    finally:
        await redis.aclose()


def make_witness(endpoints: Endpoints) -> FolderWitness:
    """What owners of stories ask before they believe the log."""
    from fleet.adapters.witness import FolderWitness

    return FolderWitness(endpoints.audit.folder)


@dataclass(frozen=True, slots=True)
class SandboxParts:
    """What the sandbox supervisor and the forge of one node share."""

    backend: BubblewrapBackend
    blobs: BlobStore
    state_root: Path
    clock: Clock


def make_sandbox_parts(endpoints: Endpoints) -> SandboxParts:
    """The sandbox backend of this node; its state lies where the sandbox's own user can reach it."""
    from fleet.adapters.sandbox import BubblewrapBackend, reachable_state_root

    blobs = make_blobs(endpoints)
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
