"""Councils over HTTP: asked for, read over all stories, ended, sent back; pools (AP-77..AP-79)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.task import TreeMerged
from fleet.events.workspace import WorkspaceReported, WorkspaceSummary
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import EntityId, Principal
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.owner.shard import CouncilShard
from fleet.trees.tree import FileEntry, encode_tree
from serve_apps.routes.gateway import build_gateway
from tests.support import sim_story
from tests.support.bench import PEOPLE, ScriptedAgents, World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import AC_1, AC_2, DESIGN_COUNCIL, STORY, digest, story
from tests.support.tool_front import DEV, QUINN, RITA, ROOT, keyed

PATH = "text/slug.py"
ASK: dict[str, Any] = {
    "story_id": STORY,
    "task_description": "Which way of folding umlauts should the slugs use?",
    "role": "architect",
    "output_kind": "text",
    "constraints": {"rubric": [{"name": "readers", "text": "Links stay readable"}]},
    "budget": {"tokens": 50_000, "wall_s": 600},
}
NO_ESTIMATE = {"kind": "estimate", "output_kind": "plan"}
WAITS = "gate approve_design waits for role po"
HIDDEN = "Bearer elsewhere-token"


def team(request: AgentRequest) -> Any:
    """The team of the simulation, which can advise too."""
    by = [{"ref": ac, "how": "by folding letters"} for ac in (AC_1, AC_2)]
    match request.kind:
        case "advise" if request.json_schema is not None and "value" in request.json_schema["properties"]:
            return {"value": (3, 3, 5)[request.variant], "reason": f"as seat {request.variant} sees it"}
        case "advise":
            return {"summary": f"Way {request.variant}", "text": f"Fold by table {request.variant}.", "addressed": by}
        case "propose":
            return sim_story.answer(request) | {"path": PATH, "criteria": [{"ac": r["ref"], "how": "so"} for r in by]}
        case "derive":
            task = sim_story.answer(request)["tasks"][0] | {"acceptance_refs": [AC_1, AC_2], "paths": [PATH]}
            return {"tasks": [task]}
        case _:
            return sim_story.answer(request)


class Team(ScriptedAgents):
    """The team; who is asked to advise waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(team)
        self.free = asyncio.Event()

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        if request.kind == "advise":
            await self.free.wait()
        return await super().ask(request, request_id=request_id, timeout_s=timeout_s)


@dataclass
class Front:
    """A client of the front, and a story whose design waits for its approval."""

    world: World
    client: httpx2.AsyncClient
    team: Team
    shard: CouncilShard
    running: asyncio.Task[None]

    async def lose_owner(self) -> None:
        """Nobody answers commands any more."""
        await self.shard.drain()
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def post(self, path: str, body: Any, *, number: int = 1, who: dict[str, str] = ROOT) -> httpx2.Response:
        """A request that changes something."""
        return await self.client.post(f"/api/{path}", json=body, headers=keyed(number, who))

    async def get(self, path: str, *, who: dict[str, str] = ROOT, status: int = 200) -> Any:
        """What is read."""
        found = await self.client.get(f"/api/{path}", headers=who)
        assert found.status_code == status, found.text
        return found.json()

    async def ask(self, *, number: int = 1, **changes: Any) -> str:
        """The id of the council that was asked for."""
        found = await self.post("councils", ASK | changes, number=number)
        assert found.status_code == 202, found.text
        return found.json()["council_id"]

    async def becomes(self, council_id: str, status: str) -> dict[str, Any]:
        """The line of the council once it has this status."""
        async with asyncio.timeout(20):
            while True:
                items = (await self.get("councils?limit=200"))["items"]
                for line in items:
                    if (line["council_id"], line["status"]) == (council_id, status):
                        return line
                await asyncio.sleep(0.02)


def _entry(name: str, roles: frozenset[str], token: str, *, projects: frozenset[str] | None = None) -> PrincipalEntry:
    return PrincipalEntry(principal=Principal(name), roles=roles, token_sha256=hash_token(token), projects=projects)


