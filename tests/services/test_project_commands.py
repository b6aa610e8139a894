"""Projects, epics and goals as a person types them, on a team that is up (AP-50, AP-51, PL-54)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.support.served_team import ServedTeam, served_team
from tests.support.stores import own_database

REPLIES = f"recorded:{Path(__file__).resolve().parents[2] / 'examples' / 'demo' / 'replies'}"
GOAL = "Convert CSV files to JSON"
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[ServedTeam]:
    with served_team(tmp_path_factory.mktemp("planned") / "home", own_database(redis_url, 12)) as found:
        yield found


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.mark.rule("PL-1", "PL-4")
def test_project_and_epic_are_made_shown_closed_and_opened_again(fleet: ServedTeam):
    project = said(fleet("project", "create", "Shop", "--rigor", "L2", "--description", "A shop.", "--json"))
    name = project["project_id"]
    assert name in [p["project_id"] for p in said(fleet("project", "list", "--json"))["projects"]]
    epic = said(fleet("epic", "create", "Cart", "--project", name, "--goal", "Shoppers buy more", "--json"))["epic_id"]
    assert epic in [e["epic_id"] for e in said(fleet("epic", "list", "--project", name, "--json"))["epics"]]
    assert said(fleet("epic", "show", epic, "--json"))["status"] == "active"
    assert [e["epic_id"] for e in said(fleet("project", "show", name, "--json"))["epics"]].count(epic) == 1
    said(fleet("epic", "archive", epic, "--reason", "nobody needs it", "--json"))
    assert said(fleet("project", "archive", name, "--json"))["status"] == "archived"
    closed = fleet("epic", "create", "Late", "--project", name, "--json")
    assert (closed.exit_code, "Traceback" in closed.output) == (2, False), closed.output
    assert said(fleet("project", "reopen", name, "--json"))["status"] == "active"


def test_epic_that_is_given_up_says_so(fleet: ServedTeam):
    epic = said(fleet("epic", "create", "Search", "--json"))["epic_id"]
    fleet("epic", "cancel", epic, "--reason", "nobody searches here", "--json")
    assert said(fleet("epic", "show", epic, "--json"))["status"] == "cancelled"


@pytest.mark.rule("PL-54")
def test_goal_is_answered_and_accepted_and_its_stories_are_there(fleet: ServedTeam):
    asked = said(fleet("discovery", "ask", GOAL, "--new", "--json"))
    name, questions = asked["discovery_id"], asked["proposal"]["questions"]
    answers = [f"{q['question_id']}=as in the other tools" for q in questions]
    assert said(fleet("discovery", "answer", name, *answers, "--json"))["discovery_id"] == name
    assert name in fleet("discovery", "list").output
    assert said(fleet("discovery", "show", name, "--json"))["status"] == "proposed"
    assert said(fleet("discovery", "accept", name, "--note", "good", "--json"))["status"] == "accepted"
    again = fleet("discovery", "reject", name, "--reason", "too late for that", "--json")
    assert (again.exit_code == 0, "Traceback" in again.output) == (False, False), again.output


def test_goal_is_rejected_with_a_reason_and_creates_nothing(fleet: ServedTeam):
    name = said(fleet("discovery", "ask", "A word count of articles", "--json"))["discovery_id"]
    said(fleet("discovery", "reject", name, "--reason", "somebody else does it", "--json"))
    assert said(fleet("discovery", "show", name, "--json"))["status"] == "rejected"
    unknown = fleet("discovery", "show", "di-davsp6ex55gim", "--json")
    assert (unknown.exit_code, "di-davsp6ex55gim" in unknown.stderr) == (2, True)


@pytest.mark.rule("PL-54")
def test_run_with_a_goal_waits_for_a_person_and_goes_on_where_it_stands(fleet: ServedTeam, tmp_path: Path):
    folder = tmp_path / "convert"
    command = ("run", "--goal", GOAL, "--repo", str(folder), "--model", REPLIES)
    first = fleet(*command, "--json")
    assert first.exit_code == 3, first.output
    assert (folder / ".git").is_dir()
    again = fleet(*command, "--answer", "qu-1=analyst", "--json")
    assert again.exit_code == 3, again.output
    assert "Traceback" not in again.output
