"""What counts in a story's score and who reviews its tasks, as people and the repository say (RG-43, RG-77, LC-119)."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from fleet.kernel.errors import InvalidTransition, PolicyDenied
from fleet.kernel.ids import StoryId
from fleet.story.commands.catalogue import parse_command
from fleet.story.guards import current_score
from fleet.story.intents import MeasureTree
from fleet.story.plan import plan
from fleet.story.state import StoryState
from tests.support.demo_run import git_says as git
from tests.support.rules import fsm
from tests.support.team import ADA, Team, team
from tests.support.team_models import GOOD_REPLIES, EveryEngine, demo_repository, demo_story, scripted

pytestmark = pytest.mark.timeout(600)

WHY = "there is no browser in this building"


def without_end_to_end(root: Path, *, declared: str = "") -> Path:
    """The demo's repository without its end-to-end tests; `declared` is its `.fleet/workspace.toml`."""
    repo = demo_repository(root / "stage")
    git(repo, "rm", "-q", "tests/test_cli.py")
    if declared:
        (repo / ".fleet").mkdir()
        (repo / ".fleet" / "workspace.toml").write_text(declared)
        git(repo, "add", ".")
    git(repo, "-c", "user.name=ada", "-c", "user.email=ada@example.org", "commit", "-qm", "Take the tests out")
    return repo


async def at_qa(t: Team, repo: Path) -> StoryId:
    """The demo story where it waits for role qa; everything before is delegated."""
    story_id = await t.create(demo_story())
    await t.start(story_id, repo, model="mock", delegate=("po",))
    state = await t.settled(story_id, within_s=400)
    assert [a.request.gate for a in state.approvals.values() if a.status == "requested"] == ["qa_passed"], state.park
    return story_id


async def send(t: Team, story_id: StoryId, name: str, **body: object) -> StoryState:
    key = f"{story_id}/{name}/{secrets.token_hex(8)}"
    await t.desk.require(story_id, parse_command(name, body), principal=ADA, key=key)
    return await t.settled(story_id, within_s=400)


@pytest.mark.rule("RG-43", "RP-18", "EV-172")
async def test_waiver_of_a_dimension_counts_in_the_score_of_what_was_measured_until_it_ends(tmp_path: Path) -> None:
    async with team(tmp_path, models=EveryEngine(scripted())) as t:
        story_id = await at_qa(t, without_end_to_end(tmp_path))
        state = await send(t, story_id, "set_rigor", rigor="L2", reason="customers see it from now on")
        assert state.tree is not None
        before = state.scores[state.tree]
        assert (before.rigor, before.verdict, before.waivers) == ("L2", "warn", ())
        state = await send(t, story_id, "waive_dimension", dimension="e2e", reason=WHY, days=1)
        score = state.scores[state.tree or ""]
        assert (score.verdict, score.waivers, score.run_id) == ("pass", ("e2e",), before.run_id)
        (waiver,) = state.waived_dimensions.values()
        approval = state.approvals[waiver.approval_id]
        assert (approval.request.gate, approval.status, waiver.principal) == ("waive_dimension", "granted", ADA)
        with pytest.raises(InvalidTransition, match="waived by user:ada already"):
            await send(t, story_id, "waive_dimension", dimension="e2e", reason=WHY)
        assert current_score(state, state.tree, now_ms=waiver.expires_at - 1) is score
        unasked = state.with_(approvals={})
        assert plan(unasked, fsm(), now_ms=waiver.expires_at) == (MeasureTree(tree=state.tree or ""),)
        _, report, _ = await t.reports.generate(story_id, format="md", as_of=state.version)
        assert [a.notes for a in report.approvals if a.gate == "waive_dimension"] == [f"e2e: {WHY}"]
        state = await send(t, story_id, "approve", gate="qa_passed")
        # The documents are a tree of their own, which is scored under the same waiver.
        assert (state.state, state.docs and state.docs.tree == state.tree) == ("DOCS", True)
        assert state.scores[state.tree or ""].waivers == ("e2e",)


@pytest.mark.rule("RG-77", "RG-43")
async def test_repository_declares_that_nobody_sees_it_and_role_qa_approves_that_at_l3(tmp_path: Path) -> None:
    repo = without_end_to_end(tmp_path, declared='[e2e]\nnone = "a library: other programs import it"\n')
    async with team(tmp_path, models=EveryEngine(scripted())) as t:
        story_id = await at_qa(t, repo)
        state = await send(t, story_id, "set_rigor", rigor="L2", reason="customers see it from now on")
        score = state.scores[state.tree or ""]
        evidence = {d.name: d.evidence for d in score.dimensions}
        assert (score.verdict, evidence["e2e"], score.waivers) == ("pass", "not_applicable", ())
        state = await send(t, story_id, "waive_dimension", dimension="e2e", reason="it has no page, I looked")
        state = await send(t, story_id, "set_rigor", rigor="L3", reason="money depends on it from now on")
        score = state.scores[state.tree or ""]
        assert {d.name: d.evidence for d in score.dimensions}["e2e"] == "not_applicable"
        assert (score.rigor, score.verdict, score.waivers) == ("L3", "pass", ())
        with pytest.raises(PolicyDenied, match="no waiver holds at L3"):
            await send(t, story_id, "waive_dimension", dimension="lint", reason=WHY)


@pytest.mark.rule("LC-119", "PL-3")
async def test_task_about_documents_is_reviewed_by_qa_and_po_and_by_no_architect(tmp_path: Path) -> None:
    derived = json.loads(str(GOOD_REPLIES["derive"]))
    derived["tasks"][0]["kind"] = "docs"
    model = scripted(derive=json.dumps(derived))
    async with team(tmp_path, models=EveryEngine(model)) as t:
        story_id = await at_qa(t, demo_repository(tmp_path / "stage"))
        moves = [json.loads(e.body) for e in await t.desk.events(story_id) if e.type == "TaskTransitioned"]
    assert [(m["action"], m.get("skipped_by_config")) for m in moves[2:4]] == [
        ("AUTO_ROUTE_TO_ARCHITECT", None),
        ("AUTO_ROUTE_TO_QA", True),
    ]
    assert moves[-1]["to"] == "done"
    assert not [m for m in moves if m["as_role"] == "architect"]
