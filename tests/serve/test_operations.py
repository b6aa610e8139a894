"""Tasks that wait, where work stands, rules in force and dead letters over HTTP (AP-63, AP-66, AP-93, AP-121)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fleet.audit.files.ed25519 import KeyFile
from fleet.audit.port import CheckpointStore
from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.approval import ApprovalRejected, ApprovalRequested, Subject
from fleet.events.story import StoryTransitioned, Topic
from fleet.events.task import SlaBreached, TaskAdded
from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import CommandId, EntityId, Principal, StreamId
from fleet.log.memory import MemoryDeadLetters
from fleet.log.port import MAX_ATTEMPTS, Command, Failure
from serve_apps.routes.gateway import build_gateway
from tests.support.audit import AuditWorld
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import PO, STORY, SYSTEM, TASK, StoryLog, digest, story
from tests.support.tool_front import DEV, REGISTRY, ROOT, keyed


@pytest.fixture
def parts_of() -> World:
    return World()


@pytest.fixture
async def client(parts_of: World) -> AsyncIterator[httpx2.AsyncClient]:
    async with _front(parts_of, story(until="planned")) as found:
        yield found


@asynccontextmanager
async def _front(
    world: World, log: StoryLog, *, checkpoints: CheckpointStore | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    await log.write_to(world.log)
    letters = MemoryDeadLetters(world.clock)
    failure = Failure("projector", StreamId.of_story(STORY), 3, "unsupported_schema", "too new")
    for _ in range(MAX_ATTEMPTS):
        await letters.failed(failure)
    found = front_parts(world, checkpoints=checkpoints)
    parts = replace(found, letters=letters)
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=parts)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as at:
        yield at


async def _get(client: httpx2.AsyncClient, path: str, who: dict[str, str] = ROOT) -> Any:
    response = await client.get(f"/api/{path}", headers=who)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.rule("AP-63")
async def test_tasks_wait_for_the_role_that_does_them(client: httpx2.AsyncClient):
    (task,) = (await _get(client, "tasks/pending?role=developer"))["items"]
    assert (task["story_id"], task["state"], task["waits_for"]) == (STORY, "todo", "developer")
    everything = (await _get(client, "tasks/pending"))["items"]
    for_qa = (await _get(client, "tasks/pending?role=qa"))["items"]
    assert for_qa == [row for row in everything if row["waits_for"] == "qa"]
    assert task in everything


@pytest.mark.rule("AP-66")
async def test_statistics_say_where_stories_and_tasks_stand(client: httpx2.AsyncClient):
    stats = await _get(client, "workflow/stats", DEV)
    assert stats["rejections"] == 0
    assert stats["stories"] == {"DESIGN": 1}
    assert sum(stats["tasks"].values()) >= 1


@pytest.mark.rule("AP-66", "LC-138", "LC-131")
async def test_statistics_say_how_long_tasks_stay_what_passes_at_once_and_what_is_overdue():
    # The second task was added when the first was done: nothing holds it back.
    log = story(until="merged")
    extra = log.state.tasks[TASK].task.model_copy(update={"task_id": EntityId("tk-more1"), "depends_on": (TASK,)})
    log.add(TaskAdded(plan_id=extra.plan_id, task=extra))
    breach = SlaBreached(
        subject=Topic(kind="task", id=TASK), state="pending_qa", limit_s=7200, elapsed_s=7300, notified=(PO,)
    )
    log.add(breach)
    async with _front(World(clock=MemoryClock(now_ms=log.state.updated_ms + 49 * 3_600_000)), log) as client:
        stats = await _get(client, "workflow/stats", DEV)
        assert stats["first_try"] == {"architect": 1.0, "qa": 1.0}
        assert stats["stays"]["implementing"]["tasks"] == 1
        assert stats["stays"]["implementing"]["median_s"] == stats["stays"]["implementing"]["p90_s"] >= 1
        # The task that is done is late no more; the one that nobody began with is.
        assert (stats["sla_breaches"], stats["overdue"]) == (1, 1)
        waiting = (await _get(client, "tasks/pending", DEV))["items"]
        assert [(row["state"], row["overdue"]) for row in waiting] == [("todo", True)]
        assert waiting[0]["since"] is not None
        assert waiting[0]["overdue_s"] >= 3600
        assert (await _get(client, "tasks/pending?overdue=true", DEV))["items"] == waiting


@pytest.mark.rule("AP-63")
async def test_task_that_has_waited_longest_comes_first():
    log = story(until="planned")
    extra = log.state.tasks[TASK].task.model_copy(update={"task_id": EntityId("tk-more1")})
    log.add(TaskAdded(plan_id=extra.plan_id, task=extra))
    log.add(StoryTransitioned(from_="DESIGN", event="approve_design", to="BUILD"))
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing").task(
        TASK, "implementing", "COMMIT_CODE", "dev_completed"
    )
    log.task(TASK, "dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review")
    async with _front(World(clock=MemoryClock(now_ms=log.state.updated_ms)), log) as client:
        waiting = (await _get(client, "tasks/pending"))["items"]
        assert [(row["task_id"], row["waits_for"]) for row in waiting][-2:] == [
            ("tk-more1", "developer"),
            (TASK, "architect"),
        ]
        assert [row["since"] for row in waiting] == sorted(row["since"] for row in waiting)


@pytest.mark.rule("AP-63", "LC-131", "LC-133")
async def test_task_under_review_is_listed_with_the_overdue_alone_and_by_how_long():
    log = story(until="planned")
    log.add(StoryTransitioned(from_="DESIGN", event="approve_design", to="BUILD"))
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing").task(
        TASK, "implementing", "COMMIT_CODE", "dev_completed"
    )
    log.task(TASK, "dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review")
    begun_ms = log.state.updated_ms
    log.task(TASK, "pending_arch_review", "CLAIM_REVIEW", "arch_reviewing")
    world = World(clock=MemoryClock(now_ms=begun_ms + 2 * 3_600_000 - 1000))
    async with _front(world, log) as client:
        # Who waits for it to be claimed is past its hour; that somebody reviews it ended that limit.
        assert (await _get(client, "tasks/pending?overdue=true"))["items"] == []
        world.clock.advance(61)  # pyright: ignore[reportAttributeAccessIssue]
        (row,) = (await _get(client, "tasks/pending?overdue=true"))["items"]
        assert (row["task_id"], row["state"], row["waits_for"]) == (TASK, "arch_reviewing", "architect")
        assert (row["overdue"], row["overdue_s"]) == (True, 60)
        assert (await _get(client, "tasks/pending?overdue=true&role=qa"))["items"] == []
        assert (await _get(client, "tasks/pending?role=architect"))["items"] == []
        assert (await _get(client, "workflow/stats"))["overdue"] == 1
        assert (await client.get("/api/tasks/pending?overdue=maybe", headers=ROOT)).status_code == 422


@pytest.mark.rule("AP-66", "LC-138", "AP-25")
async def test_statistics_of_one_project_count_its_stories_alone_and_a_hidden_one_is_not_there(
    client: httpx2.AsyncClient, parts_of: World
):
    whole = await _get(client, "workflow/stats", DEV)
    assert await _get(client, "workflow/stats?project_id=pr-default", DEV) == whole
    owner = parts_of.project_owner()
    made = await owner.handle(
        Command(
            command_id=CommandId("user:ana/key-1"),
            stream=StreamId("project:pr-shop"),
            name="create_project",
            principal=PO,
            body={"project": {"title": "Shop"}},
        )
    )
    assert made
    empty = await _get(client, "workflow/stats?project_id=pr-shop", DEV)
    assert (empty["stories"], empty["tasks"], empty["stays"]) == ({}, {}, {})
    for name, status in (("pr-none1", 404), ("st-one1", 404), ("x" * 81, 422), ("PR", 422)):
        assert (await client.get(f"/api/workflow/stats?project_id={name}", headers=DEV)).status_code == status
    chosen = PrincipalEntry(
        principal=Principal("user:dev"),
        roles=frozenset({"developer"}),
        projects=frozenset({"pr-shop"}),
        token_sha256=hash_token("dev-token"),
    )
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(parts_of.desk, PrincipalRegistry((chosen,)), settings, parts=front_parts(parts_of))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as narrow:
        hidden = await narrow.get("/api/workflow/stats?project_id=pr-default", headers=DEV)
        assert (hidden.status_code, hidden.json()["code"]) == (404, "not_found")
        assert (await _get(narrow, "workflow/stats?project_id=pr-shop", DEV))["stories"] == {}


@pytest.mark.rule("AP-66")
async def test_work_that_a_person_sends_back_counts_as_a_rejection():
    log, name = story(until="planned"), EntityId("ap-work1")
    log.add(
        ApprovalRequested(
            approval_id=name,
            gate="task_acceptance",
            role="po",
            actor="human",
            subject=Subject(kind="tree", id=TASK, digest=digest("tree")),
            risk="low",
            expires_at=log.state.created_ms + 10**9,
            attempt=1,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )
    log.add(ApprovalRejected(approval_id=name, principal=PO, as_role="po", reason="not yet right", delegated=False))
    async with _front(World(), log) as client:
        assert (await _get(client, "workflow/stats"))["rejections"] == 1


@pytest.mark.rule("AP-93")
async def test_rules_in_force_are_told_with_their_digest(client: httpx2.AsyncClient):
    lifecycles = await _get(client, "lifecycles", DEV)
    assert {"agile", "sdlc"} <= set(lifecycles["content"]["lifecycles"])
    assert lifecycles["digest"].startswith("sha256:")
    assert (await _get(client, "rigor", DEV))["content"]


async def test_caller_is_told_who_it_is(client: httpx2.AsyncClient):
    found = await _get(client, "me", DEV)
    assert found == {"principal": "user:dev", "roles": ["developer"], "projects": None}


@pytest.mark.rule("AP-121", "AP-95")
async def test_dead_letter_is_shown_and_tried_again_by_an_admin_alone(client: httpx2.AsyncClient):
    assert (await client.get("/api/dlq", headers=DEV)).status_code == 403
    (letter,) = (await _get(client, "dlq"))["items"]
    assert (letter["code"], letter["attempts"], letter["stream"]) == ("unsupported_schema", 5, f"story:{STORY}")
    url = f"/api/dlq/{letter['letter_id']}/retry"
    assert (await client.post(url, headers=keyed(1, DEV))).status_code == 403
    assert (await client.post(url, headers=keyed(2, ROOT))).status_code == 200
    assert (await _get(client, "dlq"))["items"] == []
    assert (await client.post(url, headers=keyed(3, ROOT))).status_code == 404


@pytest.mark.rule("AP-90")
async def test_audit_shows_raw_envelopes_and_verifies_for_those_who_may(client: httpx2.AsyncClient, parts_of: World):
    url = f"/api/audit/events?stream={STORY}"
    assert (await client.get(url, headers=DEV)).status_code == 403
    recorded = await parts_of.events()
    page = await _get(client, f"audit/events?stream={STORY}&limit=2")
    assert [e["hash"] for e in page["items"]] == [e.hash for e in recorded[:2]]
    assert page["next_from"] == 3
    rest = await _get(client, f"audit/events?stream=story:{STORY}&from=3&limit=500")
    assert [e["version"] for e in rest["items"]] == [e.version for e in recorded[2:]]
    one = await _get(client, f"audit/events?stream={STORY}&type=StoryScored&to=5")
    assert {e["type"] for e in one["items"]} == {"StoryScored"}
    assert (await _get(client, "audit/status"))["is_clean"] is None
    verified = await client.post("/api/audit/verify", headers=ROOT)
    assert verified.status_code == 200, verified.text
    assert verified.json()["events"] == len(recorded)
    assert (await _get(client, "audit/status"))["ended_at"]
    assert (await _get(client, "audit/checkpoints"))["items"] == []
    assert (await client.get(f"/api/audit/proof/{STORY}/1", headers=ROOT)).status_code == 404


@pytest.mark.rule("AP-90", "EV-32")
async def test_checkpoints_say_which_of_them_retired_a_key(parts_of: World, tmp_path: Path):
    audit, keys = AuditWorld(), KeyFile(tmp_path / "notary.key")
    for number in (1, 2, 3):
        await audit.append(StreamId("story:st-one"), b"1")
        successor = keys.prepare_successor() if number == 2 else None
        await audit.notary(keys).checkpoint()
        assert successor in (None, keys.key)
    async with _front(parts_of, story(until="planned"), checkpoints=audit.store) as client:
        items = (await _get(client, "audit/checkpoints"))["items"]
        wanted = {"name": keys.key.name, "id": keys.key.id.hex()}
        assert [one["successor"] for one in items] == [None, wanted, None]
        assert [(one["sequence"], one["streams"], one["events"]) for one in items] == [(1, 1, 1), (2, 1, 2), (3, 1, 3)]
        assert all(one["time"].endswith("Z") for one in items)
        last = await _get(client, "audit/checkpoints?before=1000&limit=2")
        assert ([one["sequence"] for one in last["items"]], last["next_after"]) == ([2, 3], None)
        older = await _get(client, "audit/checkpoints?before=2&limit=2")
        assert [one["sequence"] for one in older["items"]] == [1]
        both = await client.get("/api/audit/checkpoints?before=2&after=1", headers=ROOT)
        assert (both.status_code, both.json()["code"]) == (422, "invalid_input")
        audit.store.kept[1] = audit.store.kept[1].model_copy(update={"note": "retires nothing\n"})
        damaged = (await _get(client, "audit/checkpoints"))["items"][1]
        assert (damaged["successor"], damaged["time"]) == (None, None)


async def test_projects_are_those_that_have_stories(client: httpx2.AsyncClient):
    (project,) = (await _get(client, "projects", DEV))["items"]
    found = {name: project[name] for name in ("project_id", "epics", "status")}
    assert found == {"project_id": "pr-default", "epics": 1, "status": "active"}


@pytest.mark.rule("AP-121")
async def test_what_waits_for_consumers_is_told_to_an_admin_alone(client: httpx2.AsyncClient, parts_of: World):
    url = "/api/streams/consumers"
    assert (await client.get(url, headers=DEV)).status_code == 403
    assert (await client.get(url)).status_code == 401
    found = {row["group"]: row for row in (await _get(client, "streams/consumers"))["items"]}
    assert list(found) == ["council", "projector"]
    assert (found["council"]["pending"], found["council"]["oldest_ms"]) == (0, 0)
    assert found["projector"]["pending"] > 0
    command = Command(CommandId("user:root/key-1"), StreamId.of_story(STORY), "cancel", PO, {})
    await parts_of.inbox.submit(command)
    (council, _) = (await _get(client, "streams/consumers"))["items"]
    assert council["pending"] == 1


@pytest.mark.rule("AP-121")
async def test_front_without_consumers_says_so(parts_of: World):
    parts = replace(front_parts(parts_of), consumers={})
    app = build_gateway(parts_of.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=parts)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as at:
        found = await at.get("/api/streams/consumers", headers=ROOT)
    assert (found.status_code, found.json()["code"]) == (503, "store_unavailable")
