"""A whole team in one process: memory stores, the real sandbox, real role agents over a given model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.deploy.local.environments import ProcessDeployments
from fleet.desk.planning import PlanningDesk
from fleet.forge.local.forge import LocalForge
from fleet.forge.service import ChangeTarget
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import Principal, StoryId
from fleet.log.memory import MemoryEventLog, MemoryFeed, MemoryInbox, MemoryLeaseStore
from fleet.log.port import EventLog, Feed, Inbox, LeaseStore
from fleet.log.redis.feed import RedisFeed
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog
from fleet.models.engines.factory import ChatModels
from fleet.models.port import Agents, ChatModel
from fleet.models.profiles import ModelsConfig, load_models
from fleet.models.prompts.pack_readers import PackReaders
from fleet.models.prompts.prompt import parse_prompts
from fleet.models.service.role_agent import LocalAgents, RoleAgent
from fleet.models.service.usage_logs import UsageLogs
from fleet.owner.budgets import Budgeting
from fleet.owner.commands.handler import CommandHandler
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import StepPolicy
from fleet.owner.shard import CouncilShard
from fleet.owner.workbench import Workbench
from fleet.planning.coach_config import CoachConfig
from fleet.policy.deploy import DeployTarget
from fleet.policy.roles import load_roles
from fleet.projects.discover import Discoverer
from fleet.projects.project_calls import ProjectCalls
from fleet.projects.project_commands import ProjectRules
from fleet.projects.project_owner import ProjectOwner, project_state
from fleet.projects.review import Reviewer
from fleet.remote.observed_log import ObservedLog
from fleet.remote.traced_ports import TracedAgents, TracedSandbox
from fleet.report.service.reports import ReportService
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.identity import reachable_state_root
from fleet.sandbox.memory import MemoryRunLedger, MemoryRunLogs
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.commands.catalogue import parse_command
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import StoryState
from fleet.trees.files import FileBlobStore
from fleet.trees.port import BlobStore
from fleet.wiring.endpoints import load_definitions
from fleet.workspace.service.repository_environment import Environments
from tests.support.rules import step_policy

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
    leases: LeaseStore
    inbox: Inbox
    make_shard: Callable[[str, EventLog], CouncilShard]
    """A shard of this name and incarnation over the stores of the team, seeing them through this log."""
    sandbox: ToolSupervisor
    packs: ContextService
    _running: asyncio.Task[None] | None = field(default=None, repr=False)

    def begin(self, shard: CouncilShard) -> None:
        """The shard runs, in place of one that was crashed before."""
        self.shard, self._running = shard, asyncio.create_task(shard.run())

    async def crash(self) -> None:
        """The shard and its stories stop where they are: nothing is released, nothing is told to anybody."""
        stories = [t for t in asyncio.all_tasks() if t.get_name().startswith("story ")]
        running, self._running = self._running, None
        dying = [*stories, *([running] if running else [])]
        for task in dying:
            task.cancel()
        await asyncio.gather(*dying, return_exceptions=True)

    async def end(self) -> None:
        """The shard is drained and over."""
        await self.shard.drain()
        await self.crash()

    async def create(self, story: dict[str, Any]) -> StoryId:
        """A new story from its text."""
        story_id = await self.desk.story_id_for(story)
        await self.desk.require(
            story_id, parse_command("create_story", {"story": story}), principal=ADA, key=f"{story_id}/create"
        )
        return story_id

    async def start(
        self, story_id: StoryId, repo: Path | str, *, model: str | None, delegate: tuple[str, ...] = ("po", "qa")
    ) -> None:
        """The story is started on this repository."""
        body = {"repo": str(repo), "model": model, "delegate": list(delegate)}
        await self.desk.require(story_id, parse_command("start_story", body), principal=ADA, key=f"{story_id}/start")

    async def settled(self, story_id: StoryId, *, within_s: float = 120) -> StoryState:
        """The story once it is closed, parked, or waits for a person."""
        async with asyncio.timeout(within_s):
            while True:
                state = await self.desk.state(story_id)
                if state.closed or self.desk.waiting_for(state) is not None:
                    return state
                await asyncio.sleep(0.05)


def local_agents(
    models: Mapping[str, ChatModel], blobs: FileBlobStore, config: ModelsConfig | None = None
) -> LocalAgents:
    """Role agents of every role, over these engines; the packaged models.yaml, or `config`, names their chains."""
    files = ConfigFiles(packaged_directory())
    config = config or load_models(files.document("models.yaml"))
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


def _stores(redis: Redis | None) -> tuple[EventLog, Inbox, Feed, LeaseStore]:
    if redis is not None:
        return RedisEventLog(redis), RedisInbox(redis, redis), RedisFeed(redis), RedisLeaseStore(redis)
    log = MemoryEventLog()
    return log, MemoryInbox(), MemoryFeed(log), MemoryLeaseStore(log)


@asynccontextmanager
async def team(
    root: Path,
    *,
    models: Mapping[str, ChatModel] | None = None,
    record_dir: Path | None = None,
    environ: Mapping[str, str] = {},
    through: Callable[[EventLog], EventLog] = lambda log: log,
    redis: Redis | None = None,
    target: ChangeTarget | None = None,
    usage: UsageLogs | None = None,
    policy: StepPolicy | None = None,
    make_sandbox: Callable[[Path, BlobStore], Awaitable[ToolSupervisor]] | None = None,
    agents: Agents | None = None,
    readers: PackReaders | None = None,
    deploys_to: Sequence[DeployTarget] = (),
    configured: ModelsConfig | None = None,
    fsm: FsmConfig | None = None,
    make_environments: Callable[[Path, BlobStore], Environments] | None = None,
) -> AsyncIterator[Team]:
    """A running team below `root`; everything of it ends with the block. The first shard sees the log `through`.

    Its log, queues and leases are in memory, or on the server of `redis`. `agents` answer in place of role agents over
    `models`, and also what no story asks of them. Stories keep to `readers`, as those of a fleet do, and of lifecycle
    `sdlc` they are deployed to programs in the team's own sandbox. `configured` gives budgets and engines, `fsm` its
    lifecycles, `make_environments` what fetches the packages of repositories.
    """
    files = ConfigFiles(packaged_directory())
    blobs, clock = FileBlobStore(root / "blobs"), SystemClock()
    log, inbox, feed, leases = _stores(redis)
    state_root = reachable_state_root(root / "sandbox")
    backend = BubblewrapBackend(state_root, blobs)
    deployments = ProcessDeployments(backend, clock, root / "deployments")
    if make_sandbox is None:
        sandbox = ToolSupervisor(backend, MemoryRunLedger(), blobs, clock, "sandbox:local", logs=MemoryRunLogs())
    else:
        sandbox = await make_sandbox(state_root, blobs)
    config = configured or load_models(files.document("models.yaml"))
    answering: Agents = agents or local_agents(
        ChatModels(config, environ=environ, record_dir=record_dir) if models is None else models, blobs, config
    )
    budgeting = None if configured is None else Budgeting(limits=configured.budgets, models=configured)
    rules = replace(load_definitions(files), targets=tuple(deploys_to))
    rules = rules if fsm is None else replace(rules, fsm=fsm)
    reports = ReportService(log, blobs)
    packs = ContextService(log, blobs, files.load("context.yaml", ContextConfig), clock=clock)
    forge = LocalForge(state_root=state_root, blobs=blobs)
    environments = make_environments(state_root, blobs) if make_environments else None

    def project_owner(log: EventLog, incarnation: str, asked: Agents) -> ProjectOwner:
        coach, planning = files.load("coach.yaml", CoachConfig), rules.planning
        ceremony = planning.ceremonies["backlog_review"]
        calls = ProjectCalls(asked, clock)
        return ProjectOwner(
            log=log,
            leases=leases,
            inbox=inbox,
            clock=clock,
            owner=f"council:0/{incarnation}",
            roles_of=lambda p: ROLES if p.is_human else frozenset(),
            blobs=blobs,
            rules=ProjectRules(
                coach=coach,
                ceremony=ceremony,
                lifecycles=rules.fsm.lifecycles,
                has_model=lambda profile: agents is not None,
                assignable_roles=load_roles(files.document("roles.yaml")).assignable,
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
        )

    def make_shard(incarnation: str, seen: EventLog) -> CouncilShard:
        asked: Agents = TracedAgents(answering, seen) if isinstance(seen, ObservedLog) else answering
        held = TracedSandbox(sandbox, seen) if isinstance(seen, ObservedLog) else sandbox

        async def make_bench(story_id: StoryId, epoch: int) -> Workbench:
            journal = Journal(
                log=seen,
                blobs=blobs,
                clock=clock,
                sandbox=held,
                agents=asked,
                story_id=story_id,
                epoch=epoch,
                policy=policy or replace(step_policy(), fsm=rules.fsm),
                packs=packs,
                budgeting=budgeting,
            )
            await journal.load()
            return Workbench(
                journal=journal,
                rules=rules,
                packs=packs,
                forge=forge,
                blobs=blobs,
                clock=clock,
                reports=reports,
                target=target,
                deployments=deployments,
                environments=environments,
                usage=usage,
            )

        return CouncilShard(
            name="council:0",
            incarnation=incarnation,
            log=seen,
            leases=leases,
            inbox=inbox,
            clock=clock,
            make_bench=make_bench,
            commands=CommandHandler(
                roles_of=lambda p: ROLES if p.is_human else frozenset(),
                coach=files.load("coach.yaml", CoachConfig),
                config_digests=files.digests(),
                projects=partial(project_state, log),
                readers=readers,
            ),
            # People reach a team by commands only where it is served, and only they ask anything of projects.
            projects=None if redis is None else project_owner(seen, incarnation, asked),
            sweep_s=0.5,
        )

    desk = PlanningDesk(log=log, inbox=inbox, feed=feed, clock=clock, fsm=rules.fsm)
    shard = make_shard("1", through(log))
    made = Team(
        desk=desk,
        log=log,
        blobs=blobs,
        shard=shard,
        reports=reports,
        leases=leases,
        inbox=inbox,
        make_shard=make_shard,
        sandbox=sandbox,
        packs=packs,
    )
    made.begin(shard)
    try:
        yield made
    finally:
        await made.end()
        await deployments.close()
