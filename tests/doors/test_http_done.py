"""Doors that tell of a story what its work left; they read one story that ended."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.support.world import STORIES, World

pytestmark = pytest.mark.timeout(600)


def _get(world: World, path: str, /, **params: Any) -> Any:
    return world.get(f"{STORIES}/{world.done}/{path}", params=params)


@pytest.mark.door("GET /api/planner/stories/{story_id}/plan", "GET /api/planner/stories/{story_id}/tasks")
def test_plan_of_a_finished_story_is_done(world: World) -> None:
    plan = _get(world, "plan")
    (version,) = plan["versions"]
    assert (version["plan_id"], version["status"], version["fits_text"]) == (plan["plan_id"], "ADOPTED", True)
    (task,) = plan["tasks"]
    assert (task["state"], task["paths"], plan["layers"]) == ("done", ["textkit/words.py"], [[task["task_id"]]])
    assert _get(world, "tasks")["items"] == [task]
    assert task["claimed_by"] is None


@pytest.mark.door(
    "GET /api/planner/stories/{story_id}/files",
    "GET /api/planner/stories/{story_id}/file",
    "GET /api/planner/stories/{story_id}/diff",
)
def test_code_of_a_story_is_shown_as_it_was_published(world: World) -> None:
    entry = _get(world, "file", path="textkit/words.py")
    shown = ["git", "show", f"fleet/{world.done}:textkit/words.py"]
    published = subprocess.run(shown, cwd=world.done_repo, capture_output=True, text=True, check=True).stdout
    assert entry["text"] == published
    assert "def slugify" in published
    files, diff = _get(world, "files"), _get(world, "diff")
    assert files["tree"] == diff["new"]
    assert {"README.md", "textkit/words.py"} <= {file["path"] for file in files["items"]}
    changed = {file["path"]: file for file in diff["files"]}
    assert changed["textkit/words.py"]["change"] == "modified"
    assert "+def slugify" in changed["textkit/words.py"]["patch"]
    assert diff["added"] == sum(file["added"] for file in diff["files"])


@pytest.mark.door(
    "GET /api/planner/stories/{story_id}/scores",
    "GET /api/planner/stories/{story_id}/workspace-reports",
    "GET /api/planner/stories/{story_id}/tests",
    "GET /api/planner/stories/{story_id}/blobs/{digest}",
)
def test_measurements_of_a_story_are_told_in_order(world: World) -> None:
    scores, reports, tests = (_get(world, path) for path in ("scores", "workspace-reports", "tests"))
    assert (scores["items"][-1]["verdict"], scores["items"][-1]["complete"]) == ("pass", True)
    runs = [report["run_id"] for report in reports["items"]]
    assert [score["run_id"] for score in scores["items"]] == runs
    assert [report["version"] for report in tests["reports"]] == [report["version"] for report in reports["items"]]
    whole = _get(world, f"blobs/{reports['items'][-1]['report_digest']}")
    assert (json.loads(whole.content)["report"]["complete"], whole.headers["x-content-type-options"]) == (
        True,
        "nosniff",
    )
    path = next(each["path"] for each in _get(world, "files")["items"] if each["path"].endswith(".py"))
    file = _get(world, "file", path=path)
    assert _get(world, f"blobs/{file['blob']}").text == file["text"]
    written = next(row for row in tests["items"] if "slugify" in row["test_id"])
    assert (written["results"][0], written["results"][-1], written["is_flaky"]) == (None, "passed", False)


@pytest.mark.door(
    "GET /api/planner/stories/{story_id}/runs", "GET /api/planner/stories/{story_id}/steps/{step_id}/logs"
)
def test_lines_of_a_run_are_read(world: World) -> None:
    runs = _get(world, "runs", limit=200)["items"]
    assert (runs[0]["step_id"], runs[0]["what"], runs[0]["status"]) == ("publish", "git.push_branch", "succeeded")
    measured = next(run for run in runs if run["what"] == "tests.pipeline")
    assert (measured["exit_code"], measured["as_role"]) == (0, "qa")
    logs = world.get(measured["logs_url"])
    assert logs["is_over"]
    assert any("stage unit: passed" in line["line"] for line in logs["items"])
    assert logs["next_line"] == logs["items"][-1]["n"] + 1


@pytest.mark.door(
    "GET /api/planner/stories/{story_id}/councils", "GET /api/planner/stories/{story_id}/councils/{council_id}"
)
def test_councils_of_a_story_say_who_won(world: World) -> None:
    design, code = _get(world, "councils")["items"]
    assert [(c["output_kind"], c["status"]) for c in (design, code)] == [
        ("design", "decided"),
        ("code_patch", "decided"),
    ]
    (won,) = [candidate for candidate in code["candidates"] if candidate["won"]]
    assert (won["candidate_id"], won["gates_ok"]) == (code["winner"], True)
    page = _get(world, f"councils/{code['council_id']}")
    assert page["council"] == code
    assert page["record"]["winner_or_reason"] == code["winner"]
    assert page == world.get(f"/api/councils/{code['council_id']}")


@pytest.mark.door(
    "GET /api/planner/stories/{story_id}/timeline",
    "GET /api/planner/stories/{story_id}/report",
    "GET /api/planner/stories/{story_id}/change-request",
    "GET /api/planner/stories/{story_id}/deployments",
)
def test_story_is_told_in_words(world: World) -> None:
    timeline = _get(world, "timeline", limit=3)
    assert timeline["items"][0]["text"].startswith("Story written: ")
    behind = _get(world, "timeline", after=timeline["next_after"])["items"]
    assert behind[0]["version"] == timeline["next_after"] + 1
    report = _get(world, "report", format="md").text
    title = world.show(world.done)["title"]
    assert title in report
    assert world.done in report
    asked = _get(world, "change-request")
    assert (asked["head"], asked["title"], asked["verdict"]) == (
        f"fleet/{world.done}",
        title,
        "pass, score 100.0 at rigor L1",
    )
    assert "Add slugify to the words module (done)" in asked["body"]
    assert _get(world, "deployments") == {"environment": None, "items": [], "incidents": []}


@pytest.mark.door("GET /api/artifacts/{digest}")
def test_output_of_a_step_is_fetched(world: World) -> None:
    events = world.get("/api/events", params={"stream": world.done, "limit": 200})["items"]
    kept = [one for event in events if event["type"] == "StepFinished" for one in event["body"]["artifacts"]]
    digest = kept[0]["artifact_digest"]
    found = world.get(f"/api/artifacts/{digest}", params={"storyId": world.done})
    assert found.content
