"""The desk: commands to the owner, reads from the log alone (AP-4, AP-98)."""

from __future__ import annotations

import asyncio

import pytest

from fleet.desk.archive import Archivist
from fleet.desk.planning import Pending
from fleet.events.envelope import StoredEvent
from fleet.events.story import RepoSource, StoryCancelled, StoryClosed, StoryStarted
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import GateClosed, InvalidInput, StoreUnavailable, StoryNotFound
from fleet.kernel.ids import Principal, StoryId, StreamId
from fleet.log.port import Answer
from fleet.story.commands.catalogue import parse_command
from fleet.story.commands.command import Caller
from tests.support.bench import STORY_TEXT, World
from tests.support.story_events import STORY, StoryLog, created_payload, story

ANA = Principal("user:ana")


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_same_text_gives_the_same_id_until_it_is_used_up():
    world = World()
    first = await world.desk.story_id_for(STORY_TEXT)
    assert first == await world.desk.story_id_for(dict(STORY_TEXT))
    assert first.startswith("st-as-an-editor-i-want-a-slug-for-e")
    await StoryLog(first).add(created_payload()).write_to(world.log)
    assert await world.desk.story_id_for(STORY_TEXT) == f"{first}-2"
    await StoryLog(StoryId(f"{first}-2")).add(created_payload()).write_to(world.log)
    assert await world.desk.story_id_for(STORY_TEXT) == f"{first}-3"


@pytest.mark.rule("EV-25")
async def test_id_of_an_archived_story_is_not_given_again():
    world = World()
    first = await world.desk.story_id_for(STORY_TEXT)
    await StoryLog(first).add(created_payload(), StoryCancelled(reason="nobody wants it")).write_to(world.log)
    archivist = Archivist(log=world.log, leases=world.leases, blobs=world.blobs, clock=world.clock, owner="archive/1")
    po = Caller(principal=Principal("user:ana"), roles=frozenset({"po"}))
    await archivist.archive(first, caller=po)
    assert (await world.log.head(StreamId.of_story(first))).version == 0
    assert await world.desk.story_id_for(STORY_TEXT) == f"{first}-2"


async def test_title_without_a_latin_letter_still_gives_an_id():
    assert (await World().desk.story_id_for({"title": "標題"})).startswith("st-story-")
    with pytest.raises(InvalidInput):
        await World().desk.story_id_for({"title": ""})


async def send(world: World, answer: Answer | None, *, within_s: float = 5) -> object:
    clock = world.clock
    assert isinstance(clock, MemoryClock)
    asked = asyncio.create_task(
        world.desk.command(
            STORY,
            parse_command("cancel", {"reason": "nobody needs it"}),
            principal=ANA,
            key="key-1",
            timeout_s=within_s,
        )
    )
    await turns()
    if answer is not None:
        (delivery,) = await world.inbox.take("council:0/a1", timeout_s=0)
        assert (delivery.command.name, delivery.command.command_id) == ("cancel", "user:ana/key-1")
        await world.inbox.acknowledge(delivery, answer)
    clock.advance(within_s)
    return await asyncio.wait_for(asked, timeout=60)


@pytest.mark.rule("AP-4", "EV-17")
async def test_command_gives_the_answer_of_the_owner():
    assert await send(World(), Answer(ok=True, result={"version": 7})) == {"version": 7}


@pytest.mark.rule("AP-4", "AP-47")
async def test_refusal_of_the_owner_arrives_as_its_own_error():
    problem = GateClosed("guards are false", state="DRAFT").to_wire()
    with pytest.raises(GateClosed) as refused:
        await send(World(), Answer(ok=False, problem=problem))
    assert refused.value.details == {"state": "DRAFT"}


@pytest.mark.rule("AP-4", "EV-10")
async def test_command_that_nobody_decided_in_time_is_pending_and_can_be_asked_for_later():
    world = World()
    pending = await send(world, None)
    assert pending == Pending("user:ana/key-1")  # pyright: ignore[reportArgumentType]
    assert isinstance(pending, Pending)
    assert await world.desk.answer(pending.command_id) is None
    (delivery,) = await world.inbox.take("council:0/a1", timeout_s=0)
    await world.inbox.acknowledge(delivery, Answer(ok=True, result={"version": 7}))
    assert await world.desk.answer(pending.command_id) == {"version": 7}


