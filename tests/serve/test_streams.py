"""Events of several stories in one stream: cursors, resuming, filters, and rights that end (AP-100..AP-104)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from fleet.context.row_rules import RowRules
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.story import QuestionRaised, Topic
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import EntityId, Principal, StoryId
from fleet.policy.roles import load_roles
from serve_apps.sight import Sight
from serve_apps.stream.routes import Choice, encode_cursor, event_frames, many_frames, start_of
from tests.support.bench import World
from tests.support.rules import files, fsm
from tests.support.story_events import DOC_TASK, PO, STORY, TASK, StoryLog, created_payload, story

ANA = Principal("user:ana")
OTHER = StoryId("st-other1")


def _registry(projects: frozenset[str] | None = None) -> PrincipalRegistry:
    entry = PrincipalEntry(principal=ANA, roles=frozenset({"po"}), token_sha256=hash_token("x"), projects=projects)
    return PrincipalRegistry((entry,))


def _choice(world: World, **chosen: Any) -> Choice:
    return Choice(Sight(_registry(), world.desk, RowRules(lambda _: fsm())), ANA, **chosen)


PROJECT: dict[str, Any] = {"projects": frozenset({"pr-default"})}


async def _frames(frames: AsyncIterator[str], count: int) -> list[dict[str, Any]]:
    """The next `count` events with the id of their frames."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        async for text in frames:
            fields = dict(line.split(": ", 1) for line in text.strip().splitlines() if ": " in line)
            if "data" in fields:
                found.append({"id": fields["id"], "event": fields["event"], **json.loads(fields["data"])})
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


async def _add(world: World, story_id: StoryId = OTHER) -> None:
    log = StoryLog(story_id)
    log.add(created_payload(), actor=PO)
    await log.write_to(world.log)


@pytest.mark.rule("AP-100", "AP-102")
async def test_stream_of_a_project_begins_now_holds_new_stories_and_resumes_at_its_cursor():
    world = World(clock=SystemClock())
    await story(until="created").write_to(world.log)
    choice = _choice(world, **PROJECT)
    start = await start_of(world.desk, choice, None)
    assert start == {STORY: 1}
    async with aclosing(many_frames(world.desk, choice, after=start, heartbeat_s=15)) as frames:
        first = await anext(frames)
        assert encode_cursor(start) in first
        await _add(world)
        (seen,) = await _frames(frames, 1)
    assert (seen["stream"], seen["version"], seen["event"]) == (f"story:{OTHER}", 1, "story")
    assert await start_of(world.desk, choice, seen["id"]) == {STORY: 1, OTHER: 1}
    # Who has the older cursor gets the new story from its first event.
    behind = await start_of(world.desk, choice, encode_cursor(start))
    assert behind == {STORY: 1}
    async with aclosing(many_frames(world.desk, choice, after=behind, heartbeat_s=15)) as frames:
        (again,) = await _frames(frames, 1)
    assert again["event_id"] == seen["event_id"]


@pytest.mark.rule("AP-100")
async def test_named_stories_are_sent_from_their_first_event_when_asked_to():
    world = World(clock=SystemClock())
    await story(until="scope").write_to(world.log)
    await _add(world)
    choice = _choice(world, stories=frozenset({STORY}))
    start = await start_of(world.desk, choice, "0")
    count = len(await world.events())
    async with aclosing(many_frames(world.desk, choice, after=start, heartbeat_s=15)) as frames:
        found = await _frames(frames, count)
    assert [f["version"] for f in found] == list(range(1, count + 1))
    assert {f["stream"] for f in found} == {f"story:{STORY}"}


@pytest.mark.rule("AP-100", "AP-101")
async def test_types_that_are_not_wanted_are_left_out():
    world = World(clock=SystemClock())
    await story(until="scope").write_to(world.log)
    choice = _choice(world, **PROJECT)
    frames = many_frames(world.desk, choice, after={}, heartbeat_s=15, types=frozenset({"StoryScored"}))
    async with aclosing(frames):
        (found,) = await _frames(frames, 1)
    assert found["type"] == "StoryScored"


