"""Methods of gRPC, by stubs of a client; the server here passes each call on to the running fleet.

A fleet of one machine has no gRPC port: Serve's proxy would listen on every address of it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from google.protobuf.struct_pb2 import Struct
from starlette.types import Receive, Scope, Send

from serve_apps.rpc.v1 import coach_pb2, context_pb2, planning_pb2, workspace_pb2
from tests.support.rpc import serving_rpc, stub
from tests.support.task_at_hand import TaskAtHand
from tests.support.team_models import demo_story
from tests.support.world import World

pytestmark = pytest.mark.timeout(600)


class Passed:
    """The REST front of a fleet that runs elsewhere, as an application."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the fleet, piece by piece as it comes."""
        body = (await receive())["body"]
        url = f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}"
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        async with self._client.stream(scope["method"], url, headers=headers, content=body) as answer:
            await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.headers.raw})
            async for piece in answer.aiter_bytes():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Caller:
    """A client of all services in the name of the local user."""

    def __init__(self, world: World, channel: Any) -> None:
        self._world, self._channel = world, channel

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Who calls, under a key of its own."""
        key = ("idempotency-key", f"key-of-{uuid.uuid4()}")
        return (("authorization", self._world.client.headers["Authorization"]), key)

    async def call(self, service: str, method: str, request: Any) -> Any:
        """The answer of a method."""
        answer = await getattr(stub(service, self._channel), method)(request, metadata=self.metadata())
        self._world.passed.add(f"rpc {method}")
        return answer

    async def plan(self, method: str, request: Any) -> Any:
        """The answer of a method of the service for stories."""
        return await self.call("Planning", method, request)

    async def watched(self, story_id: str, *types: str) -> Any:
        """The first event of these types."""
        request = planning_pb2.WatchStoryRequest(story_id=story_id, types=types)
        watch = stub("Planning", self._channel).WatchStory(request, metadata=self.metadata())
        try:
            async with asyncio.timeout(120):
                found = await watch.read()
        finally:
            watch.cancel()
        self._world.passed.add("rpc WatchStory")
        return found


@asynccontextmanager
async def caller(world: World) -> AsyncGenerator[Caller]:
    """A client whose server passes calls on to the fleet."""
    async with (
        httpx2.AsyncClient(base_url=world.client.base_url, timeout=200) as client,
        serving_rpc(Passed(client)) as channel,
    ):
        yield Caller(world, channel)


def struct(**fields: Any) -> Struct:
    """A message of these fields."""
    made = Struct()
    made.update(fields)
    return made


@pytest.mark.door("rpc CreateStory", "rpc GetStory", "rpc ListStories", "rpc ListEvents")
async def test_story_is_created_and_read(world: World) -> None:
    text = demo_story()
    project = world.post("/api/projects", {"title": "Stories of programs"}, status=201)["project_id"]
    async with caller(world) as at:
        made = await at.plan(
            "CreateStory",
            planning_pb2.CreateStoryRequest(
                title=text["title"],
                description=text["description"],
                acceptance_criteria=text["acceptance_criteria"],
                constraints=struct(**text.get("constraints", {})),
                rigor="L1",
                priority=3,
                project_id=project,
            ),
        )
        assert (made.state, made.priority, made.is_started) == ("DRAFT", 3, False)
        shown = await at.plan("GetStory", planning_pb2.StoryRequest(story_id=made.story_id))
        assert (shown.title, shown.version) == (text["title"], made.version)
        listed = await at.plan("ListStories", planning_pb2.ListStoriesRequest(project=project))
        assert [line.story_id for line in listed.items] == [made.story_id]
        events = await at.plan("ListEvents", planning_pb2.ListEventsRequest(stream=made.story_id))
        assert [event.version for event in events.items] == list(range(1, made.version + 1))


@pytest.mark.door(
    "rpc StartStory",
    "rpc PauseStory",
    "rpc ResumeStory",
    "rpc DecideGate",
    "rpc WatchStory",
    "rpc UnparkStory",
    "rpc CancelStory",
)
async def test_story_is_started_held_parked_let_go_on_and_cancelled(world: World) -> None:
    story_id = world.create()
    world.send("PUT", f"/api/budgets/story/{story_id}", {"limits": {"tokens": 1}})
    reason = planning_pb2.ReasonRequest(story_id=story_id, reason="not this week, please")
    note = planning_pb2.NoteRequest(story_id=story_id, note="it may go on")
    async with caller(world) as at:
        start = planning_pb2.StartStoryRequest(story_id=story_id, repo=str(world.repository()), model="openai")
        assert (await at.plan("StartStory", start)).is_started
        assert (await at.plan("PauseStory", reason)).is_paused
        assert not (await at.plan("ResumeStory", note)).is_paused
        world.waiting(story_id, "approve_scope")
        grant = planning_pb2.DecideGateRequest(
            story_id=story_id, gate="approve_scope", decision="grant", notes="Yes, do it"
        )
        granted = await at.plan("DecideGate", grant)
        assert [one.status for one in granted.approvals if one.gate == "approve_scope"] == ["granted"]
        parked = await at.watched(story_id, "StoryParked")
        assert (parked.type, parked.stream) == ("StoryParked", f"story:{story_id}")
        assert not (await at.plan("UnparkStory", note)).closed
        over = await at.plan("CancelStory", reason)
        assert (over.disposition, over.closed) == ("cancelled", False)


@pytest.mark.door("rpc FireTransition")
async def test_event_of_the_lifecycle_is_fired(world: World) -> None:
    story_id = world.started()
    async with caller(world) as at:
        fired = await at.plan(
            "FireTransition",
            planning_pb2.TransitionRequest(story_id=story_id, event="approve_scope", reason="It is worth the work"),
        )
        assert fired.story_id == story_id
        moved = await at.watched(story_id, "StoryTransitioned")
        assert moved.stream == f"story:{story_id}"
    world.post(f"/api/planner/stories/{story_id}/cancel", {"reason": "it was a door alone"})


@pytest.mark.door("rpc ListCheckpoints", "rpc RestoreStory")
async def test_story_is_set_back_to_a_checkpoint(world: World, at_hand: TaskAtHand) -> None:
    story_id = at_hand.left_to_the_team()
    async with caller(world) as at:
        one = planning_pb2.StoryRequest(story_id=story_id)
        checkpoints = (await at.plan("ListCheckpoints", one)).items
        assert [(each.note, each.is_present) for each in checkpoints] == [
            ("after Add slugify to the words module", False),
            ("after the documents", True),
        ]
        back = planning_pb2.RestoreRequest(
            story_id=story_id, checkpoint=checkpoints[0].checkpoint_id, reason="The work went the wrong way"
        )
        assert (await at.plan("RestoreStory", back)).story_id == story_id
        requested = await at.watched(story_id, "RestoreRequested")
        assert requested.actor == "user:root"
        await at.plan("CancelStory", planning_pb2.ReasonRequest(story_id=story_id, reason="it was a door alone"))


@pytest.mark.door("rpc GetPlan", "rpc ListFiles", "rpc GetFile", "rpc GetDiff")
async def test_plan_files_and_diff_of_a_finished_story_are_read(world: World) -> None:
    async with caller(world) as at:
        plan = await at.plan("GetPlan", planning_pb2.StoryRequest(story_id=world.done))
        assert [(task.title, task.state) for task in plan.tasks] == [("Add slugify to the words module", "done")]
        files = await at.call("Workspace", "ListFiles", workspace_pb2.ListFilesRequest(story_id=world.done))
        assert "textkit/words.py" in [entry.path for entry in files.items]
        asked = workspace_pb2.GetFileRequest(story_id=world.done, path="textkit/words.py")
        assert "def slugify" in (await at.call("Workspace", "GetFile", asked)).text
        diff = await at.call("Workspace", "GetDiff", workspace_pb2.GetDiffRequest(story_id=world.done))
        changed = {file.path: file for file in diff.files}
        assert (changed["textkit/words.py"].added > 0, diff.new) == (True, files.tree)


@pytest.mark.door("rpc GetPack", "rpc ListPacks", "rpc GetGraph")
async def test_context_of_a_role_is_read(world: World) -> None:
    async with caller(world) as at:
        asked = context_pb2.GetPackRequest(story_id=world.done, role="developer", phase="BUILD")
        pack = await at.call("Context", "GetPack", asked)
        assert (pack.role, pack.phase, 0 < pack.token_count <= pack.budget) == ("developer", "BUILD", True)
        assert "slug" in pack.text
        packs = await at.call("Context", "ListPacks", context_pb2.ContextRequest(story_id=world.done))
        assert {"architect", "developer", "qa"} <= {one.role for one in packs.items}
        graph = await at.call("Context", "GetGraph", context_pb2.GraphRequest(story_id=world.done, depth=1))
        assert ("Story", world.done) in [(node.label, node.id) for node in graph.nodes]


@pytest.mark.door("rpc ScoreStory", "rpc RefineStory", "rpc SuggestStory")
async def test_text_of_a_story_is_coached(world: World) -> None:
    text: dict[str, Any] = {"title": "A slug", "brief": "Editors want slugs.", "ac": ["It works"]}
    async with caller(world) as at:
        score = await at.call("StoryCoach", "ScoreStory", coach_pb2.ScoreRequest(**text))
        assert (score.dor_ok, score.findings[0].points_lost > 0) == (False, True)
        better = await at.call("StoryCoach", "RefineStory", coach_pb2.RefineRequest(**text))
        assert better.score_after >= better.score_before
        goal = coach_pb2.SuggestRequest(goal="Readable links for every title")
        made = await at.call("StoryCoach", "SuggestStory", goal)
        assert (bool(made.acceptance_criteria), made.source) == (True, "template")


@pytest.mark.door("rpc StartRun", "rpc GetRun", "rpc CancelRun")
async def test_run_is_started_and_followed_to_its_end(world: World, at_hand: TaskAtHand) -> None:
    async with caller(world) as at:
        with at_hand.going_on():
            spec = struct(**at_hand.spec("python", "-c", "print('one')"))
            ticket = await at.call("Workspace", "StartRun", workspace_pb2.StartRunRequest(spec=spec))
            world.get(f"/api/runs/{ticket.taskId}/result", params={"timeoutSec": 60})
        run = await at.call("Workspace", "GetRun", workspace_pb2.RunRequest(run_id=ticket.taskId))
        assert (run.status, run.exitCode) == ("passed", 0)
        ended = await at.call("Workspace", "CancelRun", workspace_pb2.CancelRunRequest(run_id=ticket.taskId))
        assert ended.status == "passed", "a run that is over stays as it ended"
