"""What a notification target is told, when, how often, and where it ends when it cannot be told (LC-80)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.story import StoryCancelled, Topic
from fleet.events.task import SlaBreached
from fleet.events.workspace import IncidentOpened
from fleet.kernel.clock import MemoryClock, settled
from fleet.kernel.errors import LogCorrupted, StoreUnavailable, StoryNotFound, ToolFailed, ToolTimeout
from fleet.kernel.ids import EntityId, Principal, StoryId, StreamId
from fleet.log.memory import MemoryDeadLetters, MemoryEventLog, MemoryFeed
from fleet.notifications.memory import MemoryNotificationBook, MemoryNotificationTarget
from fleet.notifications.port import Notification, OwedNotice
from fleet.notifications.service import WAITS_S, Notifier, StateOf, Subscription, delivery_id
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState
from fleet.telemetry.memory import MemoryMeter
from tests.support.story_events import CONTENT, PO, STORY, TASK, StoryLog, created_payload, story, subject

ALL = Subscription(frozenset(["approval_requested", "time_limit_passed", "incident_opened"]))
SECRET = "ghp_" + "a1B2" * 9


class Crash(BaseException):
    """The process ends: nothing may catch it."""


class DyingTarget(MemoryNotificationTarget):
    """The process ends before or after the receiver has the notification."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self.after, self.is_armed = after, True

    async def send(self, notification: Notification) -> None:
        if self.is_armed and not self.after:
            raise Crash
        await super().send(notification)
        if self.is_armed:
            raise Crash