@asynccontextmanager
async def _front() -> AsyncIterator[Front]:
    agents = Team()
    world = World(clock=SystemClock(), agents=agents)
    blob = await world.blobs.put(b"def old():\n    return 1\n")
    tree = await world.blobs.put(encode_tree({PATH: FileEntry("100644", blob)}))
    log = story(until="scope").add(
        TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20),
        WorkspaceReported(
            run_id=EntityId("rn-base1"),
            tree_digest=tree,
            report_digest=digest("report"),
            complete=True,
            summary=WorkspaceSummary(build_ok=True),
        ),
    )
    await log.write_to(world.log)
    registry = PrincipalRegistry(
        (
            *(_entry(name, roles, f"{name.removeprefix('user:')}-token") for name, roles in PEOPLE.items()),
            _entry("user:elsa", frozenset({"po"}), "elsewhere-token", projects=frozenset({"pr-other"})),
        )
    )
    app = build_gateway(world.desk, registry, files().load("serve.yaml", ServeSettings), parts=front_parts(world))
    shard = CouncilShard(
        name="council:0",
        incarnation="a1",
        log=world.log,
        leases=world.leases,
        inbox=world.inbox,
        clock=world.clock,
        make_bench=world.bench,
        commands=world.commands,
        sweep_s=0.1,
    )
    running = asyncio.create_task(shard.run())
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
            async with asyncio.timeout(20):
                while world.desk.waiting_for(await world.desk.state(STORY)) != WAITS:
                    await asyncio.sleep(0.02)
            yield Front(world, client, agents, shard, running)
    finally:
        await shard.drain()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def at() -> AsyncIterator[Front]:
    """The front of a story that is worked on."""
    async with _front() as front:
        yield front


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


@pytest.mark.rule("AP-77", "AP-2", "AP-4", "CN-15", "CN-58")
async def test_council_on_request_is_accepted_once_held_and_read_with_what_it_found(at: Front):
    before = await at.world.desk.state(STORY)
    first = await at.post("councils", ASK)
    found = first.json()
    assert (first.status_code, found["status"], found["story_id"]) == (202, "accepted", STORY)
    assert first.headers["location"] == found["status_url"] == f"/api/councils/{found['council_id']}"
    again = await at.post("councils", ASK)
    assert again.json() == found
    line = await at.becomes(found["council_id"], "IN_PROGRESS")
    assert (line["phase"], line["requested_by"], len(line["waits_for"])) == ("drafting", "user:root", 3)
    at.team.free.set()
    line = await at.becomes(found["council_id"], "COMPLETED")
    assert (line["outcome"], line["phase"]) == ("decided", None)
    page = await at.get(f"councils/{found['council_id']}", who=DEV)
    assert page["asked"]["request"]["task_description"] == ASK["task_description"]
    assert page["answer"]["text"].startswith("Fold by table")
    assert page["record"]["winner_or_reason"] == page["council"]["winner"] == line["winner"]
    assert page == await at.get(f"planner/stories/{STORY}/councils/{found['council_id']}")
    after = await at.world.desk.state(STORY)
    assert (after.state, after.decisions, after.tasks, after.plan) == (
        before.state,
        before.decisions,
        before.tasks,
        before.plan,
    )
    # The story's own pages show it beside its own council.
    listed = await at.get(f"planner/stories/{STORY}/councils")
    assert [c["requested_by"] for c in listed["items"]] == [None, "user:root"]
    assert any("ouncil" in row["text"] for row in (await at.get(f"planner/stories/{STORY}/timeline"))["items"])
    report = await at.client.get(f"/api/planner/stories/{STORY}/report", headers=ROOT)
    assert "Advice, asked for by" in report.text


