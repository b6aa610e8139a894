"""A whole team in one process: memory stores, the real sandbox, real role agents over a given model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.clock import SystemClock
from fleet.adapters.forge import LocalForge
from fleet.adapters.llm import ChatModels
from fleet.adapters.memory import MemoryEventLog, MemoryFeed, MemoryInbox, MemoryLeaseStore, MemoryRunLedger
from fleet.adapters.sandbox import BubblewrapBackend, reachable_state_root
from fleet.config import ConfigFiles, packaged_directory
from fleet.context import ContextConfig
from fleet.events import PolicyRef
from fleet.ids import Digest, Principal, StoryId
from fleet.models import load_models, parse_prompts
from fleet.planning import CoachConfig
from fleet.ports import Agents, ChatModel, EventLog
from fleet.services.commands import CommandHandler
from fleet.services.context_service import ContextService
from fleet.services.council_shard import CouncilShard
from fleet.services.journal import Journal
from fleet.services.planning_desk import PlanningDesk
from fleet.services.report import ReportService
from fleet.services.role_agent import LocalAgents, RoleAgent
from fleet.services.tool_supervisor import ToolSupervisor
from fleet.services.workbench import Workbench
from fleet.story import StoryState
from fleet.tools.roles import load_roles
from fleet.wiring import load_definitions

ADA = Principal("user:ada")
ROLES = frozenset({"po", "qa", "architect", "devops", "admin"})


@dataclass
class Team:
    """What a test drives: the desk as a person would, and the shard for faults."""

    desk: PlanningDesk
    log: EventLog
    blobs: FileBlobStore
    shard: CouncilShard
    reports: ReportService

    async def create(self, story: dict[str, Any]) -> StoryId:
        """A new story from its text."""
        story_id = await self.desk.story_id_for(story)
        await self.desk.require(story_id, "create_story", {"story": story}, principal=ADA, key=f"{story_id}/create")
        return story_id

    async def start(
        self, story_id: StoryId, repo: Path, *, model: str | None, delegate: tuple[str, ...] = ("po", "qa")
    ) -> None:
        """The story is started on this repository."""
        body = {"repo": str(repo), "model": model, "delegate": list(delegate)}
        await self.desk.require(story_id, "start_story", body, principal=ADA, key=f"{story_id}/start")

    async def settled(self, story_id: StoryId, *, within_s: float = 120) -> StoryState:
        """The story once it is closed, parked, or waits for a person."""
        async with asyncio.timeout(within_s):
            while True:
                state = await self.desk.state(story_id)
                if state.closed or self.desk.waiting_for(state) is not None:
                    return state
                await asyncio.sleep(0.05)


def local_agents(models: Mapping[str, ChatModel], blobs: FileBlobStore) -> LocalAgents:
    """Role agents of every role, over these engines."""
    files = ConfigFiles(packaged_directory())
    config = load_models(files.document("models.yaml"))
    roles = load_roles(files.document("roles.yaml"))
    texts = {n: files.read(n).decode() for n in files.names() if n.startswith("prompts/") and n.endswith(".md")}
    prompts = parse_prompts(texts)
    clock = SystemClock()
    return LocalAgents(
        {
            name: RoleAgent(role, models=models, policies=config, prompts=prompts, blobs=blobs, clock=clock)
            for name, role in roles.roles.items()
        }
    )


@asynccontextmanager
async def team(
    root: Path,
    *,
    models: Mapping[str, ChatModel] | None = None,
    record_dir: Path | None = None,
    environ: Mapping[str, str] = {},
) -> AsyncIterator[Team]:
    """A running team below `root`; everything of it ends with the block."""
    files = ConfigFiles(packaged_directory())
    blobs, clock, log = FileBlobStore(root / "blobs"), SystemClock(), MemoryEventLog()
    inbox, feed, leases = MemoryInbox(), MemoryFeed(log), MemoryLeaseStore(log)
    state_root = reachable_state_root(root / "sandbox")
    backend = BubblewrapBackend(state_root, blobs)
    sandbox = ToolSupervisor(backend, MemoryRunLedger(), blobs, clock, "sandbox:local")
    config = load_models(files.document("models.yaml"))
    agents: Agents = local_agents(models or ChatModels(config, environ=environ, record_dir=record_dir), blobs)
    rules, reports = load_definitions(files), ReportService(log, blobs)
    packs = ContextService(log, blobs, files.load("context.yaml", ContextConfig), clock=clock)
    forge = LocalForge(state_root=state_root, blobs=blobs)

    async def make_bench(story_id: StoryId, epoch: int) -> Workbench:
        journal = Journal(
            log=log,
            blobs=blobs,
            clock=clock,
            sandbox=sandbox,
            agents=agents,
            story_id=story_id,
            epoch=epoch,
            policy=PolicyRef(rule_id="RT-30", digest=Digest("sha256:" + "0" * 64)),
        )
        await journal.load()
        return Workbench(
            journal=journal, rules=rules, packs=packs, forge=forge, blobs=blobs, clock=clock, reports=reports
        )

    shard = CouncilShard(
        name="council:0",
        incarnation="1",
        log=log,
        leases=leases,
        inbox=inbox,
        clock=clock,
        make_bench=make_bench,
        commands=CommandHandler(
            roles_of=lambda p: ROLES if p.is_human else frozenset(),
            coach=files.load("coach.yaml", CoachConfig),
            config_digests=files.digests(),
        ),
        sweep_s=0.5,
    )
    desk = PlanningDesk(log=log, inbox=inbox, feed=feed, clock=clock, fsm=rules.fsm)
    running = asyncio.create_task(shard.run())
    try:
        yield Team(desk=desk, log=log, blobs=blobs, shard=shard, reports=reports)
    finally:
        await shard.drain()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
