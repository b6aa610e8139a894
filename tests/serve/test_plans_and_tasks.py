"""Plan versions and single tasks over HTTP (AP-57, AP-59, AP-60, AP-62, AP-64, AP-65)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from fleet.events.story import StoryPaused
from fleet.events.task import TaskTransitioned
from tests.support.story_events import AC_1, AC_2, DECISION, DOC_TASK, PLAN, STORY, TASK, digest
from tests.support.tool_front import ARCHIE, DEV, RITA, ROOT, ToolFront, keyed, tool_front

URL = f"/api/planner/stories/{STORY}"
ANA = {"Authorization": "Bearer ana-token"}
WORK = digest("candidate tree")
WHY = "the umlauts are missing"
FIRST: dict[str, Any] = {
    "title": "Write slugify",
    "description": "Fold umlauts, lower the case, join words with hyphens.",
    "role": "developer",
    "kind": "code",
    "estimated_hours": 2,
    "priority": 1,
    "keywords": ["slug", "text"],
    "acceptance_refs": [AC_1, AC_2],
    "paths": ["text/slug.py"],
}
SECOND: dict[str, Any] = FIRST | {
    "title": "Show slugs in the editor",
    "estimated_hours": 5,
    "keywords": ["editor", "form"],
    "depends_on": [0],
    "paths": [],
}


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A story in BUILD that its owner takes commands for."""
    async with tool_front() as front:
        yield front


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


async def _get(at: ToolFront, path: str, who: dict[str, str] = ROOT) -> Any:
    response = await at.client.get(f"{URL}/{path}", headers=who)
    assert response.status_code == 200, response.text
    return response.json()


class Sender:
    """Requests that change something, each under a key of its own."""

    def __init__(self, at: ToolFront) -> None:
        self.at, self.number = at, 500

    async def __call__(
        self, path: str, body: Any, who: dict[str, str] = ROOT, *, method: str = "POST", **more: str
    ) -> httpx2.Response:
        self.number += 1
        headers = keyed(self.number, who) | {k.replace("_", "-"): v for k, v in more.items()}
        return await self.at.client.request(method, f"{URL}/{path}", json=body, headers=headers)


@pytest.fixture
def send(at: ToolFront) -> Sender:
    return Sender(at)


async def _in_review(at: ToolFront) -> None:
    """The work of the task waits for the architect; the story rests meanwhile."""
    step: dict[str, Any] = {"task_id": TASK, "actor_type": "agent", "principal": "agent:developer-001"}
    await at.record(
        StoryPaused(scope="story", by="user:ana", reason="I look first"),  # pyright: ignore[reportArgumentType]
        TaskTransitioned(
            **step,
            from_="implementing",
            action="COMMIT_CODE",
            to="dev_completed",
            as_role="developer",
            evidence=(WORK,),
        ),
        TaskTransitioned(
            **step,
            from_="dev_completed",
            action="AUTO_ROUTE_TO_ARCHITECT",
            to="pending_arch_review",
            as_role="system",
        ),
    )
    # The owner learns of what somebody else recorded when it writes.
    await at.client.post(f"{URL}/questions", json={"text": "Which alphabet?"}, headers=keyed(499, ROOT))


@pytest.mark.rule("AP-59", "PL-31", "PL-32", "PL-40")
async def test_plan_version_tells_layers_critical_path_and_what_may_start(at: ToolFront):
    (line,) = (await _get(at, "plans", ARCHIE))["items"]
    assert (line["plan_id"], line["version"], line["status"], line["fits_text"]) == (PLAN, 1, "ADOPTED", True)
    page = await _get(at, f"plans/{PLAN}", ARCHIE)
    assert page["plan"] == line
    assert page["layers"] == [[TASK], [DOC_TASK]]
    assert (page["critical_path"], page["critical_hours"]) == ([TASK, DOC_TASK], 4)
    assert (page["cyclic"], page["ready"], page["uncovered"]) == ([], [], [])
    assert page["dependencies"] == [{"task_id": DOC_TASK, "needs": TASK, "inferred": False}]
    assert [(t["task_id"], t["state"], t["status"]) for t in page["tasks"]] == [
        (TASK, "implementing", "in_progress"),
        (DOC_TASK, "todo", "todo"),
    ]
    _refused(await at.client.get(f"{URL}/plans/pv-none", headers=DEV), 404, "not_found")
    _refused(await at.client.get("/api/planner/stories/st-none/plans", headers=DEV), 404, "not_found")


