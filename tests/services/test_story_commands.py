"""The commands on stories as a person types them, on a team that is up: real Redis, real sandbox.

Source: docs/design/design.md, section 10.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from fleet.cli import submitted
from fleet.cli.cluster.submit_plan import PLAN_FILE, SubmittedPlan
from fleet.cli.local.local_principals import local_principal
from fleet.cli.story.story_file import read_story
from tests.support.served_team import ServedTeam, served_team
from tests.support.stores import own_database
from tests.support.team_models import EveryEngine, demo_repository, demo_story, scripted

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
REPLIES = f"recorded:{DEMO / 'replies'}"
OTHER = {
    "title": "As a reader, I want a word count of an article",
    "description": "Add a function count_words(text) to textkit/words.py that counts runs of letters and digits.",
    "acceptance_criteria": ['Given the text "one two", when count_words is called, then the result is 2'],
    "constraints": {"paths": ["textkit/words.py"]},
    "rigor": "L1",
}
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[ServedTeam]:
    with served_team(tmp_path_factory.mktemp("served") / "home", own_database(redis_url, 11)) as found:
        yield found


@pytest.fixture
def story_file(tmp_path: Path) -> Path:
    path = tmp_path / "story.yaml"
    path.write_text(yaml.safe_dump(OTHER))
    return path


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_story_runs_on_a_fleet_that_is_up_from_its_file_to_a_branch_and_a_report(fleet: ServedTeam, tmp_path: Path):
    repo = demo_repository(tmp_path)
    story = str(DEMO / "story.yaml")
    result = fleet("run", story, "--repo", str(repo), "--model", REPLIES, "--yes", "po,qa", "--json")
    done = said(result)
    assert (done["outcome"], done["verdict"]) == ("done", "pass")
    assert "council decided in" in result.stderr
    story_id = done["story_id"]
    assert Path(done["report"]).read_text().startswith("#")
    shown = said(fleet("story", "show", story_id, "--json"))
    assert (shown["state"], shown["version"]) == ("DONE", len(fleet("events", story_id, "--json").stdout.splitlines()))
    for form, start in (("md", "#"), ("html", "<!"), ("json", "{")):
        assert fleet("report", story_id, "--format", form).stdout.lstrip().startswith(start)
    first = fleet("replay", story_id, "--json")
    assert first.stdout == fleet("replay", story_id, "--json").stdout
    assert said(first)["versions"][-1]["owed"] == []
    again = fleet("resume", story_id, "--json")
    assert said(again)["outcome"] == "done"
    assert_over_story_keeps_its_checkpoints(fleet, story_id)


def assert_over_story_keeps_its_checkpoints(fleet: ServedTeam, story_id: str) -> None:
    listed = said(fleet("story", "checkpoints", story_id, "--json"))
    first, last = listed["checkpoints"][0], listed["checkpoints"][-1]
    assert (first["is_present"], last["is_present"], listed["restoring"]) == (False, True, None)
    assert set(first["task_states"].values()) == {"done"}
    assert first["checkpoint_id"] in fleet("story", "checkpoints", story_id).stdout
    refused = fleet(
        "story", "restore", story_id, "--to", first["checkpoint_id"], "--reason", "it was better then", "--json"
    )
    assert (refused.exit_code, "is over" in refused.stderr) == (2, True), refused.output


def test_dirty_repository_gets_a_warning_and_is_left_alone(fleet: ServedTeam, tmp_path: Path):
    repo = demo_repository(tmp_path)
    (repo / "notes.txt").write_text("mine")
    story = tmp_path / "dirty.yaml"
    story.write_text(yaml.safe_dump(OTHER | {"title": "As a reader, I want to see my own files kept"}))
    result = fleet("run", str(story), "--repo", str(repo), "--model", REPLIES, "--yes", "po", "--json")
    assert result.exit_code == 4, result.output
    assert "warning" in result.stderr
    assert "no recorded reply" in result.stderr + result.stdout
    assert (repo / "notes.txt").read_text() == "mine"


@pytest.mark.rule("AP-2")
def test_story_is_created_listed_shown_and_put_to_its_gate(fleet: ServedTeam, story_file: Path, tmp_path: Path):
    created = said(fleet("story", "create", str(story_file), "--json"))
    story_id = created["story_id"]
    assert created["state"] == "DRAFT"
    assert story_id in fleet("story", "list").stdout
    assert story_id in [line["story_id"] for line in said(fleet("story", "list", "--json"))["stories"]]
    text = fleet("story", "show", story_id).stdout
    assert "DRAFT" in text
    told = fleet("events", story_id).stdout
    assert "StoryCreated" in told
    assert fleet("events", story_id, "--after", "2").stdout in told
    assert f"start the story: `fleet story start {story_id}" in " ".join(text.split())
    # Whoever cannot start it changes nothing.
    for wrong, says in ((["--repo", "nowhere"], "is no directory"), (["--budget", "tokens=many"], "tokens")):
        refused = fleet("story", "start", story_id, "--model", REPLIES, *wrong)
        assert (refused.exit_code, says in refused.stderr, "Traceback" in refused.stderr) == (2, True, False)
    assert fleet("story", "show", story_id).stdout == text
    repo = demo_repository(tmp_path)
    waiting = fleet("story", "start", story_id, "--repo", str(repo), "--model", REPLIES, "--json")
    assert (waiting.exit_code, "gate approve_scope waits for role po" in waiting.stderr) == (3, True), waiting.output
    assert json.loads(waiting.stdout.splitlines()[-1])["story_id"] == story_id
    assert "fleet story start" not in fleet("story", "show", story_id).stdout
    approved = said(fleet("story", "approve", story_id, "approve_scope", "--notes", "as discussed", "--json"))
    assert approved["state"] == "DESIGN"


def test_run_without_delegates_waits_at_the_first_gate_until_a_person_decides(fleet: ServedTeam, tmp_path: Path):
    repo = demo_repository(tmp_path)
    story = tmp_path / "gated.yaml"
    story.write_text(yaml.safe_dump(OTHER | {"title": "As a reader, I want a gate that a person decides"}))
    waiting = fleet("run", str(story), "--repo", str(repo), "--model", REPLIES, "--json")
    assert waiting.exit_code == 3, waiting.output
    story_id = json.loads(waiting.stdout.splitlines()[-1])["story_id"]
    refused = fleet("story", "reject", story_id, "approve_scope", "--reason", "no", "--json")
    assert refused.exit_code == 2
    rejected = said(
        fleet("story", "reject", story_id, "approve_scope", "--reason", "The text says too little.", "--json")
    )
    assert rejected["state"] == "DRAFT"
    again = fleet("story", "approve", story_id, "approve_scope", "--json")
    assert again.exit_code == 2, again.output
    assert "Traceback" not in again.stderr
    wrong = fleet("story", "revoke", story_id, "ap-nothing-1", "--reason", "it was a mistake", "--json")
    assert (wrong.exit_code, "ap-nothing-1" in wrong.stderr) == (2, True), wrong.output


def test_nobody_used_a_secret_yet_is_an_empty_list(fleet: ServedTeam):
    assert said(fleet("audit", "access", "--json")) == {"accesses": [], "read": 0}
    assert "no use of a secret" in fleet("audit", "access").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["story", "show", "st-nobody"], 2, "st-nobody"),
        (["story", "show", "Not An Id"], 2, "is no story id"),
        (["events", "st-nobody"], 2, "st-nobody"),
        (["report", "st-nobody"], 2, "st-nobody"),
        (["report", "st-nobody", "--format", "pdf"], 2, "pdf"),
        (["resume", "st-nobody"], 2, "st-nobody"),
        (["story", "start", "st-nobody", "--repo", str(ROOT), "--model", REPLIES], 2, "st-nobody"),
        (["replay", "st-nobody"], 2, "st-nobody"),
        (["story", "approve", "st-nobody", "approve_scope"], 2, "st-nobody"),
        (["story", "checkpoints", "st-nobody"], 2, "st-nobody"),
        (["story", "restore", "st-nobody", "--to", "rp-1", "--reason", "it was a mistake"], 2, "st-nobody"),
        (["story", "restore", "st-nobody", "--reason", "it was a mistake"], 2, "--to"),
        (["story", "revoke", "st-nobody", "ap-1", "--reason", "it was a mistake"], 2, "st-nobody"),
        (["run", "--goal", "A word count", "--repo", "https://me:tok@forge.example/a"], 2, "no address"),
    ],
)
def test_unknown_story_or_form_is_one_line_and_exit_code_two(
    fleet: ServedTeam, arguments: list[str], code: int, says: str
):
    result = fleet(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_recording_needs_a_fleet_of_its_own(fleet: ServedTeam, story_file: Path, tmp_path: Path):
    repo = demo_repository(tmp_path)
    asked = ["run", str(story_file), "--repo", str(repo), "--model", REPLIES, "--record", str(tmp_path / "rec")]
    result = fleet(*asked)
    assert (result.exit_code, "fleet down" in result.stderr) == (2, True)


def test_parked_story_is_resumed_and_says_why_it_parks_again(tmp_path: Path, redis_url: str):
    repo = demo_repository(tmp_path)
    story = tmp_path / "demo.yaml"
    story.write_text(yaml.safe_dump(demo_story()))
    silent = EveryEngine(scripted(propose="nothing that is JSON"))
    with served_team(tmp_path / "home", own_database(redis_url, 12), models=silent) as fleet:
        parked = fleet("run", str(story), "--repo", str(repo), "--model", REPLIES, "--yes", "po,qa", "--json")
        assert parked.exit_code == 4, parked.output
        done = json.loads(parked.stdout.splitlines()[-1])
        assert done["outcome"] == "parked"
        assert "parked" in fleet("story", "list").stdout
        short = fleet("resume", done["story_id"], "--note", "go on")
        assert (short.exit_code, "write 10 to 4,000" in short.stderr) == (2, True), short.output
        # A refused note bars no better one, and none: the story may still go on.
        again = fleet("resume", done["story_id"], "--note", "try once more", "--json")
        assert again.exit_code == 4
        assert "StoryUnparked" in fleet("events", done["story_id"]).stdout


@pytest.mark.wide
@pytest.mark.rule("PL-47")
def test_story_that_waits_for_a_person_goes_back_to_a_checkpoint_and_on_to_its_end(tmp_path: Path, redis_url: str):
    repo, named = demo_repository(tmp_path), tmp_path / "back.yaml"
    named.write_text(yaml.safe_dump(demo_story()))
    asked = ["run", str(named), "--repo", str(repo), "--model", REPLIES, "--yes", "qa", "--json"]
    with served_team(tmp_path / "home", own_database(redis_url, 12), models=EveryEngine(scripted())) as fleet:
        waiting = fleet(*asked)
        assert waiting.exit_code == 3, waiting.output
        story_id = json.loads(waiting.stdout.splitlines()[-1])["story_id"]
        while "docs_ready: requested" not in (shown := fleet("story", "show", story_id).stdout):
            gate = next(g for g in ("approve_scope", "approve_design", "task_acceptance") if f"{g}: requested" in shown)
            said(fleet("story", "approve", story_id, gate, "--json"))
            asked_next = fleet("resume", story_id, "--json")
            assert asked_next.exit_code == 3, asked_next.output
        first = said(fleet("story", "checkpoints", story_id, "--json"))["checkpoints"][0]
        to = ["story", "restore", story_id, "--to"]
        assert "rp-none" in fleet(*to, "rp-none", "--reason", "it was a mistake").stderr
        assert "10 to 4,000" in fleet(*to, str(first["version"]), "--reason", "no").stderr
        back = fleet(*to, str(first["version"]), "--reason", "the documents say too little")
        assert (back.exit_code, "goes back" in back.stdout) == (0, True), back.output
        assert fleet("resume", story_id, "--json").exit_code == 3
        events = fleet("events", story_id).stdout
        assert "RestoreRequested" in events
        assert f"checkpoint {first['checkpoint_id']} restored" in events
        said(fleet("story", "approve", story_id, "docs_ready", "--json"))
        assert said(fleet("resume", story_id, "--json"))["outcome"] == "done"


def test_second_up_says_that_a_fleet_is_up_and_where(fleet: ServedTeam):
    result = fleet("up", "--json")
    assert said(result)["home"] == str(fleet.home)
    assert "is up already" in result.stderr


def test_doctor_names_every_check_and_its_mend(fleet: ServedTeam):
    told, machine = fleet("doctor"), fleet("doctor", "--json")
    checks = json.loads(machine.stdout.splitlines()[-1])["checks"]
    assert {"sandbox", "python"} <= {check["name"] for check in checks}
    assert told.exit_code == machine.exit_code == (0 if all(check["ok"] for check in checks) else 5)
    assert all(check["mend"] in told.stdout for check in checks)


def test_step_that_is_not_unknown_cannot_be_resolved(fleet: ServedTeam, tmp_path: Path):
    story = tmp_path / "resolved.yaml"
    story.write_text(yaml.safe_dump(OTHER | {"title": "As a reader, I want nothing to be resolved twice"}))
    story_id = said(fleet("story", "create", str(story), "--json"))["story_id"]
    asked = ["story", "resolve", story_id, f"{story_id}/deploy", "--outcome", "happened", "--note", "I looked there."]
    result = fleet(*asked)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


def job(fleet: ServedTeam, folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of what `fleet submit` runs on the cluster, on the plan in this folder."""
    monkeypatch.setenv("FLEET_HOME", str(fleet.home))
    monkeypatch.delenv("FLEET_CONFIG", raising=False)
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        submitted.main()
    return ended.value.code


