"""Doors of one story: its text, its way through its gates, and what a person says in between."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.team_models import DEMO, demo_repository
from tests.support.world import STORIES, World

pytestmark = pytest.mark.timeout(600)
WHY = "nobody needs it any more"
VAGUE: dict[str, Any] = {
    "title": "Export the invoices maybe",
    "description": "Several people ask for it.",
    "acceptance_criteria": ["It is fast"],
    "constraints": {},
}


@pytest.mark.door(
    "POST /api/planner/stories",
    "GET /api/planner/stories",
    "GET /api/planner/stories/{story_id}",
    "PATCH /api/planner/stories/{story_id}",
)
def test_story_is_created_listed_and_edited(world: World) -> None:
    story_id = world.create(tags=["a-tag-to-look-for"], priority=7)
    before = world.show(story_id)
    assert (before["state"], before["is_started"], before["priority"]) == ("DRAFT", False, 7)
    lines = world.get(STORIES, params={"state": "DRAFT", "text": before["title"], "limit": 200})["items"]
    (line,) = [one for one in lines if one["story_id"] == story_id]
    assert (line["tags"], line["tasks"], line["waiting_for"]) == (["a-tag-to-look-for"], 0, "start the story")
    kept, *_ = before["acceptance_criteria"]
    body = {"description": "", "acceptance_criteria": [kept]}
    tag = {"If-Match": f'"v{before["version"]}"'}
    after = world.send("PATCH", f"{STORIES}/{story_id}", body, headers=tag)
    assert (after["description"], after["acceptance_criteria"]) == ("", [kept])
    assert int(after["score"]) < int(before["score"])
    assert world.show(story_id) == after


@pytest.mark.door("PUT /api/planner/stories/{story_id}/rigor")
def test_rigor_is_raised(world: World) -> None:
    body = {"rigor": "L2", "reason": "it is about money by now"}
    assert world.send("PUT", f"{STORIES}/{world.create()}/rigor", body)["rigor"] == "L2"


@pytest.mark.door("GET /api/planner/stories/{story_id}/advice", "POST /api/planner/stories/{story_id}/coach")
def test_proposal_of_the_coach_is_taken_over(world: World) -> None:
    url = f"{STORIES}/{world.create(**VAGUE)}"
    advice = world.get(f"{url}/advice")
    keys = [proposal["key"] for proposal in advice["proposals"]]
    assert advice["questions"]
    assert advice["score"]["dor_ok"] is False
    after = world.post(f"{url}/coach", {"proposals": ["description/clarify"]})
    assert (after["title"], after["description"]) == (VAGUE["title"], "Several [CLARIFY] people ask for it.")
    left = [proposal["key"] for proposal in world.get(f"{url}/advice")["proposals"]]
    assert set(keys) - set(left) == {"description/clarify"}


@pytest.mark.door("POST /api/stories/score", "POST /api/stories/refine", "POST /api/stories/suggest")
def test_text_that_is_no_story_yet_is_scored_refined_and_begun(world: World) -> None:
    text = {"title": VAGUE["title"], "brief": VAGUE["description"], "ac": VAGUE["acceptance_criteria"]}
    score = world.post("/api/stories/score", {**text, "rigor": "L3"})
    assert (score["threshold"], score["dor_ok"]) == (90, False)
    assert score["score"] == 100 - sum(finding["points_lost"] for finding in score["findings"])
    refined = world.post("/api/stories/refine", text)
    assert refined["acceptance_criteria"][0] == "It is fast"
    assert refined["score_before"] == world.post("/api/stories/score", text)["score"]
    goal = "Readers can mark an article for later"
    begun = world.post("/api/stories/suggest", {"goal": goal})
    assert goal in begun["title"]
    assert begun["source"] == "template"
    assert begun["questions"]


@pytest.mark.door(
    "POST /api/planner/stories/{story_id}/questions",
    "GET /api/planner/stories/{story_id}/questions",
    "POST /api/planner/stories/{story_id}/questions/{question_id}/answer",
)
def test_question_is_asked_and_answered(world: World) -> None:
    url = f"{STORIES}/{world.create()}"
    assert world.post(f"{url}/questions", {"text": "Which alphabet?"}, status=201)["open_questions"] == 1
    (asked,) = world.get(f"{url}/questions")["items"]
    assert (asked["text"], asked["answer"]) == ("Which alphabet?", None)
    answer = f"{url}/questions/{asked['question_id']}/answer"
    assert world.post(answer, {"answer": "The Latin one"})["open_questions"] == 0
    (asked,) = world.get(f"{url}/questions")["items"]
    assert asked["answer"] == "The Latin one"


@pytest.mark.door("POST /api/planner/stories/{story_id}/pause", "POST /api/planner/stories/{story_id}/resume")
def test_story_is_held_back_and_let_go(world: World) -> None:
    url = f"{STORIES}/{world.create()}"
    assert world.post(f"{url}/pause", {"reason": "the repository moves today"})["is_paused"]
    assert not world.post(f"{url}/resume", {"note": "it is there now"})["is_paused"]


@pytest.mark.door("POST /api/planner/stories/{story_id}/cancel", "POST /api/planner/stories/{story_id}/archive")
def test_story_is_given_up_and_put_away(world: World) -> None:
    url = f"{STORIES}/{world.create()}"
    assert world.post(f"{url}/cancel", {"reason": WHY})["disposition"] == "cancelled"
    assert world.post(f"{url}/archive", {"reason": WHY})["disposition"] == "archived"


@pytest.mark.door(
    "POST /api/approvals",
    "GET /api/approvals",
    "GET /api/approvals/{approval_id}",
    "POST /api/approvals/{approval_id}/reject",
    "POST /api/approvals/{approval_id}/grant",
)
def test_gate_is_asked_for_refused_asked_again_and_granted(world: World) -> None:
    story_id = world.create()
    asking = {"story_id": story_id, "gate": "approve_scope"}
    assert world.post("/api/approvals", asking, status=201)["waiting_for"] == "start the story"
    (card,) = world.asked(story_id)
    assert (card["role"], card["can_decide"], card["attempt"]) == ("po", True, 1)
    assert card["requested_by"] == world.get("/api/me")["principal"]
    first = f"/api/approvals/{card['approval_id']}"
    assert world.get(first) == card
    assert world.post(f"{first}/reject", {"reason": "the scope is too wide"})["state"] == "DRAFT"
    told = world.get(first)
    assert (told["status"], told["reason"]) == ("rejected", "the scope is too wide")
    world.post("/api/approvals", asking, status=201)
    (again,) = world.asked(story_id)
    assert again["attempt"] == 2
    assert world.post(f"/api/approvals/{again['approval_id']}/grant", {"notes": "go on"})["state"] == "DESIGN"


@pytest.mark.door(
    "POST /api/planner/stories/{story_id}/approvals/{gate}/{decision}",
    "GET /api/planner/stories/{story_id}/transitions",
    "POST /api/planner/stories/{story_id}/transition",
)
def test_story_goes_through_a_gate_by_name_and_back(world: World) -> None:
    story_id = world.create()
    url = f"{STORIES}/{story_id}"
    (gate,) = world.get(f"{url}/transitions")["items"]
    assert (gate["event"], gate["to"], gate["needs_person"], gate["is_open"]) == (
        "approve_scope",
        "DESIGN",
        True,
        False,
    )
    assert {guard["name"]: guard["ok"] for guard in gate["guards"]} == {"dor_ok": True, "po_approved": False}
    world.post("/api/approvals", {"story_id": story_id, "gate": "approve_scope"}, status=201)
    assert world.post(f"{url}/approvals/approve_scope/grant", {"notes": "go on"})["state"] == "DESIGN"
    ways = {way["event"]: way["is_open"] for way in world.get(f"{url}/transitions")["items"]}
    assert ways == {"approve_design": False, "reject_design": True}
    back = {"event": "reject_design", "reason": "the scope was too wide"}
    assert world.post(f"{url}/transition", back)["state"] == "DRAFT"


@pytest.mark.door("POST /api/planner/stories/{story_id}/start", "POST /api/planner/stories/{story_id}/unpark")
def test_parked_story_goes_on_once_its_cause_is_gone(world: World) -> None:
    story_id = world.create()
    folder = world.folder / f"late-{story_id}"
    body = {"repo": str(folder / "repo"), "model": "openai"}
    assert world.post(f"{STORIES}/{story_id}/start", body)["is_started"]
    parked = world.wait(lambda: world.show(story_id)["parked"])
    assert "does not exist" in parked
    demo_repository(folder)
    assert world.post(f"{STORIES}/{story_id}/unpark", {"note": "it is there now"})["disposition"] == "active"
    world.waiting(story_id, "approve_scope")


def test_story_that_parked_in_mid_draft_goes_on_with_another_model(world: World) -> None:
    """Its steps that had begun ask otherwise now: they begin anew, and both requests are on record (RC-58)."""
    story_id = world.create(title="A story that nobody recorded replies for")
    repo = str(world.repository())
    url = f"{STORIES}/{story_id}"
    body = {"repo": repo, "delegate": ["po", "qa"]}
    world.send("POST", f"{url}/start", body | {"model": f"recorded:{DEMO / 'replies'}"}, status=200)
    assert "no recorded reply" in world.wait(lambda: world.show(story_id)["parked"])
    world.send("POST", f"{url}/start", body | {"model": "openai"}, status=200)
    world.wait(lambda: world.show(story_id)["state"] == "DONE")
    found = world.get("/api/audit/events", params={"stream": story_id, "type": "StepStarted", "limit": 200})["items"]
    starts = Counter(event["body"]["step_id"] for event in found)
    assert max(starts.values()) == 2


@pytest.mark.door(
    "POST /api/planner/stories/{story_id}/steps/{step_id}/resolve",
    stand_in="the step's records: as shipped every call may be repeated",
)
def test_person_says_what_came_of_a_step(world: World) -> None:
    story_id = world.create()
    step_id = world.left_unknown(story_id)
    body = {"outcome": "happened", "note": "the host runs it"}
    assert world.post(f"{STORIES}/{story_id}/steps/{step_id}/resolve", body)["story_id"] == story_id
    (event,) = world.get("/api/audit/events", params={"stream": story_id, "type": "StepResolved"})["items"]
    assert (event["body"]["step_id"], event["body"]["outcome"]) == (step_id, "happened")


@pytest.mark.door("GET /api/planner/stories/{story_id}/checkpoints", "POST /api/planner/stories/{story_id}/restore")
def test_tree_is_set_back_to_a_checkpoint(world: World) -> None:
    story_id = world.create()
    world.start(story_id)
    url = f"{STORIES}/{story_id}"
    card = world.get(f"/api/approvals/{world.granted(story_id, 'docs_ready')}")
    assert (card["verdict"]["verdict"], card["tests"]["unit"]["failed"]) == ("pass", 0)
    work, documents = world.get(f"{url}/checkpoints")["items"]
    assert (work["is_present"], documents["is_present"]) == (False, True)
    assert set(work["tasks"].values()) == {"done"}
    world.post(f"{url}/restore", {"checkpoint": work["checkpoint_id"], "reason": "the documents are wrong"})
    found = world.wait(lambda: (k := world.get(f"{url}/checkpoints"))["restoring"] is None and k["items"])
    assert [one["tree"] for one in found if one["is_present"]] == [work["tree"]] * 2
    world.post(f"{url}/cancel", {"reason": WHY})


@pytest.mark.door("POST /api/planner/stories/{story_id}/criteria/{ac_id}/waive")
def test_criterion_is_waived_by_its_id(world: World) -> None:
    story_id = world.create()
    url = f"{STORIES}/{story_id}"
    told = world.post(f"{url}/criteria/ac-1/waive", {"reason": WHY})
    first, *others = told["criteria"]
    assert (first["ac_id"], first["tests"], first["is_settled"]) == ("ac-1", [], True)
    assert first["waived_by"].startswith("user:")
    assert not any(one["is_settled"] for one in others)
    world.send("POST", f"{url}/criteria/ac-99/waive", {"reason": WHY}, status=404)
    world.post(f"{url}/cancel", {"reason": WHY})


@pytest.mark.door("POST /api/planner/stories/{story_id}/dimensions/{dimension}/waive")
def test_dimension_is_waived_by_its_name_once_something_was_measured(world: World) -> None:
    story_id = world.create()
    url = f"{STORIES}/{story_id}"
    world.send("POST", f"{url}/dimensions/lint/waive", {"reason": WHY}, status=409)
    world.send("POST", f"{url}/dimensions/build/waive", {"reason": WHY}, status=422)
    world.start(story_id)
    world.granted(story_id, "approve_scope")
    world.post(f"{url}/dimensions/lint/waive", {"reason": WHY, "days": 2})
    events = world.get("/api/events", params={"stream": f"story:{story_id}", "limit": 200})["items"]
    assert [one["body"]["dimension"] for one in events if one["type"] == "DimensionWaived"] == ["lint"]
    world.post(f"{url}/cancel", {"reason": WHY})
