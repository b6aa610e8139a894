"""Doors of plans and tasks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.world import STORIES, World

pytestmark = pytest.mark.timeout(600)
DRAFT: dict[str, Any] = {
    "title": "Write slugify",
    "description": "Lower the case, join the runs of letters and digits with hyphens.",
    "role": "developer",
    "kind": "code",
    "estimated_hours": 2,
    "priority": 1,
    "keywords": ["slug", "text"],
    "acceptance_refs": ["ac-1", "ac-2", "ac-3"],
    "paths": ["textkit/words.py"],
}


@pytest.mark.door(
    "POST /api/planner/stories/{story_id}/plans",
    "GET /api/planner/stories/{story_id}/plans",
    "GET /api/planner/stories/{story_id}/plans/{plan_id}",
    "POST /api/planner/stories/{story_id}/plans/{plan_id}/reject",
)
def test_plan_of_a_person_is_written_read_and_refused(world: World) -> None:
    story_id = world.create()
    world.post("/api/approvals", {"story_id": story_id, "gate": "approve_scope"}, status=201)
    world.post(f"{STORIES}/{story_id}/approvals/approve_scope/grant", {})
    second = DRAFT | {"title": "Show slugs in the editor", "estimated_hours": 5, "depends_on": [0], "paths": []}
    plans = f"{STORIES}/{story_id}/plans"
    body = {"rationale": "smaller steps are better", "tasks": [DRAFT, second]}
    written = world.post(plans, body, status=201)
    assert (written["plan"]["status"], written["critical_hours"], written["uncovered"]) == ("PROPOSED", 7, [])
    tasks = [task["task_id"] for task in written["tasks"]]
    assert written["layers"] == [[task] for task in tasks]
    plan = f"{plans}/{written['plan']['plan_id']}"
    assert world.get(plan) == written
    assert [line["version"] for line in world.get(plans)["items"]] == [1]
    refused = world.post(f"{plan}/reject", {"reason": "smaller is not better"})
    assert refused["plan"]["status"] == "REJECTED"


@pytest.mark.door(
    "POST /api/planner/stories/{story_id}/derive-tasks", "POST /api/planner/stories/{story_id}/plans/{plan_id}/adopt"
)
def test_tasks_are_derived_anew_and_their_plan_adopted(world: World) -> None:
    story_id = world.create()
    world.start(story_id)
    world.granted(story_id, "approve_design")
    url = f"{STORIES}/{story_id}"
    old = world.get(f"{url}/plan")["plan_id"]
    asked = world.post(f"{url}/derive-tasks", status=202)
    assert asked["status"] == "requested"
    plan = world.wait(lambda: [p for p in world.get(f"{url}/plans")["items"] if p["plan_id"] == asked["plan_id"]])
    assert (plan[0]["version"], plan[0]["status"]) == (2, "PROPOSED")
    design = next(d for d in world.get(f"{url}/decisions")["items"] if d["category"] == "ARCHITECTURE")
    adopted = world.post(f"{asked['status_url']}/adopt", {"decision_id": design["decision_id"]})
    assert (adopted["plan"]["status"], adopted["previous_plan_id"]) == ("ADOPTED", old)
    states = {task["plan_id"]: task["state"] for task in _tasks(world, url)}
    assert states == {old: "cancelled", asked["plan_id"]: "todo"}
    world.post(f"{url}/cancel", {"reason": "nobody needs it any more"})


def _tasks(world: World, url: str) -> list[dict[str, Any]]:
    return [world.get(f"{url}/tasks/{task['task_id']}") for task in world.show(url.rpartition("/")[2])["tasks"]]


@pytest.mark.door(
    "GET /api/planner/stories/{story_id}/tasks/{task_id}",
    "PATCH /api/planner/stories/{story_id}/tasks/{task_id}",
    "POST /api/planner/stories/{story_id}/tasks/{task_id}/release",
    "POST /api/planner/stories/{story_id}/tasks/{task_id}/claim",
    "POST /api/planner/stories/{story_id}/tasks/{task_id}/actions",
    "GET /api/tasks/pending",
)
def test_task_is_taken_from_an_agent_changed_and_discarded(world: World) -> None:
    story_id = world.create()
    world.start(story_id)
    me, url = world.get("/api/me")["principal"], f"{STORIES}/{story_id}"
    gate = world.granted(story_id, "approve_design")
    world.post(f"{url}/pause", {"reason": "I look at its task first"})
    world.post(f"/api/approvals/{gate}/grant", {})
    pending = world.get("/api/tasks/pending", params={"role": "developer"})["items"]
    (line,) = [one for one in pending if one["story_id"] == story_id]
    assert (line["state"], line["waits_for"], line["overdue"]) == ("todo", "developer", False)
    world.post(f"{url}/resume", {})
    world.wait(lambda: [t for t in world.show(story_id)["tasks"] if t["state"] == "implementing"])
    world.post(f"{url}/pause", {"reason": "I do this one myself"})
    task = f"{url}/tasks/{line['task_id']}"
    before = world.get(task)
    assert (before["status"], before["claim"]["is_live"]) == ("in_progress", True)
    assert before["claim"]["principal"].startswith("agent:developer-")
    assert [(one["action"], one["to_state"]) for one in before["history"]] == [("ASSIGN_TO_DEVELOPER", "implementing")]
    assert world.post(f"{task}/release")["claim"] is None
    world.post(f"{task}/claim", {"role": "developer"})
    taken = world.get(task)
    assert taken["claim"]["principal"] == me
    tag = {"If-Match": f'"v{taken["version"]}"'}
    changed = world.send("PATCH", task, {"priority": 4, "notes": "this first"}, headers=tag)
    assert (changed["priority"], changed["notes"]) == (4, "this first")
    gone = world.post(f"{task}/actions", {"action": "DISCARD_TASK", "feedback": "nobody needs it any more"})
    assert (gone["status"], gone["task"]["state"]) == ("accepted", "cancelled")
    assert (gone["task"]["history"][-1]["principal"], gone["task"]["feedback"]) == (me, ["nobody needs it any more"])
    world.post(f"{url}/cancel", {"reason": "nobody needs it any more"})