async def test_required_answer_that_does_not_come_says_what_to_look_at():
    world = World()
    asked = asyncio.create_task(
        world.desk.require(STORY, parse_command("cancel", {"reason": "nobody needs it"}), principal=ANA, key="key-1")
    )
    await turns()
    assert isinstance(world.clock, MemoryClock)
    world.clock.advance(60)
    with pytest.raises(StoreUnavailable, match="fleet status"):
        await asyncio.wait_for(asked, timeout=60)


@pytest.mark.rule("AP-98")
async def test_stories_are_read_from_the_log_alone():
    world = World()
    assert (await world.desk.stories(), await world.desk.stories_exist()) == ([], False)
    log = story(until="started")
    await log.write_to(world.log)
    (line,) = await world.desk.stories()
    assert (line.story_id, line.state, line.score, line.rigor) == (STORY, "BACKLOG", "95", "L1")
    assert (line.disposition, line.waiting_for, line.version) == ("active", None, log.version)
    assert await world.desk.stories_exist()
    assert (await world.desk.state(STORY, as_of=1)).version == 1


@pytest.mark.rule("AP-57")
async def test_stories_at_work_on_one_repository_are_named_with_what_they_hold():
    world = World()
    await story(until="started").write_to(world.log)
    others = {"st-same-1": "/srv/text/", "st-other-1": "/srv/other", "st-over-1": "/srv/text"}
    for name, url in others.items():
        log = StoryLog(StoryId(name)).add(created_payload())
        log.add(StoryStarted(repo=RepoSource(provider="local", url=url), toolchain="python", record=False))
        if name == "st-over-1":
            log.add(StoryCancelled(reason="no")).add(StoryClosed(final_state="BACKLOG"))
        await log.write_to(world.log)
    await StoryLog(StoryId("st-idle-1")).add(created_payload()).write_to(world.log)
    (other,) = await world.desk.beside(STORY)
    assert (other.state.story_id, other.branch) == ("st-same-1", "fleet/st-same-1")
    assert other.told.startswith("st-same-1 ")
    assert "it holds the branch fleet/st-same-1 and works in folders of its own" in other.told
    assert await world.desk.beside(StoryId("st-idle-1")) == ()
    assert [one.state.story_id for one in await world.desk.beside(StoryId("st-same-1"))] == [STORY]


async def test_closed_story_is_listed_as_closed():
    world = World()
    await story().write_to(world.log)
    (line,) = await world.desk.stories()
    assert (line.disposition, line.state) == ("closed", "DONE")


async def test_story_that_is_not_there_is_not_found():
    world = World()
    for read in (world.desk.state(STORY), world.desk.events(STORY)):
        with pytest.raises(StoryNotFound):
            await read


async def test_events_after_the_last_one_are_none():
    world = World()
    log = story(until="scored")
    await log.write_to(world.log)
    assert await world.desk.events(STORY, after=log.version) == []
    assert len(await world.desk.events(STORY, after=1)) == log.version - 1
    assert len(await world.desk.events(STORY, limit=1)) == 1


@pytest.mark.rule("AP-102", "EV-20")
async def test_watcher_sees_every_event_once_and_in_order_whenever_it_comes():
    world = World()
    log = story(until="scored")
    await log.write_to(world.log)
    seen: list[int] = []

    async def watch() -> None:
        async for event in world.desk.watch(STORY, after=1):
            if event is not None:
                seen.append(event.version)

    task = asyncio.create_task(watch())
    await turns()
    assert seen == [2]
    more = story(until="scope")
    await more.write_to(world.log, after=log.version)
    await turns(200)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == list(range(2, more.version + 1))


@pytest.mark.rule("AP-102")
async def test_watcher_of_a_quiet_story_hears_so_after_its_time_and_not_because_of_others():
    world = World()
    assert isinstance(world.clock, MemoryClock)
    await story(until="created").write_to(world.log)
    found: list[StoredEvent | None] = []

    async def watch() -> None:
        async for event in world.desk.watch(STORY, after=1, idle_s=15):
            found.append(event)

    task = asyncio.create_task(watch())
    for number in range(14):
        await turns()
        await StoryLog(StoryId(f"st-other-{number}")).add(created_payload()).write_to(world.log)
        world.clock.advance(1)
    await turns()
    assert found == []
    for _ in range(2):
        world.clock.advance(1)
        await turns()
    assert found == [None]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
