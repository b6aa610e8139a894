"""The projector over the twins in memory."""

from __future__ import annotations

import asyncio

import pytest

from fleet.audit.service.whole_log import WholeLog
from fleet.events.codec import encode
from fleet.events.envelope import Head, NewEvent, StoredEvent
from fleet.graph.batch import NodeKey
from fleet.graph.projection import Comparison
from fleet.graph.service.project_event import Poisoned
from fleet.kernel.errors import LogCorrupted, LogRegressed, StoreUnavailable, UnsupportedSchema
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryEventLog, MemoryFeedGroup
from fleet.log.port import MAX_ATTEMPTS, HintDelivery
from fleet.trees.memory import MemoryBlobStore
from tests.support.projection import CREATED, MOVED, OTHER, PROJECT, STORY, Projections, append, running
from tests.support.stores import eventually

NEWER = NewEvent(type="StoryCreated", schema=99, body=encode(CREATED).body)


async def settled(world: Projections) -> None:
    """Both loops of a running projector wait for the clock."""
    assert await eventually(lambda: world.clock.sleepers >= 2, within_s=60)
    for _ in range(30):
        await asyncio.sleep(0)


@pytest.mark.rule("GR-4", "EV-20")
async def test_run_projects_what_is_there_and_follows_hints() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    projector = world.projector()
    assert await projector.lag() == {str(STORY): 1}
    async with running(projector):
        assert await eventually(lambda: len(world.counting.applied) == 1, within_s=60)
        await append(world.log, STORY, MOVED)
        await append(world.log, OTHER, CREATED)
        assert await eventually(lambda: len(world.counting.applied) == 3, within_s=60)
    assert await projector.lag() == {str(STORY): 0, str(OTHER): 0}
    assert world.counting.nodes[NodeKey("Story", "st-a1")]["state"] == "DESIGN"


@pytest.mark.rule("EV-20")
async def test_sweep_repairs_a_lost_hint() -> None:
    world = Projections()
    async with running(world.projector()):
        await settled(world)
        await append(world.log, STORY, CREATED)
        world.log.hints.clear()
        for _ in range(14):
            world.clock.advance(2)
            await settled(world)
        assert world.counting.applied == []
        world.clock.advance(3)
        assert await eventually(lambda: world.counting.applied == [True], within_s=60)


@pytest.mark.rule("EV-20")
async def test_hints_are_acknowledged_once_they_were_looked_at() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    taken = await world.feed.take("one", timeout_s=60)
    assert [delivery.hint.stream for delivery in taken] == [STORY]
    await world.projector().handle(taken)
    assert (await world.feed.backlog()).pending == 0
    assert world.counting.applied == [True]


@pytest.mark.rule("EV-23")
async def test_hints_are_not_acknowledged_while_the_graph_is_down() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    taken = await world.feed.take("one", timeout_s=60)
    world.counting.is_down = True
    with pytest.raises(StoreUnavailable):
        await world.projector().handle(taken)
    assert (await world.feed.backlog()).pending == 1
    world.counting.is_down = False
    await world.projector().handle(taken)
    assert (await world.feed.backlog()).pending == 0
    assert await world.letters.letters() == []


@pytest.mark.rule("GR-4")
async def test_long_stream_is_applied_in_batches_of_200() -> None:
    world = Projections()
    for _ in range(5):
        await append(world.log, STORY, *[MOVED] * 90)
    assert await world.projector().catch_up(STORY) == 450
    assert world.counting.sizes == [200, 200, 50]


@pytest.mark.rule("GR-4")
async def test_two_projectors_apply_every_batch_once() -> None:
    world, alone = Projections(), Projections()
    for _ in range(3):
        for one in (world, alone):
            await append(one.log, STORY, CREATED, *[MOVED] * 89)
    done = await asyncio.gather(*(world.projector().catch_up(STORY) for _ in range(2)))
    await alone.projector().catch_up(STORY)
    assert done == [270, 270]
    assert False in world.counting.applied, "no race was seen"
    assert world.counting.applied.count(True) == 2
    assert await world.graph.digest() == await alone.graph.digest()


