"""A second, real input: a small well-known library from its source distribution."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.models.profiles import ModelsConfig, load_models
from tests.support.team import team

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "inflection"


def _packaged_models() -> ModelsConfig:
    return load_models(ConfigFiles(packaged_directory()).document("models.yaml"))


# The longer sibling of the demo story (test_team_story.py).
@pytest.mark.wide
@pytest.mark.network
@pytest.mark.timeout(600)
@pytest.mark.rule("PL-52", "RC-70", "LC-64")
async def test_story_on_a_library_from_its_source_distribution_is_delivered(tmp_path: Path) -> None:
    fetched = subprocess.run(
        [sys.executable, "-m", "scripts.second_example", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode != 0:
        pytest.skip(f"no package index can be reached from here: {fetched.stderr.strip()[-300:]}")
    repo = tmp_path / "repo"
    from fleet.cli.settings import absolute_model
    from fleet.cli.story.story_file import read_story

    story = read_story(EXAMPLE / "story.yaml", None)
    async with team(tmp_path / "home", configured=_packaged_models()) as found:
        story_id = await found.create(story)
        await found.start(story_id, repo, model=absolute_model(f"recorded:{EXAMPLE / 'replies'}"))
        state = await found.settled(story_id, within_s=200)
    assert state.closed, state.park
    assert state.tree is not None
    assert state.scores[state.tree].verdict == "pass"
    branch = subprocess.run(
        ["git", "-C", str(repo), "show", f"fleet/{story_id}:inflection/__init__.py"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "def constantize(" in branch.stdout