def test_submitted_story_waits_for_a_person_as_one_that_is_run(
    fleet: ServedTeam,
    story_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    story = read_story(story_file, None, rigor=None) | {"title": "As a reader, I want a count of words I submit"}
    plan = SubmittedPlan(
        story=story, repo=str(demo_repository(tmp_path / "at")), principal=local_principal(), model=REPLIES
    )
    told = [waiting_job(fleet, tmp_path, plan.model_copy(update={"submission": "a"}), monkeypatch, capsys)]
    assert told[0]["outcome"] == "waiting"
    # Ray runs the job once more, and then its owner submits the same plan again: the story is the same.
    for submission in ("a", "b"):
        again = plan.model_copy(update={"submission": submission})
        told.append(waiting_job(fleet, tmp_path, again, monkeypatch, capsys))
    assert {(one["story_id"], one["version"]) for one in told} == {(told[0]["story_id"], told[0]["version"])}
    # One that is closed is run anew.
    cancelled = said(fleet("story", "cancel", told[0]["story_id"], "--reason", "not wanted any more", "--json"))
    assert cancelled["story_id"] == told[0]["story_id"]
    anew = waiting_job(fleet, tmp_path, plan.model_copy(update={"submission": "c"}), monkeypatch, capsys)
    assert anew["story_id"] == f"{told[0]['story_id']}-2"


def waiting_job(
    fleet: ServedTeam,
    folder: Path,
    plan: SubmittedPlan,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    (folder / PLAN_FILE).write_text(plan.model_dump_json())
    assert job(fleet, folder, monkeypatch) == 3
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_submitted_plan_of_another_version_is_refused_in_one_line(
    fleet: ServedTeam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / PLAN_FILE).write_text('{"story": {}, "further": 1}')
    assert job(fleet, tmp_path, monkeypatch) == 2
    assert "is no plan of this version of the fleet" in capsys.readouterr().err
