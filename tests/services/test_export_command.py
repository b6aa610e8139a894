"""`fleet export` on a real delivered story: what pyarrow reads back is what the story recorded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.support.served_team import ServedTeam, served_team
from tests.support.stores import own_database
from tests.support.team_models import RECORDED, demo_repository

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[ServedTeam]:
    with served_team(tmp_path_factory.mktemp("served") / "home", own_database(redis_url, 12)) as found:
        yield found


@pytest.fixture(scope="module")
def delivered(fleet: ServedTeam, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a story that was delivered."""
    repo = demo_repository(tmp_path_factory.mktemp("stage"))
    done = said(
        fleet("run", str(DEMO / "story.yaml"), "--repo", str(repo), "--model", RECORDED, "--yes", "po,qa", "--json")
    )
    assert done["outcome"] == "done"
    return done["story_id"]


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    return parquet.read_table(folder / f"{name}.parquet").to_pylist()


def test_delivered_story_is_exported_whole_and_the_same_each_time(
    fleet: ServedTeam, delivered: str, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    done = said(fleet("export", "--parquet", str(folder), "--json"))
    events = [json.loads(line) for line in fleet("events", delivered, "--json").stdout.splitlines()]
    assert (done["stories"], done["events"], done["missing_blobs"]) == (1, len(events), 0)
    assert [row["type"] for row in table(folder, "events")] == [event["type"] for event in events]
    (story,) = table(folder, "stories")
    assert (story["story_id"], story["outcome"], story["verdict"]) == (delivered, "delivered", "pass")
    steps = {row["step_id"]: row for row in table(folder, "steps")}
    assert {row["kind"] for row in steps.values()} >= {"model", "run"}
    assert sum(row["tokens_in"] for row in steps.values()) == story["tokens_in"] > 0
    asked = {name for name, row in steps.items() if row["kind"] == "model"}
    messages = table(folder, "messages")
    answered = {name for name in asked if steps[name]["outcome"] == "succeeded"}
    assert {row["step_id"] for row in messages} == asked
    assert {row["step_id"] for row in messages if row["is_reply"] and row["is_used"] and row["content"]} == answered
    assert {row["step_id"] for row in messages if row["position"] == 0 and not row["is_reply"]} == answered
    winners = {row["winner"] for row in table(folder, "councils")} - {None}
    candidates = {row["candidate_id"] for row in table(folder, "contributions") if row["kind"] == "draft"}
    assert winners
    assert winners <= candidates
    assert {row["candidate_id"] for row in table(folder, "evidence")} <= candidates
    assert done["tables"]["messages"]["rows"] == len(messages)
    again = said(fleet("export", "--parquet", str(tmp_path / "again"), "--story", delivered, "--json"))
    assert again["tables"] == done["tables"]


def test_example_of_the_page_reads_an_export(fleet: ServedTeam, delivered: str, tmp_path: Path) -> None:
    said(fleet("export", "--parquet", str(tmp_path / "export"), "--json"))
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "export.md").read_text(), re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{delivered} " in done.stdout
    assert re.search(r"^[1-9]\d* winning drafts$", done.stdout, re.M)


def test_people_are_told_what_is_where(fleet: ServedTeam, delivered: str, tmp_path: Path) -> None:
    told = fleet("export", "--parquet", str(tmp_path / "export"))
    assert told.exit_code == 0
    assert "1 story with" in told.stdout
    assert re.search(r"messages\s+\d+ rows", told.stdout)


@pytest.mark.parametrize(
    ("story", "code", "message"),
    [("st-none-1", 2, "no story has the id st-none-1"), ("Not an id", 2, "is no story id")],
)
def test_story_that_does_not_exist_is_named_and_no_folder_is_left(
    fleet: ServedTeam, tmp_path: Path, story: str, code: int, message: str
) -> None:
    refused = fleet("export", "--parquet", str(tmp_path / "export"), "--story", story)
    assert (refused.exit_code, message in refused.stderr) == (code, True), refused.output
    assert not (tmp_path / "export").exists()


def test_folder_with_files_is_left_as_it_is(fleet: ServedTeam, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    refused = fleet("export", "--parquet", str(tmp_path), "--json")
    assert refused.exit_code == 2
    assert json.loads(refused.stdout.splitlines()[-1])["error"]["code"] == "invalid_input"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_a_fleet_nothing_is_exported(tmp_path: Path) -> None:
    refused = ServedTeam(tmp_path / "no-home")("export", "--parquet", str(tmp_path / "export"))
    assert refused.exit_code == 5
    assert not (tmp_path / "export").exists()
