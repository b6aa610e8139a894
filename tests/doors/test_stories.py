"""Commands on stories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.team_models import demo_story
from tests.support.world import World

pytestmark = pytest.mark.timeout(600)
TITLE = demo_story()["title"]


@pytest.mark.door("fleet story score", "fleet story refine", "fleet story suggest")
def test_story_file_is_scored_and_refined_and_one_is_suggested(world: World) -> None:
    story = str(world.story_file())
    scored = world.fleet("story", "score", story).ok()
    assert (scored["score"], scored["dor_ok"]) == (100, True)
    assert world.fleet("story", "refine", story).ok()["title"] == TITLE
    suggested = world.fleet("story", "suggest", "Convert CSV files to JSON").ok()
    assert "Convert CSV files to JSON" in suggested["title"]
    assert suggested["questions"]


@pytest.mark.door("fleet story create", "fleet story show", "fleet story list", "fleet budget show")
def test_created_story_is_shown_and_listed(world: World) -> None:
    created = world.fleet("story", "create", str(world.story_file(priority=2))).ok()
    shown = world.fleet("story", "show", created["story_id"]).ok()
    assert (shown["title"], shown["state"], shown["priority"], shown["is_started"]) == (TITLE, "DRAFT", 2, False)
    listed = world.fleet("story", "list").ok()["stories"]
    assert [s["version"] for s in listed if s["story_id"] == created["story_id"]] == [shown["version"]]
    spent = {b["quantity"]: b["spent"] for b in world.fleet("budget", "show", created["story_id"]).ok()["budgets"]}
    assert spent["tokens"] == 0


@pytest.mark.door(
    "fleet story start",
    "fleet story pause",
    "fleet story unpause",
    "fleet story reject",
    "fleet story ask",
    "fleet story approve",
    "fleet story cancel",
    "fleet budget set",
)
def test_story_waits_for_its_gate_is_turned_down_asked_again_granted_and_given_up(world: World) -> None:
    story_id = world.create()
    repo = str(world.repository())
    waiting = world.fleet("story", "start", story_id, "--repo", repo, "--model", "openai")
    assert (waiting.code, waiting.result["outcome"], waiting.result["state"]) == (3, "waiting", "DRAFT")
    world.fleet("story", "pause", story_id, "--reason", "a break for lunch").ok()
    assert world.show(story_id)["is_paused"] is True
    world.fleet("story", "unpause", story_id, "--note", "lunch is over").ok()
    world.fleet("story", "reject", story_id, "approve_scope", "--reason", "this is not what I meant").ok()
    world.fleet("story", "ask", story_id, "approve_scope").ok()
    assert world.fleet("story", "approve", story_id, "approve_scope").ok()["state"] == "DESIGN"
    world.fleet("budget", "set", story_id, "--tokens", "100000", "--note", "more than enough").ok()
    budgets = world.fleet("budget", "show", story_id).ok()["budgets"]
    assert {b["limit"] for b in budgets if (b["scope"], b["quantity"]) == ("story", "tokens")} == {100_000}
    cancelled = world.fleet("story", "cancel", story_id, "--reason", "nobody needs it any more").ok()
    assert cancelled["disposition"] == "cancelled"


@pytest.mark.door("fleet story back", "fleet story restore", "fleet story checkpoints", "fleet resume")
def test_story_goes_back_is_built_again_and_is_set_back_to_its_first_tree(world: World) -> None:
    story_id = world.create()
    repo = str(world.repository())
    started = world.fleet("story", "start", story_id, "--repo", repo, "--model", "openai", "--yes", "po")
    assert (started.code, started.result["state"]) == (3, "TEST"), started.err
    (first,) = world.fleet("story", "checkpoints", story_id).ok()["checkpoints"]
    reason = "please do it again, more exact"
    assert world.fleet("story", "back", story_id, "reject_test", "--reason", reason).ok()["state"] == "BUILD"
    again = world.fleet("resume", story_id)
    assert (again.code, again.result["state"]) == (3, "TEST"), again.err
    world.fleet("story", "restore", story_id, "--to", first["checkpoint_id"], "--reason", reason).ok()
    restored = world.fleet("story", "checkpoints", story_id).ok()
    assert restored["restoring"] or restored["checkpoints"][-1]["tree"] == first["tree"]
    world.fleet("story", "cancel", story_id, "--reason", "nobody needs it any more").ok()


def test_parked_story_goes_on_once_its_budget_is_raised(world: World) -> None:
    story_id = world.create()
    start = ("story", "start", story_id, "--repo", str(world.repository()), "--model", "openai", "--yes", "po,qa")
    parked = world.fleet(*start, "--budget", "tokens=40")
    assert (parked.code, world.show(story_id)["disposition"]) == (4, "parked")
    world.fleet("budget", "set", story_id, "--tokens", "100000").ok()
    done = world.fleet("resume", story_id, "--note", "there is more to spend now").ok()
    assert (done["outcome"], done["state"], done["branch"]) == ("done", "DONE", f"fleet/{story_id}")


@pytest.mark.door("fleet run", "fleet events", "fleet report", "fleet replay", "fleet export", "fleet graph ask")
def test_story_that_is_done_can_be_read_replayed_and_exported(world: World, tmp_path: Path) -> None:
    run = ("run", str(world.story_file(title="As an author, I want a slug for the last time")), "--repo")
    result = world.fleet(*run, str(world.repository()), "--model", "openai", "--yes", "po,qa").ok()
    assert (result["outcome"], result["verdict"], result["tests"]["unit"]["failed"]) == ("done", "pass", 0)
    story_id = result["story_id"]
    events = [json.loads(line) for line in world.fleet("events", story_id).out.splitlines()]
    assert [e["version"] for e in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("StoryCreated", "StoryClosed")
    assert world.fleet("report", story_id).out.startswith("# ")
    (last,) = world.fleet("replay", story_id).ok()["versions"]
    assert (last["version"], last["owed"], last["state"]) == (len(events), [], "DONE")
    exported = world.fleet("export", "--parquet", str(tmp_path / "tables"), "--story", story_id).ok()
    assert (exported["events"], exported["missing_blobs"]) == (len(events), 0)
    decided = world.wait(lambda: world.fleet("graph", "ask", "critical_decisions", f"story_id={story_id}").ok()["rows"])
    assert decided


@pytest.mark.door("fleet story resolve", stand_in="the step's records: as shipped every call may be repeated")
def test_person_says_what_came_of_a_step(world: World) -> None:
    story_id = world.create()
    step_id = world.left_unknown(story_id)
    arguments = ("story", "resolve", story_id, step_id, "--outcome")
    wrong = world.fleet(*arguments, "perhaps", "--note", "nobody knows")
    assert wrong.code == 2
    world.fleet(*arguments, "not_happened", "--note", "the host has no trace of it").ok()
    (event,) = world.get("/api/audit/events", params={"stream": story_id, "type": "StepResolved"})["items"]
    assert (event["body"]["step_id"], event["body"]["outcome"]) == (step_id, "not_happened")
    again = world.fleet(*arguments, "happened", "--note", "it was there after all")
    assert again.code == 2


@pytest.mark.door("fleet story archive")
def test_archived_story_is_replayed_from_its_file(world: World) -> None:
    story_id = world.create()
    world.fleet("story", "cancel", story_id, "--reason", "nobody needs it any more").ok()
    before = world.fleet("replay", story_id).ok()["versions"][-1]["state_digest"]
    archived = world.fleet("story", "archive", story_id).ok()
    again = world.fleet("replay", "--from", archived["file"], "--at", str(archived["last_version"] - 1)).ok()
    assert again["versions"][-1]["state_digest"] == before


@pytest.mark.door("fleet story waive")
def test_person_lets_a_criterion_pass_by_its_name(world: World) -> None:
    story_id = world.create()
    world.fleet("story", "waive", story_id, "ac-2", "--reason", "it was looked at by hand").ok()
    criteria = {c["ac_id"]: c["waived_by"] for c in world.get(f"/api/planner/stories/{story_id}")["criteria"]}
    assert (criteria["ac-1"], criteria["ac-2"]) == (None, "user:root")
    again = world.fleet("story", "waive", story_id, "ac-2", "--reason", "it was looked at by hand")
    assert (again.code != 0, "waived by user:root" in again.err) == (True, True)
    world.fleet("story", "cancel", story_id, "--reason", "nobody needs it any more").ok()
