"""Bundles, changes and scopes over HTTP (AP-68, AP-69)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from fleet.events.codec import decode
from fleet.events.context import ContextChanged
from fleet.events.story import MilestoneReached, StoryTransitioned
from fleet.kernel.ids import Digest
from tests.support.front import front_parts
from tests.support.story_events import AC_1, DECISION, DEVELOPER, PLAN, STORY, TASK
from tests.support.tool_front import DEV, RITA, ROOT, ToolFront, keyed, tool_front

URL = f"/api/context/{STORY}"
WHY = "It was asked for in the review."
CHOICE: dict[str, Any] = {
    "title": "Fold letters with the standard library",
    "rationale": "It needs no dependency and covers what editors write.",
    "category": "DATA",
}


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A story in BUILD that its owner takes commands for."""
    async with tool_front() as front:
        yield front


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


async def _bundle(at: ToolFront, *, who: dict[str, str] = DEV, **body: Any) -> dict[str, Any]:
    response = await at.client.post(f"{URL}/rehydrate", json=body, headers=who)
    assert response.status_code == 200, response.text
    return response.json()


# Scopes.


@pytest.mark.rule("AP-69", "CX-3", "CX-4")
@pytest.mark.parametrize(
    ("role", "phase", "provided", "allowed"),
    [
        ("qa", "DOCS", ["CASE_HEADER", "PLAN_HEADER", "SUBTASKS_ALL_MIN", "MILESTONES"], True),
        ("qa", "DOCS", ["CASE_HEADER", "PLAN_HEADER", "SUBTASKS_ALL_MIN"], False),
        ("qa", "DOCS", ["CASE_HEADER", "PLAN_HEADER", "SUBTASKS_ALL_MIN", "MILESTONES", "SUMMARY_LAST"], False),
        ("data", "TEST", [], False),
        ("nobody", "TEST", [], False),
        ("qa", "NEVER", [], False),
    ],
)
async def test_scopes_are_allowed_exactly(at: ToolFront, role: str, phase: str, provided: list[str], allowed: bool):
    body = {"role": role, "phase": phase, "provided": provided}
    response = await at.client.post("/api/context/validate-scope", json=body, headers=DEV)
    assert response.status_code == 200, response.text
    assert response.json()["allowed"] is allowed


@pytest.mark.rule("CX-4", "AP-36")
async def test_scope_that_nobody_knows_is_refused(at: ToolFront):
    body = {"role": "qa", "phase": "DOCS", "provided": ["EVERYTHING"]}
    _refused(await at.client.post("/api/context/validate-scope", json=body, headers=DEV), 422, "invalid_input")


@pytest.mark.rule("AP-68", "CX-21")
async def test_pack_keeps_to_the_budget_that_was_asked_for(at: ToolFront):
    whole = (await at.client.get(f"{URL}/architect/BUILD", headers=DEV)).json()
    small = (await at.client.get(f"{URL}/architect/BUILD", params={"token_budget": 512}, headers=DEV)).json()
    assert (small["budget"], small["token_count"] <= 512) == (512, True)
    assert whole["budget"] > 512
    too_small = await at.client.get(f"{URL}/architect/BUILD", params={"token_budget": 100}, headers=DEV)
    _refused(too_small, 422, "invalid_input")


