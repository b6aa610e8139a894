"""Commands on the fleet itself: its parts, audit, graph, sandbox, models and clusters."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fleet.kernel.ids import StreamId
from fleet.log.port import Failure
from tests.support.world import World

pytestmark = pytest.mark.timeout(600)


@pytest.mark.door("fleet up", "fleet status", "fleet doctor")
def test_fleet_that_is_up_says_that_all_of_it_is_well(world: World) -> None:
    status = world.process("status").ok()
    assert {p["state"] for p in status["parts"]} == {"ok"}
    assert {a["state"] for a in status["actors"]} == {"running"}
    checks = {c["name"]: c["ok"] for c in world.process("doctor").ok()["checks"]}
    assert all(checks.values()), checks
    again = world.process("up", "--detach")
    assert (again.code, again.result["api"]) == (0, str(world.client.base_url).rstrip("/"))


@pytest.mark.door("fleet down")
def test_fleet_of_another_home_is_down_already(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The fleet of all doors is stopped by this command when the last test is over.
    monkeypatch.setenv("FLEET_HOME", str(tmp_path))
    assert world.fleet("down").ok() == {"stopped": False}


@pytest.mark.door("fleet pause", "fleet unpause")
def test_fleet_is_held_back_and_goes_on(world: World) -> None:
    try:
        assert world.fleet("pause", "--reason", "a break for lunch").ok()["is_paused"] is True
        assert world.get("/api/fleet")["is_paused"] is True
    finally:
        assert world.fleet("unpause", "--note", "lunch is over").ok()["is_paused"] is False


@pytest.mark.door("fleet audit verify", "fleet audit export", "fleet audit proof", "fleet audit check-proof")
def test_log_is_verified_and_an_event_proven_elsewhere(world: World, tmp_path: Path) -> None:
    story_id = world.create()

    def proof() -> bool:
        return world.fleet("audit", "proof", story_id, "1", "--out", str(tmp_path / "proof")).code == 0

    # The notary signs once a minute at least, and sooner after a quiet moment.
    world.wait(proof)
    found = world.fleet("audit", "check-proof", str(tmp_path / "proof")).ok()
    assert (found["ok"], found["stream"], found["type"]) == (True, f"story:{story_id}", "StoryCreated")
    verified = world.fleet("audit", "verify").ok()
    assert (verified["ok"], verified["findings"]) == (True, [])
    exported = world.fleet("audit", "export", "--out", str(tmp_path / "kept")).ok()
    assert exported["checkpoints"] >= 1
    assert (tmp_path / "kept" / "notary.pub").read_text().strip().startswith("swe-fleet/log/")


@pytest.mark.door("fleet audit rotate-key", "fleet audit access")
def test_notary_gets_a_new_key_and_nobody_used_a_secret(world: World) -> None:
    rotated = world.fleet("audit", "rotate-key").ok()
    assert rotated["retiring"] != rotated["successor"]
    world.fleet("audit", "verify").ok()
    assert world.fleet("audit", "access", "--secret", "nobody-has-this").ok()["accesses"] == []


@pytest.mark.door("fleet graph status", "fleet graph rebuild")
def test_graph_is_built_anew_and_is_the_same(world: World) -> None:
    world.create()
    world.wait(lambda: world.fleet("graph", "status").ok()["lag_total"] == 0)
    assert world.fleet("graph", "rebuild").ok()["comparison"] == "equal"


@pytest.mark.door("fleet dlq list", "fleet dlq retry")
def test_work_that_was_set_aside_is_tried_again(world: World) -> None:
    letter = world.set_aside(
        Failure("projector", StreamId("story:st-nobody"), 7, code="log_corrupted", reason="poison")
    )
    assert letter in [each["letter_id"] for each in world.fleet("dlq", "list").ok()["letters"]]
    world.fleet("dlq", "retry", letter).ok()
    assert letter not in [each["letter_id"] for each in world.fleet("dlq", "list").ok()["letters"]]


@pytest.mark.door("fleet sandbox check", "fleet sandbox exec")
def test_command_runs_in_the_sandbox(world: World, tmp_path: Path) -> None:
    assert world.fleet("sandbox", "check").ok()["sandbox"]["status"] == "ok"
    (tmp_path / "work").mkdir()
    program = "import os; open('made.txt', 'w').write(str(os.getuid()))"
    done = world.fleet(
        "sandbox", "exec", "--workspace", str(tmp_path / "work"), "--keep", "--", "python", "-c", program
    )
    assert (done.ok()["result"]["status"], (tmp_path / "work" / "made.txt").read_text()) == ("passed", "1000")


@pytest.mark.door("fleet models probe")
def test_engine_is_probed_and_its_strategy_follows(world: World) -> None:
    said = world.fleet("models", "probe", "openai", "--window", "4000").ok()
    # The team's server says `hello` to whatever it does not know.
    assert (said["engine_id"], said["text_calls"], said["facts"]["right"]) == ("openai", {"right": 0, "of": 6}, 0)
    assert (said["strategy"], said["configured"]) == ("draft", "auto")
    assert said["reason"] == "its window is 0 tokens, and a session needs 24000"
    again = world.fleet("models", "probe", "mock")
    assert again.code == 2
    assert "has no model behind it that could be probed" in again.err


@pytest.mark.door("fleet models list", "fleet deploy list")
def test_engines_and_environments_are_listed(world: World) -> None:
    engines = {m["engine_id"]: m for m in world.fleet("models", "list").ok()["models"]}
    assert (engines["openai"]["runs"], engines["ollama"]["answers"]) == (world.model_url, False)
    assert isinstance(world.fleet("deploy", "list").ok()["environments"], list)


@pytest.mark.door("fleet cluster render")
def test_cluster_is_rendered(world: World) -> None:
    rendered = world.fleet("cluster", "render", "small").ok()
    assert rendered["objects"] == len([d for d in yaml.safe_load_all(rendered["yaml"]) if d])


@pytest.mark.door("fleet submit")
def test_story_runs_as_a_job_of_the_fleet_that_is_up(world: World) -> None:
    story = str(world.story_file(title="As an author, I want a slug from a job"))
    done = world.process("submit", story, "--repo", str(world.repository()), "--model", "openai", "--yes", "po,qa")
    assert (done.ok()["outcome"], done.result["verdict"]) == ("done", "pass"), done.err[-3000:]
