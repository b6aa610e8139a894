"""Doors to the work session of an engineer: it is watched, spoken to, forked, and its forks are stopped."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from serve_apps.rpc.v1 import sessions_pb2
from tests.doors.test_rpc import caller
from tests.support.mcp import agent
from tests.support.team_models import demo_story
from tests.support.world import ABLE, STORIES, World

WHY = "the half of it is enough"
pytestmark = pytest.mark.timeout(600)


class AtWork(NamedTuple):
    """A story, and the session in it whose fourth reply does not come."""

    story_id: str
    session_id: str
    url: str


def known(world: World, url: str) -> dict[str, dict[str, Any]]:
    """The sessions of the story by their ids."""
    return {one["session_id"]: one for one in world.get(url)["items"]}


@pytest.fixture(scope="module")
def at_work(world: World) -> Iterator[AtWork]:
    """An engineer in the middle of its work; no test ends its session."""
    constraints = {name: value for name, value in demo_story()["constraints"].items() if name != "paths"}
    story_id = world.create(rigor="L0", constraints=constraints)
    url = f"{STORIES}/{story_id}/sessions"
    world.start(story_id, "po", "qa", model=ABLE)

    def waiting() -> str | None:
        for one in world.get(url)["items"]:
            if one["waits_for"] == "reply 4 of its engine":
                return one["session_id"]
        return None

    found = AtWork(story_id, world.wait(waiting), url)
    yield found
    # Whoever stops it does not wait for the reply that does not come.
    world.post(f"{url}/{found.session_id}/stop", {"reason": WHY})
    world.wait(lambda: known(world, url)[found.session_id]["ended"] == "stopped")
    world.post(f"{STORIES}/{story_id}/cancel", {"reason": "the tests have seen enough"})


@pytest.mark.rule("AP-130", "AP-131", "AP-132")
@pytest.mark.door(
    "GET /api/planner/stories/{story_id}/sessions",
    "GET /api/planner/stories/{story_id}/sessions/{session_id}",
    "GET /api/planner/stories/{story_id}/sessions/{session_id}/outputs/{digest}",
    "POST /api/planner/stories/{story_id}/sessions/{session_id}/tell",
    "POST /api/planner/stories/{story_id}/sessions/{session_id}/stop",
    "POST /api/planner/stories/{story_id}/sessions/{session_id}/fork",
)
def test_engineer_is_watched_and_spoken_to_over_http(world: World, at_work: AtWork) -> None:
    one = f"{at_work.url}/{at_work.session_id}"
    page = known(world, at_work.url)[at_work.session_id]
    assert (page["status"], page["turn"], page["turns"], page["changed_files"]) == ("working", 4, 60, 4)
    turns = world.get(one)["turns"]
    outcomes = [[call["outcome"] for call in turn["calls"]] for turn in turns]
    assert outcomes == [["shown", "shown"], ["edited", "exit 0"], ["exit 3", "edited"], []]
    failed = turns[2]["calls"][0]
    diff = world.get(f"{STORIES}/{at_work.story_id}/diff", params={"from": failed["before"], "to": failed["after"]})
    assert [file["path"] for file in diff["files"]] == ["textkit/__init__.py"]
    output = world.get(f"{one}/outputs/{turns[0]['calls'][0]['output_digest']}")
    assert any("def count_words" in line for line in output["lines"]), output
    told = world.post(f"{one}/tell", {"text": "Keep the old name."})["told"]
    assert (told[-1]["text"], told[-1]["before_turn"]) == ("Keep the old name.", None)
    fork = world.post(f"{one}/fork", {"turn": 2})
    assert (fork["forked_from"], fork["forked_at"]) == (at_work.session_id, 2)
    stopped = world.post(f"{at_work.url}/{fork['session_id']}/stop", {"reason": WHY})
    assert (stopped["stopped_by"], stopped["stop_reason"]) == ("user:root", WHY)


@pytest.mark.rule("CN-25", "CN-26", "CN-27")
@pytest.mark.door(
    "fleet session list", "fleet session show", "fleet session tell", "fleet session stop", "fleet session fork"
)
def test_engineer_is_watched_and_spoken_to_by_commands(world: World, at_work: AtWork) -> None:
    story, session, _ = at_work
    before = set(known(world, at_work.url))
    listed = world.fleet("session", "list", story)
    assert listed.ok()["sessions"][0]["session_id"] == session
    assert f"{session}  developer-001  turn 4 of 60  working" in listed.out + listed.err
    assert "last: write tests/test_slugs.py: edited" in listed.out + listed.err
    shown = world.fleet("session", "show", story, session)
    for line in ("turn 3", "exit 3", "+def slugify(text: str) -> str:", "$ write tests/test_slugs.py"):
        assert line in shown.out + shown.err, shown
    without = world.fleet("session", "show", story, session, "--no-diff", "--after", "2")
    assert "+def slugify" not in without.err
    assert [turn["number"] for turn in without.ok()["turns"]] == [3, 4]
    world.fleet("session", "tell", story, session, "Keep [bold]the old name.").ok()
    told = known(world, at_work.url)[session]["told"]
    assert (told[-1]["text"], told[-1]["before_turn"]) == ("Keep [bold]the old name.", None)
    again = world.fleet("session", "list", story)
    assert f"{len(told)} messages wait to be read" in again.out + again.err
    refused = world.fleet("session", "fork", story, session, "--turn", "9")
    assert (refused.code, "turns 1 to 3 are complete" in refused.err) == (2, True)
    world.fleet("session", "fork", story, session, "--turn", "1").ok()
    (fork,) = set(known(world, at_work.url)) - before
    world.fleet("session", "stop", story, fork, "--reason", WHY).ok()
    whole = world.fleet("session", "show", story, fork).ok()["session"]
    assert (whole["stopped_by"].startswith("user:"), whole["forked_at"]) == (True, 1)
    missing = world.fleet("session", "show", story, "se-none")
    assert (missing.code, "has no work session 'se-none'" in missing.err) == (2, True)


@pytest.mark.rule("AP-130", "AP-131", "AP-132")
@pytest.mark.door(
    "rpc ListWorkSessions",
    "rpc GetWorkSession",
    "rpc GetSessionOutput",
    "rpc TellSession",
    "rpc StopSession",
    "rpc ForkSession",
)
async def test_engineer_is_watched_and_spoken_to_over_grpc(world: World, at_work: AtWork) -> None:
    one = {"story_id": at_work.story_id, "session_id": at_work.session_id}
    async with caller(world) as at:

        async def ask(method: str, request: Any) -> Any:
            return await at.call("Sessions", method, request)

        listed = await ask("ListWorkSessions", sessions_pb2.ListWorkSessionsRequest(story_id=at_work.story_id))
        (page,) = [each for each in listed.items if each.session_id == at_work.session_id]
        assert (page.status, page.turn, page.last.outcome, page.changed_files) == ("working", 4, "edited", 4)
        shown = await ask("GetWorkSession", sessions_pb2.GetWorkSessionRequest(**one, after=2, limit=1))
        assert ([turn.number for turn in shown.turns], shown.next_after) == ([3], 3)
        (run, _) = shown.turns[0].calls
        assert (run.outcome, run.exit_code, run.before != run.after) == ("exit 3", 3, True)
        wanted = sessions_pb2.GetSessionOutputRequest(**one, digest=page.last.output_digest)
        assert (await ask("GetSessionOutput", wanted)).of > 0
        told = await ask("TellSession", sessions_pb2.TellSessionRequest(**one, text="Mind the tests."))
        assert told.told[-1].text == "Mind the tests."
        fork = await ask("ForkSession", sessions_pb2.ForkSessionRequest(**one, turn=2))
        assert (fork.forked_from, fork.forked_at) == (at_work.session_id, 2)
        stop = sessions_pb2.StopSessionRequest(story_id=at_work.story_id, session_id=fork.session_id, reason=WHY)
        assert (await ask("StopSession", stop)).stop_reason == WHY


@pytest.mark.rule("AP-113", "AP-130", "AP-131", "AP-132")
@pytest.mark.door(
    "mcp list_work_sessions",
    "mcp show_work_session",
    "mcp session_output",
    "mcp story_diff",
    "mcp tell_session",
    "mcp stop_session",
    "mcp fork_session",
)
async def test_engineer_is_watched_and_spoken_to_over_mcp(world: World, at_work: AtWork) -> None:
    one = {"storyId": at_work.story_id, "sessionId": at_work.session_id}
    who = {"Authorization": world.client.headers["Authorization"]}
    async with agent(str(world.client.base_url).rstrip("/"), who) as at:

        async def ask(tool: str, **args: Any) -> Any:
            found = await at.ask(tool, **args)
            world.passed.add(f"mcp {tool}")
            return found

        async def send(tool: str, **args: Any) -> Any:
            return await ask(tool, **args, idempotencyKey=f"key-of-{uuid.uuid4()}")

        listed = await ask("list_work_sessions", storyId=at_work.story_id)
        assert at_work.session_id in [each["session_id"] for each in listed["items"]]
        shown = await ask("show_work_session", **one, after=2, limit=1)
        run = shown["turns"][0]["calls"][0]
        assert (run["outcome"], shown["next_after"]) == ("exit 3", 3)
        diff = await ask("story_diff", storyId=at_work.story_id, fromTree=run["before"], toTree=run["after"])
        assert [file["path"] for file in diff["files"]] == ["textkit/__init__.py"]
        output = await ask("session_output", **one, digest=run["output_digest"])
        assert output["digest"] == run["output_digest"]
        told = await send("tell_session", **one, text="Write the docs too.")
        assert told["told"][-1]["text"] == "Write the docs too."
        fork = await send("fork_session", **one, turn=1)
        assert (fork["forked_from"], fork["forked_at"]) == (at_work.session_id, 1)
        stopped = await send("stop_session", storyId=at_work.story_id, sessionId=fork["session_id"], reason=WHY)
        assert stopped["stop_reason"] == WHY
