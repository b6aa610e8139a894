"""Doors to the rules in force, and to what an admin sets for everybody; each is set back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2
import openai
import pytest

from tests.support.world import World

ROLE = "data"
"""A role whose work no other test waits for."""
pytestmark = pytest.mark.timeout(600)


@pytest.mark.door("GET /api/me")
def test_token_of_the_local_user_stands_for_all_roles(world: World) -> None:
    me = world.get("/api/me")
    assert (me["principal"], me["projects"]) == ("user:root", None)
    assert {"admin", "po", "qa", "developer"} <= set(me["roles"])


@pytest.mark.door(
    "GET /api/roles", "GET /api/rigor", "GET /api/lifecycles", "GET /api/engines", "GET /api/models/policies"
)
def test_rules_in_force_are_those_of_the_files(world: World) -> None:
    roles = world.get("/api/roles")
    developer = next(role for role in roles["items"] if role["name"] == "developer")
    assert (roles["file"], developer["actor"], "BUILD" in developer["phases"]) == ("roles.yaml", "any", True)
    rigor = world.get("/api/rigor")
    assert (rigor["file"], rigor["content"]["L1"]["dor_min"]) == ("rigor.yaml", 75)
    lifecycles = world.get("/api/lifecycles")
    assert (lifecycles["file"], lifecycles["content"]["lifecycles"]["agile"]["initial"]) == ("fsm.yaml", "BACKLOG")
    engines = {engine["engine_id"]: engine for engine in world.get("/api/engines")["items"]}
    assert (engines["openai"]["external"], engines["openai"]["runs"]) == (True, "server")
    policies = {policy["role"]: policy["policy"] for policy in world.get("/api/models/policies")["items"]}
    assert policies["default"]["chain"][0]["engine_id"] == "profile"


@pytest.mark.door("GET /healthz", "GET /readyz")
def test_fleet_that_is_up_says_so(world: World) -> None:
    assert (world.get("/healthz"), world.get("/readyz")) == ({"status": "ok"}, {"status": "ready"})


@pytest.mark.door("GET /v1/models", "GET /v1/models/{model_id}", "POST /v1/chat/completions")
def test_other_programs_use_the_models_of_the_fleet(world: World) -> None:
    key = str(world.client.headers["Authorization"]).removeprefix("Bearer ")
    base = str(world.client.base_url.join("/v1"))
    heard_by = httpx2.Client(event_hooks={"response": [world.heard]}, timeout=200)
    with openai.OpenAI(base_url=base, api_key=key, max_retries=0, http_client=heard_by) as client:
        assert "openai" in [model.id for model in client.models.list()]
        assert client.models.retrieve("openai").owned_by == "swe-fleet"
        reply = client.chat.completions.create(model="openai", messages=[{"role": "user", "content": "Hi"}])
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("hello", "stop")
        assert reply.usage is not None
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.door("GET /api/agents", "POST /api/agents", "DELETE /api/agents/{agent_id}")
def test_named_agent_is_listed_until_it_is_removed(world: World) -> None:
    body = {"role": ROLE, "model_policy": "default", "persona": "careful with dates"}
    agent = world.post("/api/agents", body, status=201)
    try:
        assert (agent["role"], agent["status"], agent["registered_by"]) == (ROLE, "ready", "user:root")
        assert agent in world.get("/api/agents")["items"]
    finally:
        removed = world.send("DELETE", f"/api/agents/{agent['agent_id']}")
    assert removed["agent_id"] == agent["agent_id"]
    assert agent["agent_id"] not in [each["agent_id"] for each in world.get("/api/agents")["items"]]


@pytest.mark.door(
    "GET /api/council-pools",
    "GET /api/council-pools/{role}",
    "PUT /api/council-pools/{role}",
    "DELETE /api/council-pools/{role}",
)
def test_pool_of_a_role_staffs_it_until_it_is_taken_away(world: World) -> None:
    one = f"/api/council-pools/{ROLE}"
    try:
        pool = world.send("PUT", one, {"num_agents": 5, "kind": "openai", "model_policy": "default"})
        assert (pool["num_agents"], len(pool["agents"]), pool["set_by"]) == (5, 5, "user:root")
        assert world.get(one) == pool
        assert ROLE in [each["role"] for each in world.get("/api/council-pools")["items"]]
    finally:
        assert world.send("DELETE", one)["role"] == ROLE
    assert world.get(one, status=404)["code"] == "not_found"


@pytest.mark.door("GET /api/delegations", "POST /api/delegations", "DELETE /api/delegations/{delegation_id}")
def test_gate_is_delegated_until_that_is_revoked(world: World) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    project = world.post("/api/projects", {"title": "Gates that agents decide"}, status=201)["project_id"]
    body = {"gate": "approve_scope", "delegate": "qa", "reason": "small stories of this project", "max_rigor": "L1"}
    made = world.post("/api/delegations", body | {"valid_until": until, "projects": [project]}, status=201)
    assert (made["status"], made["projects"], made["granted_by"]) == ("active", [project], "user:root")
    assert made in world.get("/api/delegations")["items"]
    over = world.send("DELETE", f"/api/delegations/{made['delegation_id']}", params={"reason": "the trial is over"})
    assert (over["status"], over["revoked_by"]) == ("revoked", "user:root")


@pytest.mark.door("GET /api/budgets", "PUT /api/budgets/{scope}/{scope_id}", "GET /api/usage")
def test_budget_of_a_story_is_set_and_its_use_counted(world: World) -> None:
    story_id = world.create()
    world.send("PUT", f"/api/budgets/story/{story_id}", {"limits": {"tokens": 5000}, "note": "a small one"})
    lines = {
        line["quantity"]: line for line in world.get("/api/budgets", params={"scope": f"story:{story_id}"})["items"]
    }
    assert (lines["tokens"]["limit"], lines["tokens"]["spent"], lines["tokens"]["left"]) == (5000, 0, 5000)
    # Its calls are the spending of today: without it there may be none yet.
    done = world.done
    today = world.get("/api/budgets")
    assert today["story_id"] is None
    assert {"platform", "project"} >= {line["scope"] for line in today["items"]} >= {"platform"}
    used = world.get("/api/usage", params={"group_by": "role", "storyId": done})
    roles = {row["key"]: row for row in used["items"]}
    assert {"architect", "developer", "planner"} <= roles.keys()
    assert roles["developer"]["tokens_in"] > 0


@pytest.mark.door("GET /api/fleet", "POST /api/fleet/pause", "POST /api/fleet/resume")
def test_project_that_is_paused_starts_no_step_until_it_is_resumed(world: World) -> None:
    project = world.post("/api/projects", {"title": "Work that waits"}, status=201)["project_id"]
    held = world.post("/api/fleet/pause", {"project_id": project, "reason": "the release is being made"})
    try:
        pause = next(each for each in world.get("/api/fleet")["projects"] if each["project_id"] == project)
        assert (pause["by"], pause["reason"]) == ("user:root", "the release is being made")
        assert pause in held["projects"]
    finally:
        going_on = world.post("/api/fleet/resume", {"project_id": project, "note": "it is made"})
    assert project not in [each["project_id"] for each in going_on["projects"]]


@pytest.mark.door("GET /api/fleet/disk")
def test_disk_of_the_fleet_is_told_kind_by_kind(world: World) -> None:
    assert world.done
    items = {each["kind"]: each for each in world.get("/api/fleet/disk")["items"]}
    assert items.keys() == {"bases", "folders", "toolchains", "layers", "blobs"}
    assert items["blobs"]["used_bytes"] > 0
    assert items["blobs"]["used_bytes"] == items["blobs"]["held_bytes"] <= items["blobs"]["limit_bytes"]
    assert items["toolchains"]["count"] >= 1
    assert items["layers"]["limit_bytes"] == 20 << 30
    assert all(each["folder"] for each in items.values())
    assert all(each["held_bytes"] <= each["used_bytes"] for each in items.values())


@pytest.mark.door("GET /api/workflow/stats")
def test_workflow_stats_of_a_project_count_its_stories(world: World) -> None:
    project = world.post("/api/projects", {"title": "Two stories"}, status=201)["project_id"]
    for _ in range(2):
        world.create(project_id=project)
    stats = world.get("/api/workflow/stats", params={"project_id": project})
    assert (stats["stories"], stats["dispositions"], stats["tasks"]) == ({"DRAFT": 2}, {"active": 2}, {})


@pytest.mark.door("POST /api/workspace/score")
def test_report_of_another_tool_is_scored(world: World) -> None:
    digest = f"sha256:{'a' * 64}"
    counts = {"ok": True, "passed": 12, "failed": 0, "errored": 0, "skipped": 0}
    report = {"schema": 1, "run_id": "rn-report1", "story_id": "st-any1", "tree_digest": digest, "rigor": "L1"}
    report |= {"complete": True, "build": {"ok": True, "exit_code": 0}, "unit": counts, "e2e": counts}
    report |= {"coverage": {"new_pct": 91.5, "new_lines": 200, "new_covered": 183}, "patch": {"applied": True}}
    report |= {"static": {"ok": True, "gate": "OK", "new_critical": 0, "new_major": 0, "new_minor": 0}}
    report |= {
        "lint": {"ok": True, "errors": 0, "warnings": 2},
        "security": {"secrets_found": 0, "critical": 0, "high": 0},
    }
    score = world.post("/api/workspace/score", {"report": report, "rigor": "L1"})
    assert (score["verdict"], score["rigor"], score["run_id"]) == ("pass", "L1", "rn-report1")
    assert float(score["score"]) > 90
    broken = report | {"unit": counts | {"ok": False, "failed": 12, "passed": 0}}
    assert world.post("/api/workspace/score", {"report": broken, "rigor": "L1"})["verdict"] == "block"
