"""The demo of the library replayed below a folder: `python -m tests.support.library_demo ROOT`."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.models.engines.recorded import read_about
from fleet.models.profiles import load_models, recorded_profile
from fleet.story.state import StoryState
from scripts.examples import LIBRARY
from tests.support.team import team


@dataclass(frozen=True)
class Replayed:
    """What a replay came to."""

    state: StoryState
    repo: Path

    @property
    def facts(self) -> dict[str, object]:
        """What is equal for every replay of the same recording."""
        if not self.state.closed:
            return {"closed": False, "parked": str(self.state.park or "")}
        (council,) = (one for one in self.state.councils.values() if one.opened.output_kind == "code_patch")
        assert self.state.tree is not None
        unit = self.state.reports[self.state.tree].summary.unit
        return {
            "closed": self.state.closed,
            "tree": self.state.tree,
            "passed": unit.passed if unit else 0,
            "author": council.chosen.author,
            "parked": str(self.state.park or ""),
        }


def profile(replies: Path) -> str:
    """The profile under which this recording replays."""
    about = read_about(replies)
    assert about is not None
    return recorded_profile(
        str(replies), strategy=about.strategy, max_context=about.max_context, max_output=about.max_output
    )


async def replay(root: Path, *, replies: Path = LIBRARY.replies) -> Replayed:
    """The story from its text to its branch, by recorded replies. NotFetched without the library's archive."""
    repo = LIBRARY.repository(root / "stage" / "repo")
    models = load_models(ConfigFiles(packaged_directory()).document("models.yaml"))
    async with team(root / "home", configured=models) as found:
        story_id = await found.create(yaml.safe_load(LIBRARY.story.read_text()))
        await found.start(story_id, repo, model=profile(replies))
        return Replayed(await found.settled(story_id, within_s=500), repo)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(replay(Path(sys.argv[1]))).facts))