@pytest.mark.rule("EV-20", "EV-21", "GR-4")
async def test_three_projectors_that_share_repeated_hints_end_with_the_same_graph() -> None:
    world, alone = Projections(), Projections()
    async with running(*(world.projector() for _ in range(3))):
        await settled(world)
        for n in range(12):
            for one in (world, alone):
                await append(one.log, (STORY, OTHER)[n % 2], CREATED, MOVED)
            world.log.hints.append(world.log.hints[0])
            world.log.grown.notify()
        assert await eventually(lambda: _is_caught_up(world), within_s=60)
    await alone.projector().sweep()
    assert await world.graph.digest() == await alone.graph.digest()


async def _is_caught_up(world: Projections) -> bool:
    return set((await world.projector().lag()).values()) == {0}


@pytest.mark.rule("GR-6", "EV-19")
async def test_log_that_went_back_is_refused_and_held_and_others_go_on() -> None:
    world, older = Projections(), MemoryEventLog()
    await append(world.log, STORY, CREATED, MOVED)
    await world.projector().sweep()
    await append(older, STORY, CREATED)
    await append(older, OTHER, CREATED)
    projector = world.projector(older)
    with pytest.raises(LogRegressed) as caught:
        await projector.catch_up(STORY)
    assert caught.value.details == {"stream": str(STORY), "projected": 2, "head": 1}
    await projector.sweep()
    assert list(await older.refused()) == [STORY]
    # Durable: another process knows it without looking at the stream.
    later = world.projector(older)
    (why,) = (await later.set_aside()).values()
    assert (why.code, why.letter_id) == ("log_regressed", None)
    assert await later.lag() == {str(STORY): -1, str(OTHER): 0}
    assert await world.letters.letters() == []


@pytest.mark.rule("GR-6", "EV-19")
async def test_stream_that_vanished_from_the_log_is_refused() -> None:
    world, empty = Projections(), MemoryEventLog()
    await append(world.log, STORY, CREATED)
    await world.projector().sweep()
    await world.projector(empty).sweep()
    assert list(await empty.refused()) == [STORY]


@pytest.mark.rule("EV-25")
async def test_archived_stream_is_no_loss_and_no_lag() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    projector = world.projector()
    await projector.sweep()
    await world.archive(STORY)
    for _ in range(2):
        await projector.sweep()
    assert await world.log.refused() == {}
    assert set((await projector.lag()).values()) == {0}
    assert NodeKey("Story", "st-a1") in world.counting.nodes


@pytest.mark.rule("EV-25", "GR-7")
async def test_rebuilt_graph_still_holds_what_was_archived() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED, MOVED)
    await append(world.log, OTHER, CREATED)
    await world.projector().sweep()
    await world.archive(STORY)
    await world.projector().sweep()
    before = await world.graph.digest()
    await world.projector().ask_for_rebuild()
    await world.rebuilt()
    assert (await world.graph.projection()).comparison is Comparison.EQUAL
    assert await world.graph.digest() == before
    assert NodeKey("Story", "st-a1") in world.counting.nodes


@pytest.mark.rule("EV-25")
async def test_archive_whose_export_is_gone_is_parked_in_a_rebuild() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    await world.projector().sweep()
    await world.archive(STORY)
    await world.projector().sweep()
    world.blobs = MemoryBlobStore()
    await world.projector().ask_for_rebuild()
    for _ in range(MAX_ATTEMPTS + 1):
        await world.rebuilt()
    (letter,) = await world.letters.letters()
    assert (letter.failure.stream, letter.failure.code) == (STORY, "not_found")
    assert (await world.graph.projection()).comparison is Comparison.IMPOSSIBLE


async def test_archive_is_known_without_blobs_and_cannot_be_read() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    await world.archive(STORY)
    log = WholeLog(world.log)
    assert await log.streams() == [PROJECT]
    assert await log.lost({STORY, OTHER}) == [OTHER]
    assert (await log.head(STORY)).version == 0
    assert await log.read(STORY) == []


