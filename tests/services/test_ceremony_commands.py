"""Backlog reviews as a product owner types them, on a team that is up (AP-80, PL-60..PL-69)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from tests.support.bench import ScriptedAgents
from tests.support.served_team import ServedTeam, served_team
from tests.support.stores import own_database
from tests.support.team_models import demo_story

NOTES = "wanted before the sale starts"
SAID = {
    "feedback": "small and [clear]",
    "risks": ["titles without letters"],
    "questions": ["Which alphabet?"],
    "plan": [{"title": "Write slugify", "role": "developer", "estimated_hours": 3}],
    "points": 3,
}
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[ServedTeam]:
    home, councils = tmp_path_factory.mktemp("reviewed") / "home", ScriptedAgents(lambda _: SAID)
    with served_team(home, own_database(redis_url, 12), agents=councils) as found:
        yield found


@pytest.fixture(scope="module")
def stories(fleet: ServedTeam, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    file = tmp_path_factory.mktemp("stories") / "story.yaml"

    def made(title: str) -> str:
        file.write_text(yaml.safe_dump(demo_story() | {"title": title}))
        return said(fleet("story", "create", str(file), "--json"))["story_id"]

    return made("As an editor, I want a slug for each title"), made("As a reader, I want a slug in each address")


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def refused(result: Result, *, says: str) -> None:
    """Exit code 2, one line that says why, no traceback; the last line of standard output is the typed error."""
    assert (result.exit_code, "Traceback" in result.output) == (2, False), result.output
    assert says in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["error"]["message"]


def reviewed(fleet: ServedTeam, *stories: str) -> str:
    """The id of a review that waits for the decisions of its product owner."""
    made = said(fleet("ceremony", "create", *stories, "--json"))["ceremony_id"]
    assert said(fleet("ceremony", "start", made, "--json"))["status"] in ("IN_PROGRESS", "REVIEWING")
    until = time.monotonic() + 60
    while said(fleet("ceremony", "show", made, "--json"))["status"] != "REVIEWING":
        assert time.monotonic() < until, fleet("ceremony", "show", made).output
        time.sleep(0.2)
    return made


@pytest.mark.rule("AP-80", "PL-60", "PL-63", "PL-64", "PL-65", "PL-68")
@pytest.mark.door(
    "fleet ceremony start",
    "fleet ceremony approve",
    "fleet ceremony reject",
    "fleet ceremony complete",
    stand_in="a team in one process whose planner has a model: the packaged policies name none",
)
def test_review_is_opened_started_decided_and_completed(fleet: ServedTeam, stories: tuple[str, str]):
    one, two = stories
    name = reviewed(fleet, one, two)
    shown = fleet("ceremony", "show", name).stdout
    assert all(line in shown for line in ("architect: small and [clear]", "? Which alphabet?", "- Write slugify"))
    refused(fleet("ceremony", "approve", name, one, "--notes", "ok", "--json"), says="po_notes")
    refused(
        fleet("ceremony", "approve", name, one, "--notes", NOTES, "--priority", "URGENT", "--json"), says="priority"
    )
    refused(fleet("ceremony", "approve", name, "NO STORY", "--notes", NOTES, "--json"), says="NO STORY")
    refused(fleet("ceremony", "complete", name, "--json"), says="still to be decided")
    approve = ("ceremony", "approve", name, one, "--notes", NOTES, "--concerns", "other scripts")
    refused(fleet(*approve, "--priority", "URGENT", "--json"), says="priority")
    refused(fleet(*approve, "--plan-of", "nobody", "--json"), says="outlined no plan")
    yes = said(fleet(*approve, "--priority", "HIGH", "--priority-reason", "the sale starts soon", "--json"))
    assert [(s["plan_id"] is not None) for s in yes["stories"]] == [True, False]
    assert [(s["result"], s["po_concerns"], s["priority_adjustment"]) for s in yes["stories"]] == [
        ("APPROVED", "other scripts", "HIGH"),
        ("PENDING", None, None),
    ]
    refused(fleet("ceremony", "reject", name, one, "--reason", "it came too late", "--json"), says="decided already")
    refused(fleet("ceremony", "reject", name, two, "--json"), says="reason")
    no = said(fleet("ceremony", "reject", name, two, "--reason", "it is too early for this", "--json"))
    assert (no["stories"][1]["result"], no["stories"][1]["reason"]) == ("REJECTED", "it is too early for this")
    assert (no["stories"][0]["estimate"]["points"], len(no["stories"][0]["reviews"])) == (3, 3)
    assert said(fleet("ceremony", "complete", name, "--json"))["status"] == "COMPLETED"
    assert f"{name}  COMPLETED   2 of 2 stories decided" in fleet("ceremony", "list").stdout


@pytest.mark.rule("AP-80", "PL-61", "PL-66")
def test_review_that_has_not_begun_takes_other_stories_and_is_given_up(fleet: ServedTeam, tmp_path: Path):
    names: list[str] = []
    for title in ("As an author, I want a slug", "As a librarian, I want a slug"):
        file = tmp_path / "story.yaml"
        file.write_text(yaml.safe_dump(demo_story() | {"title": title}))
        names.append(said(fleet("story", "create", str(file), "--json"))["story_id"])
    one, two = names
    name = said(fleet("ceremony", "create", one, "--json"))["ceremony_id"]
    assert said(fleet("ceremony", "stories", name, two, "--json"))["story_ids"] == [two]
    assert said(fleet("ceremony", "stories", name, one, "--add", "--json"))["story_ids"] == [two, one]
    refused(fleet("ceremony", "approve", name, one, "--notes", NOTES, "--json"), says="is DRAFT")
    refused(fleet("ceremony", "cancel", name, "--json"), says="reason")
    over = said(fleet("ceremony", "cancel", name, "--reason", "the po is away today", "--json"))
    assert (over["status"], over["reason"]) == ("CANCELLED", "the po is away today")
    refused(fleet("ceremony", "start", name, "--json"), says="is CANCELLED")
    assert name in [c["ceremony_id"] for c in said(fleet("ceremony", "list", "--json"))["ceremonies"]]


@pytest.mark.rule("AP-80", "PL-60")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "ce-davsp6ex55gim"], "there is no ceremony"),
        (["start", "no id"], "no id"),
        (["create", "st-davsp6ex55gim"], "does not exist"),
        (["create", "NO STORY"], "NO STORY"),
        (["create", "st-davsp6ex55gim", "--project", "pr-davsp6ex55gim"], "pr-davsp6ex55gim"),
    ],
    ids=["unknown", "no-id", "no-such-story", "no-story-id", "no-such-project"],
)
def test_what_is_not_there_is_refused_in_one_line(fleet: ServedTeam, arguments: list[str], says: str):
    refused(fleet("ceremony", *arguments, "--json"), says=says)
