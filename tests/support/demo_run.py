"""The recorded demo story, run once from its text to its branch: what is left of it for the tests that look at it."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.events.envelope import StoredEvent
from fleet.kernel.ids import StoryId
from fleet.log.port import EventLog
from fleet.models.engines.factory import ChatModels
from fleet.models.port import ChatModel
from fleet.models.profiles import load_models
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from tests.support.team import ADA, team
from tests.support.team_models import RECORDED, CountingModel, demo_repository, demo_story


def git_says(repo: Path, *arguments: str) -> str:
    """What git prints in this repository, whatever the settings of this machine."""
    plain = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(
        ["git", "-C", str(repo), *arguments], check=True, capture_output=True, text=True, env=plain
    ).stdout.strip()


def files_of(repo: Path) -> dict[str, bytes]:
    """The user's own files."""
    return {str(p): p.read_bytes() for p in sorted(repo.rglob("*")) if p.is_file() and ".git" not in p.parts}


@dataclass(frozen=True)
class DemoRun:
    """What is left of one whole run. It is shared: nobody changes it."""

    story_id: StoryId
    state: StoryState
    events: list[StoredEvent]
    log: EventLog
    repo: Path
    blobs: Path
    before: tuple[dict[str, bytes], str]
    report: str
    again: dict[str, object]
    answered: Counter[str]
    """How often each request of a step was answered."""


class _Counted(Mapping[str, ChatModel]):
    """The engines as the product makes them, each behind a count of its answers."""

    def __init__(self) -> None:
        config = load_models(ConfigFiles(packaged_directory()).document("models.yaml"))
        self._engines = ChatModels(config, environ={})
        self._made: dict[str, CountingModel] = {}

    @property
    def answered(self) -> Counter[str]:
        """The answers of all engines by request."""
        return sum((model.answered for model in self._made.values()), Counter[str]())

    def __getitem__(self, engine_id: str) -> ChatModel:
        if engine_id not in self._made:
            self._made[engine_id] = CountingModel(set(), self._engines[engine_id])
        return self._made[engine_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._engines)

    def __len__(self) -> int:
        return len(self._engines)


async def run_demo(root: Path) -> DemoRun:
    """The demo below `root` by its recorded replies, both roles delegated; its create command comes twice."""
    repo, models = demo_repository(root / "stage"), _Counted()
    before = (files_of(repo), git_says(repo, "rev-parse", "main", "HEAD"))
    async with team(root, models=models) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model=RECORDED)
        state = await t.settled(story_id)
        _, _, text = await t.reports.generate(story_id, format="md", as_of=state.version)
        again = await t.desk.require(
            story_id, parse_command("create_story", {"story": demo_story()}), principal=ADA, key=f"{story_id}/create"
        )
        events = await t.desk.events(story_id)
    return DemoRun(story_id, state, events, t.log, repo, root / "blobs", before, text.decode(), again, models.answered)