@pytest.mark.rule("AP-77", "AP-60", "PL-24")
async def test_plan_that_a_council_advises_is_a_body_for_a_plan_version(at: Front):
    council_id = await at.ask(output_kind="plan")
    await at.becomes(council_id, "COMPLETED")
    answer = (await at.get(f"councils/{council_id}"))["answer"]
    body = {"rationale": "as the council advised", "tasks": answer["tasks"]}
    written = await at.post(f"planner/stories/{STORY}/plans", body, number=2)
    assert written.status_code == 201, written.text
    wrong = await at.post("councils", ASK | {"output_kind": "plan", "task_id": "tk-slug1"}, number=3)
    assert "/task_id" in {p["pointer"] for p in _refused(wrong, 422, "invalid_input")["errors"]}


@pytest.mark.rule("AP-77", "CN-70", "PL-80", "PL-81")
async def test_estimate_is_asked_for_and_read_in_rounds_without_names(at: Front):
    council_id = await at.ask(kind="estimate", task_id=None)
    line = await at.becomes(council_id, "IN_PROGRESS")
    assert (line["kind"], line["phase"], len(line["waits_for"])) == ("estimate", "balloting", 3)
    at.team.free.set()
    line = await at.becomes(council_id, "COMPLETED")
    assert (line["outcome"], line["winner"]) == ("decided", None)
    page = await at.get(f"councils/{council_id}", who=DEV)
    assert page["council"]["estimate"] == 3
    assert page["council"]["estimate_rounds"] == [
        {"round": 1, "median": 3, "iqr": 2, "values": [3, 3, 5], "absent": 0},
    ]
    assert page["reasons"] == [["as seat 0 sees it", "as seat 1 sees it", "as seat 2 sees it"]]
    assert page["record"]["winner_or_reason"] == 3
    shown = [row["text"] for row in page["timeline"]]
    assert shown.count("An estimate came in for round 1") == 3
    _refused(await at.post("councils", ASK | NO_ESTIMATE, number=3), 422, "invalid_input")
    _refused(await at.post("councils", ASK | {"kind": "estimate"}, number=4, who=DEV), 403, "policy_denied")


@pytest.mark.rule("AP-77", "AP-8", "CN-12")
async def test_bad_request_names_what_is_wrong_and_records_nothing(at: Front):
    version = (await at.world.desk.state(STORY)).version
    refused = _refused(await at.post("councils", ASK | {"num_agents": 4, "kind": "gate"}), 422, "invalid_input")
    assert {"/roster", "/subject"} <= {p["pointer"] for p in refused["errors"]}
    _refused(await at.post("councils", {"story_id": STORY}, number=2), 422, "invalid_input")
    _refused(await at.post("councils", ASK | NO_ESTIMATE, number=3), 422, "invalid_input")
    _refused(await at.post("councils", ASK | {"story_id": "st-nobody"}, number=4), 404, "not_found")
    _refused(await at.post("councils", ASK, number=5, who=DEV), 403, "policy_denied")
    _refused(await at.post("councils", ASK, number=6, who={"Authorization": HIDDEN}), 404, "not_found")
    assert (await at.client.post("/api/councils", json=ASK, headers=ROOT)).status_code == 400
    assert (await at.world.desk.state(STORY)).version == version


@pytest.mark.rule("AP-77", "AP-25", "AP-5")
async def test_councils_are_listed_by_story_and_status_in_pages_to_those_who_see_them(at: Front):
    mine = await at.ask()
    everything = (await at.get("councils"))["items"]
    assert [line["requested_by"] for line in everything] == [None, "user:root"]
    page = await at.get("councils?limit=1")
    rest = await at.get(f"councils?limit=1&cursor={page['next_cursor']}")
    assert [*page["items"], *rest["items"]] == everything
    assert rest["next_cursor"] is None
    assert [line["council_id"] for line in (await at.get("councils?status=COMPLETED"))["items"]] != [mine]
    assert len((await at.get(f"councils?storyId={STORY}"))["items"]) == 2
    assert (await at.get("councils?storyId=st-nobody"))["items"] == []
    _refused(await at.client.get("/api/councils?status=open", headers=ROOT), 422, "invalid_input")
    elsa = {"Authorization": HIDDEN}
    assert (await at.get("councils", who=elsa))["items"] == []
    for path in (f"councils/{mine}", "councils/co-nobody1", f"councils/{DESIGN_COUNCIL}"):
        assert (await at.get(path, who=elsa, status=404))["code"] == "not_found"
    end = {"reason": "the question answered itself"}
    _refused(await at.post(f"councils/{mine}/cancel", end, who=elsa), 404, "not_found")


