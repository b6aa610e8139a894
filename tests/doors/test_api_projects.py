"""Doors to projects: epics, goals that become stories, what came of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.world import World

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def project(world: World) -> str:
    """A project with one story."""
    project_id = world.post("/api/projects", {"title": "Links that people read"}, status=201)["project_id"]
    world.create(project_id=project_id)
    return project_id


def listed(world: World) -> set[str]:
    """Ids of all projects, page by page."""
    page = world.get("/api/projects")
    found = {each["project_id"] for each in page["items"]}
    while cursor := page.get("next_cursor"):
        page = world.get("/api/projects", params={"cursor": cursor})
        found |= {each["project_id"] for each in page["items"]}
    return found


@pytest.mark.door(
    "POST /api/projects", "GET /api/projects/{project_id}", "PATCH /api/projects/{project_id}", "GET /api/projects"
)
def test_project_is_made_and_changed(world: World) -> None:
    text = {"title": "A shop of books", "languages": ["python"], "default_rigor": "L2"}
    made = world.post("/api/projects", text, status=201)
    assert (made["status"], made["author"], made["epics"]) == ("active", "user:root", 1)
    one = f"/api/projects/{made['project_id']}"
    changed = world.send("PATCH", one, {"description": "Sells them", "default_rigor": "L1"})
    assert world.get(one) == changed
    assert (changed["description"], changed["default_rigor"], changed["languages"]) == ("Sells them", "L1", ["python"])
    world.create(project_id=made["project_id"])
    assert made["project_id"] in listed(world)


@pytest.mark.door(
    "POST /api/projects/{project_id}/epics",
    "GET /api/projects/{project_id}/epics",
    "GET /api/epics/{epic_id}",
    "PATCH /api/epics/{epic_id}",
)
def test_epic_holds_its_stories_until_it_is_archived(world: World, project: str) -> None:
    epics = f"/api/projects/{project}/epics"
    epic = world.post(epics, {"title": "Readable links", "goal": "Everybody reads them"}, status=201)["epic_id"]
    story_id = world.create(project_id=project, epic_id=epic)
    shown = world.get(f"/api/epics/{epic}")
    assert (shown["stories"], shown["goal"], shown["is_inbox"]) == ([story_id], "Everybody reads them", False)
    assert [each["is_inbox"] for each in world.get(epics)["items"]].count(True) == 1
    changed = world.send("PATCH", f"/api/epics/{epic}", {"title": "Short links", "priority": 2})
    assert (changed["title"], changed["priority"], changed["stories"]) == ("Short links", 2, [story_id])
    assert changed in world.get(epics)["items"]


@pytest.mark.door("GET /api/projects/{project_id}/metrics", "GET /api/projects/{project_id}/timeline")
def test_project_without_finished_stories_has_figures(world: World, project: str) -> None:
    figures = world.get(f"/api/projects/{project}/metrics", params={"days": 7})
    assert (figures["days"], figures["solved"], figures["tokens"]) == (7, 0, 0)
    assert figures["stories"] >= 1
    told = world.get(f"/api/projects/{project}/timeline")
    assert told["project_id"] == project
    assert {row["event"] for row in told["items"]} >= {"StoryCreated"}


def discovered(world: World, project: str, goal: str) -> tuple[str, dict[str, Any]]:
    """The address of a proposal, and what it says."""
    body = {"goal": goal, "is_empty": True}
    made = world.post(f"/api/projects/{project}/discoveries", body, status=201)
    assert (made["status"], made["goal"]) == ("proposed", goal)
    return f"/api/projects/{project}/discoveries/{made['discovery_id']}", made


@pytest.mark.door(
    "POST /api/projects/{project_id}/discoveries",
    "GET /api/projects/{project_id}/discoveries",
    "GET /api/projects/{project_id}/discoveries/{discovery_id}",
    "GET /api/projects/{project_id}/discoveries/{discovery_id}/requirements.md",
    "POST /api/projects/{project_id}/discoveries/{discovery_id}/answers",
    "POST /api/projects/{project_id}/discoveries/{discovery_id}/accept",
)
def test_goal_becomes_stories_with_the_answers_in_them(world: World, project: str) -> None:
    one, made = discovered(world, project, "Sell books to readers")
    question = made["proposal"]["questions"][0]["question_id"]
    world.post(f"{one}/answers", {"answers": {question: "librarian"}})
    shown = world.get(one)
    assert shown["proposal"]["questions"][0]["answer"] == "librarian"
    assert shown["proposal"]["stories"][1]["title"].startswith("As a librarian, I want")
    assert shown in world.get(f"/api/projects/{project}/discoveries")["items"]
    page = world.get(f"{one}/requirements.md")
    assert page.headers["content-type"].startswith("text/markdown")
    assert page.text.startswith("# Sell books to readers\n")
    accepted = world.post(f"{one}/accept", {"note": "it is worth a try"})
    assert (accepted["status"], len(accepted["story_ids"])) == ("accepted", 2)
    epic = world.wait(lambda: world.get(f"/api/epics/{accepted['epic_id']}"))
    world.wait(lambda: set(world.get(f"/api/epics/{epic['epic_id']}")["stories"]) == set(accepted["story_ids"]))
    assert world.show(accepted["story_ids"][1])["title"] == shown["proposal"]["stories"][1]["title"]


@pytest.mark.door("POST /api/projects/{project_id}/discoveries/{discovery_id}/reject")
def test_proposal_that_is_rejected_makes_no_story(world: World, project: str) -> None:
    one, _ = discovered(world, project, "Sell maps to readers")
    world.post(f"{one}/reject", {"reason": "nobody asked for maps"})
    shown = world.get(one)
    assert (shown["status"], shown["reason"], shown["story_ids"]) == ("rejected", "nobody asked for maps", [])
