"""A story that closes asks for a checkpoint, and goes on asking until one was made (EV-9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from fleet.audit.checkpoint import SignedCheckpoint
from fleet.audit.memory import MemoryCheckpointStore
from fleet.audit.service.notary import Notary
from fleet.kernel.clock import settled
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StreamId
from tests.support.audit import AuditWorld
from tests.support.stores import append_request
from tests.support.through_log import ThroughLog

ONE, TWO = StreamId("story:st-one"), StreamId("story:st-two")
PROJECT = StreamId("project:pr-one")


class Crash(BaseException):
    """The process dies here."""


class FailingStore(MemoryCheckpointStore):
    """Raises `error`, before or after it stored a checkpoint, for as long as there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.stores = False
        self.tries = 0

    async def append(self, signed: SignedCheckpoint, *, sequence: int) -> None:
        self.tries += 1
        if self.error is None or self.stores:
            await super().append(signed, sequence=sequence)
        if self.error is not None:
            raise self.error


class World(AuditWorld):
    """Two stories and a project, attested once, with a store of checkpoints that can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.store: FailingStore = FailingStore()

    async def close(self, stream: StreamId) -> None:
        await self.log.append(append_request(stream, await self.log.head(stream), closes=True))

    def attested(self) -> dict[StreamId, int]:
        """What the newest checkpoint attests, in the store and as a copy."""
        newest = self.store.kept[-1]
        assert self.export.copies[len(self.store.kept)] == newest
        return {leaf.stream: leaf.version for leaf in newest.leaves}

    async def pass_by(self, seconds: float) -> None:
        """That time went by, a second at a time."""
        for _ in range(int(seconds)):
            await settled()
            self.clock.advance(1)
        await settled()


@pytest.fixture
async def world() -> World:
    made = World()
    for stream in (ONE, TWO, PROJECT):
        await made.append(stream, b"1", b"2")
    await made.notary().checkpoint()
    return made


@asynccontextmanager
async def running(notary: Notary) -> AsyncGenerator[asyncio.Task[None]]:
    task = asyncio.create_task(notary.run())
    await settled()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.rule("EV-9")
async def test_closed_story_is_attested_long_before_the_next_period(world: World) -> None:
    async with running(world.notary()):
        await world.append(TWO, b"3")
        await world.append(PROJECT, b"3")
        await world.pass_by(10)
        assert len(world.store.kept) == 1
        await world.close(ONE)
        await world.pass_by(2)
        assert world.attested() == {ONE: 3, TWO: 3, PROJECT: 3}
        await world.append(TWO, b"4")
        await world.pass_by(40)
        assert len(world.store.kept) == 2


@pytest.mark.rule("EV-9")
@pytest.mark.parametrize("stores", [False, True], ids=["before the store", "between store and export"])
async def test_notary_that_died_over_a_closed_story_is_followed_by_one_that_attests_it(
    world: World, stores: bool
) -> None:
    world.store.error, world.store.stores = Crash(), stores
    async with running(world.notary()) as first:
        await world.close(ONE)
        await world.pass_by(2)
        assert isinstance(first.exception(), Crash)
    assert (len(world.store.kept), list(world.export.copies)) == (1 + stores, [1])
    world.store.error = None

    async with running(world.notary()):
        assert world.attested() == {ONE: 3, TWO: 2, PROJECT: 2}
    assert (await world.verify()).is_clean


@pytest.mark.rule("EV-9")
async def test_checkpoint_that_failed_is_asked_for_again_less_and_less_often(world: World) -> None:
    notary = world.notary()
    async with running(notary):
        world.store.error = StoreUnavailable("down")
        await world.close(ONE)
        await world.pass_by(30)
        # Two seconds after the story, then 4, 8 and 16 seconds later.
        assert (world.store.tries, notary.problem) == (5, "store_unavailable: down")
        assert world.announced == ["no checkpoint: store_unavailable: down"]
        world.store.error = None
        await world.pass_by(32)
        assert (world.attested()[ONE], notary.problem) == (3, None)


class SilentLog(ThroughLog):
    """A log that does not list its open streams while it is `down`."""

    down = False

    async def open_streams(self) -> list[StreamId]:
        if self.down:
            raise StoreUnavailable("down")
        return await super().open_streams()


@pytest.mark.rule("EV-9", "EV-23")
async def test_story_that_closed_during_an_outage_is_attested_after_it(world: World) -> None:
    inner, silent = world.log, SilentLog(world.log)
    world.log = silent  # pyright: ignore[reportAttributeAccessIssue]
    notary = world.notary()
    world.log = inner
    async with running(notary):
        silent.down = True
        await world.close(ONE)
        await world.pass_by(8)
        assert (len(world.store.kept), notary.problem) == (1, None)
        silent.down = False
        await world.pass_by(2)
        assert world.attested()[ONE] == 3


@pytest.mark.rule("EV-9")
async def test_last_look_attests_what_the_log_holds_or_leaves_it_to_the_next_start(world: World) -> None:
    notary = world.notary()
    await world.append(ONE, b"3")
    world.store.error = StoreUnavailable("down")
    await notary.conclude()
    assert (world.attested()[ONE], notary.problem) == (2, "store_unavailable: down")
    world.store.error = None
    await notary.conclude()
    assert (world.attested()[ONE], notary.problem) == (3, None)
