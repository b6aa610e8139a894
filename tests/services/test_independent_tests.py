"""Stories on Node, Go and Rust: tests of another agent show the criteria, and wrong work does not pass them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.events.envelope import StoredEvent
from fleet.kernel.ids import EntityId
from fleet.story.commands.catalogue import parse_command
from fleet.story.guards import shown_criteria
from fleet.story.state import StoryState
from tests.support.demo_run import git_says as git
from tests.support.language_repos import REPOS, Language, path_for
from tests.support.language_stories import STORIES, replies_for, story_of
from tests.support.repositories import commit_all
from tests.support.team import ADA, team
from tests.support.team_models import EveryEngine, scripted

pytestmark = pytest.mark.timeout(900)

# Node's story stands for all of them; Go compiles its standard library in every run.
LANGUAGES = ["node", *(pytest.param(name, marks=pytest.mark.wide) for name in ("go", "rust"))]


@pytest.fixture(params=LANGUAGES)
def lang(request: pytest.FixtureRequest) -> Language:
    path_for(request.param)
    return request.param


def repository(root: Path, lang: Language) -> Path:
    """A repository with the source that the story changes."""
    files = {**REPOS[lang], STORIES[lang].path: STORIES[lang].before}
    repo = root / "repo"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    commit_all(repo, files)
    return repo


async def told(root: Path, lang: Language, replies: dict[str, Any]) -> tuple[StoryState, list[StoredEvent]]:
    """The story with these replies, until it is closed or waits for a person."""
    repo = repository(root, lang)
    async with team(root / "team", models=EveryEngine(scripted(**replies))) as t:
        story_id = await t.create(story_of(lang))
        await t.start(story_id, repo, model="mock")
        state = await t.settled(story_id, within_s=800)
        # Node has no analyser of its own, so its score is a warning, over which no agent decides for a person.
        for number in range(6):
            waiting = [a.request.gate for a in state.approvals.values() if a.status == "requested" and not a.voided]
            if state.closed or state.park or not waiting:
                break
            asked = parse_command("approve", {"gate": waiting[0]})
            await t.desk.require(story_id, asked, principal=ADA, key=f"{story_id}/{number}")
            state = await t.settled(story_id, within_s=800)
        return state, await t.desk.events(story_id)


def bodies(events: list[StoredEvent], name: str) -> list[dict[str, Any]]:
    return [json.loads(e.body) for e in events if e.type == name]


@pytest.mark.rule("RG-47", "LC-98", "CN-32")
async def test_story_ends_by_tests_of_its_own_language_without_a_waiver(tmp_path: Path, lang: Language) -> None:
    state, events = await told(tmp_path, lang, replies_for(lang))
    assert (state.closed, state.state) == (True, "DONE"), state.park
    assert not bodies(events, "CriterionWaived")
    assert state.tree is not None
    shown = {c.ac_id: [(t.test, t.source) for t in c.tests] for c in shown_criteria(state, state.tree)}
    names = STORIES[lang].names
    assert shown == {EntityId("ac-1"): [(names[0], "independent")], EntityId("ac-2"): [(names[1], "independent")]}
    (filtered,) = bodies(events, "TestsFiltered")
    # What passes without the change is on record, and shows nothing of it.
    assert {test for test, end in filtered["on_base"].items() if end == "passed"} == set(names[2:])


async def test_change_that_meets_one_criterion_alone_never_ends_as_done(tmp_path: Path, lang: Language) -> None:
    state, events = await told(tmp_path, lang, replies_for(lang, STORIES[lang].wrong))
    assert not state.closed
    assert state.park is not None
    (filtered,) = bodies(events, "TestsFiltered")
    assert [d["reason"] for d in filtered["dropped"]] == ["failed_by_all"]
    for told_of in bodies(events, "WorkspaceReported"):
        assert not told_of.get("criteria", {}).get("ac-2"), told_of


async def test_reply_of_the_tester_that_is_no_file_of_tests_is_a_finding_and_shows_nothing(
    tmp_path: Path,
) -> None:
    path_for("node")
    reply = STORIES["node"].tests.replace("// file: test/double.test.mjs\n", "")
    state, events = await told(tmp_path, "node", replies_for("node", tests=reply))
    assert not state.closed
    assert state.park is not None
    assert "ac-1" in state.park.detail
    (failed,) = [b for b in bodies(events, "DraftFailed") if b["member_id"].startswith("qa")]
    assert failed["code"] == "reply_malformed"
    said = [json.dumps(b) for b in bodies(events, "StepFinished") if "tests" in str(b.get("step_id"))]
    assert any("names its file" in one for one in said), said
