"""Whole stories in one process: the recorded demo, gates held by a person, and models that fail in every way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
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
from tests.support.team import ADA, Team, team
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


def test_demo_story_is_closed_with_its_task_done(demo: Finished) -> None:
    assert demo.state.closed, demo.state.park
    assert [t.state for t in demo.state.tasks.values()] == ["done"]
