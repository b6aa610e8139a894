"""The coach over HTTP: findings, proposals applied with one click, stories from one line (AP-67, SC-30..SC-51)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.tool_front import ARCHIE, DEV, RITA, ROOT, ToolFront, keyed, tool_front

STORIES = "/api/planner/stories"
VAGUE = {
    "title": "Export the invoices maybe",
    "description": "Several people ask for it.",
    "acceptance_criteria": ["It is fast"],
}


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    async with tool_front() as front:
        yield front


async def _created(at: ToolFront, text: dict[str, Any] = VAGUE) -> str:
    response = await at.client.post(STORIES, json=text, headers=keyed(500, ROOT))
    assert response.status_code == 201, response.text
    return f"{STORIES}/{response.json()['story_id']}"


@pytest.mark.rule("AP-67", "SC-32", "SC-30")
async def test_score_of_a_draft_is_told_and_not_recorded(at: ToolFront):
    before = await at.world.log.streams()
    response = await at.client.post("/api/stories/score", json=VAGUE | {"rigor": "L3"}, headers=DEV)
    body = response.json()
    assert (response.status_code, body["threshold"], body["dor_ok"]) == (200, 90, False)
    assert body["score"] == 100 - sum(f["points_lost"] for f in body["findings"])
    assert await at.world.log.streams() == before
    wrong = await at.client.post("/api/stories/score", json=VAGUE | {"rigor": "L7"}, headers=DEV)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")


@pytest.mark.rule("AP-67", "SC-50", "SC-51")
async def test_story_from_one_line_keeps_its_words_and_asks_for_the_rest(at: ToolFront):
    goal = "Readers can mark an article for later"
    body = (await at.client.post("/api/stories/suggest", json={"goal": goal}, headers=DEV)).json()
    assert goal in (body["title"], body["description"])
    assert body["source"] == "template"
    assert body["questions"]
    for bad in ("", "two\nlines here", "x" * 301):
        response = await at.client.post("/api/stories/suggest", json={"goal": bad}, headers=DEV)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


def _is_subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(c in rest for c in part)


@pytest.mark.rule("SC-40", "SC-41")
async def test_one_proposal_is_applied_and_no_word_of_the_author_is_lost(at: ToolFront):
    url = await _created(at)
    advice = (await at.client.get(f"{url}/advice", headers=ARCHIE)).json()
    keys = [p["key"] for p in advice["proposals"]]
    assert "description/clarify" in keys
    assert "acceptance_criteria/1/template" in keys
    assert advice["questions"]
    response = await at.client.post(f"{url}/coach", json={"proposals": ["description/clarify"]}, headers=keyed(1, ROOT))
    after = response.json()
    assert response.status_code == 200, response.text
    assert (after["title"], after["description"]) == (VAGUE["title"], "Several [CLARIFY] people ask for it.")
    assert [c["text"] for c in after["acceptance_criteria"]] == ["It is fast"]
    # What was applied is not offered again, and the same click does it once.
    left = (await at.client.get(f"{url}/advice", headers=ARCHIE)).json()
    assert "description/clarify" not in [p["key"] for p in left["proposals"]]
    again = await at.client.post(f"{url}/coach", json={"proposals": ["description/clarify"]}, headers=keyed(1, ROOT))
    assert again.json()["version"] == after["version"]


@pytest.mark.rule("SC-41", "SC-43")
async def test_all_proposals_together_keep_every_character_and_the_ids_of_criteria(at: ToolFront):
    url = await _created(at)
    before = (await at.client.get(url, headers=ARCHIE)).json()
    keys = [p["key"] for p in (await at.client.get(f"{url}/advice", headers=ARCHIE)).json()["proposals"]]
    after = (await at.client.post(f"{url}/coach", json={"proposals": keys}, headers=keyed(2, ROOT))).json()
    assert _is_subsequence(before["title"], after["title"])
    assert _is_subsequence(before["description"], after["description"])
    assert after["acceptance_criteria"][0]["ac_id"] == before["acceptance_criteria"][0]["ac_id"]
    assert len(after["acceptance_criteria"]) == 2
    assert (await at.client.get(f"{url}/advice", headers=ARCHIE)).json()["proposals"] == []


async def test_proposal_that_is_not_offered_and_caller_who_is_no_po_change_nothing(at: ToolFront):
    url = await _created(at)
    response = await at.client.post(f"{url}/coach", json={"proposals": ["title/shorter"]}, headers=keyed(3, ROOT))
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    assert "description/clarify" in response.json()["allowed"]
    response = await at.client.post(f"{url}/coach", json={"proposals": ["description/clarify"]}, headers=keyed(3, RITA))
    assert response.status_code == 403
