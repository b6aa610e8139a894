"""Doors of events: history, the stream, the socket, and what came of a command."""

from __future__ import annotations

import json
from itertools import islice

import pytest

from tests.support.world import STORIES, World

pytestmark = pytest.mark.timeout(600)


def _ids(events: object) -> list[str]:
    assert isinstance(events, list)
    return [event["event_id"] for event in events]


@pytest.mark.door("GET /api/events")
def test_history_of_a_story_is_read_in_pages(world: World) -> None:
    story_id = world.create()
    version = world.show(story_id)["version"]
    whole = world.get("/api/events", params={"stream": story_id})
    assert _ids(whole["items"]) == [f"story:{story_id}/{n}" for n in range(1, version + 1)]
    assert (whole["items"][0]["type"], whole["next_after"]) == ("StoryCreated", None)
    page = world.get("/api/events", params={"stream": story_id, "limit": 1})
    rest = world.get("/api/events", params={"stream": story_id, "after": page["next_after"]})
    assert page["items"] + rest["items"] == whole["items"]


@pytest.mark.door("GET /api/events/stream")
def test_stream_tells_a_story_and_goes_on_behind_what_was_seen(world: World) -> None:
    story_id = world.create()
    known = _ids(world.get("/api/events", params={"stream": story_id})["items"])
    assert _ids(list(islice(world.frames(story_id), len(known)))) == known
    line = world.frames(story_id, last=known[0])
    assert _ids(list(islice(line, len(known) - 1))) == known[1:]
    world.post(f"{STORIES}/{story_id}/questions", {"text": "Which alphabet?"}, status=201)
    live = next(line)
    assert (live["type"], live["event_id"]) == ("QuestionRaised", f"story:{story_id}/{len(known) + 1}")
    line.close()


@pytest.mark.door("WS /api/ws")
def test_socket_tells_a_story_behind_a_version(world: World) -> None:
    story_id = world.create()
    with world.socket() as line:
        wanted = {"op": "subscribe", "id": "s1", "stories": [story_id], "after": {f"story:{story_id}": 1}}
        line.send(json.dumps(wanted))
        told = [json.loads(line.recv(timeout=60)) for _ in range(world.show(story_id)["version"])]
    assert told[0] == {"op": "subscribed", "id": "s1"}
    assert [(one["op"], one["sub"], one["envelope"]["version"]) for one in told[1:]] == [
        ("event", "s1", n) for n in range(2, len(told) + 1)
    ]


@pytest.mark.door("GET /api/commands/{command_id}")
def test_what_came_of_a_command_is_told(world: World) -> None:
    story_id = world.create()
    created = world.get("/api/events", params={"stream": story_id, "limit": 1})["items"][0]
    found = world.get(f"/api/commands/{created['command_id']}")
    assert (found["status"], found["problem"]) == ("done", None)
    assert (found["result"]["story_id"], found["result"]["state"]) == (story_id, "DRAFT")
