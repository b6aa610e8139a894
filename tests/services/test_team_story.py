"""Whole stories in one process: the recorded demo, gates held by a person, and models that fail in every way."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.events import StoredEvent
from fleet.ids import StoryId
from fleet.story import StoryState, fold
from tests.support.team import ADA, team
from tests.support.team_models import RECORDED, demo_repository, demo_story

pytestmark = pytest.mark.timeout(120)


def git(repo: Path, *arguments: str) -> str:
    plain = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(
        ["git", "-C", str(repo), *arguments], check=True, capture_output=True, text=True, env=plain
    ).stdout.strip()


def files_of(repo: Path) -> dict[str, bytes]:
    """The user's own files and the heads of the branches that were there before."""
    return {str(p): p.read_bytes() for p in sorted(repo.rglob("*")) if p.is_file() and ".git" not in p.parts}


@dataclass(frozen=True)
class Finished:
    """What is left of one whole run."""

    story_id: StoryId
    state: StoryState
    events: list[StoredEvent]
    repo: Path
    blobs: Path
    before: tuple[dict[str, bytes], str]
    report: str
    again: dict[str, object]


async def _run_demo(root: Path) -> Finished:
    repo = demo_repository(root / "stage")
    before = (files_of(repo), git(repo, "rev-parse", "main", "HEAD"))
    async with team(root) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model=RECORDED)
        state = await t.settled(story_id)
        _, _, text = await t.reports.generate(story_id, format="md", as_of=state.version)
        again = await t.desk.require(
            story_id, "create_story", {"story": demo_story()}, principal=ADA, key=f"{story_id}/create"
        )
        events = await t.desk.events(story_id)
    return Finished(story_id, state, events, repo, root / "blobs", before, text.decode(), again)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The example story from its text to its branch, run once for all tests of this file."""
    return asyncio.run(_run_demo(tmp_path_factory.mktemp("demo")))


def of_type(demo: Finished, name: str) -> list[dict[str, object]]:
    """Bodies of the events of this type."""
    return [json.loads(e.body) for e in demo.events if e.type == name]


def test_demo_story_is_closed_with_its_task_done(demo: Finished) -> None:
    assert demo.state.closed, demo.state.park
    assert [t.state for t in demo.state.tasks.values()] == ["done"]
    assert demo.state.score is not None
    assert demo.events[-1].type == "StoryClosed"


@pytest.mark.rule("PL-43")
def test_demo_story_leaves_one_branch_with_green_tests(demo: Finished, tmp_path: Path) -> None:
    branch = f"fleet/{demo.story_id}"
    heads = git(demo.repo, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()
    assert heads == [branch, "main"]
    assert git(demo.repo, "rev-parse", branch) == demo.state.commit
    work = tmp_path / "work"
    git(demo.repo, "clone", "-q", "--branch", branch, str(demo.repo), str(work))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "--rootdir", str(work)],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(work)},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (work / "docs" / "stories" / demo.story_id / "requirements.md").exists()


@pytest.mark.rule("PL-43")
def test_demo_story_leaves_branch_and_files_of_the_user_untouched(demo: Finished) -> None:
    assert (files_of(demo.repo), git(demo.repo, "rev-parse", "main", "HEAD")) == demo.before
    assert git(demo.repo, "status", "--porcelain") == ""
    assert git(demo.repo, "merge-base", "main", f"fleet/{demo.story_id}") == git(demo.repo, "rev-parse", "main")


def test_demo_story_folds_to_its_state(demo: Finished) -> None:
    assert fold(demo.events) == demo.state


@pytest.mark.rule("EV-16")
def test_demo_story_records_each_command_once_under_an_id_of_the_story(demo: Finished) -> None:
    order = [e.command_id for e in demo.events]
    appends = [c for n, c in enumerate(order) if n == 0 or order[n - 1] != c]
    assert len(appends) == len(set(appends))
    assert all(c.startswith((f"{demo.story_id}/", "user:ada/")) for c in appends)


def test_demo_story_has_one_start_and_one_result_for_each_step(demo: Finished) -> None:
    started = Counter(b["step_id"] for b in of_type(demo, "StepStarted"))
    finished = Counter(b["step_id"] for b in of_type(demo, "StepFinished"))
    assert set(started.values()) == {1}
    assert started == finished


@pytest.mark.rule("LC-77")
def test_demo_story_marks_every_delegated_consent_with_its_delegation(demo: Finished) -> None:
    granted = of_type(demo, "ApprovalGranted")
    gates = {a.request.approval_id: a.request.gate for a in demo.state.approvals.values()}
    assert {gates[str(g["approval_id"])] for g in granted} == {
        "approve_scope",
        "approve_design",
        "task_acceptance",
        "qa_passed",
        "docs_ready",
    }
    assert all(g["delegated"] and g["delegation_id"] for g in granted)
    assert {str(g["principal"]).split(":")[0] for g in granted} == {"agent"}


@pytest.mark.rule("LC-78")
def test_demo_story_moves_in_the_same_append_as_the_consent(demo: Finished) -> None:
    for n, event in enumerate(demo.events):
        if event.type == "ApprovalGranted":
            moved = demo.events[n + 1]
            assert moved.type in ("StoryTransitioned", "TaskTransitioned")
            assert moved.command_id == event.command_id


@pytest.mark.rule("CN-61")
def test_demo_story_accounts_for_all_tokens_of_its_councils(demo: Finished) -> None:
    for council in demo.state.councils.values():
        assert council.status == "DECIDED"
        spent = sum(
            s.finished.cost.tokens_in + s.finished.cost.tokens_out
            for s in demo.state.steps.values()
            if s.finished and s.started.council_id == council.opened.council_id
        )
        decided = next(
            b for b in of_type(demo, "CouncilDecided") if b["council_id"] == council.opened.council_id
        )
        assert isinstance(decided["tokens"], dict)
        assert sum(decided["tokens"].values()) == spent > 0


@pytest.mark.rule("CN-31")
def test_demo_story_chooses_work_that_passes_every_gate(demo: Finished) -> None:
    for council in demo.state.councils.values():
        assert council.winner is not None
        assert council.evidence[council.winner].gates_ok


@pytest.mark.rule("RP-3")
def test_demo_story_ends_with_a_report_that_names_commit_and_decisions(demo: Finished) -> None:
    reports = of_type(demo, "ReportGenerated")
    assert len(reports) == 2
    for found in reports:
        name = str(found["report_digest"]).removeprefix("sha256:")
        assert [p for p in demo.blobs.rglob("*") if p.is_file() and name[2:] in p.name]
    assert demo.state.commit is not None
    assert demo.state.commit in demo.report
    for decision in demo.state.decisions.values():
        assert decision.proposed.decision_id in demo.report


def test_create_command_that_comes_again_is_answered_from_its_record(demo: Finished) -> None:
    assert demo.again["story_id"] == demo.story_id
    assert sum(e.type == "StoryCreated" for e in demo.events) == 1
