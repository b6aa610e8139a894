"""Work sessions over HTTP, MCP and gRPC: an engineer is watched at work, spoken to, forked and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import httpx2
import pytest
from fastapi import FastAPI

from fleet.config.settings import ServeSettings
from fleet.kernel.clock import SystemClock
from fleet.story.sessions.steps import session_id_of
from serve_apps.routes.gateway import build_gateway
from serve_apps.rpc.v1 import sessions_pb2
from tests.support.acting import COUNCIL
from tests.support.front import front_parts
from tests.support.mcp import agent
from tests.support.rpc import as_caller, serving_rpc, stub
from tests.support.rules import files
from tests.support.sessions import Script, SessionWorld
from tests.support.story_events import STORY
from tests.support.tool_front import DEV, QUINN, REGISTRY, ROOT, keyed, serving

URL = f"/api/planner/stories/{STORY}/sessions"
ONE = session_id_of(STORY, f"{COUNCIL}/draft/developer-001")
FIX = {"path": "text/slug.py", "old": "    raise NotImplementedError", "new": "    return title.lower()"}
KEY = "AKIAIOSFODNN7EXAMPLE"
SCRIPT: Script = (
    [("read", {"path": "text/slug.py"}), ("note", {"text": "then the docs"})],
    [("edit", FIX), ("edit", {**FIX, "old": "nowhere"})],
    [("run", {"command": f"put notes.txt half; say {KEY} <b>; fail"})],
    [("tests", {})],
    [("submit", {"summary": "slugify is there"})],
    [("submit", {"summary": "slugify is there"})],
)


class Watched:
    """A client of the front, and engineers who wait in the middle of their fourth turn until they are let go."""

    def __init__(self, world: SessionWorld, app: FastAPI, client: httpx2.AsyncClient) -> None:
        self.world, self.app, self.client, self.let_go = world, app, client, asyncio.Event()

    async def get(self, path: str = "", **params: Any) -> Any:
        """What the front answers."""
        found = await self.client.get(f"{URL}{path}", headers=ROOT, params=params)
        assert found.status_code == 200, found.text
        return found.json()

    async def send(self, verb: str, body: Any, *, number: int = 1, who: dict[str, str] = ROOT) -> httpx2.Response:
        """The answer to a command on the first session."""
        return await self.client.post(f"{URL}/{ONE}/{verb}", json=body, headers=keyed(number, who))

    async def until(self, wanted: Callable[[dict[str, Any]], bool], session_id: str = ONE) -> dict[str, Any]:
        """The session once it is as wanted."""
        async with asyncio.timeout(30):
            while True:
                found = {one["session_id"]: one for one in (await self.get())["items"]}
                if session_id in found and wanted(found[session_id]):
                    return found[session_id]
                await asyncio.sleep(0.05)


async def _work(world: SessionWorld) -> None:
    await world.deliver()
    roster = (await world.journal()).state.councils[COUNCIL].opened.roster
    for number, member in enumerate(roster):
        if "-fork-" in member.member_id:
            await world.deliver(number)


@pytest.fixture
async def at() -> AsyncIterator[Watched]:
    """An engineer at work on the story of the front, and after it those who were forked from it."""
    world = await SessionWorld(SCRIPT, clock=SystemClock()).begin()
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(world.desk, REGISTRY, settings, parts=front_parts(world))
    tasks = [asyncio.create_task(world.serve()), asyncio.create_task(_work(world))]
    transport = httpx2.ASGITransport(app=app)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://fleet", timeout=30) as client:
            watched = Watched(world, app, client)

            async def wait() -> None:
                await watched.let_go.wait()

            world.engineer.meanwhile[4] = wait
            yield watched
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.rule("AP-130", "AP-131", "AP-132", "CN-25", "CN-26", "CN-27")
async def test_engineer_is_watched_spoken_to_forked_and_stopped(at: Watched):
    page = await at.until(lambda one: one["waits_for"] == "reply 4 of its engine")
    assert (page["status"], page["turn"], page["turns"], page["work"]) == ("working", 4, 60, "draft")
    assert (page["tokens_in"], page["tokens_out"]) == (30, 15)
    assert page["changed"] == [
        {"path": "notes.txt", "change": "added"},
        {"path": "text/slug.py", "change": "modified"},
    ]
    last = page["last"]
    assert (last["tool"], last["outcome"], last["exit_code"]) == ("run", "exit 1", 1)
    assert last["output"] == "[REDACTED:AWS] <b>"
    assert KEY not in str(page)

    shown = await at.get(f"/{ONE}")
    assert [turn["number"] for turn in shown["turns"]] == [1, 2, 3, 4]
    assert [[call["outcome"] for call in turn["calls"]] for turn in shown["turns"]] == [
        ["shown"],
        ["edited", "refused"],
        ["exit 1"],
        [],
    ]
    assert shown["turns"][0]["notes"] == ['note {"text": "then the docs"}']
    assert shown["turns"][3]["is_waiting"]
    edit = shown["turns"][1]["calls"][0]
    diff = await at.client.get(
        f"/api/planner/stories/{STORY}/diff", headers=ROOT, params={"from": edit["before"], "to": edit["after"]}
    )
    assert "+    return title.lower()" in diff.json()["files"][0]["patch"]
    page_two = await at.get(f"/{ONE}", after=1, limit=1)
    assert ([t["number"] for t in page_two["turns"]], page_two["next_after"]) == ([2], 2)
    output = await at.get(f"/{ONE}/outputs/{last['output_digest']}")
    assert (output["lines"][0], output["of"]) == ("[REDACTED:AWS] <b>", 1)
    missing = await at.client.get(f"{URL}/{ONE}/outputs/sha256:{'0' * 64}", headers=ROOT)
    assert missing.status_code == 404

    told = await at.send("tell", {"text": f"Keep the old name, key {KEY}."})
    assert told.status_code == 200, told.text
    assert [(t["text"], t["before_turn"]) for t in told.json()["told"]] == [
        ("Keep the old name, key [REDACTED:AWS].", None)
    ]
    assert (await at.send("tell", {"text": f"Keep the old name, key {KEY}."})).json()["told"] == told.json()["told"]
    for who in (DEV, QUINN):
        assert (await at.send("stop", {"reason": "it is enough now"}, number=9, who=who)).status_code in (403, 404)

    forked = await at.send("fork", {"turn": 2}, number=2)
    assert forked.status_code == 200, forked.text
    fork = forked.json()
    assert (fork["forked_from"], fork["forked_at"], fork["status"]) == (ONE, 2, "waiting")
    assert (await at.send("fork", {"turn": 2}, number=2)).json()["session_id"] == fork["session_id"]
    refused = await at.send("fork", {"turn": 4}, number=3)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")

    stopped = await at.send("stop", {"reason": "the half of it is enough"}, number=4)
    assert stopped.status_code == 200, stopped.text
    over = await at.until(lambda one: one["status"] == "over")
    assert (over["ended"], over["stopped_by"]) == ("stopped", "user:root")
    again = await at.send("tell", {"text": "one more thing"}, number=5)
    assert (again.status_code, again.json()["code"]) == (409, "invalid_transition")
    assert "it is over (stopped)" in again.json()["detail"]

    at.let_go.set()
    done = await at.until(lambda one: one["status"] == "over", fork["session_id"])
    assert done["ended"] == "submitted"
    whole = await at.get(f"/{fork['session_id']}", limit=50)
    assert [(t["number"], t["is_inherited"]) for t in whole["turns"]][:4] == [
        (1, True),
        (2, True),
        (3, False),
        (4, False),
    ]
    assert done["tokens_in"] == 4 * 10


@pytest.mark.rule("AP-130")
async def test_what_is_hidden_or_missing_looks_the_same(at: Watched):
    await at.until(lambda one: one["turn"] == 4)
    for path in ("/se-none", f"/se-none/outputs/sha256:{'0' * 64}"):
        found = await at.client.get(f"{URL}{path}", headers=ROOT)
        assert found.status_code == 404, found.text
    assert (await at.client.get("/api/planner/stories/st-none/sessions", headers=ROOT)).status_code == 404
    assert (await at.client.get(URL)).status_code == 401
    at.let_go.set()


@pytest.mark.rule("AP-113", "AP-130", "AP-131", "AP-132", "CN-25", "CN-26", "CN-27")
async def test_agent_over_mcp_gets_what_http_gives_and_is_refused_what_it_refuses(at: Watched):
    await at.until(lambda one: one["waits_for"] == "reply 4 of its engine")
    one = {"storyId": STORY, "sessionId": ONE}
    async with serving(at.app) as url, agent(url, ROOT) as root, agent(url, DEV) as dev:
        assert (await root.ask("list_work_sessions", storyId=STORY)) == await at.get()
        shown = await root.ask("show_work_session", **one, after=1, limit=1)
        assert shown == await at.get(f"/{ONE}", after=1, limit=1)
        call = shown["turns"][0]["calls"][0]
        output = await root.ask("session_output", **one, digest=call["output_digest"], fromLine=1, lines=1)
        assert (output["digest"], len(output["lines"])) == (call["output_digest"], 1)
        diff = await root.ask("story_diff", storyId=STORY, fromTree=call["before"], toTree=call["after"])
        assert "+    return title.lower()" in diff["files"][0]["patch"]
        for tool, wrong, code in (
            ("show_work_session", {**one, "sessionId": "se-none"}, "not_found"),
            ("show_work_session", {**one, "storyId": "st-none"}, "not_found"),
            ("show_work_session", {**one, "after": "one"}, "invalid_input"),
            ("show_work_session", {**one, "limit": 51}, "invalid_input"),
            ("show_work_session", {"storyId": STORY}, "invalid_input"),
            ("session_output", {**one, "digest": "none"}, "invalid_input"),
            ("session_output", {**one, "digest": f"sha256:{'0' * 64}"}, "not_found"),
            ("story_diff", {"storyId": STORY, "fromTree": f"sha256:{'0' * 64}"}, "not_found"),
            ("tell_session", {**one, "text": "Go on."}, "invalid_input"),
            ("tell_session", {**one, "text": "", "idempotencyKey": "key-number-8"}, "invalid_input"),
            ("tell_session", {**one, "text": "Go on.", "idempotencyKey": "key number 8"}, "malformed_request"),
            ("tell_session", {**one, "sessionId": "se-none", "text": "x", "idempotencyKey": "key-no-8"}, "not_found"),
            ("fork_session", {**one, "turn": 4, "idempotencyKey": "key-number-9"}, "invalid_input"),
            ("stop_session", {**one, "reason": "short", "idempotencyKey": "key-number-9"}, "invalid_input"),
        ):
            assert (await root.refused(tool, **wrong))["code"] == code, (tool, wrong)
        stop = {**one, "reason": "it is enough now", "idempotencyKey": "key-number-1"}
        assert (await dev.refused("stop_session", **stop))["code"] == "policy_denied"
        told = await dev.ask("tell_session", **one, text=f"Mind {KEY}.", idempotencyKey="key-number-2")
        assert [each["text"] for each in told["told"]] == ["Mind [REDACTED:AWS]."]
        fork = {**one, "turn": 2, "idempotencyKey": "key-number-3"}
        forked = await root.ask("fork_session", **fork)
        assert (forked["forked_from"], forked["forked_at"]) == (ONE, 2)
        assert (await root.ask("fork_session", **fork))["session_id"] == forked["session_id"]
        assert (await root.ask("stop_session", **stop))["stopped_by"] == "user:root"
        assert (await at.get(f"/{ONE}"))["session"]["stop_reason"] == "it is enough now"


@pytest.mark.rule("AP-130", "AP-131", "AP-132", "CN-25", "CN-26", "CN-27")
async def test_client_over_grpc_gets_what_http_gives_and_is_refused_what_it_refuses(at: Watched):
    await at.until(lambda one: one["waits_for"] == "reply 4 of its engine")
    one = {"story_id": STORY, "session_id": ONE}

    async def refused(call: Awaitable[Any], code: str, status: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT):
        with pytest.raises(grpc.aio.AioRpcError) as found:
            await call
        assert (found.value.code(), dict(found.value.trailing_metadata() or ())["fleet-error"]) == (status, code)

    async with serving_rpc(at.app) as channel:
        sessions, root = stub("Sessions", channel), as_caller("root")
        shown = await sessions.GetWorkSession(
            sessions_pb2.GetWorkSessionRequest(**one, after=1, limit=1), metadata=root
        )
        page = await at.get(f"/{ONE}", after=1, limit=1)
        assert (shown.next_after, shown.session.head, shown.session.tokens_in) == (
            page["next_after"],
            page["session"]["head"],
            page["session"]["tokens_in"],
        )
        assert [call.about for call in shown.turns[0].calls] == [each["about"] for each in page["turns"][0]["calls"]]
        missing = grpc.StatusCode.NOT_FOUND
        for wrong, code, status in (
            ({"session_id": "se-none"}, "not_found", missing),
            ({"story_id": "st-none"}, "not_found", missing),
            ({"session_id": ""}, "invalid_input", grpc.StatusCode.INVALID_ARGUMENT),
            ({"after": -1}, "invalid_input", grpc.StatusCode.INVALID_ARGUMENT),
        ):
            request = sessions_pb2.GetWorkSessionRequest(**(one | wrong))
            await refused(sessions.GetWorkSession(request, metadata=root), code, status)
        output = sessions_pb2.GetSessionOutputRequest(**one, digest=f"sha256:{'0' * 64}")
        await refused(sessions.GetSessionOutput(output, metadata=root), "not_found", missing)
        tell = sessions_pb2.TellSessionRequest(**one, text="Keep the old name.")
        await refused(sessions.TellSession(tell, metadata=root), "idempotency_key_required")
        for _ in range(2):  # the same key once more is the same command
            told = await sessions.TellSession(tell, metadata=as_caller("dev", 1))
            assert [each.text for each in told.told] == ["Keep the old name."]
        stop = sessions_pb2.StopSessionRequest(**one, reason="it is enough now")
        denied = sessions.StopSession(stop, metadata=as_caller("dev", 2))
        await refused(denied, "policy_denied", grpc.StatusCode.PERMISSION_DENIED)
        fork = sessions_pb2.ForkSessionRequest(**one, turn=4)
        await refused(sessions.ForkSession(fork, metadata=as_caller("root", 3)), "invalid_input")
        stopped = await sessions.StopSession(stop, metadata=as_caller("root", 4))
        assert (stopped.session_id, stopped.stopped_by) == (ONE, "user:root")
