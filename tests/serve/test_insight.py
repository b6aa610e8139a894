"""Tests with their history, a change request before it is opened, a project over time (RP-42)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.story import StoryParked, StoryTransitioned
from fleet.events.task import TaskTransitioned
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.log.port import Command
from fleet.workspace.report import WorkspaceReport
from fleet.workspace.service.report import Measurement
from serve_apps.routes.gateway import build_gateway
from serve_apps.routes.project_metrics import project_figures
from serve_apps.routes.suite_history import CaseResult, SuiteReport, test_histories
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import MERGED, STORY, StoryLog, digest, story
from tests.support.tool_front import DEV, REGISTRY, ROOT

URL = f"/api/planner/stories/{STORY}"


@asynccontextmanager
async def _front(world: World, log: StoryLog) -> AsyncIterator[httpx2.AsyncClient]:
    await log.write_to(world.log)
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=front_parts(world))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        yield client


async def _get(client: httpx2.AsyncClient, path: str, **params: Any) -> Any:
    response = await client.get(path, headers=DEV, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def _suite(tree: str, version: int = 1, **cases: str) -> SuiteReport:
    found = {name: CaseResult(outcome, "why" if outcome == "failed" else "") for name, outcome in cases.items()}
    return SuiteReport(version, version, digest(tree), None, found)


def test_test_that_changes_its_mind_on_one_tree_is_flaky_and_one_that_was_mended_is_not():
    found = test_histories(
        [
            _suite("a", a="passed", b="failed", c="passed", d="skipped"),
            _suite("a", 2, a="failed", b="failed", c="passed", d="passed"),
            _suite("b", 3, a="passed", b="passed", e="failed"),
        ]
    )
    assert [(one.test_id, one.is_flaky) for one in found] == [
        ("e", False),
        ("a", True),
        ("b", False),
        ("c", False),
        ("d", False),
    ]
    assert [r and r.outcome for r in found[0].results] == [None, None, "failed"]


JUNIT = (
    b'<testsuite><testcase file="tests/test_a.py" classname="tests.test_a" name="test_one"/>'
    b'<testcase file="tests/test_a.py" classname="tests.test_a" name="test_two">'
    b'<failure message="&lt;script&gt;1&lt;/script&gt;"/></testcase></testsuite>'
)
PAGES = (
    b'<testsuites><testsuite><testcase classname="preview" name="/"/><testcase classname="preview" name="/login">'
    b'<failure message="expected status 200, found 500"/></testcase></testsuite></testsuites>'
)


async def _reported(world: World, log: StoryLog, number: int, junit: bytes | None) -> None:
    """A report of the pipeline on the merged tree is on record."""
    failures = [{"id": "tests/test_a.py::test_two", "message": "told"}]
    unit: dict[str, Any] = {"ok": False, "passed": 1, "failed": 1, "errored": 0, "skipped": 0, "failures": failures}
    if junit is not None:
        unit["junit"] = await world.blobs.put(junit)
    count = {"ok": False, "passed": 1, "failed": 1, "errored": 0, "skipped": 0}
    e2e: dict[str, Any] = {**count, "preview": await world.blobs.put(PAGES), "known_failing": ["preview::/login"]}
    fields = {"story_id": STORY, "run_id": f"rn-tests{number}", "tree_digest": MERGED, "rigor": "L1", "complete": True}
    report = WorkspaceReport.model_validate(
        {name: value for name, value in fields.items() if name in WorkspaceReport.model_fields}
        | {"unit": unit, "e2e": e2e}
    )
    stored = await world.blobs.put(Measurement(report=report).encode())
    recorded = log.decoded_payloads("WorkspaceReported")[0]
    log.add(recorded.model_copy(update={"report_digest": stored, "tree_digest": MERGED}))


async def test_tests_of_a_story_are_told_by_name_with_their_history():
    world, log = World(), story(until="merged")
    before = sum(e.type == "WorkspaceReported" for e in log.events)
    await _reported(world, log, 1, JUNIT)
    await _reported(world, log, 2, JUNIT.replace(b"failure", b"ok"))
    await _reported(world, log, 3, None)
    async with _front(world, log) as client:
        table = await _get(client, f"{URL}/tests")
    assert len(table["reports"]) == before + 3
    assert [r["is_whole"] for r in table["reports"]] == [False] * before + [True, True, False]
    rows = {row["test_id"]: row for row in table["items"]}
    two = rows["tests/test_a.py::test_two"]
    assert two["results"][before:] == ["failed", "passed", "failed"]
    assert (two["is_flaky"], two["message"]) == (True, "told")
    assert rows["tests/test_a.py::test_one"]["results"][before:] == ["passed", "passed", None]
    page = rows["preview::/login"]
    assert page["results"][before:] == ["failed"] * 3
    assert (page["is_known_failing"], page["message"]) == (True, "expected status 200, found 500")
    assert rows["preview::/"]["results"][before:] == ["passed"] * 3
    assert two in table["items"][:2]


async def test_change_request_can_be_read_before_there_is_one():
    async with _front(World(), story(until="merged")) as client:
        found = (await client.get(f"{URL}/change-request", headers=ROOT)).json()
    assert (found["head"], found["outcome"]) == (f"fleet/{STORY}", None)
    assert "## Acceptance criteria" in found["body"]
    assert found["title"] == story(until="created").state.content.title


@pytest.mark.rule("AP-25")
async def test_project_is_told_by_its_milestones_the_newest_first():
    world = World()
    async with _front(world, story()) as client:
        found = await _get(client, "/api/projects/pr-default/timeline", days=3650, limit=5)
        missing = await client.get("/api/projects/pr-nobody/timeline", headers=DEV)
    assert found["items"][0]["event"] == "StoryClosed"
    assert len(found["items"]) == 5 < found["of"]
    versions = [one["version"] for one in found["items"]]
    assert versions == sorted(versions, reverse=True)
    assert missing.json()["code"] == "not_found"


@pytest.mark.rule("RP-42")
async def test_metrics_of_a_project_are_those_of_its_events():
    log = story()
    async with _front(World(clock=SystemClock()), log) as client:
        found = await _get(client, "/api/projects/pr-default/metrics", days=3650)
        none = await _get(client, "/api/projects/pr-default/metrics", days=1)
    assert (found["stories"], found["solved"], found["solved_share"], found["incidents"]) == (1, 1, 1.0, 0)
    assert (found["parked"], found["loopbacks"]) == (0, 0)
    assert found["tokens_per_solved"] == found["tokens"] > 0
    assert [one["state"] for one in found["lead"]] == ["BACKLOG", "DRAFT", "DESIGN", "BUILD", "TEST", "DOCS"]
    scores = [decode(e) for e in log.events if e.type == "WorkspaceScored"]
    assert found["trend"][0]["score"] == float(scores[-1].score)  # type: ignore[attr-defined]
    assert found["first_try_share"] is not None
    assert (none["stories"], none["solved_share"], none["lead"], none["trend"]) == (0, None, [], [])


@pytest.mark.rule("RP-42")
async def test_project_without_a_story_has_a_timeline_and_metrics_of_nothing():
    world = World(clock=SystemClock())
    async with _front(world, story()) as client:
        await world.project_owner().handle(
            Command(
                command_id=CommandId("user:ana/key-1"),
                stream=StreamId("project:pr-shop"),
                name="create_project",
                principal=Principal("user:ana"),
                body={"project": {"title": "Shop"}},
            )
        )
        told = await _get(client, "/api/projects/pr-shop/timeline")
        figures = await _get(client, "/api/projects/pr-shop/metrics")
    assert (told["items"], told["of"]) == ([], 0)
    assert (figures["stories"], figures["solved_share"], figures["trend"]) == (0, None, [])


@pytest.mark.rule("RP-42")
def test_task_that_was_sent_back_is_no_first_try():
    again, once = ("tk-a1", "implementing"), ("tk-b2", "implementing")
    tries = _tasks([again, again, ("tk-a1", "done"), once, ("tk-b2", "done")])
    found = project_figures([(str(STORY), tries)], now_ms=0)
    assert found.first_try is not None
    assert (found.tasks_done, float(found.first_try), found.solved_share) == (2, 0.5, None)


@pytest.mark.rule("RP-42")
async def test_figures_count_stories_that_stand_still_and_what_incidents_sent_back():
    log = story(until="merged")
    assert any(isinstance(p, TaskTransitioned) and p.to == "done" for _, p in log.decoded)
    log.add(StoryTransitioned(from_=log.state.state, event="reject_docs", to="BUILD", loopback=True))
    log.add(StoryParked(cause="stuck", detail="nothing moves"))
    world = World(clock=SystemClock())
    async with _front(world, log) as client:
        found = await _get(client, "/api/projects/pr-default/metrics", days=3650)
        now_ms = world.clock.now_ms()
    assert (found["solved"], found["cancelled"], found["parked"], found["solved_share"]) == (0, 0, 1, 0.0)
    assert (found["reworks"], found["loopbacks"], found["first_try_share"]) == (0, 1, 0.0)
    # It has waited since it was parked, and still does.
    assert found["human_wait_ms"] == pytest.approx(now_ms - log.events[-1].ts_ms, abs=60_000)
    assert {one["state"]: one["median_ms"] for one in found["lead"]}["BUILD"] >= found["human_wait_ms"]


def _tasks(moves: Iterable[tuple[str, str]]) -> list[tuple[StoredEvent, Payload]]:
    log, sample = story(until="planned"), story().decoded_payloads("TaskTransitioned")[0]
    return [*log.decoded, *((log.events[-1], sample.model_copy(update={"task_id": t, "to": to})) for t, to in moves)]