@pytest.mark.rule("GR-6")
async def test_other_history_at_the_cursor_is_log_regressed() -> None:
    world, forked = Projections(), MemoryEventLog()
    await append(world.log, STORY, CREATED)
    await world.projector().sweep()
    await append(forked, STORY, CREATED, MOVED, ts_ms=2)
    before = await world.graph.digest()
    with pytest.raises(LogRegressed, match="another event"):
        await world.projector(forked).catch_up(STORY)
    assert await world.graph.digest() == before


@pytest.mark.rule("GR-6", "EV-23")
async def test_graph_that_is_down_is_waited_for_longer_each_time_and_blames_no_stream() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    world.counting.is_down = True
    projector = world.projector()
    pauses: list[int] = []
    async with running(projector):
        await settled(world)
        for _ in range(12):
            before, started = world.clock.sleepers, world.clock.monotonic_ms()
            while world.clock.sleepers == before:
                world.clock.advance(0.05)
            pauses.append(world.clock.monotonic_ms() - started)
            await settled(world)
        assert max(pauses) <= 30_050
        assert world.clock.monotonic_ms() > 20_000, "the pauses did not grow"
        world.counting.is_down = False
        world.clock.advance(31)
        assert await eventually(lambda: world.counting.applied == [True], within_s=60)
    assert await projector.set_aside() == {}


@pytest.mark.rule("EV-22", "EV-30")
async def test_newer_schema_parks_the_stream_after_what_is_readable() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED, NEWER, MOVED)
    await append(world.log, OTHER, CREATED)
    projector = world.projector()
    for _ in range(MAX_ATTEMPTS + 2):
        await projector.sweep()
    (why,) = (await projector.set_aside()).values()
    assert (why.code, why.version) == ("unsupported_schema", 2)
    assert await projector.lag() == {str(STORY): 2, str(OTHER): 0}
    await world.letters.retry(why.letter_id or "")
    with pytest.raises(UnsupportedSchema):
        await projector.catch_up(STORY)


async def test_body_that_cannot_be_read_is_poison() -> None:
    world = Projections()
    await append(world.log, STORY, NewEvent(type="StoryCreated", schema=1, body=b"{}"))
    projector = world.projector()
    with pytest.raises(LogCorrupted):
        await projector.catch_up(STORY)
    for _ in range(MAX_ATTEMPTS):
        await projector.sweep()
    (letter,) = await world.letters.letters()
    assert (letter.failure.version, letter.failure.code, letter.failure.raw) == (1, "log_corrupted", "{}")
    assert world.counting.applied == []


@pytest.mark.rule("EV-22")
async def test_poisoned_event_is_parked_once_across_restarts_and_others_go_on() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED, MOVED, MOVED)
    await append(world.log, OTHER, CREATED)
    world.counting.poisoned = (STORY, 2)
    for _ in range(MAX_ATTEMPTS + 3):
        await world.projector().sweep()
    assert world.counting.refusals == MAX_ATTEMPTS
    (letter,) = await world.letters.letters()
    assert (letter.failure.source, letter.failure.stream, letter.failure.version) == ("projector", STORY, 2)
    assert letter.attempts == MAX_ATTEMPTS
    restarted = world.projector()
    assert list(await restarted.set_aside()) == [STORY]
    assert await restarted.lag() == {str(STORY): 2, str(OTHER): 0}
    assert await restarted.catch_up(STORY) == 1
    await append(world.log, OTHER, MOVED)
    await restarted.sweep()
    assert await restarted.lag() == {str(STORY): 2, str(OTHER): 0}


@pytest.mark.rule("EV-22")
async def test_retried_letter_goes_on_from_the_log() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED, MOVED)
    world.counting.poisoned = (STORY, 2)
    projector = world.projector()
    async with running(projector):
        for _ in range(MAX_ATTEMPTS + 1):
            await settled(world)
            world.clock.advance(2)
        assert await eventually(world.letters.letters, within_s=60)
        world.counting.poisoned = None
        await settled(world)
        (letter,) = await world.letters.letters()
        await world.letters.retry(letter.letter_id)
        world.clock.advance(2)
        assert await eventually(lambda: _is_caught_up(world), within_s=60)
    assert world.counting.refusals == MAX_ATTEMPTS


