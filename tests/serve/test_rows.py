"""Stories, tasks and decisions that the caller's roles do not see look as if they were not there (CX-12..CX-17)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from fleet.desk.principals import PrincipalRegistry
from fleet.events.codec import decode
from fleet.events.decision import DecisionProposed
from fleet.events.envelope import StoredEvent
from fleet.events.platform import AccessDenied
from fleet.events.task import TaskClaimed, TaskClaimReleased, TaskTransitioned
from fleet.kernel.errors import StoryNotFound
from fleet.kernel.ids import Principal
from fleet.planning.platform_state import PLATFORM
from tests.support.stores import eventually
from tests.support.story_events import DECISION, DOC_TASK, STORY, TASK
from tests.support.tool_front import ARCHIE, DEV, QUINN, ROOT, ToolFront, keyed, tool_front

URL = f"/api/planner/stories/{STORY}"
EPICS = "/api/projects/pr-default/epics"
MISSING = "/api/planner/stories/st-nobody"


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A story in BUILD whose task is the developer's, beside one for its page; nothing is with qa."""
    async with tool_front() as front:
        yield front


async def denials(at: ToolFront) -> list[AccessDenied]:
    events: list[StoredEvent] = await at.world.log.read(PLATFORM)
    return [p for p in map(decode, events) if isinstance(p, AccessDenied)]


async def _becomes(at: ToolFront, count: int) -> list[AccessDenied]:
    async def reached() -> bool:
        return len(await denials(at)) >= count

    await eventually(reached, within_s=10)
    return await denials(at)


def _same(hidden: httpx2.Response, missing: httpx2.Response, *names: tuple[str, str]) -> None:
    """The answers differ in nothing but the name that was asked for."""
    text = missing.text
    for there, nowhere in names:
        text = text.replace(nowhere, there)
    assert (hidden.status_code, hidden.text) == (missing.status_code, text)
    assert missing.status_code == 404
    assert {k for k in hidden.headers if k != "content-length"} == {k for k in missing.headers if k != "content-length"}


READS = ("", "/plan", "/tasks", "/decisions", "/report", "/timeline", "/runs", f"/tasks/{TASK}", "/files", "/councils")


@pytest.mark.rule("CX-16", "CX-13", "AP-25")
async def test_story_that_no_role_of_the_caller_sees_answers_as_a_missing_one_and_the_attempt_is_recorded(
    at: ToolFront,
):
    for path in READS:
        hidden = await at.client.get(URL + path, headers=QUINN)
        _same(hidden, await at.client.get(MISSING + path, headers=QUINN), (STORY, "st-nobody"))
    acts = (("start", {}), ("transition", {"event": "build_done"}), (f"tasks/{TASK}/claim", {"role": "qa"}))
    for number, (path, body) in enumerate(acts):
        hidden = await at.client.post(f"{URL}/{path}", json=body, headers=keyed(number, QUINN))
        missing = await at.client.post(f"{MISSING}/{path}", json=body, headers=keyed(number + 50, QUINN))
        _same(hidden, missing, (STORY, "st-nobody"))
    for path in (f"/api/events?stream={STORY}", f"/api/events/stream?storyId={STORY}", f"/api/context/{STORY}/qa/TEST"):
        hidden = await at.client.get(path, headers=QUINN)
        _same(hidden, await at.client.get(path.replace(STORY, "st-nobody"), headers=QUINN), (STORY, "st-nobody"))
    assert (await at.client.get("/api/planner/stories", headers=QUINN)).json()["items"] == []
    assert (await at.client.get("/api/planner/stories", headers=ROOT)).json()["items"]
    told = (await _becomes(at, 1))[0]
    assert (told.principal, told.action, told.object, told.rule_id) == ("user:quinn", "read_story", STORY, "CX-16")
    assert {one.object for one in await denials(at)} == {STORY}, "nothing is recorded of what is not there"
    assert len(await denials(at)) <= 2, "one record stands for all attempts of a minute"


@pytest.mark.rule("CX-16", "CX-12")
async def test_task_of_another_role_is_in_no_list_and_answers_as_a_missing_one(at: ToolFront):
    seen = await at.client.get(f"{URL}/tasks", headers=DEV)
    assert [row["task_id"] for row in seen.json()["items"]] == [TASK]
    all_ = await at.client.get(f"{URL}/tasks", headers=ARCHIE)
    assert [row["task_id"] for row in all_.json()["items"]] == [TASK, DOC_TASK]
    plan = (await at.client.get(f"{URL}/plan", headers=DEV)).json()
    assert ([t["task_id"] for t in plan["tasks"]], plan["layers"], plan["dependencies"]) == ([TASK], [[TASK]], [])
    waiting = (await at.client.get("/api/tasks/pending", headers=DEV)).json()["items"]
    assert DOC_TASK not in {row["task_id"] for row in waiting}
    paths: tuple[tuple[str, Any], ...] = (("", None), ("/release", {}), ("/claim", {"role": "developer"}))
    for number, (path, body) in enumerate(paths):
        answers = list[httpx2.Response]()
        for name, key in ((DOC_TASK, number), ("tk-nobody", number + 50)):
            url = f"{URL}/tasks/{name}{path}"
            sent = (
                at.client.get(url, headers=DEV) if body is None else at.client.post(url, json=body, headers=keyed(key))
            )
            answers.append(await sent)
        _same(*answers, (DOC_TASK, "tk-nobody"))
    assert {(one.action, one.object) for one in await _becomes(at, 1)} == {("read_task", DOC_TASK)}


