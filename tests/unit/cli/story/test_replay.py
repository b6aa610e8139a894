"""`fleet replay` on an exported story; on a running fleet it is tried in tests/ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet.audit.service.stream_export import commands_of, export_stream
from fleet.cli.app import app
from fleet.story.snapshot import replay
from tests.support.rules import fsm
from tests.support.story_events import STORY, story


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    events = story().events
    path = tmp_path / "story.export"
    path.write_bytes(export_stream(events, commands_of(events)))
    return path


def fleet(home: Path, *args: str) -> Result:
    environ = {"FLEET_HOME": str(home), "FLEET_CONFIG": None, "FLEET_REDIS_URL": None, "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, list(args), env=environ)


def test_exported_story_is_replayed_without_a_fleet(tmp_path: Path, archive: Path):
    expected = list(replay(story().events, fsm()))[-1]
    said = fleet(tmp_path, "replay", "--from", str(archive))
    assert said.exit_code == 0, said.output
    assert str(expected.state_digest) in said.stdout
    assert str(expected.plan_digest) in said.stdout
    machine = fleet(tmp_path, "replay", "--from", str(archive), "--json")
    (line,) = machine.stdout.splitlines()
    (entry,) = json.loads(line)["versions"]
    assert json.loads(line)["story_id"] == STORY
    assert (entry["version"], entry["state_digest"]) == (expected.version, expected.state_digest)


def test_one_version_or_every_version_is_replayed_on_request(tmp_path: Path, archive: Path):
    one = json.loads(fleet(tmp_path, "replay", "--from", str(archive), "--at", "5", "--json").stdout)
    every = json.loads(fleet(tmp_path, "replay", "--from", str(archive), "--every", "--json").stdout)
    assert [e["version"] for e in one["versions"]] == [5]
    assert [e["version"] for e in every["versions"]] == list(range(1, len(story().events) + 1))
    assert every["versions"][4] == one["versions"][0]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "either a story or"),
        (["st-x", "--from", "ARCHIVE"], 2, "either a story or"),
        (["--from", "ARCHIVE", "--at", "0"], 2, "versions 1 to"),
        (["--from", "ARCHIVE", "--at", "9999"], 2, "versions 1 to"),
        (["--from", "missing.export"], 2, "cannot be read"),
        (["st-x"], 5, "no fleet is running"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    tmp_path: Path, archive: Path, arguments: list[str], code: int, says: str
):
    result = fleet(tmp_path, "replay", *(str(archive) if a == "ARCHIVE" else a for a in arguments))
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_damaged_export_names_the_damage(tmp_path: Path, archive: Path):
    archive.write_bytes(archive.read_bytes().replace(b'"t":"StoryScored"', b'"t":"StoryClosed"', 1))
    result = fleet(tmp_path, "replay", "--from", str(archive))
    assert result.exit_code == 4, result.output
    assert "Traceback" not in result.stderr
