"""gRPC with a real server and real clients: the calls of REST, with the same rules for everybody.

Source: docs/design/design.md, section 10.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct

from fleet.events.plan import CheckpointSaved
from fleet.events.story import StoryCancelled
from fleet.events.task import TreeMerged
from fleet.kernel.ids import EntityId
from scripts import rpc as protos
from serve_apps.rpc import services
from serve_apps.rpc.front import RPC_FILES, NoRpcCalls
from serve_apps.rpc.services import SERVICER_FUNCTIONS
from serve_apps.rpc.transcode import http_call
from serve_apps.rpc.v1 import coach_pb2, context_pb2, planning_pb2, workspace_pb2
from tests.support.bench import STORY_TEXT
from tests.support.rpc import as_caller, serving_rpc, stub
from tests.support.story_events import PLAN, STORY, TASK, StoryLog, digest
from tests.support.tool_front import ToolFront, task_spec, tool_front

ROOT = as_caller("root")
OPENAPI = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
METHODS = [m for file in RPC_FILES for s in file.DESCRIPTOR.services_by_name.values() for m in s.methods]


@asynccontextmanager
async def front() -> AsyncIterator[tuple[ToolFront, Any]]:
    async with tool_front() as at, serving_rpc(at.app) as channel:
        yield at, channel


async def refused(call: Awaitable[Any], status: grpc.StatusCode, code: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as found:
        await call
    error = found.value
    assert (error.code(), dict(error.trailing_metadata() or ())["fleet-error"]) == (status, code)
    details = error.details()
    assert details is not None
    assert details.startswith(f"{code}: ")
    return details


def filled(method: Any, text: str) -> Any:
    """A request of this method with a text in each of its texts, made from the name of the field."""
    names = [f.name for f in method.input_type.fields if f.type == f.TYPE_STRING and not f.is_repeated]
    return ParseDict({name: text.format(name) for name in names}, method.input_type._concrete_class())


def test_messages_are_what_the_files_say() -> None:
    assert protos.main(["--check"]) == 0


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_call_names_a_route_of_the_front(method: Any) -> None:
    paths = json.loads(OPENAPI.read_text())["paths"]
    if method.server_streaming:
        assert method.name == "WatchStory"
        return
    request = method.input_type._concrete_class()
    fields = {
        f.name: f"{{{f.name}}}" for f in method.input_type.fields if f.type == f.TYPE_STRING and not f.is_repeated
    }
    call = http_call(method, ParseDict(fields, request))
    path = call.target.partition("?")[0].replace("%7B", "{").replace("%7D", "}")
    assert call.method.lower() in paths.get(path, {}), path
    asked = {p["name"] for p in paths[path][call.method.lower()].get("parameters", ()) if p["in"] == "query"}
    if call.body is None:
        in_path = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert {f.name for f in method.input_type.fields} - in_path <= asked


def test_serve_can_import_what_makes_the_services_known() -> None:
    from importlib import import_module

    for name in SERVICER_FUNCTIONS:
        module, _, function = name.rpartition(".")
        assert callable(getattr(import_module(module), function))


async def test_story_is_created_once_read_and_decided() -> None:
    async with front() as (_, channel):
        planning = stub("Planning", channel)
        constraints = Struct()
        constraints.update({"paths": ["slugs.py"]})
        wanted = planning_pb2.CreateStoryRequest(
            title=STORY_TEXT["title"],
            description=STORY_TEXT["description"],
            acceptance_criteria=STORY_TEXT["acceptance_criteria"],
            constraints=constraints,
            priority=3,
        )
        made = await planning.CreateStory(wanted, metadata=as_caller("ana", 1))
        again = await planning.CreateStory(wanted, metadata=as_caller("ana", 1))
        assert (made.state, made.story_id, made.version) == ("DRAFT", again.story_id, again.version)
        one = planning_pb2.StoryRequest(story_id=made.story_id)
        shown = await planning.GetStory(one, metadata=as_caller("ana"))
        assert (shown.title, shown.priority, dict(shown.constraints)["paths"][0]) == (wanted.title, 3, "slugs.py")
        listed = await planning.ListStories(planning_pb2.ListStoriesRequest(limit=10), metadata=ROOT)
        assert made.story_id in [line.story_id for line in listed.items]
        start = planning_pb2.StartStoryRequest(story_id=made.story_id, repo="/srv/repo", delegate=["qa"])
        assert (await planning.StartStory(start, metadata=as_caller("ana", 2))).is_started
        held = planning_pb2.ReasonRequest(story_id=made.story_id, reason="not this week, please")
        assert (await planning.PauseStory(held, metadata=as_caller("ana", 3))).is_paused
        goes_on = planning_pb2.NoteRequest(story_id=made.story_id)
        assert not (await planning.ResumeStory(goes_on, metadata=as_caller("ana", 4))).is_paused
        over = await planning.CancelStory(held, metadata=as_caller("ana", 5))
        assert over.disposition == "cancelled"
        events = await planning.ListEvents(planning_pb2.ListEventsRequest(stream=made.story_id), metadata=ROOT)
        assert [e.version for e in events.items] == list(range(1, over.version + 1))
        assert events.items[0].type == "StoryCreated"


async def test_command_that_was_queued_is_answered_once_its_owner_is_back() -> None:
    async with front() as (at, channel):
        await at.lose_owner()
        held = planning_pb2.ReasonRequest(story_id=STORY, reason="not this week, please")
        call = asyncio.ensure_future(stub("Planning", channel).PauseStory(held, metadata=as_caller("root", 1)))
        await asyncio.sleep(5.5)
        assert not call.done()
        async with at.owner():
            assert (await call).is_paused


async def test_refusal_of_a_queued_command_has_its_own_status() -> None:
    async with front() as (at, channel):
        await at.lose_owner()
        goes_on = planning_pb2.NoteRequest(story_id=STORY)
        call = asyncio.ensure_future(stub("Planning", channel).ResumeStory(goes_on, metadata=as_caller("root", 1)))
        await asyncio.sleep(5.5)
        async with at.owner():
            await refused(call, grpc.StatusCode.FAILED_PRECONDITION, "invalid_transition")


async def test_watch_tells_every_event_in_order_until_the_client_leaves() -> None:
    async with front() as (at, channel):
        watch = stub("Planning", channel).WatchStory(
            planning_pb2.WatchStoryRequest(story_id=STORY, after=2), metadata=ROOT
        )
        known = len(await at.world.log.read(StoryLog(STORY).stream))
        found = [await watch.read() for _ in range(known - 2)]
        assert [e.version for e in found] == list(range(3, known + 1))
        held = planning_pb2.ReasonRequest(story_id=STORY, reason="not this week, please")
        await stub("Planning", channel).PauseStory(held, metadata=as_caller("root", 1))
        assert (await watch.read()).type == "StoryPaused"
        watch.cancel()
        only = planning_pb2.WatchStoryRequest(story_id=STORY, types=["StoryPaused"])
        assert (await stub("Planning", channel).WatchStory(only, metadata=ROOT).read()).type == "StoryPaused"


@pytest.mark.parametrize(
    ("metadata", "request_", "status", "code"),
    [
        ((), planning_pb2.WatchStoryRequest(story_id=STORY), grpc.StatusCode.UNAUTHENTICATED, "unauthenticated"),
        (ROOT, planning_pb2.WatchStoryRequest(story_id="st-none"), grpc.StatusCode.NOT_FOUND, "not_found"),
        (ROOT, planning_pb2.WatchStoryRequest(), grpc.StatusCode.INVALID_ARGUMENT, "invalid_input"),
        (
            ROOT,
            planning_pb2.WatchStoryRequest(story_id=STORY, types=["Nothing"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_input",
        ),
    ],
)
async def test_watch_of_nothing_is_refused(metadata: Any, request_: Any, status: grpc.StatusCode, code: str) -> None:
    async with front() as (_, channel):
        watch = stub("Planning", channel).WatchStory(request_, metadata=metadata)
        await refused(watch.read(), status, code)


async def test_nobody_reaches_anything_without_a_token() -> None:
    async with front() as (_, channel):
        for method in METHODS:
            if method.server_streaming:
                continue
            call = getattr(stub(method.containing_service.name, channel), method.name)
            await refused(call(filled(method, "x1")), grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")


async def test_who_calls_and_how_much_is_looked_at_before_what_is_in_a_message() -> None:
    async with front() as (at, channel):
        get = channel.unary_unary("/swe_fleet.v1.Planning/GetStory")
        watch = channel.unary_stream("/swe_fleet.v1.Planning/WatchStory")
        limit = at.app.state.settings.max_body_bytes
        for raw in (b"\xff\xff", b"\x0a\xff", b"\xff" * (limit + 1)):
            await refused(get(raw), grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
            await refused(watch(raw).read(), grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
        over = b"\xff" * (limit + 1)
        await refused(get(over, metadata=ROOT), grpc.StatusCode.RESOURCE_EXHAUSTED, "payload_too_large")
        await refused(watch(over, metadata=ROOT).read(), grpc.StatusCode.RESOURCE_EXHAUSTED, "payload_too_large")
        await refused(get(b"\xff\xff", metadata=ROOT), grpc.StatusCode.INVALID_ARGUMENT, "malformed_request")


async def test_fault_of_ours_tells_nothing_of_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the wheel at /srv/secret came off")

    async with serving_rpc(broken) as channel:
        one = planning_pb2.StoryRequest(story_id=STORY)
        told = await refused(
            stub("Planning", channel).GetStory(one, metadata=ROOT), grpc.StatusCode.INTERNAL, "internal_error"
        )
        assert "wheel" not in told
    assert "the wheel at /srv/secret came off" in caplog.text


async def test_application_without_grpc_says_so_and_nothing_else() -> None:
    server = grpc.aio.server()
    for name in SERVICER_FUNCTIONS:
        getattr(services, name.rpartition(".")[2])(NoRpcCalls(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for method in METHODS:
                call = getattr(stub(method.containing_service.name, channel), method.name)(filled(method, "x1"))
                with pytest.raises(grpc.aio.AioRpcError) as found:
                    await (call.read() if method.server_streaming else call)
                assert found.value.code() is grpc.StatusCode.UNIMPLEMENTED
                assert (
                    found.value.details() == "unimplemented: name the application `fleet` in the metadata of the call"
                )
    finally:
        await server.stop(grace=0)


async def test_bad_calls_are_refused_as_over_http() -> None:
    async with front() as (at, channel):
        planning = stub("Planning", channel)
        unknown = planning_pb2.StoryRequest(story_id="st-none")
        await refused(planning.GetStory(unknown, metadata=ROOT), grpc.StatusCode.NOT_FOUND, "not_found")
        for name in ("", f"{STORY}/plan", ".."):
            told = await refused(
                planning.GetStory(planning_pb2.StoryRequest(story_id=name), metadata=ROOT),
                grpc.StatusCode.INVALID_ARGUMENT,
                "invalid_input",
            )
            assert "story_id" in told
        held = planning_pb2.ReasonRequest(story_id=STORY, reason="not this week, please")
        await refused(
            planning.PauseStory(held, metadata=ROOT), grpc.StatusCode.INVALID_ARGUMENT, "idempotency_key_required"
        )
        await refused(
            planning.PauseStory(held, metadata=as_caller("dev", 1)), grpc.StatusCode.PERMISSION_DENIED, "policy_denied"
        )
        await planning.CancelStory(held, metadata=as_caller("root", 2))
        assert (await at.world.log.read(StoryLog(STORY).stream))[-1].type == StoryCancelled.type
        await refused(
            planning.CancelStory(held, metadata=as_caller("root", 3)),
            grpc.StatusCode.FAILED_PRECONDITION,
            "invalid_transition",
        )


@pytest.mark.rule("PL-47")
async def test_story_is_set_back_to_a_listed_checkpoint_once_by_a_po_with_a_reason() -> None:
    async with front() as (at, channel):
        planning, base, later = stub("Planning", channel), digest("base"), digest("later")
        one = planning_pb2.StoryRequest(story_id=STORY)
        assert not (await planning.ListCheckpoints(one, metadata=ROOT)).items
        back = planning_pb2.RestoreRequest(
            story_id=STORY, checkpoint="rp-first1", reason="The second step broke the first"
        )
        missing = planning.RestoreStory(back, metadata=as_caller("root", 1))
        assert "none before its first merge" in await refused(missing, grpc.StatusCode.NOT_FOUND, "not_found")
        saved = CheckpointSaved(
            plan_id=PLAN,
            checkpoint_id=EntityId("rp-first1"),
            tree_digest=base,
            task_states={TASK: "todo"},
            note="after the first task",
        )
        merged = TreeMerged(base_digest=base, result_digest=base, commit="0a" * 20)
        await at.record(merged, saved, TreeMerged(base_digest=base, result_digest=later, commit="0b" * 20))
        asked = planning_pb2.ReasonRequest(story_id=STORY, reason="The owner reads on when it writes")
        await planning.PauseStory(asked, metadata=as_caller("root", 2))
        (listed,) = (await planning.ListCheckpoints(one, metadata=as_caller("dev"))).items
        assert (listed.checkpoint_id, listed.tree, listed.is_present) == ("rp-first1", base, False)
        assert (dict(listed.tasks), listed.note, bool(listed.saved_at)) == ({TASK: "todo"}, saved.note, True)
        await refused(
            planning.RestoreStory(back, metadata=as_caller("dev", 3)),
            grpc.StatusCode.PERMISSION_DENIED,
            "policy_denied",
        )
        back.checkpoint = str(listed.version)
        for _ in range(2):  # the same key once more is the same command
            assert (await planning.RestoreStory(back, metadata=as_caller("root", 4))).story_id == STORY
        assert (await planning.ListCheckpoints(one, metadata=ROOT)).restoring == "rp-first1"
        events = await at.world.events()
        assert [e.actor for e in events if e.type == "RestoreRequested"] == ["user:root"]
        again = planning.RestoreStory(back, metadata=as_caller("root", 5))
        await refused(again, grpc.StatusCode.FAILED_PRECONDITION, "invalid_transition")


@pytest.mark.parametrize("change", [{"reason": "short"}, {"reason": ""}, {"checkpoint": ""}, {"story_id": "st/x"}])
async def test_restoration_without_checkpoint_or_reason_is_refused_and_not_recorded(change: dict[str, str]) -> None:
    async with front() as (at, channel):
        fields = {"story_id": STORY, "checkpoint": "rp-first1", "reason": "The second step broke the first"} | change
        call = stub("Planning", channel).RestoreStory(
            planning_pb2.RestoreRequest(**fields), metadata=as_caller("root", 1)
        )
        await refused(call, grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")
        assert "RestoreRequested" not in await at.world.types()


async def test_coach_scores_refines_and_suggests() -> None:
    async with front() as (_, channel):
        coach = stub("StoryCoach", channel)
        text = {"title": "A slug", "brief": "Editors want slugs.", "ac": ["It works"]}
        score = await coach.ScoreStory(coach_pb2.ScoreRequest(**text), metadata=ROOT)
        assert not score.dor_ok
        assert score.findings[0].points_lost > 0
        better = await coach.RefineStory(coach_pb2.RefineRequest(**text), metadata=ROOT)
        assert better.score_after >= better.score_before
        made = await coach.SuggestStory(coach_pb2.SuggestRequest(goal="Readable links for every title"), metadata=ROOT)
        assert made.title
        empty = coach.SuggestStory(coach_pb2.SuggestRequest(), metadata=ROOT)
        await refused(empty, grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")


async def test_context_of_a_role_is_the_pack_that_rest_shows() -> None:
    async with front() as (at, channel):
        context = stub("Context", channel)
        asked = context_pb2.GetPackRequest(story_id=STORY, role="architect", phase="design")
        pack = await context.GetPack(asked, metadata=ROOT)
        shown = await at.client.get(f"/api/context/{STORY}/architect/design", headers=dict(ROOT))
        assert shown.status_code == 200, shown.text
        told = MessageToDict(pack, preserving_proto_field_name=True)
        assert told["text"] == shown.json()["text"]
        assert (pack.hash, pack.token_count) == (shown.json()["hash"], shown.json()["token_count"])
        packs = await context.ListPacks(context_pb2.ContextRequest(story_id=STORY), metadata=ROOT)
        assert pack.role in {one.role for one in packs.items}
        graph = await context.GetGraph(context_pb2.GraphRequest(story_id=STORY, depth=1), metadata=ROOT)
        assert graph.nodes[0].id


async def test_run_is_started_watched_and_ended_by_its_developer_alone() -> None:
    async with front() as (_, channel):
        workspace, developer = stub("Workspace", channel), as_caller("dev")
        spec = Struct()
        spec.update(task_spec("pytest", "-q"))
        started = workspace_pb2.StartRunRequest(spec=spec)
        ticket = await workspace.StartRun(started, metadata=as_caller("dev", 7))
        one = workspace_pb2.RunRequest(run_id=ticket.taskId)
        async with asyncio.timeout(20):
            while (run := await workspace.GetRun(one, metadata=developer)).status in ("pending", "running", "queued"):
                await asyncio.sleep(0.05)
        assert (run.status, run.exitCode) == ("passed", 0)
        await refused(workspace.GetRun(one, metadata=as_caller("ana")), grpc.StatusCode.NOT_FOUND, "not_found")
        ended = await workspace.CancelRun(
            workspace_pb2.CancelRunRequest(run_id=ticket.taskId), metadata=as_caller("dev", 8)
        )
        assert ended.status == "passed"
        spec.update({"mounts": "everything"})
        await refused(
            workspace.StartRun(workspace_pb2.StartRunRequest(spec=spec), metadata=as_caller("dev", 9)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_input",
        )