@pytest.mark.rule("EV-22")
async def test_hints_of_a_parked_stream_are_acknowledged_at_once() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    world.counting.poisoned = (STORY, 1)
    projector = world.projector()
    for _ in range(MAX_ATTEMPTS):
        await projector.sweep()
    await append(world.log, STORY, MOVED)
    await projector.handle(await world.feed.take("one", timeout_s=60))
    assert (await world.feed.backlog()).pending == 0
    assert world.counting.refusals == MAX_ATTEMPTS


@pytest.mark.rule("EV-23")
async def test_batch_that_one_stream_cannot_get_stored_keeps_no_other_back_and_is_no_poison() -> None:
    world = Projections()
    await append(world.log, STORY, CREATED)
    await append(world.log, OTHER, CREATED)
    world.counting.overfull = STORY
    projector = world.projector()
    for _ in range(MAX_ATTEMPTS + 1):
        await projector.sweep()
    assert await projector.lag() == {str(STORY): 1, str(OTHER): 0}
    assert await projector.set_aside() == {}
    world.counting.overfull = None
    await projector.handle([])
    assert await projector.lag() == {str(STORY): 0, str(OTHER): 0}


class UnreadableLog(MemoryEventLog):
    """Some entries cannot be read, and the heads of some streams neither."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: dict[StreamId, int] = {}
        self.headless: set[StreamId] = set()

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        events = await super().read(stream, after=after, limit=limit)
        if any(event.version == self.broken.get(stream) for event in events):
            raise LogCorrupted(f"{stream} does not verify")
        return events

    async def head(self, stream: StreamId) -> Head:
        if stream in self.headless:
            raise LogCorrupted(f"the head of {stream} is not readable")
        return await super().head(stream)


@pytest.mark.rule("EV-22")
async def test_entry_that_does_not_verify_is_parked_at_its_version() -> None:
    world, log = Projections(), UnreadableLog()
    await append(log, STORY, CREATED, MOVED, MOVED)
    log.broken[STORY] = 3
    projector = world.projector(log)
    for _ in range(MAX_ATTEMPTS):
        await projector.sweep()
    (letter,) = await world.letters.letters()
    assert (letter.failure.version, letter.failure.code, letter.failure.raw) == (3, "log_corrupted", "")
    assert await projector.lag() == {str(STORY): 1}


@pytest.mark.rule("EV-22")
async def test_projected_entry_or_head_that_does_not_verify_any_more_parks_its_stream_alone() -> None:
    world, log = Projections(), UnreadableLog()
    for stream in (STORY, OTHER, PROJECT):
        await append(log, stream, CREATED)
    await world.projector(log).sweep()
    for stream in (STORY, OTHER, PROJECT):
        await append(log, stream, MOVED)
    log.broken[STORY] = 1
    log.headless.add(OTHER)
    for _ in range(MAX_ATTEMPTS):
        await world.projector(log).sweep()
    found = {letter.failure.stream: letter.failure.code for letter in await world.letters.letters()}
    assert found == {STORY: "log_corrupted", OTHER: "log_corrupted"}
    assert (await world.graph.cursor(PROJECT)).version == 2


@pytest.mark.rule("GR-6")
async def test_archive_that_cannot_be_read_counts_as_lost() -> None:
    world, log = Projections(), UnreadableLog()
    await append(world.log, STORY, CREATED)
    await world.projector().sweep()
    await append(log, PROJECT, CREATED)
    log.broken[PROJECT] = 1
    await world.projector(log).sweep()
    assert list(await log.refused()) == [STORY]


def test_poison_without_a_code_of_ours_is_an_internal_error() -> None:
    assert Poisoned(STORY, 1, ValueError("x")).code == "internal_error"
    assert Poisoned(STORY, 1, LogCorrupted("x")).code == "log_corrupted"


async def test_defect_of_the_follower_ends_the_projector_instead_of_looping() -> None:
    world = Projections()
    projector = world.projector()

    class Broken(MemoryFeedGroup):
        async def take(self, consumer: str, *, timeout_s: float) -> list[HintDelivery]:
            raise ValueError("a defect")

    world.feed = Broken(world.log, world.clock)
    projector = world.projector()
    async with running(projector) as (task,):
        assert await eventually(task.done, within_s=60)
        assert isinstance(task.exception(), ExceptionGroup)