class FaultyLog(MemoryEventLog):
    """Cannot be read at one stream, or at all."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.rotten: StreamId | None = None

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        if self.is_down:
            raise StoreUnavailable("the store is away")
        if stream == self.rotten:
            raise LogCorrupted("event 1 is no event")
        return await super().read(stream, after=after, limit=limit)


def asked(number: int, *, gate: str = "approve_scope", **changes: Any) -> ApprovalRequested:
    fields: dict[str, Any] = {
        "approval_id": EntityId(f"ap-one-{number}"),
        "gate": gate,
        "role": "po",
        "actor": "human",
        "subject": subject("content", STORY, CONTENT),
        "risk": "low",
        "expires_at": 1_900_000_000_000,
        "attempt": 1,
        "card_digest": CONTENT,
        "requested_by": Principal("system:council"),
    }
    return ApprovalRequested(**(fields | changes))


def granted(number: int) -> ApprovalGranted:
    return ApprovalGranted(
        approval_id=EntityId(f"ap-one-{number}"),
        principal=PO,
        as_role="po",
        subject_digest=CONTENT,
        grant_expires_at=1_900_000_000_000,
        delegated=False,
    )


def breach() -> SlaBreached:
    return SlaBreached(
        subject=Topic(kind="task", id=TASK),
        state="pending_qa",
        limit_s=7200,
        elapsed_s=7260,
        notified=(Principal("user:quinn"), PO),
    )


def incident(summary: str = "p95 above 2 s") -> IncidentOpened:
    return IncidentOpened(incident_id=EntityId("in-one-1"), severity="high", summary=summary, source="monitor")


class World:
    """Stores that outlive every notifier over them, and one story."""

    def __init__(self) -> None:
        self.clock, self.meter = MemoryClock(), MemoryMeter()
        self.log, self.book = FaultyLog(), MemoryNotificationBook()
        self.letters = MemoryDeadLetters(self.clock)
        self.target = MemoryNotificationTarget()
        self.story, self.written = story(until="started"), 0

    async def add(self, *payloads: Payload) -> int:
        """The events are on record; the version of the last one."""
        if payloads:
            self.story.add(*payloads)
        await self.story.write_to(self.log, after=self.written)
        self.written = self.story.version
        return self.written

    async def state(self, story_id: StoryId) -> StoryState:
        found = fold(await self.log.read(StreamId.of_story(story_id)))
        if found is None:
            raise StoryNotFound(f"there is no story {story_id}", story_id=story_id)
        return found

    def notifier(
        self,
        name: str = "bot",
        *,
        wanted: Subscription = ALL,
        target: MemoryNotificationTarget | None = None,
        state_of: StateOf | None = None,
    ) -> Notifier:
        """Another process over the same stores."""
        return Notifier(
            name,
            target or self.target,
            wanted,
            log=self.log,
            feed=MemoryFeed(self.log, self.clock),
            book=self.book,
            letters=self.letters,
            state_of=state_of or self.state,
            clock=self.clock,
            meter=self.meter,
        )

    async def begun(self, **given: Any) -> Notifier:
        """One that has begun with the story as it is now."""
        await self.add()
        notifier = self.notifier(**given)
        await notifier.sweep()
        return notifier

    @property
    def told(self) -> list[str]:
        """Delivery ids that arrived, repeats included."""
        return [one.delivery_id for one in self.target.received]

    def count(self, outcome: str, target: str = "bot") -> float:
        return self.meter.value("fleet_notifications_total", target=target, outcome=outcome)


def id_of(version: int, target: str = "bot") -> str:
    return delivery_id(target, StreamId.of_story(STORY), version)


@asynccontextmanager
async def running(notifier: Notifier) -> AsyncGenerator[asyncio.Task[None]]:
    task = asyncio.create_task(notifier.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.rule("LC-80", "LC-79")
async def test_pending_approval_is_told_with_titles_digest_expiry_and_the_page_that_decides_it() -> None:
    world = World()
    notifier = await world.begun()
    version = await world.add(asked(1))
    await notifier.sweep()
    (told,) = world.target.received
    assert told.delivery_id == id_of(version)
    body = dict(told.body)
    at = body.pop("at")
    assert isinstance(at, str)
    assert at.endswith("Z")
    assert body == {
        "form": 1,
        "delivery_id": id_of(version),
        "kind": "approval_requested",
        "project_id": "pr-default",
        "story_id": STORY,
        "story_title": "Make slugs from titles",
        "story_version": version,
        "approval_id": "ap-one-1",
        "gate": "approve_scope",
        "role": "po",
        "decided_by": "human",
        "risk": "low",
        "subject": {"kind": "content", "id": STORY, "digest": str(CONTENT)},
        "expires_at": "2030-03-17T17:46:40.000Z",
        "attempt": 1,
        "link": f"#/gates/{STORY}/ap-one-1",
    }
    assert await world.book.owed("bot") == []
    assert world.count("sent") == 1


@pytest.mark.rule("LC-131", "LC-80")
async def test_time_limit_tells_everybody_who_can_take_the_task_on_and_an_incident_what_is_wrong() -> None:
    world = World()
    world.story = story(until="planned")
    notifier = await world.begun()
    await world.add(breach(), incident())
    await notifier.sweep()
    late, wrong = (one.body for one in world.target.received)
    assert (late["kind"], late["task_id"], late["task_title"]) == ("time_limit_passed", TASK, "Write slugify")
    assert (late["state"], late["limit_s"], late["elapsed_s"]) == ("pending_qa", 7200, 7260)
    assert late["can_take_it"] == ["user:quinn", "user:ana"]
    assert (wrong["kind"], wrong["severity"], wrong["summary"]) == ("incident_opened", "high", "p95 above 2 s")
    assert late["link"] == wrong["link"] == f"#/story/{STORY}/overview"


@pytest.mark.rule("LC-79", "CX-60")
async def test_texts_are_told_without_secrets_and_not_without_end() -> None:
    world = World()
    world.story = StoryLog().add(created_payload(title=f"Use {SECRET} here"))
    notifier = await world.begun()
    await world.add(asked(1), incident(f"login with {SECRET} fails " + "long " * 500))
    await notifier.sweep()
    assert len(world.target.received) == 2
    for one in world.target.received:
        assert SECRET not in json.dumps(dict(one.body))
    assert len(str(world.target.received[1].body["summary"])) == 500


@pytest.mark.rule("LC-80")
async def test_new_target_is_not_told_what_was_before_it() -> None:
    world = World()
    await world.add(asked(1))
    notifier = await world.begun()
    version = await world.add(asked(2))
    await notifier.sweep()
    assert world.told == [id_of(version)]


@pytest.mark.rule("LC-80")
async def test_story_that_began_while_nobody_looked_is_told_of_from_its_first_event() -> None:
    world = World()
    await world.notifier().sweep()
    version = await world.add(asked(1))
    await world.notifier().sweep()
    assert world.told == [id_of(version)]


@pytest.mark.rule("LC-80")
@pytest.mark.parametrize(
    "end",
    [
        [granted(1)],
        [
            ApprovalRejected(
                approval_id=EntityId("ap-one-1"), principal=PO, as_role="po", reason="too wide", delegated=False
            )
        ],
        [ApprovalExpired(approval_id=EntityId("ap-one-1"), attempt=1)],
        [StoryCancelled(reason="nobody wants it any more")],
    ],
    ids=["granted", "rejected", "expired", "cancelled"],
)
async def test_approval_that_waits_no_more_when_its_turn_comes_is_skipped(end: list[Payload]) -> None:
    world = World()
    notifier = await world.begun()
    world.target.failures = [ToolFailed("bot answers 500")]
    await world.add(asked(1))
    await notifier.sweep()
    assert world.count("failed") == 1
    await world.add(*end)
    world.clock.advance(WAITS_S[0])
    await notifier.send()
    assert world.told == []
    assert world.count("skipped") == 1
    assert await world.book.owed("bot") == []


@pytest.mark.rule("LC-80")
async def test_target_hears_only_of_its_kinds_and_projects() -> None:
    world = World()
    await world.add()
    incidents = await world.begun(name="pager", wanted=replace(ALL, kinds=frozenset(["incident_opened"])))
    mine = await world.begun(name="mine", wanted=replace(ALL, projects=frozenset(["pr-default"])))
    others = await world.begun(name="others", wanted=replace(ALL, projects=frozenset(["pr-else"])))
    version = await world.add(asked(1), incident())
    for notifier in (incidents, mine, others):
        await notifier.sweep()
    assert sorted(world.told) == sorted([id_of(version, "pager"), id_of(version - 1, "mine"), id_of(version, "mine")])
    assert world.count("skipped", "others") == 2
    assert world.count("skipped", "pager") == 0


@pytest.mark.rule("LC-80")
async def test_target_that_answers_500_and_then_200_is_told_once_after_a_wait() -> None:
    world = World()
    notifier = await world.begun()
    world.target.failures = [ToolFailed("bot answers 500")]
    version = await world.add(asked(1))
    await notifier.sweep()
    world.clock.advance(WAITS_S[0] - 0.1)
    await notifier.send()
    assert world.told == []
    world.clock.advance(0.1)
    await notifier.send()
    assert world.told == [id_of(version)]
    assert (world.count("failed"), world.count("sent")) == (1, 1)
    assert await world.letters.letters() == []


@pytest.mark.rule("LC-80", "EV-22")
async def test_what_fails_each_time_waits_longer_and_ends_as_a_letter_that_retry_sends_once_more() -> None:
    world = World()
    notifier = await world.begun()
    world.target.failures = [ToolTimeout("bot did not answer within 10 s")] * 5
    version = await world.add(asked(1))
    await notifier.sweep()
    for number, wait_s in enumerate(WAITS_S, 2):
        world.clock.advance(wait_s)
        await notifier.send()
        assert len(world.target.failures) == 5 - number
    (letter,) = await world.letters.letters()
    assert (letter.failure.source, letter.failure.stream) == ("notifications:bot", StreamId.of_story(STORY))
    assert (letter.failure.version, letter.failure.code) == (version, "tool_timeout")
    assert (world.count("failed"), world.count("set_aside")) == (4, 1)
    world.clock.advance(86_400)
    await notifier.sweep()
    assert world.told == []
    assert await world.book.owed("bot") == [OwedNotice(StreamId.of_story(STORY), version)]

    await world.letters.retry(letter.letter_id)
    world.clock.advance(30)
    await world.notifier().sweep()
    assert world.told == [id_of(version)]
    assert await world.book.owed("bot") == []


@pytest.mark.rule("LC-80")
async def test_one_that_fails_keeps_neither_others_nor_other_targets_back() -> None:
    world = World()
    notifier, pager = await world.begun(), await world.begun(name="pager")
    world.target.failures = [ToolFailed("bot answers 500")]
    version = await world.add(asked(1), asked(2, gate="approve_design"))
    await notifier.sweep()
    await pager.sweep()
    assert world.told == [id_of(version), id_of(version - 1, "pager"), id_of(version, "pager")]


@pytest.mark.rule("LC-80")
@pytest.mark.parametrize("after", [False, True], ids=["before it was received", "after it was received"])
async def test_consumer_that_is_killed_loses_nothing_and_a_repeat_has_the_same_id(after: bool) -> None:
    world = World()
    dying = DyingTarget(after=after)
    world.target = dying
    first = await world.begun()
    version = await world.add(asked(1))
    with pytest.raises(Crash):
        await first.sweep()
    dying.is_armed = False
    await world.notifier().sweep()
    assert world.told == [id_of(version)] * (2 if after else 1)
    await world.notifier().sweep()
    assert len(world.told) == (2 if after else 1)


@pytest.mark.rule("LC-80")
async def test_consumer_that_is_killed_while_a_target_hangs_loses_nothing() -> None:
    world = World()
    first = await world.begun()
    world.target.hangs = True
    version = await world.add(asked(1))
    async with running(first):
        await asyncio.wait_for(world.target.is_asked.wait(), 5)
    assert await world.book.owed("bot") == [OwedNotice(StreamId.of_story(STORY), version)]
    world.target.hangs = False
    await world.notifier().sweep()
    assert world.told == [id_of(version)]


@pytest.mark.rule("EV-20", "LC-80")
async def test_running_consumer_follows_hints_and_waits_for_a_store_that_is_away() -> None:
    world = World()
    await world.add()
    async with running(world.notifier()) as task:
        await settled()
        version = await world.add(asked(1))
        await settled()
        assert world.told == [id_of(version)]
        world.log.is_down = True
        last = await world.add(asked(2, gate="approve_design"))
        await settled()
        assert world.told == [id_of(version)]
        world.log.is_down = False
        for _ in range(20):
            world.clock.advance(1)
            await settled()
        assert world.told == [id_of(version), id_of(last)]
        assert not task.done()
    assert await world.letters.letters() == []


@pytest.mark.rule("EV-22")
async def test_stream_that_cannot_be_read_does_not_keep_the_others_back() -> None:
    world = World()
    notifier = await world.begun()
    rotten = StoryLog(StoryId("st-rotten1")).add(created_payload())
    await rotten.write_to(world.log)
    world.log.rotten = rotten.stream
    version = await world.add(asked(1))
    await notifier.sweep()
    assert world.told == [id_of(version)]


async def test_notification_of_a_story_that_is_archived_meanwhile_is_skipped() -> None:
    async def gone(story_id: StoryId) -> StoryState:
        raise StoryNotFound(f"there is no story {story_id}", story_id=story_id)

    world = World()
    notifier = await world.begun(state_of=gone)
    await world.add(asked(1))
    await notifier.sweep()
    assert (world.told, world.count("skipped")) == ([], 1)
    assert await world.book.owed("bot") == []


async def test_defect_in_one_notification_is_counted_and_becomes_a_letter() -> None:
    async def broken(story_id: StoryId) -> StoryState:
        raise KeyError("a defect")

    world = World()
    notifier = await world.begun(state_of=broken)
    await world.add(asked(1))
    await notifier.sweep()
    for wait_s in WAITS_S:
        world.clock.advance(wait_s)
        await notifier.send()
    (letter,) = await world.letters.letters()
    assert (letter.failure.code, letter.failure.reason) == ("internal_error", "KeyError")


def test_ids_differ_by_target_stream_and_version() -> None:
    stream, other = StreamId.of_story(STORY), StreamId.of_story("st-other1")
    found = {delivery_id("a", stream, 1), delivery_id("b", stream, 1), delivery_id("a", other, 1)}
    assert len(found | {delivery_id("a", stream, 2), delivery_id("a", stream, 1)}) == 4
