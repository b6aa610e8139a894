"""`fleet session` on a team that is up: an engineer is seen at work, spoken to, forked and stopped (CN-25..CN-27)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from fleet.cli.local.local_principals import local_principal
from fleet.cli.story.stories import with_desk
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.desk.planning import PlanningDesk
from fleet.kernel.ids import StoryId
from fleet.models.profiles import load_models
from fleet.story.commands.catalogue import parse_command
from tests.support.openai_server import Scripted, served_in_thread
from tests.support.served_team import ServedTeam, served_team
from tests.support.stores import own_database
from tests.support.team_models import demo_repository, demo_story
from tests.support.team_server import ENGINEER, engineers_answer, working_engine

pytestmark = pytest.mark.timeout(600)


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def hanging(request: dict[str, Any]) -> Scripted:
    """The engineer of the team, whose fourth reply never comes."""
    messages = request["messages"]
    is_engineer = str(messages[0]["content"]).startswith("Work: engineer")
    if is_engineer and sum(m["role"] == "assistant" for m in messages) == 3:
        return Scripted(ENGINEER[3], hang=True)
    return engineers_answer(request)


def at_turn(fleet: ServedTeam, story: str, turn: int) -> dict[str, Any]:
    """The only session once it waits for the reply of this turn."""
    until = time.monotonic() + 120
    while True:
        found = said(fleet("session", "list", story, "--json"))["sessions"]
        if found and found[0]["waits_for"] == f"reply {turn} of its engine":
            return found[0]
        assert time.monotonic() < until, fleet("story", "show", story).output
        time.sleep(0.5)


@pytest.mark.rule("CN-25", "CN-26", "CN-27")
@pytest.mark.door(
    "fleet session list",
    "fleet session show",
    "fleet session tell",
    "fleet session stop",
    "fleet session fork",
    stand_in="a team in one process with an engine that calls tools: the packaged ones work without sessions",
)
def test_engineer_is_seen_at_work_spoken_to_forked_and_stopped(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, file = demo_repository(tmp_path / "stage"), tmp_path / "story.yaml"
    text: dict[str, Any] = demo_story() | {"rigor": "L0"}
    text["constraints"].pop("paths")
    file.write_text(yaml.safe_dump(text))
    with served_in_thread() as server:
        server.answer = hanging
        document = dict(ConfigFiles(packaged_directory()).document("models.yaml"))
        able = load_models({**document, "engines": [*document["engines"], working_engine(server.base_url)]})
        with served_team(tmp_path / "home", own_database(redis_url, 11), configured=able) as fleet:
            story = said(fleet("story", "create", str(file), "--json"))["story_id"]
            monkeypatch.setenv("FLEET_HOME", str(fleet.home))
            assert with_desk(lambda desk, _: _started(desk, StoryId(story), repo)) == 0
            try:
                _seen_and_stopped(fleet, story)
            finally:
                fleet("story", "cancel", story, "--reason", "the test has seen enough")


async def _started(desk: PlanningDesk, story: StoryId, repo: Path) -> int:
    body = {"repo": str(repo), "model": "able", "delegate": ["po", "qa"]}
    await desk.require(story, parse_command("start_story", body), principal=local_principal(), key=f"{story}/start")
    return 0


def _seen_and_stopped(fleet: ServedTeam, story: str) -> None:
    page = at_turn(fleet, story, 4)
    session = page["session_id"]
    listed = fleet("session", "list", story).stdout
    assert f"{session}  developer-001  turn 4 of 60  working" in listed
    assert "last: write tests/test_slugs.py: edited" in listed
    shown = fleet("session", "show", story, session)
    assert shown.exit_code == 0, shown.output
    for line in ("turn 3", "exit 3", "+def slugify(text: str) -> str:", "$ write tests/test_slugs.py"):
        assert line in shown.stdout, shown.stdout
    without = fleet("session", "show", story, session, "--no-diff", "--after", "2").stdout
    assert "+def slugify" not in without
    assert "turn 2 " not in without
    assert fleet("session", "tell", story, session, "Keep [bold]the old name.").exit_code == 0
    told = at_turn(fleet, story, 4)["told"]
    assert [(one["text"], one["before_turn"]) for one in told] == [("Keep [bold]the old name.", None)]
    assert "1 messages wait to be read" in fleet("session", "list", story).stdout
    refused = fleet("session", "fork", story, session, "--turn", "9", "--json")
    assert (refused.exit_code, "turns 1 to 3 are complete" in refused.stderr) == (2, True)
    assert fleet("session", "fork", story, session, "--turn", "1").exit_code == 0
    assert "forked from" in fleet("session", "list", story).stdout
    assert fleet("session", "stop", story, session, "--reason", "the half of it is enough").exit_code == 0
    until = time.monotonic() + 60
    while said(fleet("session", "list", story, "--json"))["sessions"][0]["ended"] != "stopped":
        assert time.monotonic() < until
        time.sleep(0.5)
    whole = said(fleet("session", "show", story, session, "--json"))
    assert whole["session"]["stopped_by"].startswith("user:")
    assert whole["session"]["changed_files"] == 4
    missing = fleet("session", "show", story, "se-none", "--json")
    assert missing.exit_code == 2, missing.output