@pytest.mark.rule("AP-60", "AP-2", "PL-25", "PL-10")
async def test_plan_is_written_edited_and_adopted(at: ToolFront, send: Sender):
    body = {"rationale": "smaller steps are better", "tasks": [FIRST, SECOND]}
    written = await send("plans", body)
    assert written.status_code == 201, written.text
    page = written.json()
    plan_id = page["plan"]["plan_id"]
    assert (page["plan"]["status"], page["plan"]["author"], page["previous_plan_id"]) == ("PROPOSED", "user:root", PLAN)
    assert [t["task_id"] for t in page["tasks"]][0] == TASK
    assert page["tasks"][1]["state"] is None
    again = await at.client.post(f"{URL}/plans", json=body, headers=keyed(send.number, ROOT))
    assert again.json()["plan"]["plan_id"] == plan_id
    assert len((await _get(at, "plans"))["items"]) == 2
    adopted = await send(f"plans/{plan_id}/adopt", {"decision_id": DECISION}, ANA)
    assert adopted.status_code == 200, adopted.text
    assert adopted.json()["plan"]["status"] == "ADOPTED"
    assert [v["status"] for v in (await _get(at, "plans"))["items"]] == ["SUPERSEDED", "ADOPTED"]
    assert (await _get(at, f"tasks/{DOC_TASK}"))["status"] == "cancelled"
    _refused(await send(f"plans/{plan_id}/reject", {"reason": WHY}), 409, "invalid_transition")


@pytest.mark.rule("AP-60", "AP-7", "PL-21")
async def test_plan_with_problems_is_refused_with_all_of_them(at: ToolFront, send: Sender):
    bad = {
        "rationale": "smaller steps are better",
        "tasks": [FIRST | {"estimated_hours": 99, "acceptance_refs": [AC_1]}],
    }
    found = _refused(await send("plans", bad), 422, "invalid_input")
    assert {e["code"] for e in found["errors"]} == {"task_hours", "ac_uncovered"}
    assert "/tasks/0" in {e["pointer"] for e in found["errors"]}
    found = _refused(
        await send("plans", {"rationale": "smaller steps are better", "tasks": [{}]}), 422, "invalid_input"
    )
    assert "/tasks/0/title" in {e["pointer"] for e in found["errors"]}
    stale = await send("plans", bad, if_match='"v1"')
    _refused(stale, 412, "precondition_failed")
    assert len((await _get(at, "plans"))["items"]) == 1


@pytest.mark.rule("AP-61", "PL-24")
async def test_derivation_is_asked_for_once_and_a_second_request_names_the_first(at: ToolFront, send: Sender):
    await send("pause", {"reason": "I look at it first"}, ANA)
    first = await send("derive-tasks", None)
    assert first.status_code == 202, first.text
    plan_id = first.json()["plan_id"]
    assert first.json()["status_url"] == f"{URL}/plans/{plan_id}"
    second = await send("derive-tasks", None, ANA)
    assert (second.status_code, second.json()["plan_id"]) == (202, plan_id)
    assert (await at.world.types()).count("TaskDerivationRequested") == 1
    _refused(await send("derive-tasks", None, DEV), 403, "policy_denied")
    _refused(await at.client.get(f"{URL}/plans/{plan_id}", headers=DEV), 404, "not_found")


@pytest.mark.rule("AP-62", "LC-121", "LC-123")
async def test_task_in_full_has_its_history_claim_and_evidence(at: ToolFront):
    response = await at.client.get(f"{URL}/tasks/{TASK}", headers=DEV)
    page = response.json()
    assert response.headers["etag"] == f'"v{page["version"]}"'
    assert (page["state"], page["status"], page["attempt"]) == ("implementing", "in_progress", 1)
    assert (page["claim"]["principal"], page["claim"]["is_live"]) == ("user:dev", True)
    (move,) = page["history"]
    assert (move["from_state"], move["action"], move["to_state"]) == ("todo", "ASSIGN_TO_DEVELOPER", "implementing")
    assert page["evidence"]["candidate_tree"] is None
    _refused(await at.client.get(f"{URL}/tasks/tk-none", headers=DEV), 404, "not_found")


@pytest.mark.rule("AP-62", "AP-3", "AP-39", "AP-33", "PL-12")
async def test_task_is_edited_at_the_version_that_was_read(at: ToolFront, send: Sender):
    path = f"tasks/{DOC_TASK}"
    _refused(await send(path, {"priority": 4}, method="PATCH"), 428, "precondition_required")
    _refused(await send(path, {"priority": 4}, method="PATCH", if_match='"v1"'), 412, "precondition_failed")
    tag = f'"v{(await _get(at, path))["version"]}"'
    found = _refused(await send(path, {"title": "Other"}, method="PATCH", if_match=tag), 422, "invalid_input")
    assert (found["field"], "priority" in found["allowed"]) == ("title", True)
    _refused(await send(path, {"priority": 11}, method="PATCH", if_match=tag), 422, "invalid_input")
    _refused(await send(path, {"priority": "high"}, method="PATCH", if_match=tag), 422, "invalid_input")
    _refused(await send(path, {}, method="PATCH", if_match=tag), 422, "invalid_input")
    secret = "mail ana with AKIAIOSFODNN7EXAMPLE"
    response = await send(path, {"priority": 4, "notes": secret}, method="PATCH", if_match=tag)
    assert response.status_code == 200, response.text
    assert response.json()["priority"] == 4
    assert "AKIAIOSFODNN7EXAMPLE" not in response.text
    assert (await _get(at, path))["version"] == response.json()["version"]


