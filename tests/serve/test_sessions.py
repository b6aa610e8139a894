"""Work sessions over HTTP: an engineer is watched at work, spoken to, forked and stopped, and read afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.kernel.clock import SystemClock
from fleet.story.sessions.steps import session_id_of
from serve_apps.routes.gateway import build_gateway
from tests.support.acting import COUNCIL
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.sessions import Script, SessionWorld
from tests.support.story_events import STORY
from tests.support.tool_front import DEV, QUINN, REGISTRY, ROOT, keyed

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

    def __init__(self, world: SessionWorld, client: httpx2.AsyncClient) -> None:
        self.world, self.client, self.let_go = world, client, asyncio.Event()

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
            watched = Watched(world, client)

            async def wait() -> None:
                await watched.let_go.wait()

            world.engineer.meanwhile[4] = wait
            yield watched
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.rule("AP-130", "AP-131", "AP-132", "CN-25", "CN-26", "CN-27")
@pytest.mark.door(
    "GET /api/planner/stories/{story_id}/sessions",
    "GET /api/planner/stories/{story_id}/sessions/{session_id}",
    "GET /api/planner/stories/{story_id}/sessions/{session_id}/outputs/{digest}",
    "POST /api/planner/stories/{story_id}/sessions/{session_id}/tell",
    "POST /api/planner/stories/{story_id}/sessions/{session_id}/stop",
    "POST /api/planner/stories/{story_id}/sessions/{session_id}/fork",
    stand_in="a front and an owner in one process: the packaged engines work without sessions",
)
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
