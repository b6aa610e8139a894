"""Commands on projects, epics, goals and reviews."""

from __future__ import annotations

import pytest

from tests.support.world import World

pytestmark = pytest.mark.timeout(600)
WHY = "nobody needs it any more"


@pytest.mark.door(
    "fleet project create",
    "fleet project list",
    "fleet project show",
    "fleet project archive",
    "fleet project reopen",
    "fleet epic create",
    "fleet epic list",
    "fleet epic show",
    "fleet epic archive",
    "fleet epic cancel",
)
def test_project_and_its_epics_are_made_shown_closed_and_opened_again(world: World) -> None:
    project = world.fleet("project", "create", "Shop", "--rigor", "L2", "--description", "A shop.").ok()["project_id"]
    named = {p["project_id"]: p["title"] for p in world.fleet("project", "list").ok()["projects"]}
    assert named[project] == "Shop"
    cart, search = (
        world.fleet("epic", "create", title, "--project", project, "--goal", "More is bought").ok()["epic_id"]
        for title in ("Cart", "Search")
    )
    listed = {e["epic_id"]: e["title"] for e in world.fleet("epic", "list", "--project", project).ok()["epics"]}
    assert (listed[cart], listed[search]) == ("Cart", "Search")
    world.fleet("epic", "archive", cart, "--reason", WHY).ok()
    world.fleet("epic", "cancel", search, "--reason", WHY).ok()
    assert [world.fleet("epic", "show", e).ok()["status"] for e in (cart, search)] == ["archived", "cancelled"]
    assert world.fleet("project", "archive", project).ok()["status"] == "archived"
    assert world.fleet("project", "reopen", project).ok()["status"] == "active"
    assert {e["epic_id"] for e in world.fleet("project", "show", project).ok()["epics"]} > {cart, search}


@pytest.mark.door(
    "fleet discovery ask",
    "fleet discovery answer",
    "fleet discovery list",
    "fleet discovery show",
    "fleet discovery accept",
    "fleet discovery reject",
)
def test_goal_becomes_an_epic_with_stories_or_nothing(world: World) -> None:
    asked = world.fleet("discovery", "ask", "Convert CSV files to JSON", "--new").ok()
    taken = asked["discovery_id"]
    left = world.fleet("discovery", "ask", "A word count of articles").ok()["discovery_id"]
    answers = [f"{q['question_id']}=as in the other tools" for q in asked["proposal"]["questions"]]
    answered = world.fleet("discovery", "answer", taken, *answers).ok()
    assert {q["answer"] for q in answered["proposal"]["questions"]} == {"as in the other tools"}
    assert world.fleet("discovery", "accept", taken, "--note", "good").ok()["epic_id"]
    world.fleet("discovery", "reject", left, "--reason", "somebody else does it").ok()
    listed = {d["discovery_id"]: d["status"] for d in world.fleet("discovery", "list").ok()["discoveries"]}
    assert (listed[taken], listed[left]) == ("accepted", "rejected")
    assert world.fleet("discovery", "show", taken).ok()["story_ids"]


@pytest.mark.door(
    "fleet ceremony create",
    "fleet ceremony list",
    "fleet ceremony show",
    "fleet ceremony stories",
    "fleet ceremony cancel",
)
def test_review_of_stories_is_prepared_and_given_up(world: World) -> None:
    one, two = world.create(), world.create()
    review = world.fleet("ceremony", "create", one).ok()["ceremony_id"]
    changed = world.fleet("ceremony", "stories", review, two, "--add").ok()
    assert set(changed["story_ids"]) == {one, two}
    assert {s["result"] for s in world.fleet("ceremony", "show", review).ok()["stories"]} == {"PENDING"}
    assert world.fleet("ceremony", "cancel", review, "--reason", "nobody has the time").ok()["status"] == "CANCELLED"
    listed = {c["ceremony_id"]: c["status"] for c in world.fleet("ceremony", "list").ok()["ceremonies"]}
    assert listed[review] == "CANCELLED"
