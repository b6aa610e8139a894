"""Council shards over real stores in Redis, in this process: each reaches them by an address of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis

from fleet.context.service.packs import ContextService
from fleet.desk.planning import PlanningDesk
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import RunKey, StoryId
from fleet.log.redis.feed import RedisFeed
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog
from fleet.log.redis.snapshots import RedisSnapshotStore
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.owner.journal.journal import Journal
from fleet.owner.shard import CouncilShard
from fleet.owner.workbench import Workbench
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.report.service.reports import ReportService
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd, ProgramStart
from fleet.sandbox.port import SandboxHealth
from fleet.sandbox.redis import RedisRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from fleet.trees.memory import MemoryBlobStore
from tests.support import sim_story
from tests.support.bench import ScriptedAgents, definitions
from tests.support.chaos_servers import connected
from tests.support.chaos_stories import killed, patiently
from tests.support.oracle import RecordingLog
from tests.support.rules import fsm, step_policy
from tests.support.sim_stores import CountingForge


class SkewedClock(SystemClock):
    """The machine's clock with a wrong wall time: `offset_s` ahead, or behind when negative; it may jump."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def now_ms(self) -> int:
        """UTC milliseconds, wrong by the offset."""
        return super().now_ms() + int(self.offset_s * 1000)


@dataclass(frozen=True)
class Effect:
    """An effect that a shard asked for, and when by the clock of the loop."""

    owner: str
    name: str
    at_s: float


@dataclass
class Outside:
    """What all shards act on and which outlives them: role agents, one sandbox node, a forge, and the blobs."""

    ledger: Redis
    effect_s: float = 0.03
    """How long each effect takes."""
    started: list[Effect] = field(default_factory=list[Effect])
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)

    def __post_init__(self) -> None:
        async def program(start: ProgramStart) -> ProgramEnd:
            await asyncio.sleep(self.effect_s)
            return sim_story.toolchain(start)

        self.agents = ScriptedAgents(sim_story.answer)
        self.forge = CountingForge(self.blobs)
        self.forge.add_repository(sim_story.REPOSITORY, branches={"main": sim_story.BASE_COMMIT})
        self.supervisor = ToolSupervisor(
            MemorySandboxBackend(program, self.blobs),
            RedisRunLedger(self.ledger),
            self.blobs,
            SystemClock(),
            "sandbox:n1",
        )

    def note(self, owner: str, name: str) -> None:
        """An effect starts now."""
        self.started.append(Effect(owner, name, asyncio.get_running_loop().time()))


class _Seen:
    """The outside as one shard sees it: agents and sandbox, whose calls are noted."""

    def __init__(self, outside: Outside, owner: str) -> None:
        self._outside, self._owner = outside, owner

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        self._outside.note(self._owner, f"ask {request_id}")
        await asyncio.sleep(self._outside.effect_s)
        return await self._outside.agents.ask(request, request_id=request_id, timeout_s=timeout_s)

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """See `Sandbox.run`."""
        self._outside.note(self._owner, f"run {key}")
        return await self._outside.supervisor.run(spec, story=story, key=key, epoch=epoch)

    async def cancel(self, key: RunKey) -> bool:
        """See `Sandbox.cancel`."""
        return await self._outside.supervisor.cancel(key)

    async def health(self) -> SandboxHealth:
        """See `Sandbox.health`."""
        return await self._outside.supervisor.health()


@dataclass
class RunningShard:
    """A shard and what it wrote through."""

    shard: CouncilShard
    log: RecordingLog
    task: asyncio.Task[None]

    @property
    def stories(self) -> tuple[str, ...]:
        """The stories that it owns just now."""
        return self.shard.status().stories

    async def die(self) -> None:
        """The shard and its stories stop where they are; nothing is released and nobody is told."""
        own = [t for t in asyncio.all_tasks() if t.get_name() in {f"story {story}" for story in self.stories}]
        await killed(*own, self.task)


@asynccontextmanager
async def running_shard(
    name: str, url: str, outside: Outside, *, ttl_s: int, clock: SystemClock | None = None
) -> AsyncGenerator[RunningShard]:
    """A shard that reaches its stores at this address; it has died at the end of the block."""
    clock = clock or SystemClock()
    async with connected(url) as client:
        # As in production, an append is repeated for two thirds of a lease at most.
        log = RecordingLog(RedisEventLog(client, margin_s=ttl_s * 2 / 3))
        seen, snapshots = _Seen(outside, name), RedisSnapshotStore(client)
        packs = ContextService(log, outside.blobs, sim_story.context_config(), clock=clock)

        async def make_bench(story_id: StoryId, epoch: int) -> Workbench:
            journal = Journal(
                log=log,
                blobs=outside.blobs,
                clock=clock,
                sandbox=seen,
                agents=seen,
                story_id=story_id,
                epoch=epoch,
                policy=step_policy(),
                snapshots=snapshots,
                packs=packs,
            )
            await journal.load()
            return Workbench(
                journal=journal,
                rules=definitions(),
                packs=packs,
                forge=outside.forge,
                blobs=outside.blobs,
                clock=clock,
                reports=ReportService(log, outside.blobs),
            )

        shard = CouncilShard(
            name=name,
            incarnation="1",
            log=log,
            leases=RedisLeaseStore(client, margin_s=1),
            inbox=RedisInbox(client, client, block_s=0.5, margin_s=1),
            clock=clock,
            make_bench=make_bench,
            commands=sim_story.commands(),
            ttl_s=ttl_s,
            sweep_s=0.3,
        )
        running = RunningShard(shard, log, asyncio.create_task(shard.run(), name=f"shard {name}"))
        try:
            yield running
        finally:
            await running.die()


def desk_of(client: Redis) -> PlanningDesk:
    """A person's way to the stories."""
    return PlanningDesk(
        log=RedisEventLog(client),
        inbox=RedisInbox(client, client),
        feed=RedisFeed(client),
        clock=SystemClock(),
        fsm=fsm(),
    )


async def deliver(client: Redis, *, number: int = 1) -> StoryId:
    """A new story that goes to its branch without any further word of a person."""
    desk, story_id = desk_of(client), StoryId(f"st-chaos{number}")
    body = {"story": sim_story.story_text(number)}
    await desk.require(
        story_id, parse_command("create_story", body), principal=sim_story.PERSON, key=f"{story_id}/create"
    )
    body = {"repo": sim_story.REPOSITORY, "delegate": ["po", "qa"]}
    await desk.require(
        story_id, parse_command("start_story", body), principal=sim_story.PERSON, key=f"{story_id}/start"
    )
    return story_id


async def state_of(client: Redis, story_id: StoryId) -> StoryState:
    """The story as the log has it."""
    return await patiently(lambda: desk_of(client).state(story_id))