@pytest.mark.rule("AP-78", "CN-15")
async def test_council_at_work_is_cancelled_at_once_and_stays_on_record(at: Front):
    mine = await at.ask()
    await at.becomes(mine, "IN_PROGRESS")
    end = {"reason": "the question answered itself"}
    _refused(await at.post(f"councils/{mine}/cancel", end, number=2, who=RITA), 403, "policy_denied")
    _refused(await at.post(f"councils/{mine}/cancel", {"reason": "no"}, number=3), 422, "invalid_input")
    ended = await at.post(f"councils/{mine}/cancel", end, number=4)
    assert (ended.status_code, ended.json()["council"]["status"]) == (200, "cancelled")
    assert (await at.becomes(mine, "CANCELLED"))["reason"] == end["reason"]
    refused = _refused(await at.post(f"councils/{mine}/cancel", end, number=5), 409, "invalid_transition")
    assert "nothing to cancel" in refused["detail"]
    state = await at.world.desk.state(STORY)
    assert (state.disposition, at.world.desk.waiting_for(state)) == (
        "active",
        WAITS,
    )


@pytest.mark.rule("AP-78", "CN-63")
async def test_outcome_is_sent_back_to_a_new_council_and_that_of_the_story_to_its_gate(at: Front):
    at.team.free.set()
    mine = await at.ask()
    await at.becomes(mine, "COMPLETED")
    back = {"reason": "umlauts of other languages were left out"}
    found = await at.post(f"councils/{mine}/reject", back, number=2)
    assert found.status_code == 202, found.text
    line = await at.becomes(found.json()["council_id"], "COMPLETED")
    assert line["retry_of"] == mine
    page = await at.get(f"councils/{line['council_id']}")
    assert page["asked"]["request"]["constraints"]["rubric"][-1]["text"] == back["reason"]
    _refused(await at.post(f"councils/{mine}/reject", back, number=3), 409, "version_conflict")
    (own,) = [c["council_id"] for c in (await at.get("councils"))["items"] if c["requested_by"] is None]
    refused = _refused(await at.post(f"councils/{own}/reject", back, number=4), 409, "invalid_transition")
    assert "approve_design" in refused["detail"]


@pytest.mark.rule("AP-4", "AP-77")
async def test_request_that_no_owner_takes_in_time_says_where_its_outcome_will_be(at: Front):
    await at.lose_owner()
    found = await at.post("councils", ASK)
    assert (found.status_code, found.json()["status"]) == (202, "pending")
    assert found.json()["status_url"].startswith("/api/commands/")
    assert found.json()["council_id"].startswith("co-")


@pytest.mark.rule("AP-79", "CN-16")
async def test_pools_are_those_of_the_configuration_with_what_their_seats_do(at: Front):
    (pool,) = (await at.get("council-pools"))["items"]
    assert (pool["role"], pool["num_agents"], pool["kind"], pool["status"]) == ("developer", 3, "mock", "idle")
    assert [agent["agent_id"] for agent in pool["agents"]] == [f"agent-developer-00{n}" for n in (1, 2, 3)]
    mine = await at.ask(role="developer")
    await at.becomes(mine, "IN_PROGRESS")
    pool = await at.get("council-pools/developer")
    assert (pool["status"], {agent["status"] for agent in pool["agents"]}) == ("busy", {"busy"})
    assert (await at.get("council-pools/butler", status=404))["code"] == "not_found"
    for path in ("council-pools", "council-pools/developer"):
        assert (await at.get(path, who=QUINN, status=403))["code"] == "policy_denied"