@pytest.mark.rule("AP-104")
async def test_lost_right_ends_the_stream_without_another_event():
    world = World(clock=SystemClock())
    await story(until="created").write_to(world.log)

    class Shrinking(PrincipalRegistry):
        sees = True

        def projects_of(self, principal: Principal) -> frozenset[str] | None:
            return None if self.sees else frozenset()

        def roles_of(self, principal: Principal) -> frozenset[str]:
            return frozenset({"po"})

    registry = Shrinking(())
    choice = Choice(Sight(registry, world.desk, RowRules(lambda _: fsm())), ANA, stories=frozenset({STORY}))
    async with aclosing(many_frames(world.desk, choice, after={}, heartbeat_s=15)) as frames:
        await _frames(frames, 1)
        await story(until="scored").write_to(world.log, after=1)
        registry.sees = False
        async with asyncio.timeout(20):
            rest = [text async for text in frames]
    assert [text for text in rest if "event: denied" in text]
    assert not any("event: story" in text for text in rest)


@pytest.mark.rule("AP-102")
@pytest.mark.parametrize("cursor", ["c1.!", "c1.AAAA", f"story:{STORY}/3", "c2.", "x" * 100])
async def test_what_is_no_cursor_is_refused(cursor: str):
    world = World()
    with pytest.raises(InvalidInput):
        await start_of(world.desk, _choice(world, **PROJECT), cursor)


def test_cursor_of_hundreds_of_stories_stays_small():
    assert len(encode_cursor({StoryId(f"st-story-{n}"): n for n in range(300)})) < 4100


@pytest.mark.rule("CX-17", "AP-104")
async def test_story_that_left_the_rows_of_the_caller_is_left_out_and_its_project_is_watched_on():
    world = World(clock=SystemClock())
    await story(until="merged").write_to(world.log)
    roles = load_roles(files().document("roles.yaml")).roles
    entry = PrincipalEntry(principal=ANA, roles=frozenset({"qa"}), token_sha256=hash_token("x"))
    sight = Sight(PrincipalRegistry((entry,)), world.desk, RowRules(lambda _: fsm(), roles))
    choice = Choice(sight, ANA, **PROJECT)
    reached = await start_of(world.desk, choice, None)
    assert set(reached) == {STORY}, "it is in TEST"
    async with aclosing(many_frames(world.desk, choice, after=reached, heartbeat_s=1)) as frames:
        await story(until="qa").write_to(world.log, after=reached[STORY])
        async with asyncio.timeout(20):
            texts = [await anext(frames) for _ in range(3)]
    assert not any("event: denied" in text or "event: story" in text for text in texts)
    assert not await choice.takes(STORY), "it is in DOCS"


@pytest.mark.rule("CX-16", "AP-104", "EV-24")
async def test_stream_leaves_out_what_names_a_hidden_row_and_resumes_behind_it():
    world = World(clock=SystemClock())
    log = story(until="planned")
    await log.write_to(world.log)
    roles = load_roles(files().document("roles.yaml")).roles
    entry = PrincipalEntry(principal=ANA, roles=frozenset({"developer"}), token_sha256=hash_token("x"))
    choice = Choice(
        Sight(PrincipalRegistry((entry,)), world.desk, RowRules(lambda _: fsm(), roles)),
        ANA,
        stories=frozenset({STORY}),
    )
    told = {event.version: await choice.shows(event) for event in log.events}
    for event in log.events:
        assert told[event.version] == (DOC_TASK.encode() not in event.body), event.type
    shown = [version for version, is_shown in told.items() if is_shown]
    assert 0 < len(shown) < len(told)
    middle = shown[len(shown) // 2]
    async with aclosing(event_frames(world.desk, STORY, after=middle, heartbeat_s=15, choice=choice)) as frames:
        rest = await _frames(frames, len([version for version in shown if version > middle]))
    assert [one["version"] for one in rest] == [version for version in shown if version > middle]
    # What is recorded while somebody watches is looked at as it comes.
    reached = log.events[-1].version
    for id, about in (("qu-one1", DOC_TASK), ("qu-two2", TASK)):
        log.add(
            QuestionRaised(
                question_id=EntityId(id),
                kind="question",
                text="Which one?",
                severity="normal",
                about=Topic(kind="task", id=about),
                asked_by=PO,
            )
        )
    await log.write_to(world.log, after=reached)
    assert [await choice.shows(event) for event in log.events[-2:]] == [False, True]
