"""A shard owns stories by lease and epoch; losing one story ends that one only (GL-19, EV-17, LC-94)."""

from __future__ import annotations

import asyncio

import pytest

from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import InvalidInput, LeaseHeld, LogCorrupted, NotFound, StoreUnavailable
from fleet.kernel.ids import CommandId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Command
from tests.support.bench import STORY_TEXT
from tests.support.town import ANA, ONE, STREAM_ONE, STREAM_TWO, TWO, Town, running


@pytest.mark.rule("EV-17")
async def test_created_story_belongs_to_the_shard_that_answered():
    town = Town()
    shard = town.shard()
    async with running(shard):
        assert (await town.create(ONE))["state"] == "DRAFT"
        (taken,) = await town.owners(ONE)
        assert (taken.owner, taken.cause, taken.epoch, taken.previous_epoch) == ("council:0/a1", "new", 1, 0)
        assert shard.status().stories == (ONE,)
        assert shard.result_of(STREAM_ONE)["state"] == "DRAFT"
        assert shard.result_of(STREAM_TWO) == {}


@pytest.mark.rule("EV-17", "AP-2")
async def test_command_that_comes_again_is_answered_again_and_recorded_once():
    town = Town()
    async with running(town.shard()):
        first = await town.create(ONE)
        assert await town.create(ONE) == first
        assert (await town.types(ONE)).count("StoryCreated") == 1


async def test_refused_command_leaves_no_stream_lease_or_task_behind():
    town = Town()
    shard = town.shard()
    async with running(shard):
        with pytest.raises(InvalidInput):
            await town.do(ONE, "create_story", {"story": {"title": ""}})
        with pytest.raises(NotFound, match="there is no story"):
            await town.do(TWO, "cancel", {"reason": "nobody needs it"})
        assert shard.status().stories == ()
        for stream in (STREAM_ONE, STREAM_TWO):
            await town.leases.claim(stream, "council:9/z1", ttl_s=15)
        assert await town.log.streams() == []


async def test_defect_in_a_command_is_answered_and_the_shard_goes_on():
    town = Town()
    async with running(town.shard()) as task:
        with pytest.raises(Exception, match="failed with"):
            await town.do(ONE, "create_story", {"story": STORY_TEXT | {"constraints": {"deep": "\ud800"}}})
        assert not task.done()
        assert (await town.create(TWO))["state"] == "DRAFT"


@pytest.mark.rule("EV-4")
async def test_story_of_a_dead_shard_is_taken_over_once_its_lease_has_ended():
    town = Town()
    first = town.shard("council:0")
    task = asyncio.create_task(first.run())
    await town.create(ONE)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    second = town.shard("council:1", "b1")
    async with running(second):
        await town.pass_time(8)
        assert second.status().stories == ()
        await town.until(lambda: second.status().stories == (ONE,), within_s=20)
        taken = (await town.owners(ONE))[-1]
        assert (taken.owner, taken.cause, taken.previous_epoch, taken.epoch) == ("council:1/b1", "expired", 1, 2)
        result = await town.do(ONE, "cancel", {"reason": "nobody needs it any more"}, key="stop")
        assert result["disposition"] == "cancelled"
    await first.drain()


@pytest.mark.rule("EV-4")
async def test_restarted_shard_takes_its_own_stories_at_once():
    town = Town()
    task = asyncio.create_task(town.shard().run())
    await town.create(ONE)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = town.shard(incarnation="a2")
    async with running(again):
        await town.until(lambda: again.status().stories == (ONE,), within_s=60)
        taken = (await town.owners(ONE))[-1]
        assert (taken.owner, taken.cause) == ("council:0/a2", "restart")


@pytest.mark.rule("GL-19")
async def test_lost_story_ends_alone_and_the_others_go_on():
    town = Town()
    shard = town.shard(sweep_s=3600)
    async with running(shard) as task:
        await town.create(ONE)
        await town.create(TWO)
        # Another incarnation has claimed the stream: our lease no longer holds it.
        await town.leases.claim(STREAM_ONE, "council:0/a9", ttl_s=3600)
        await town.until(lambda: shard.status().stories == (TWO,), within_s=10)
        before = await town.types(ONE)
        await town.pass_time(10)
        assert await town.types(ONE) == before
        assert not task.done()
        assert (await town.do(TWO, "cancel", {"reason": "nobody needs it any more"}, key="stop"))["disposition"]


@pytest.mark.rule("GL-19", "EV-4")
async def test_story_whose_work_was_cancelled_from_elsewhere_is_not_held_for_ever():
    town = Town()
    shard = town.shard()
    async with running(shard) as task:
        await town.create(ONE)
        await town.create(TWO)
        (work,) = [one for one in asyncio.all_tasks() if one.get_name() == f"story {ONE}"]
        work.cancel()
        await town.until(lambda: shard.status().stories == (TWO,), within_s=5)
        await town.until(lambda: set(shard.status().stories) == {ONE, TWO}, within_s=60)
        assert len(await town.owners(ONE)) == 2
        assert not task.done()
        result = await town.do(ONE, "cancel", {"reason": "nobody needs it any more"}, key="stop")
        assert result["disposition"] == "cancelled"