@pytest.mark.rule("CX-22", "CX-20")
async def test_tokens_of_a_pack_are_those_of_all_of_its_blocks(at: ToolFront):
    page = (await at.client.get(f"{URL}/architect/BUILD", headers=DEV)).json()
    sizes = {name: -(-len(text.encode()) // 3) for name, text in page["blocks"].items()}
    assert set(sizes) == {"system", "context", "tools"}
    assert all(sizes.values())
    assert page["token_count"] == sum(sizes.values()) <= page["budget"]
    listed = (await at.client.get(f"{URL}/packs", headers=DEV)).json()["items"]
    (same,) = (one for one in listed if (one["role"], one["phase"]) == ("architect", "BUILD"))
    assert (same["token_count"], same["budget"]) == (page["token_count"], page["budget"])


# Bundles.


@pytest.mark.rule("AP-69", "CX-40", "CX-41", "CX-42")
async def test_bundle_tells_every_role_with_a_task_what_it_may_see(at: ToolFront):
    found = (await _bundle(at))["bundle"]
    assert (found["story_id"], found["phase"]) == (STORY, "BUILD")
    pack = found["packs"]["developer"]
    assert (pack["plan_header"]["plan_id"], pack["plan_header"]["status"]) == (PLAN, "ADOPTED")
    assert [c["ac_id"] for c in pack["case_header"]["acceptance_criteria"]][0] == AC_1
    assert TASK in {task["task_id"] for task in pack["role_tasks"]}
    assert DECISION in {decision["id"] for decision in pack["decisions_relevant"]}
    assert {decision["author_id"] for decision in pack["decisions_relevant"]} == {DEVELOPER}
    assert pack["case_header"]["tags"] == ["text"]
    # A developer sees no milestones while it builds, an architect does.
    assert pack["recent_milestones"] == []
    both = (await _bundle(at, roles=["architect", "data", "developer"]))["bundle"]
    milestones = both["packs"]["architect"]["recent_milestones"]
    assert milestones
    assert [row["ts"] for row in milestones] == sorted(row["ts"] for row in milestones)
    assert both["stats"] | {"impacts": 0, "decision_edges": 0} == {
        "decisions": 1,
        "decision_edges": 0,
        "impacts": 0,
        "events": both["as_of"],
        "roles": 3,
    }
    assert [line["version"] for line in both["timeline"]][-1] == both["as_of"]
    assert pack["token_budget_hint"] >= 4096


@pytest.mark.rule("CX-42")
async def test_denied_role_is_listed_and_unknown_ones_are_refused(at: ToolFront):
    await at.record(StoryTransitioned(from_="BUILD", event="build_done", to="TEST"))
    found = (await _bundle(at, roles=["data", "qa"]))["bundle"]
    assert (found["denied"], list(found["packs"])) == (["data"], ["qa"])
    nobody = await at.client.post(f"{URL}/rehydrate", json={"roles": ["nobody"]}, headers=DEV)
    assert "architect" in _refused(nobody, 422, "invalid_input")["allowed"]
    missing = await at.client.post("/api/context/st-nobody/rehydrate", json={}, headers=DEV)
    _refused(missing, 404, "not_found")
    for wrong in ({"timeline_events": 501}, {"ttl_s": 1}, {"nothing": 1}):
        _refused(await at.client.post(f"{URL}/rehydrate", json=wrong, headers=DEV), 422, "invalid_input")
    late = await at.client.post(f"{URL}/rehydrate", json={"min_version": 10**6}, headers=DEV)
    _refused(late, 503, "store_unavailable")


@pytest.mark.rule("CX-40")
async def test_parts_of_a_bundle_are_left_out_on_request(at: ToolFront):
    short = (await _bundle(at, include_timeline=False))["bundle"]
    assert short["timeline"] == []
    three = (await _bundle(at, timeline_events=3))["bundle"]
    assert len(three["timeline"]) == 3


@pytest.mark.rule("CX-43", "CX-44", "GL-20")
async def test_same_version_and_request_give_the_same_hash_and_a_kept_bundle_is_read_again(at: ToolFront):
    first, second = await _bundle(at, who=ROOT), await _bundle(at, who=ROOT, persist_bundle=True)
    assert first["hash"] == second["hash"]
    assert first["kept_at"] is None
    again = await at.client.get(second["kept_at"], headers=ROOT)
    assert again.json() == second["bundle"]
    # Another process, whose cache is empty, builds the same from the log.
    other = front_parts(at.world).rehydrator
    assert other is not None
    assert str((await other.build(STORY)).hash) == first["hash"]
    await at.record(MilestoneReached.model_validate({"milestone_id": "ms-one1", "name": "half", "ref": STORY}))
    assert (await _bundle(at, who=ROOT))["hash"] != first["hash"]
    assert (await at.client.get(second["kept_at"], headers=ROOT)).json() == second["bundle"]
    other_hash = str(Digest("sha256:" + "0" * 64))
    _refused(await at.client.get(f"{URL}/bundles/1/{other_hash}", headers=DEV), 404, "not_found")
    elsewhere = second["kept_at"].replace(STORY, "st-nobody")
    _refused(await at.client.get(elsewhere, headers=DEV), 404, "not_found")


# Changes.


async def _change(
    at: ToolFront, *changes: dict[str, Any], number: int = 1, who: dict[str, str] = ROOT
) -> httpx2.Response:
    body = {"changes": [{"reason": WHY, **change} for change in changes]}
    return await at.client.post(f"{URL}/changes", json=body, headers=keyed(number, who))


@pytest.mark.rule("AP-69", "CX-45", "AP-2")
async def test_changes_become_events_of_their_type_in_one_append(at: ToolFront):
    response = await _change(
        at,
        {"operation": "CREATE", "entity_type": "DECISION", "payload": CHOICE, "entity_id": "de-mine1"},
        {"operation": "CREATE", "entity_type": "DECISION", "payload": CHOICE},
        {"operation": "CREATE", "entity_type": "QUESTION", "payload": {"text": "Which letters?"}},
        {"operation": "CREATE", "entity_type": "MILESTONE", "payload": {"name": "half of it"}},
    )
    assert response.status_code == 200, response.text
    found = response.json()
    events = (await at.world.events(STORY))[-5:]
    assert [e.type for e in events] == [
        "DecisionProposed",
        "DecisionProposed",
        "QuestionRaised",
        "MilestoneReached",
        "ContextChanged",
    ]
    assert len({e.command_id for e in events}) == 1
    assert len(set(found["entities"])) == 4
    assert found["warnings"] == [f"changes/0: de-mine1 is recorded as {found['entities'][0]}"]
    mark = decode(events[-1])
    assert isinstance(mark, ContextChanged)
    assert (mark.version, str(mark.hash)) == (found["version"], found["hash"])
    assert found["version"] == events[-1].version
    again = await _change(
        at,
        {"operation": "CREATE", "entity_type": "DECISION", "payload": CHOICE, "entity_id": "de-mine1"},
        {"operation": "CREATE", "entity_type": "DECISION", "payload": CHOICE},
        {"operation": "CREATE", "entity_type": "QUESTION", "payload": {"text": "Which letters?"}},
        {"operation": "CREATE", "entity_type": "MILESTONE", "payload": {"name": "half of it"}},
    )
    assert again.json() == found
    assert (await at.world.events(STORY))[-1].version == events[-1].version


@pytest.mark.rule("CX-45")
async def test_update_settles_and_delete_supersedes_and_neither_removes_anything(at: ToolFront):
    made = await _change(
        at,
        {"operation": "CREATE", "entity_type": "DECISION", "payload": CHOICE | {"category": "ARCHITECTURE"}},
        {"operation": "CREATE", "entity_type": "DECISION", "payload": CHOICE},
        {"operation": "CREATE", "entity_type": "QUESTION", "payload": {"text": "Which letters?"}},
        {"operation": "CREATE", "entity_type": "QUESTION", "payload": {"text": "Which marks?"}},
    )
    new, data, letters, marks = made.json()["entities"]
    settled = await _change(
        at,
        {"operation": "UPDATE", "entity_type": "DECISION", "entity_id": new, "payload": {"status": "ACCEPTED"}},
        {"operation": "DELETE", "entity_type": "DECISION", "entity_id": data},
        {"operation": "UPDATE", "entity_type": "QUESTION", "entity_id": letters, "payload": {"answer": "All of them."}},
        {"operation": "DELETE", "entity_type": "QUESTION", "entity_id": marks},
        number=2,
    )
    assert settled.status_code == 200, settled.text
    replaced = await _change(
        at,
        {"operation": "DELETE", "entity_type": "DECISION", "entity_id": DECISION, "payload": {"by_decision_id": new}},
        number=3,
    )
    assert replaced.status_code == 200, replaced.text
    state = await at.world.desk.state(STORY)
    assert {id: state.decisions[id].status for id in (new, data, DECISION)} == {
        new: "ACCEPTED",
        data: "REJECTED",
        DECISION: "SUPERSEDED",
    }
    assert state.questions[marks].answer == f"withdrawn: {WHY}"


@pytest.mark.rule("CX-45", "AP-62")
async def test_task_gets_new_values_or_is_discarded_with_the_reason(at: ToolFront):
    changed = await _change(
        at, {"operation": "UPDATE", "entity_type": "TASK", "entity_id": TASK, "payload": {"priority": 3}}
    )
    assert changed.status_code == 200, changed.text
    state = await at.world.desk.state(STORY)
    assert state.tasks[TASK].task.priority == 3
    gone = await _change(at, {"operation": "DELETE", "entity_type": "TASK", "entity_id": TASK}, number=2)
    assert gone.status_code == 200, gone.text
    state = await at.world.desk.state(STORY)
    assert (state.tasks[TASK].state, state.tasks[TASK].feedback) == ("cancelled", (WHY,))


@pytest.mark.rule("CX-45", "AP-36", "AP-23", "AP-25")
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"operation": "CREATE", "entity_type": "TASK"}, 422, "invalid_input"),
        (
            {"operation": "UPDATE", "entity_type": "TASK", "entity_id": TASK, "payload": {"role": "qa"}},
            422,
            "invalid_input",
        ),
        ({"operation": "DELETE", "entity_type": "TASK", "entity_id": "tk-none1"}, 404, "not_found"),
        ({"operation": "DELETE", "entity_type": "MILESTONE", "entity_id": "ms-one1"}, 422, "invalid_input"),
        ({"operation": "CREATE", "entity_type": "SUMMARY", "payload": {"text": "all is well"}}, 422, "invalid_input"),
        ({"operation": "CREATE", "entity_type": "DECISION", "payload": {"title": "x"}}, 422, "invalid_input"),
        ({"operation": "UPDATE", "entity_type": "DECISION", "payload": {"status": "ACCEPTED"}}, 422, "invalid_input"),
        (
            {"operation": "UPDATE", "entity_type": "DECISION", "entity_id": DECISION, "payload": {"title": "x"}},
            422,
            "invalid_input",
        ),
        ({"operation": "DELETE", "entity_type": "DECISION", "entity_id": DECISION}, 422, "invalid_input"),
        ({"operation": "DELETE", "entity_type": "QUESTION", "entity_id": "qu-none1"}, 404, "not_found"),
        (
            {"operation": "CREATE", "entity_type": "QUESTION", "payload": {"text": "Why?", "asked_by": "user:ana"}},
            422,
            "invalid_input",
        ),
        (
            {"operation": "CREATE", "entity_type": "QUESTION", "payload": {"text": "Why?", "severity": "huge"}},
            422,
            "invalid_input",
        ),
        (
            {
                "operation": "UPDATE",
                "entity_type": "DECISION",
                "entity_id": "de-none1",
                "payload": {"status": "ACCEPTED"},
            },
            404,
            "not_found",
        ),
    ],
)
async def test_change_that_cannot_be_records_nothing_of_the_whole_request(
    at: ToolFront, change: dict[str, Any], status: int, code: str
):
    before = len(await at.world.events(STORY))
    good = {"operation": "CREATE", "entity_type": "DECISION", "payload": CHOICE}
    _refused(await _change(at, good, change), status, code)
    assert len(await at.world.events(STORY)) == before


@pytest.mark.rule("CX-45", "AP-23")
async def test_change_is_refused_to_who_may_not_make_it_and_twice_in_one_request(at: ToolFront):
    accept = {"operation": "UPDATE", "entity_type": "DECISION", "payload": {"status": "ACCEPTED"}}
    made = (await _change(at, {"operation": "CREATE", "entity_type": "DECISION", "payload": CHOICE})).json()["entities"]
    named = accept | {"entity_id": made[0]}
    _refused(await _change(at, named, number=2, who=RITA), 403, "policy_denied")
    _refused(await _change(at, named, named, number=3), 422, "invalid_input")
    empty = await at.client.post(f"{URL}/changes", json={"changes": []}, headers=keyed(4, ROOT))
    _refused(empty, 422, "invalid_input")
    unkeyed = await at.client.post(f"{URL}/changes", json={"changes": [named | {"reason": WHY}]}, headers=ROOT)
    _refused(unkeyed, 400, "idempotency_key_required")
