"""Shards over the in-memory twins, in a town whose time the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fleet.audit.port import Witness
from fleet.events.codec import decode
from fleet.events.report import OwnershipTaken
from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import Principal, StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.owner.shard import CouncilShard
from fleet.owner.workbench import Workbench
from fleet.story.commands.catalogue import parse_command
from tests.support.bench import STORY_TEXT, World

ANA = Principal("user:ana")
ONE, TWO = StoryId("st-one1"), StoryId("st-two2")
STREAM_ONE, STREAM_TWO = StreamId.of_story(ONE), StreamId.of_story(TWO)


class Town(World):
    """A world whose clock the test turns."""

    clock: MemoryClock

    def __init__(self, log: MemoryEventLog | None = None, **given: Any) -> None:
        super().__init__(clock=MemoryClock(), log=log, **given)
        self.witness: Witness | None = None
        self.benches: list[Workbench] = []

    async def bench(self, story_id: StoryId = ONE, epoch: int = 0) -> Workbench:
        """The workbench of an owner; `benches` keeps all of them."""
        self.benches.append(await super().bench(story_id, epoch))
        return self.benches[-1]

    def shard(
        self, name: str = "council:0", incarnation: str = "a1", *, sweep_s: float = 3.0, max_claims: int = 128
    ) -> CouncilShard:
        """A shard over the stores of this town."""
        return CouncilShard(
            name=name,
            incarnation=incarnation,
            log=self.log,
            leases=self.leases,
            inbox=self.inbox,
            clock=self.clock,
            make_bench=self.bench,
            commands=self.commands,
            ttl_s=15,
            sweep_s=sweep_s,
            witness=self.witness,
            max_claims=max_claims,
            projects=self.brief_owners(f"{name}/{incarnation}"),
        )

    async def until(self, condition: Callable[[], bool], *, within_s: float = 60) -> None:
        """Time passes until the condition holds."""
        for _ in range(int(within_s * 2)):
            await self.pass_time(0.5)
            if condition():
                return
        raise AssertionError(f"not within {within_s} s of the clock")

    async def pass_time(self, seconds: float) -> None:
        """This much time passes, in small steps."""
        for _ in range(max(1, int(seconds * 2))):
            for _ in range(40):
                await asyncio.sleep(0)
            self.clock.advance(0.5)
        for _ in range(40):
            await asyncio.sleep(0)

    async def do(self, story_id: StoryId, name: str, body: dict[str, Any], *, key: str = "key-1") -> Any:
        """The answer to a command, while time passes."""
        asked = asyncio.create_task(
            self.desk.require(story_id, parse_command(name, body), principal=ANA, key=f"{story_id}/{key}")
        )
        await self.until(asked.done)
        return asked.result()

    async def create(self, story_id: StoryId) -> Any:
        """The answer to its creation."""
        return await self.do(story_id, "create_story", {"story": STORY_TEXT})

    async def owners(self, story_id: StoryId) -> list[OwnershipTaken]:
        """Who took the story, in order."""
        found = [decode(e) for e in await self.events(story_id)]
        return [p for p in found if isinstance(p, OwnershipTaken)]


@asynccontextmanager
async def running(shard: CouncilShard) -> AsyncIterator[asyncio.Task[None]]:
    """The shard serves until the end of the block, and frees its stories then."""
    task = asyncio.create_task(shard.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await shard.drain()


async def crash(task: asyncio.Task[None]) -> None:
    """The process of a shard ends: its duties and its stories stop where they are, and nothing is released."""
    stories = [t for t in asyncio.all_tasks() if t.get_name().startswith("story ")]
    for dying in (task, *stories):
        dying.cancel()
    await asyncio.gather(task, *stories, return_exceptions=True)