async def test_command_for_a_story_of_another_shard_says_who_holds_it():
    town = Town()
    await town.leases.claim(STREAM_ONE, "council:9/z1", ttl_s=3600)
    async with running(town.shard()):
        with pytest.raises(LeaseHeld):
            await town.create(ONE)


@pytest.mark.rule("EV-17", "EV-23")
async def test_command_on_record_whose_owner_died_before_answering_is_answered_by_another_shard():
    town = Town()
    lease = await town.leases.claim(STREAM_ONE, "council:9/z1", ttl_s=3600)
    dead = await town.bench(ONE, lease.epoch)
    command = Command(
        command_id=CommandId(f"{ANA}/{ONE}/key-1"),
        stream=STREAM_ONE,
        name="create_story",
        principal=ANA,
        body={"story": STORY_TEXT},
    )
    stored = await town.commands.handle(dead, command)
    before = await town.types(ONE)
    async with running(town.shard()):
        assert await town.create(ONE) == stored
    assert await town.types(ONE) == before


class Unreadable(MemoryEventLog):
    """Reading one stream fails."""

    broken: StreamId | None = None

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        if stream == self.broken:
            raise LogCorrupted(f"{stream}/2 does not verify")
        return await super().read(stream, after=after, limit=limit)


async def test_story_that_cannot_be_read_does_not_hold_up_the_others():
    log = Unreadable()
    town = Town(log=log)
    task = asyncio.create_task(town.shard().run())
    await town.create(ONE)
    await town.create(TWO)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    log.broken = STREAM_ONE
    again = town.shard(incarnation="a2")
    async with running(again):
        await town.until(lambda: again.status().stories == (TWO,), within_s=10)


@pytest.mark.rule("EV-30")
async def test_damaged_story_is_looked_at_again_however_often_it_was_damaged_and_goes_on_once_it_is_restored():
    log = Unreadable()
    town = Town(log=log)
    task = asyncio.create_task(town.shard().run())
    await town.create(ONE)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    log.broken = STREAM_ONE
    again = town.shard(incarnation="a2")
    async with running(again):
        # Far more looks than the three defects after which a story is left alone.
        await town.pass_time(90)
        assert (again.status().stories, again.status().left_alone) == ((), {})
        log.broken = None
        await town.until(lambda: again.status().stories == (ONE,), within_s=60)
    assert "StoryParked" not in await town.types(ONE)


class Outage(MemoryEventLog):
    """The store does not answer for a while."""

    is_down = False

    async def open_streams(self) -> list[StreamId]:
        if self.is_down:
            raise StoreUnavailable("the store does not answer")
        return await super().open_streams()


@pytest.mark.rule("EV-23")
async def test_outage_of_the_store_is_waited_out():
    log = Outage()
    town = Town(log=log)
    task = asyncio.create_task(town.shard().run())
    await town.create(ONE)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    log.is_down = True
    again = town.shard(incarnation="a2")
    async with running(again) as alive:
        await town.pass_time(10)
        assert (again.status().stories, alive.done()) == ((), False)
        log.is_down = False
        await town.until(lambda: again.status().stories == (ONE,), within_s=10)


class Broken(MemoryEventLog):
    """Asked for its open streams, the log fails so often in this way."""

    errors: list[Exception] = []

    async def open_streams(self) -> list[StreamId]:
        if self.errors:
            raise self.errors.pop(0)
        return await super().open_streams()


async def test_duty_that_fails_is_logged_once_a_defect_with_its_place_and_an_outage_without(
    caplog: pytest.LogCaptureFixture,
):
    log = Broken()
    log.errors = [*[StoreUnavailable("the log does not answer")] * 3, *[ZeroDivisionError("nobody")] * 3]
    town = Town(log=log)
    async with running(town.shard()):
        await town.until(lambda: not log.errors)
    told = [record for record in caplog.records if "sweep failed" in record.getMessage()]
    assert [(record.getMessage().rpartition(": ")[2], bool(record.exc_info)) for record in told] == [
        ("the log does not answer", False),
        ("nobody", True),
    ]


async def test_drained_shard_frees_its_stories_and_takes_no_more():
    town = Town()
    shard = town.shard()
    task = asyncio.create_task(shard.run())
    await town.create(ONE)
    await shard.drain()
    assert (shard.status().state, shard.status().stories) == ("draining", ())
    lease = await town.leases.claim(STREAM_ONE, "council:9/z1", ttl_s=15)
    assert lease.epoch == 2
    await town.until(task.done, within_s=30)


async def test_closed_story_is_released():
    town = Town()
    shard = town.shard()
    async with running(shard):
        await town.create(ONE)
        owned = shard._owned[STREAM_ONE]  # pyright: ignore[reportPrivateUsage]
        from fleet.events.story import StoryClosed

        await owned.owner.bench.journal.record("close", StoryClosed(final_state="DONE", report_id=None), closes=True)
        owned.owner.wake()
        await town.until(lambda: shard.status().stories == (), within_s=60)
        await town.leases.claim(STREAM_ONE, "council:9/z1", ttl_s=15)
