"""The command line without a fleet: bad input is one clear line and one exit code, before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet import __version__
from fleet.cli.app import app
from fleet.cli.story.story_file import split_argument
from fleet.config.files import packaged_directory

GOOD = """
title: As an editor I want a slug for each title
description: Editors want a slug for each title so that links stay readable.
acceptance_criteria:
  - Given 'Hello World', when slugify is called, then it returns 'hello-world'
"""


class Command:
    """`fleet` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *args: str) -> Result:
        environ = {
            "FLEET_HOME": str(self.home),
            "FLEET_CONFIG": None,
            "FLEET_REDIS_URL": None,
            "NO_COLOR": "1",
            "TERM": "dumb",
        }
        return CliRunner().invoke(app, list(args), env=environ)


@pytest.fixture
def fleet(tmp_path: Path) -> Command:
    return Command(tmp_path / "home")


@pytest.fixture
def story_file(tmp_path: Path) -> Path:
    path = tmp_path / "story.yaml"
    path.write_text(GOOD)
    return path


def failed(result: Result, code: int, *, says: str) -> None:
    """One line on standard error, nothing on standard output, no traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_version_is_printed(fleet: Command):
    result = fleet("--version")
    assert (result.exit_code, result.stdout) == (0, f"fleet {__version__}\n")


@pytest.mark.parametrize("args", [["-h"], ["run", "--help"], ["story", "--help"], ["story", "create", "-h"]])
def test_help_is_there_for_every_command(fleet: Command, args: list[str]):
    result = fleet(*args)
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_help_names_every_command_of_this_version(fleet: Command):
    text = fleet("--help").stdout
    for name in ("run", "up", "down", "status", "doctor", "events", "report", "resume", "story"):
        assert name in text


@pytest.mark.parametrize(
    "args", [["explode"], ["run", "--nope"], ["story", "show"], ["events", "st-x", "--after", "x"]]
)
def test_usage_error_is_exit_code_two(fleet: Command, args: list[str]):
    assert fleet(*args).exit_code == 2


@pytest.mark.parametrize("args", [[], [""], ["  "], ["STORY", "--goal", "do it"]])
def test_run_needs_either_a_file_or_a_sentence(fleet: Command, story_file: Path, args: list[str]):
    given = [str(story_file) if a == "STORY" else a for a in args]
    failed(fleet("run", *given), 2, says="say in one sentence what you want")


def test_missing_story_file_is_named(fleet: Command, tmp_path: Path):
    failed(fleet("run", str(tmp_path / "none.yaml")), 2, says="there is no story file")


@pytest.mark.rule("PL-54")
@pytest.mark.parametrize("name", ["story.yaml", "story.yml", "stories/one", "./Add a story"])
def test_missing_file_is_never_taken_for_a_sentence(fleet: Command, name: str):
    failed(fleet("run", name), 2, says="there is no story file")


@pytest.mark.rule("PL-54")
@pytest.mark.parametrize("text", ["Add double(n) to shop/prices.py", "Add a read/write lock to the cache"])
def test_sentence_may_name_paths(text: str):
    assert split_argument(text) == (None, text)


@pytest.mark.rule("PL-54")
def test_path_with_blanks_that_exists_is_a_file(tmp_path: Path):
    path = tmp_path / "my story"
    path.write_text(GOOD)
    assert split_argument(str(path)) == (path, None)


@pytest.mark.rule("PL-54")
def test_sentence_that_looks_like_a_file_is_sent_to_goal(fleet: Command):
    failed(fleet("run", "Read the settings from config/app.yaml"), 2, says="--goal")


@pytest.mark.rule("PL-54")
def test_one_word_is_neither_a_file_nor_a_sentence(fleet: Command):
    failed(fleet("run", "storey"), 2, says="there is no file 'storey', and one word says nothing to build")


def test_sentence_beside_a_goal_is_refused(fleet: Command):
    failed(fleet("run", "Add a list of users", "--goal", "Add a list of users"), 2, says="leave --goal out")


def test_folder_instead_of_a_story_file_is_named(fleet: Command, tmp_path: Path):
    failed(fleet("run", str(tmp_path)), 2, says="cannot read story file")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title: [", "is no story"),
        ("- a\n- b\n", "is no story"),
        ("title: ''\n", "/title"),
        ("title: x\nstray: 1\n", "/stray"),
        (GOOD + "rigor: L9\n", "/rigor"),
        (GOOD + "title: again\n", "title"),
    ],
    ids=["yaml", "list", "empty", "stray", "rigor", "duplicate"],
)
def test_bad_story_file_is_named_with_its_problem(fleet: Command, tmp_path: Path, text: str, says: str):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    result = fleet("run", str(path), "--model", "recorded:" + str(tmp_path))
    assert result.exit_code == 2
    assert says in result.stderr
    assert "bad.yaml" in result.stderr.replace("\n", "")


def test_bad_rigor_option_is_refused(fleet: Command, story_file: Path):
    failed(fleet("run", str(story_file), "--rigor", "L9"), 2, says="/rigor")


def test_recording_that_is_no_folder_is_named(fleet: Command, story_file: Path, tmp_path: Path):
    model = f"recorded:{tmp_path / 'none'}"
    failed(fleet("run", str(story_file), "--model", model), 2, says="is no folder of recorded replies")


def test_unknown_model_profile_names_those_that_exist(fleet: Command, story_file: Path):
    result = fleet("run", str(story_file), "--model", "crystal-ball")
    assert result.exit_code == 2
    assert "crystal-ball" in result.stderr


def test_repository_that_is_no_directory_is_named(fleet: Command, story_file: Path, tmp_path: Path):
    result = fleet("run", str(story_file), "--repo", str(tmp_path / "none"), "--model", f"recorded:{tmp_path}")
    failed(result, 2, says="is no directory: name a local git repository")


def test_nothing_is_left_behind_by_bad_input(fleet: Command, story_file: Path, tmp_path: Path):
    fleet("run", str(story_file), "--repo", str(tmp_path / "none"), "--model", f"recorded:{tmp_path}")
    assert not fleet.home.exists()


def test_json_error_is_one_object_on_the_last_line(fleet: Command, tmp_path: Path):
    result = fleet("run", str(tmp_path / "none.yaml"), "--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert (found["error"]["code"], found["error"]["details"]) == ("invalid_input", {"field": "story"})
    assert "there is no story file" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["story", "list"],
        ["story", "show", "st-one1"],
        ["story", "approve", "st-one1", "approve_scope"],
        ["story", "reject", "st-one1", "approve_scope", "--reason", "too wide for me"],
        ["story", "back", "st-one1", "reject_design", "--reason", "too wide for me"],
        ["story", "pause", "st-one1", "--reason", "not today, please"],
        ["story", "cancel", "st-one1", "--reason", "not today, please"],
        ["story", "unpause", "st-one1"],
        ["pause", "--reason", "something looks wrong"],
        ["unpause"],
        ["events", "st-one1"],
        ["report", "st-one1"],
        ["resume", "st-one1"],
    ],
    ids=lambda a: "-".join(a[:2]),
)
def test_command_that_needs_a_fleet_says_how_to_start_one(fleet: Command, args: list[str]):
    failed(fleet(*args), 5, says="fleet up --detach")


def test_story_is_read_before_a_fleet_is_looked_for(fleet: Command, tmp_path: Path):
    failed(fleet("story", "create", str(tmp_path / "none.yaml")), 2, says="there is no story file")


def test_story_file_is_scored_and_refined_without_a_fleet(fleet: Command, story_file: Path):
    scored = fleet("story", "score", str(story_file), "--json")
    assert scored.exit_code == 0, scored.stderr
    found = json.loads(scored.stdout.splitlines()[-1])
    assert found["score"] == 100 - sum(f["points_lost"] for f in found["findings"])
    refined = fleet("story", "refine", str(story_file), "--json")
    assert json.loads(refined.stdout.splitlines()[-1])["score_before"] == found["score"]
    assert not fleet.home.exists()


def test_story_is_suggested_from_one_line_and_a_bad_line_is_refused(fleet: Command):
    found = fleet("story", "suggest", "Readers can mark an article for later", "--json")
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1])["questions"]
    failed(fleet("story", "suggest", "no"), 2, says="the goal has 2 characters")


def test_report_of_an_unknown_format_is_refused(fleet: Command):
    failed(fleet("report", "st-one1", "--format", "pdf"), 2, says="allowed: md, html, json")


def test_status_without_a_fleet_is_exit_code_five(fleet: Command):
    result = fleet("status", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (5, {"running": False})
    assert "no fleet is running" in result.stderr


def test_down_without_a_fleet_is_done(fleet: Command):
    result = fleet("down")
    assert (result.exit_code, "no fleet was running" in result.stdout) == (0, True)


def test_broken_config_directory_is_named(fleet: Command, tmp_path: Path):
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "fleet.yaml").write_text("nonsense: true\n")
    environ = {"FLEET_HOME": str(fleet.home), "FLEET_CONFIG": str(folder), "NO_COLOR": "1"}
    result = CliRunner().invoke(app, ["story", "list"], env=environ)
    assert result.exit_code == 2
    assert "fleet.yaml" in result.stderr


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("host: 0.0.0.0\nrpc_port: 18123\n", "rpc_port: port 18123 is that of the HTTP front"),
        ("host: 0.0.0.0\nrpc_port: 70000\n", "rpc_port"),
        ("rpc_port: 18124\n", "set host to 0.0.0.0"),
    ],
    ids=["that-of-the-front", "out-of-range", "not-meant"],
)
def test_bad_port_of_grpc_is_refused_before_anything_starts(fleet: Command, tmp_path: Path, lines: str, says: str):
    folder = tmp_path / "config"
    folder.mkdir()
    packaged = (packaged_directory() / "serve.yaml").read_text()
    host = "" if lines.startswith("host") else "host: 127.0.0.1\n"
    (folder / "serve.yaml").write_text(packaged.replace("host: 127.0.0.1\n", host) + lines)
    environ = {
        "FLEET_HOME": str(fleet.home),
        "FLEET_CONFIG": str(folder),
        "FLEET_PORTS_GATEWAY": "18123",
        "FLEET_MEMORY_FLOOR_MB": "0",
        "NO_COLOR": "1",
    }
    result = CliRunner().invoke(app, ["up"], env=environ)
    failed(result, 2, says=says)
    assert not {"log", "cache", "graph"} & {path.name for path in fleet.home.iterdir()}
