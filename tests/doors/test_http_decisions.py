"""Doors of decisions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.world import STORIES, World

pytestmark = pytest.mark.timeout(600)
WHY = "it was measured and it holds"


def _proposed(world: World, story_id: str, **changes: Any) -> str:
    body = {"title": "Use the standard library", "rationale": "It needs no dependency.", "category": "DATA"}
    made = world.post(f"{STORIES}/{story_id}/decisions", body | changes, status=201)
    assert (made["decision"]["status"], made["decision"]["origin"], made["settled"]) == ("PROPOSED", "human", None)
    return made["decision"]["decision_id"]


@pytest.mark.door(
    "POST /api/planner/stories/{story_id}/decisions",
    "GET /api/planner/stories/{story_id}/decisions",
    "POST /api/decisions/{decision_id}/accept",
    "POST /api/decisions/{decision_id}/reject",
    "POST /api/decisions/{decision_id}/supersede",
    "GET /api/decisions/{decision_id}",
)
def test_decisions_are_proposed_settled_and_replaced(world: World) -> None:
    story_id, me = world.create(), world.get("/api/me")["principal"]
    old, new, other = (_proposed(world, story_id) for _ in range(3))
    settled = world.post(f"/api/decisions/{old}/accept", {"note": WHY})["settled"]
    assert (settled["verdict"], settled["by"], settled["said"]) == ("accepted", me, WHY)
    world.post(f"/api/decisions/{new}/accept", {})
    refused = world.post(f"/api/decisions/{other}/reject", {"reason": WHY})
    assert (refused["decision"]["status"], refused["settled"]["said"]) == ("REJECTED", WHY)
    replaced = world.post(f"/api/decisions/{old}/supersede", {"by_decision_id": new, "reason": WHY})
    assert (replaced["superseded"]["by_decision_id"], replaced["superseded"]["by"]) == (new, me)
    assert world.get(f"/api/decisions/{old}") == replaced
    assert world.get(f"/api/decisions/{new}")["supersedes"] == [old]
    listed = world.get(f"{STORIES}/{story_id}/decisions")["items"]
    assert {one["decision_id"]: one["status"] for one in listed} == {
        old: "SUPERSEDED",
        new: "ACCEPTED",
        other: "REJECTED",
    }


@pytest.mark.door("GET /api/planner/stories/{story_id}/decisions/critical")
def test_decisions_of_a_plan_are_ranked_by_what_hangs_on_them(world: World) -> None:
    url = f"{STORIES}/{world.done}/decisions"
    decisions = {one["decision_id"]: one["category"] for one in world.get(url)["items"]}
    ranked = world.get(f"{url}/critical")["items"]
    assert {row["id"]: row["category"] for row in ranked} == decisions
    # The adopted plan is linked to its design, so that its task hangs on the architecture too.
    assert (ranked[0]["category"], ranked[0]["affects"]) == ("ARCHITECTURE", 1)
    assert [row["degree"] for row in ranked] == sorted((row["degree"] for row in ranked), reverse=True)


@pytest.mark.door("GET /api/decisions/{decision_id}/impact", "GET /api/planner/stories/{story_id}/decisions/cycles")
def test_graph_knows_what_hangs_on_a_decision(world: World) -> None:
    story_id = world.create()
    first = _proposed(world, story_id)
    second = _proposed(world, story_id, links=[{"rel": "DEPENDS_ON", "decision_id": first}])
    url = f"{STORIES}/{story_id}/decisions"
    version = world.show(story_id)["version"]
    impact = world.get(f"/api/decisions/{first}/impact", params={"min_version": version})
    assert [(row["kind"], row["id"], row["distance"]) for row in impact["items"]] == [("Decision", second, 1)]
    assert impact["as_of"] >= version
    assert world.get(f"{url}/cycles", params={"min_version": version})["items"] == []
