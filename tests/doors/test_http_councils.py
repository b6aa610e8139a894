"""Doors of councils that a person asks for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.world import STORIES, World

pytestmark = pytest.mark.timeout(600)
ASK: dict[str, Any] = {
    "task_description": "Which way of folding umlauts should the slugs use?",
    "role": "architect",
    "output_kind": "text",
    "constraints": {"rubric": [{"name": "readers", "text": "Links stay readable"}]},
    "budget": {"tokens": 50_000, "wall_s": 600},
}
BACK = "other alphabets were left out"


def _line(world: World, council_id: str, **params: str) -> dict[str, Any]:
    items = world.get("/api/councils", params={"storyId": world.waits, "limit": 200, **params})["items"]
    return next((line for line in items if line["council_id"] == council_id), {})


@pytest.mark.door(
    "POST /api/councils",
    "GET /api/councils",
    "GET /api/councils/{council_id}",
    "POST /api/councils/{council_id}/reject",
)
def test_council_is_asked_read_and_sent_back(world: World) -> None:
    asked = world.post("/api/councils", ASK | {"story_id": world.waits}, status=202)
    assert (asked["status"], asked["story_id"]) == ("accepted", world.waits)
    line = world.wait(lambda: _line(world, asked["council_id"], status="COMPLETED"))
    assert (line["output_kind"], line["percent"]) == ("text", None)
    page = world.get(asked["status_url"])
    assert page["asked"]["request"]["task_description"] == ASK["task_description"]
    assert len(page["council"]["roster"]) == 3
    again = world.post(f"{asked['status_url']}/reject", {"reason": BACK}, status=202)
    assert _line(world, again["council_id"])["retry_of"] == asked["council_id"]
    rubric = world.get(again["status_url"])["asked"]["request"]["constraints"]["rubric"]
    assert rubric[-1]["text"] == BACK


@pytest.mark.door("POST /api/councils/{council_id}/cancel")
def test_council_is_ended_before_it_is_done(world: World) -> None:
    story_id = world.create()
    # Councils of a story sit once its code was measured.
    world.start(story_id)
    asked = world.post("/api/councils", ASK | {"story_id": story_id}, status=202)
    ended = world.post(f"{asked['status_url']}/cancel", {"reason": "it answered itself"})
    assert (ended["council"]["status"], ended["council"]["reason"]) == ("cancelled", "it answered itself")
    world.post(f"{STORIES}/{story_id}/cancel", {"reason": "nobody needs it any more"})
