"""Reports of the pipeline over HTTP, and the score of any report (AP-83, AP-84, RG-44, RG-45)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.events.workspace import TestSummary, WorkspaceReported, WorkspaceSummary
from fleet.kernel.ids import EntityId
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.event_samples import samples
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import STORY, digest, story
from tests.support.tool_front import DEV, REGISTRY, ROOT

URL = f"/api/planner/stories/{STORY}/workspace-reports"
SCORE = "/api/workspace/score"
TREE = digest("measured tree")


def _reported(number: int) -> WorkspaceReported:
    summary = WorkspaceSummary(unit=TestSummary(passed=number, failed=0, errored=0, skipped=0))
    return WorkspaceReported(
        run_id=EntityId(f"rn-report{number}"),
        tree_digest=TREE,
        report_digest=digest(f"report {number}"),
        complete=number > 1,
        summary=summary,
    )


def _report(**changes: Any) -> dict[str, Any]:
    report = {
        "schema": 1,
        "run_id": "rn-report1",
        "story_id": STORY,
        "tree_digest": TREE,
        "rigor": "L1",
        "complete": True,
        "build": {"ok": True, "exit_code": 0},
        "unit": {"ok": True, "passed": 12, "failed": 0, "errored": 0, "skipped": 0},
        "coverage": {"new_pct": 91.5, "new_lines": 200, "new_covered": 183},
        "static": {"ok": True, "gate": "OK", "new_critical": 0, "new_major": 0, "new_minor": 0},
        "lint": {"ok": True, "errors": 0, "warnings": 2},
        "e2e": {"ok": True, "passed": 12, "failed": 0, "errored": 0, "skipped": 0},
        "security": {"secrets_found": 0, "critical": 0, "high": 0},
        "patch": {"applied": True},
    }
    return report | changes


@pytest.fixture
async def world() -> World:
    found = World()
    log = story(until="planned")
    for number in (1, 2, 3):
        log.add(_reported(number))
    log.add(samples()["WorkspaceScored"].model_copy(update={"tree_digest": TREE}))
    await log.write_to(found.log)
    return found


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=front_parts(world))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as at:
        yield at


@pytest.mark.rule("AP-84", "RG-46")
async def test_every_report_is_listed_also_several_of_one_tree(client: httpx2.AsyncClient, world: World):
    found = (await client.get(URL, headers=DEV)).json()
    mine = [one for one in found["items"] if one["tree"] == TREE]
    assert [one["run_id"] for one in mine] == ["rn-report1", "rn-report2", "rn-report3"]
    assert [one["complete"] for one in mine] == [False, True, True]
    assert [one["summary"]["unit"]["passed"] for one in mine] == [1, 2, 3]
    assert [one["report_digest"] for one in mine] == [digest(f"report {n}") for n in (1, 2, 3)]
    recorded = {e.version for e in await world.events() if e.type == "WorkspaceReported"}
    assert {one["version"] for one in found["items"]} == recorded
    assert found["next_after"] is None


@pytest.mark.rule("AP-84")
async def test_each_measured_tree_is_listed_with_its_score_and_what_limits_it(client: httpx2.AsyncClient, world: World):
    found = (await client.get(f"/api/planner/stories/{STORY}/scores", headers=DEV)).json()["items"]
    state = await world.desk.state(STORY)
    assert [one["tree"] for one in found] == list(state.reports)
    scored = {one["tree"]: one for one in found if one["verdict"] is not None}
    assert scored.keys() == state.scores.keys() >= {TREE}
    said = samples()["WorkspaceScored"].model_dump(mode="json")
    for field in ("score", "verdict", "rigor", "limited_by", "reasons"):
        assert scored[TREE][field] == said[field], field
    assert len(scored[TREE]["dimensions"]) == len(said["dimensions"]) > 0


@pytest.mark.rule("AP-84")
async def test_reports_come_in_pages_without_gap_or_repeat(client: httpx2.AsyncClient):
    whole = (await client.get(URL, headers=DEV)).json()["items"]
    paged: list[Any] = []
    after: int | None = 0
    while after is not None:
        page = (await client.get(URL, headers=DEV, params={"after": after, "limit": 1})).json()
        paged += page["items"]
        after = page["next_after"]
    assert paged == whole
    refused = await client.get(URL, headers=DEV, params={"limit": 0})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")


@pytest.mark.rule("AP-84")
async def test_reports_of_a_story_that_is_not_there_are_not_found(client: httpx2.AsyncClient):
    missing = await client.get("/api/planner/stories/st-none1/workspace-reports", headers=DEV)
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


@pytest.mark.rule("AP-83", "RG-45")
async def test_report_is_scored_and_nothing_is_recorded(client: httpx2.AsyncClient, world: World):
    before = await world.events()
    found = await client.post(SCORE, headers=DEV, json={"report": _report(), "rigor": "L1"})
    assert found.status_code == 200, found.text
    score = found.json()
    assert (score["verdict"], score["rigor"], score["tree_digest"]) == ("pass", "L1", TREE)
    assert {d["name"] for d in score["dimensions"]} >= {"build", "unit", "static", "coverage", "lint", "e2e"}
    broken = _report(build={"ok": False, "exit_code": 1})
    worse = (await client.post(SCORE, headers=DEV, json={"report": broken, "rigor": "L1"})).json()
    assert worse["verdict"] == "block"
    assert any("build" in reason for reason in worse["reasons"])
    assert await world.events() == before


@pytest.mark.rule("AP-83", "RG-41")
async def test_score_is_that_of_the_level_that_was_asked_for(client: httpx2.AsyncClient):
    thin = _report(coverage={"new_pct": 40, "new_lines": 100, "new_covered": 40})
    scores = [
        (await client.post(SCORE, headers=ROOT, json={"report": thin, "rigor": level})).json()["verdict"]
        for level in ("L0", "L3")
    ]
    assert scores[0] != scores[1] == "block"


@pytest.mark.rule("AP-83", "RG-44", "AP-36")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"report": _report(unit={"passed": -1}), "rigor": "L1"}, "/report/unit/passed"),
        ({"report": _report(coverage={"new_pct": 101}), "rigor": "L1"}, "/report/coverage/new_pct"),
        ({"report": _report(static={"gate": "FINE"}), "rigor": "L1"}, "/report/static/gate"),
        ({"report": _report(tree_digest="none"), "rigor": "L1"}, "/report/tree_digest"),
        ({"report": {}, "rigor": "L1"}, "/report/run_id"),
    ],
)
async def test_what_is_no_report_is_refused_and_named(client: httpx2.AsyncClient, body: Any, field: str):
    refused = await client.post(SCORE, headers=DEV, json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input"), refused.text
    assert field in {one["field"] for one in refused.json()["errors"]}


@pytest.mark.rule("AP-83")
async def test_unknown_level_is_refused_with_those_that_exist(client: httpx2.AsyncClient):
    refused = await client.post(SCORE, headers=DEV, json={"report": _report(), "rigor": "L9"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert refused.json()["allowed"] == ["L0", "L1", "L2", "L3"]
    assert (await client.post(SCORE, headers=DEV, json={"report": [], "rigor": "L1"})).status_code == 422
    assert (await client.post(SCORE, json={"report": _report(), "rigor": "L1"})).status_code == 401