@pytest.mark.rule("AP-64", "LC-130")
async def test_claimed_task_is_given_back(at: ToolFront, send: Sender):
    _refused(await send(f"tasks/{TASK}/release", None, RITA), 403, "policy_denied")
    response = await send(f"tasks/{TASK}/release", None, DEV)
    assert (response.status_code, response.json()["claim"]) == (200, None)
    _refused(await send(f"tasks/{TASK}/release", None, DEV), 409, "invalid_transition")
    _refused(await send("tasks/tk-none/release", None, DEV), 404, "not_found")


@pytest.mark.rule("AP-63", "LC-130")
async def test_task_that_was_given_back_waits_for_its_role_again(at: ToolFront, send: Sender):
    pending = "/api/tasks/pending?role=developer"
    assert (await at.client.get(pending, headers=ROOT)).json()["items"] == []
    await send(f"tasks/{TASK}/release", None, DEV)
    (row,) = (await at.client.get(pending, headers=ROOT)).json()["items"]
    assert (row["task_id"], row["state"], row["waits_for"]) == (TASK, "implementing", "developer")


@pytest.mark.rule("AP-65", "LC-120")
async def test_review_by_a_person_is_accepted_and_refusals_say_which_kind_they_are(at: ToolFront, send: Sender):
    await _in_review(at)
    path = f"tasks/{TASK}/actions"
    claimed = await send(path, {"action": "CLAIM_REVIEW"})
    assert (claimed.status_code, claimed.json()["status"]) == (200, "accepted"), claimed.text
    assert claimed.json()["task"]["status"] == "in_review"
    assert claimed.headers["etag"] == f'"v{claimed.json()["task"]["version"]}"'
    denied = _refused(await send(path, {"action": "REJECT_DESIGN", "feedback": WHY}, DEV), 403, "policy_denied")
    assert denied["action_status"] == "rbac_violation"
    illegal = _refused(await send(path, {"action": "APPROVE_TESTS"}), 409, "invalid_transition")
    assert illegal["action_status"] == "invalid_action"
    closed = _refused(await send(path, {"action": "REJECT_DESIGN"}), 409, "gate_closed")
    assert (closed["action_status"], [g["name"] for g in closed["guards"]]) == ("rejected", ["feedback_given"])
    selected = await send(path, {"action": "REJECT_DESIGN", "feedback": WHY}, x_fleet_role="po")
    assert _refused(selected, 403, "policy_denied")["action_status"] == "rbac_violation"
    done = await send(path, {"action": "REJECT_DESIGN", "feedback": WHY, "artifacts": [WORK]})
    task = done.json()["task"]
    assert (task["state"], task["attempt"], task["feedback"]) == ("implementing", 2, [WHY])
    assert [(m["action"], m["evidence"]) for m in task["history"]][-2:] == [
        ("REJECT_DESIGN", [WORK]),
        ("REVISE_CODE", []),
    ]
    assert "TransitionRefused" not in await at.world.types()
    _refused(await send("tasks/tk-none/actions", {"action": "CLAIM_REVIEW"}), 404, "not_found")
    _refused(await send(path, {"action": ""}), 422, "invalid_input")
    _refused(await send(path, {"action": "DISCARD_TASK", "colour": "red"}), 422, "invalid_input")


@pytest.mark.rule("AP-57", "LC-93")
async def test_story_is_archived_once_it_is_over(at: ToolFront, send: Sender):
    body = {"reason": "nobody reads it any more"}
    _refused(await send("archive", body, ANA), 409, "invalid_transition")
    assert (await send("cancel", {"reason": "nobody needs it any more"}, ANA)).status_code == 200
    _refused(await send("archive", {}, ANA), 422, "invalid_input")
    response = await send("archive", body, ANA)
    assert (response.status_code, response.json()["disposition"]) == (200, "archived"), response.text
    _refused(await send("archive", body, ANA), 409, "invalid_transition")
    _refused(await send(f"tasks/{TASK}/release", None, ANA), 409, "invalid_transition")


@pytest.mark.rule("AP-61")
@pytest.mark.parametrize("task_id", ["tk-none1", "TK_1", "x" * 81])
async def test_task_that_is_not_there_is_told_alike_whatever_is_done_with_it(at: ToolFront, send: Sender, task_id: str):
    task = f"tasks/{task_id}"
    _refused(await at.client.get(f"{URL}/{task}", headers=DEV), 404, "not_found")
    for path, body in (("claim", {"role": "developer"}), ("release", None), ("actions", {"action": "CLAIM_REVIEW"})):
        _refused(await send(f"{task}/{path}", body, DEV), 404, "not_found")