@pytest.mark.rule("CX-12", "CX-16")
async def test_developer_sees_no_epic(at: ToolFront):
    made = await at.client.post("/api/projects/pr-default/epics", json={"title": "Cart"}, headers=keyed(1, ROOT))
    epic = made.json()["epic_id"]
    assert [e["epic_id"] for e in (await at.client.get(EPICS, headers=ARCHIE)).json()["items"]].count(epic) == 1
    assert (await at.client.get(EPICS, headers=DEV)).json()["items"] == []
    hidden = await at.client.get(f"/api/epics/{epic}", headers=DEV)
    _same(hidden, await at.client.get("/api/epics/ep-nobody", headers=DEV), (epic, "ep-nobody"))
    assert (await at.client.get(f"/api/epics/{epic}", headers=ARCHIE)).status_code == 200
    assert ("read_epic", epic) in {(one.action, one.object) for one in await _becomes(at, 1)}


@pytest.mark.rule("CX-16", "CX-13", "CX-17")
async def test_row_is_seen_from_the_moment_at_which_it_is_with_qa_and_no_longer(at: ToolFront):
    assert (await at.client.get(URL, headers=QUINN)).status_code == 404
    await _moved(at, ("implementing", "COMMIT_CODE", "dev_completed"))
    assert (await at.client.get(URL, headers=QUINN)).status_code == 404
    await _moved(at, ("dev_completed", "AUTO_ROUTE_TO_QA", "pending_qa"))
    assert (await at.client.get(URL, headers=QUINN)).status_code == 200
    tasks = (await at.client.get(f"{URL}/tasks", headers=QUINN)).json()["items"]
    assert [row["task_id"] for row in tasks] == [TASK]
    decisions = (await at.client.get(f"{URL}/decisions", headers=QUINN)).json()["items"]
    assert [(d["decision_id"], d["category"]) for d in decisions] == [(DECISION, "ARCHITECTURE")]
    await _moved(at, ("pending_qa", "CLAIM_TESTING", "qa_testing"), ("qa_testing", "APPROVE_TESTS", "qa_passed"))
    assert (await at.client.get(URL, headers=QUINN)).status_code == 404


@pytest.mark.rule("CX-17", "CX-12")
async def test_task_that_is_somebody_elses_now_is_hidden_at_once_and_seen_again_when_it_is_given_back(at: ToolFront):
    other = Principal("user:other")
    until = 9 * 10**12
    assert (await at.client.get(f"{URL}/tasks/{TASK}", headers=DEV)).status_code == 200
    await at.record(
        TaskClaimReleased(task_id=TASK, principal=Principal("user:dev"), reason="released"),
        TaskClaimed(task_id=TASK, state="implementing", principal=other, expires_at=until),
    )
    for path in (URL, f"{URL}/tasks/{TASK}"):
        assert (await at.client.get(path, headers=DEV)).status_code == 404
        assert (await at.client.get(path, headers=ARCHIE)).status_code == 200
    await at.record(TaskClaimReleased(task_id=TASK, principal=other, reason="released"))
    assert (await at.client.get(f"{URL}/tasks/{TASK}", headers=DEV)).status_code == 200


@pytest.mark.rule("CX-17")
async def test_role_that_is_taken_away_counts_at_the_next_look(at: ToolFront):
    held = {"user:dev": frozenset({"developer"})}

    class Changing(PrincipalRegistry):
        def roles_of(self, principal: Principal) -> frozenset[str]:
            return held.get(principal, frozenset())

        def projects_of(self, principal: Principal) -> frozenset[str] | None:
            return None

    sight = replace(at.app.state.sight, registry=Changing(()))
    dev = Principal("user:dev")
    assert await sight.require(dev, STORY) == STORY
    held["user:dev"] = frozenset({"data"})
    with pytest.raises(StoryNotFound):
        await sight.require(dev, STORY)
    held["user:dev"] = frozenset({"po"})
    assert await sight.takes(dev, STORY)


@pytest.mark.rule("CX-16", "CX-13")
async def test_decision_of_another_category_answers_as_a_missing_one(at: ToolFront):
    data = DecisionProposed.model_validate(
        {
            "decision_id": "de-rows1",
            "title": "Keep slugs in a table",
            "rationale": "They have to be unique over all titles.",
            "category": "DATA",
            "affects": [TASK],
            "author": "user:archie",
            "origin": "human",
        }
    )
    await at.record(data)
    await _moved(at, ("implementing", "AUTO_ROUTE_TO_QA", "pending_qa"))
    for path in ("", "/impact"):
        hidden = await at.client.get(f"/api/decisions/de-rows1{path}", headers=QUINN)
        _same(hidden, await at.client.get(f"/api/decisions/de-nobody{path}", headers=QUINN), ("de-rows1", "de-nobody"))
        assert (await at.client.get("/api/decisions/de-rows1", headers=ARCHIE)).status_code == 200
    listed = (await at.client.get(f"{URL}/decisions", headers=QUINN)).json()["items"]
    assert "de-rows1" not in {d["decision_id"] for d in listed}
    assert ("read_decision", "de-rows1") in {(one.action, one.object) for one in await _becomes(at, 1)}


async def _moved(at: ToolFront, *moves: tuple[str, str, str]) -> None:
    """The task goes through these states."""
    for from_, action, to in moves:
        await at.record(
            TaskTransitioned.model_validate(
                {
                    "task_id": TASK,
                    "from": from_,
                    "action": action,
                    "to": to,
                    "actor_type": "system",
                    "principal": "system:council",
                    "as_role": "system",
                }
            )
        )
