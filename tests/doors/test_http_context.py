"""Doors of context: what a role is told, and what people add to it."""

from __future__ import annotations

import pytest

from tests.support.world import World

pytestmark = pytest.mark.timeout(600)


@pytest.mark.door("POST /api/context/validate-scope")
def test_scopes_of_a_role_are_checked(world: World) -> None:
    body = {"role": "qa", "phase": "DOCS", "provided": ["CASE_HEADER", "SUMMARY_LAST"]}
    found = world.post("/api/context/validate-scope", body)
    missing = ["PLAN_HEADER", "SUBTASKS_ALL_MIN", "MILESTONES"]
    assert found == {"allowed": False, "missing": missing, "extra": ["SUMMARY_LAST"]}
    assert world.post("/api/context/validate-scope", body | {"provided": ["CASE_HEADER", *missing]})["allowed"]


@pytest.mark.door("GET /api/context/stats")
def test_figures_of_context_count_the_packs_of_finished_work(world: World) -> None:
    assert world.done
    found = world.get("/api/context/stats", params={"project": "pr-default"})
    assert found["projects"] == ["pr-default"]
    cells = {(cell["role"], cell["phase"]): cell for cell in found["packs"]}
    cell = cells["developer", "BUILD"]
    assert cell["packs"] >= 1
    assert 0 < cell["tokens_median"] <= cell["tokens_largest"]
    assert found["activity"]["away"] is None


@pytest.mark.door("GET /api/context/{story_id}/{role}/{phase}", "GET /api/context/{story_id}/packs")
def test_pack_of_a_role_is_shown_and_listed(world: World) -> None:
    pack = world.get(f"/api/context/{world.done}/architect/BUILD")
    assert "slugify" in pack["text"]
    assert pack["blocks"]["context"] == pack["text"]
    assert 0 < pack["token_count"] <= pack["budget"]
    listed = world.get(f"/api/context/{world.done}/packs")["items"]
    (same,) = [one for one in listed if (one["role"], one["phase"]) == ("architect", "BUILD")]
    assert (same["hash"], same["token_count"]) == (pack["hash"], pack["token_count"])


@pytest.mark.door("POST /api/context/{story_id}/rehydrate", "GET /api/context/{story_id}/bundles/{version}/{digest}")
def test_bundle_is_built_and_kept(world: World) -> None:
    body = {"roles": ["developer", "qa"], "persist_bundle": True, "timeline_events": 3}
    found = world.post(f"/api/context/{world.done}/rehydrate", body)
    # What is documented is no longer a developer's.
    assert (found["bundle"]["denied"], list(found["bundle"]["packs"])) == (["developer"], ["qa"])
    assert len(found["bundle"]["timeline"]) == 3
    assert found["bundle"]["packs"]["qa"]["plan_header"]["status"] == "ADOPTED"
    assert world.get(found["kept_at"]) == found["bundle"]


@pytest.mark.door("POST /api/context/{story_id}/changes", "GET /api/context/{story_id}/graph")
def test_change_of_context_is_recorded_and_in_the_graph(world: World) -> None:
    story_id = world.create()
    decision = {"title": "Use re", "rationale": "It is in the standard library.", "category": "DATA"}
    why = "it was asked for in the review"
    made = [("DECISION", decision), ("QUESTION", {"text": "Which letters?"}), ("MILESTONE", {"name": "half of it"})]
    changes = [{"operation": "CREATE", "entity_type": kind, "payload": what, "reason": why} for kind, what in made]
    found = world.post(f"/api/context/{story_id}/changes", {"changes": changes})
    assert (len(set(found["entities"])), found["warnings"]) == (3, [])
    assert found["version"] == world.show(story_id)["version"]
    graph = f"/api/context/{story_id}/graph"
    nodes = world.wait(lambda: (n := world.get(graph)["nodes"])[1:] and n)
    assert (nodes[0]["label"], nodes[0]["id"]) == ("Story", story_id)
    assert found["entities"][0] in {node["id"] for node in nodes}
