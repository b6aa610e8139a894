"""The context service over the in-memory log (CX-6, CX-22..CX-34)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fleet.context.port import PackRequest
from fleet.context.service.packs import ContextService
from fleet.events.context import SummaryRecorded
from fleet.kernel.clock import MemoryClock
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import PolicyDenied, StoreUnavailable, StoryNotFound
from fleet.kernel.ids import StoryId
from fleet.log.memory import MemoryEventLog
from fleet.trees.memory import MemoryBlobStore
from tests.support.context import context_config
from tests.support.event_samples import samples
from tests.support.story_events import STORY, TASK, StoryLog, story


class Bench:
    def __init__(self) -> None:
        self.log, self.blobs, self.clock = MemoryEventLog(), MemoryBlobStore(), MemoryClock()
        self.service = ContextService(self.log, self.blobs, context_config(), clock=self.clock)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def request(log: StoryLog, *, as_of: int | None = None, role: str = "developer", phase: str = "BUILD") -> PackRequest:
    return PackRequest(
        story_id=STORY, role=role, phase=phase, as_of=log.version if as_of is None else as_of, task_id=TASK
    )


@pytest.mark.rule("CX-25")
async def test_pack_is_stored_under_its_hash_and_the_same_on_another_machine(bench: Bench) -> None:
    log = story(until="task")
    await log.write_to(bench.log)
    pack = await bench.service.pack(request(log))
    assert (await bench.blobs.get(pack.hash)).decode() == pack.text
    assert pack.hash == digest_of(pack.text.encode())
    assert pack.as_of == log.version
    other = Bench()
    await log.write_to(other.log)
    assert await other.service.pack(request(log)) == pack


@pytest.mark.rule("CX-33", "CX-34")
async def test_pack_of_an_older_version_does_not_see_what_came_later(bench: Bench) -> None:
    before = story(until="build").version
    log = story(until="merged")
    await log.write_to(bench.log)
    pack = await bench.service.pack(request(log, as_of=before))
    assert "Tasks: 2 todo." in pack.text
    assert "Tasks: 1 done" in (await bench.service.pack(request(log))).text
    assert await bench.service.pack(request(log, as_of=before)) is pack


async def test_as_of_zero_means_the_latest_version(bench: Bench) -> None:
    log = story(until="planned")
    await log.write_to(bench.log)
    assert (await bench.service.pack(request(log, as_of=0))).as_of == log.version


@pytest.mark.rule("CX-34")
async def test_pack_waits_for_the_version_that_is_still_to_come(bench: Bench) -> None:
    log, early = story(until="planned"), story(until="design")
    await early.write_to(bench.log)
    waiting = asyncio.create_task(bench.service.pack(request(log)))
    while not bench.clock.sleepers:
        await asyncio.sleep(0)
    await log.write_to(bench.log, after=early.version)
    bench.clock.advance(0.1)
    assert (await waiting).as_of == log.version


@pytest.mark.rule("CX-34")
async def test_version_that_does_not_come_is_an_error_after_two_seconds(bench: Bench) -> None:
    log = story(until="planned")
    await log.write_to(bench.log)
    waiting = asyncio.create_task(bench.service.pack(request(log, as_of=log.version + 1)))
    while not bench.clock.sleepers:
        await asyncio.sleep(0)
    bench.clock.advance(2)
    with pytest.raises(StoreUnavailable) as caught:
        await waiting
    assert caught.value.details["version"] == log.version


async def test_unknown_story_is_not_found(bench: Bench) -> None:
    with pytest.raises(StoryNotFound):
        await bench.service.pack(replace(request(StoryLog()), story_id=StoryId("st-none0")))


@pytest.mark.rule("CX-3")
async def test_denied_cell_gives_no_pack(bench: Bench) -> None:
    log = story(until="planned")
    await log.write_to(bench.log)
    with pytest.raises(PolicyDenied):
        await bench.service.pack(request(log, role="data", phase="TEST"))


async def test_summary_is_read_from_its_blob(bench: Bench) -> None:
    payload = samples()["SummaryRecorded"]
    assert isinstance(payload, SummaryRecorded)
    log = story(until="planned").add(payload.model_copy(update={"summary_digest": await bench.blobs.put(b"went well")}))
    await log.write_to(bench.log)
    assert "went well" in (await bench.service.pack(request(log, role="architect", phase="DOCS"))).text


async def test_old_packs_leave_the_cache_and_are_built_again_with_the_same_bytes(bench: Bench) -> None:
    log = story()
    await log.write_to(bench.log)
    first = await bench.service.pack(request(log, as_of=40))
    for as_of in range(41, 41 + 70):
        await bench.service.pack(request(log, as_of=min(as_of, log.version)))
    again = await bench.service.pack(request(log, as_of=40))
    assert again == first


async def test_pack_without_task_shows_no_task_block(bench: Bench) -> None:
    log = story(until="planned")
    await log.write_to(bench.log)
    pack = await bench.service.pack(replace(request(log), task_id=None))
    assert "## Your task" not in pack.text
    assert "## Your task" in (await bench.service.pack(request(log))).text
