"""Lessons of closed stories reach packs of stories that began after them, and never change for one story."""

from __future__ import annotations

from fleet.context.lessons import LessonRule
from fleet.context.port import PackRequest
from fleet.context.service.packs import ContextService, LessonBook
from fleet.events.envelope import Head, NewEvent, StoredEvent
from fleet.events.payload import Payload
from fleet.events.story import QuestionAnswered, StoryCancelled, StoryClosed
from fleet.events.task import TaskAdded
from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import EntityId, StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import AppendRequest
from fleet.log.rules import corrupted
from fleet.trees.memory import MemoryBlobStore
from tests.support.context import context_config
from tests.support.story_events import PLAN, QA, STORY, T0, TASK, StoryLog, created_payload, story, task_of

HOUR_MS = 3_600_000
ON = LessonRule(enabled=True)


def earlier(name: str, feedback: str, *, start_ms: int = T0, project: str = "pr-default") -> StoryLog:
    """A story in whose review this was said."""
    log = StoryLog(StoryId(name), start_ms=start_ms)
    log.add(created_payload(project_id=EntityId(project))).add(TaskAdded(plan_id=PLAN, task=task_of(TASK)))
    return log.task(TASK, "qa_testing", "REJECT_TESTS", "implementing", by=QA, feedback=feedback)


async def keep(memory: MemoryEventLog, log: StoryLog, *, end: Payload | None = None, closes: bool = True) -> None:
    """The story is in the log, and over."""
    log.add(end or StoryClosed(final_state="DONE", report_id=EntityId("rp-a1")))
    last = log.events.pop()
    await log.write_to(memory)
    new = NewEvent(type=last.type, schema=last.schema, body=last.body, causation=last.causation)
    head = Head(version=last.version - 1, hash=last.prev_hash)
    await memory.append(
        AppendRequest(
            stream=log.stream, events=[new], expected=head, command_id=last.command_id, actor=last.actor,
            ts_ms=last.ts_ms, closes=closes,
        )
    )  # fmt: skip


async def told(memory: MemoryEventLog, rule: LessonRule = ON, *, book: LessonBook | None = None) -> list[str]:
    """What a story is told that is created an hour later."""
    state = StoryLog(StoryId("st-now1"), start_ms=T0 + HOUR_MS).add(created_payload()).state
    return [one.text.rpartition(": ")[2] for one in await (book or LessonBook(memory, rule)).before(state)]


async def test_story_is_told_what_closed_stories_of_its_project_taught_the_latest_first() -> None:
    memory = MemoryEventLog()
    await keep(memory, earlier("st-first1", "Fold umlauts"))
    await keep(memory, earlier("st-later1", "Lower the case", start_ms=T0 + 60_000))
    await keep(memory, earlier("st-else1", "Other project", project="pr-other"))
    await keep(memory, earlier("st-after1", "Closed too late", start_ms=T0 + 2 * HOUR_MS))
    await keep(memory, earlier("st-gone1", "Given up"), end=StoryCancelled(reason="no"))
    answered = QuestionAnswered(question_id=EntityId("qu-a1"), answer="yes", answered_by=QA)
    await keep(memory, earlier("st-open1", "Still open"), end=answered, closes=False)
    assert await told(memory) == ["Lower the case", "Fold umlauts"]
    assert await told(memory, LessonRule(enabled=True, stories=1)) == ["Lower the case"]
    assert await told(memory, LessonRule()) == []


async def test_closed_story_that_cannot_be_read_takes_no_lesson_of_the_others() -> None:
    class Altered(MemoryEventLog):
        """A log that has one event altered in the middle of a stream, which its first and last do not show."""

        async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
            if stream.entity == "st-bad1" and limit is None and after == 0:
                raise corrupted(stream, 2, "version 2 does not match its own hash")
            return await super().read(stream, after=after, limit=limit)

    memory = Altered()
    await keep(memory, earlier("st-first1", "Fold umlauts"))
    await keep(memory, earlier("st-bad1", "Altered", start_ms=T0 + 60_000))
    assert await told(memory) == ["Fold umlauts"]


async def test_what_closes_meanwhile_changes_nothing_for_a_story_that_is_there() -> None:
    memory = MemoryEventLog()
    await keep(memory, earlier("st-first1", "Fold umlauts"))
    book = LessonBook(memory, ON)
    before = await told(memory, book=book)
    await keep(memory, earlier("st-after1", "Closed too late", start_ms=T0 + 2 * HOUR_MS))
    assert await told(memory, book=book) == before == await told(memory) == ["Fold umlauts"]


async def test_pack_holds_them_when_they_are_switched_on() -> None:
    memory, blobs = MemoryEventLog(), MemoryBlobStore()
    log = StoryLog(STORY, start_ms=T0 + HOUR_MS)
    for _, payload in story(until="task").decoded:
        log.add(payload)
    await keep(memory, earlier("st-first1", "slugify lost umlauts"))
    await log.write_to(memory)
    request = PackRequest(story_id=STORY, role="developer", phase="BUILD", as_of=log.version, task_id=TASK)
    for config, is_there in ((context_config(), False), (context_config().model_copy(update={"lessons": ON}), True)):
        pack = await ContextService(memory, blobs, config, clock=MemoryClock()).pack(request)
        assert ("slugify lost umlauts" in pack.text) is is_there
