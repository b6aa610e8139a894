"""An owner killed with SIGKILL in the middle of a work session, again and again, over real stores and sandbox."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fleet.kernel.ids import Digest, StreamId
from fleet.log.redis.log import RedisEventLog
from fleet.sandbox.backends.identity import reachable_state_root
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState
from fleet.trees.files import FileBlobStore
from fleet.trees.service import read_tree
from tests.support.acting import COUNCIL, written
from tests.support.sessions import FILES, convened_in_sessions
from tests.support.stores import empty_database, own_database
from tests.support.story_events import STORY

pytestmark = pytest.mark.timeout(600)
SEAT = f"{COUNCIL}/draft/developer-001"
REPLIES, KILLS = 7, 8


class Owner:
    """One life of the owner's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def started(cls, url: str, folder: Path) -> Owner:
        """The process runs."""
        command = (sys.executable, "-m", "tests.support.session_owner", url, str(folder))
        with (folder / "errors").open("ab") as errors:
            return cls(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=errors))

    async def line(self) -> dict[str, Any] | int | None:
        """The number of the next append, the candidate at the end; None when the process has ended."""
        assert self._process.stdout is not None
        text = (await self._process.stdout.readline()).decode().strip()
        if text.startswith("append "):
            return int(text.removeprefix("append "))
        return json.loads(text) if text else None

    async def killed_after(self, appends: int, delay_s: float) -> dict[str, Any] | None:
        """The process is gone, so long after so many appends of its own; its candidate when it was done before."""
        while (said := await self.line()) is not None and (not isinstance(said, int) or said < appends):
            if isinstance(said, dict):
                await self._process.wait()
                return said
        await asyncio.sleep(delay_s)
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        return None


async def state_of(log: RedisEventLog) -> StoryState:
    state = fold(await log.read(StreamId.of_story(STORY)))
    assert state is not None
    return state


@pytest.mark.rule("RC-50", "RC-51", "RC-56", "RC-36", "GL-19")
@pytest.mark.parametrize("session", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 17))])
async def test_owner_that_is_killed_again_and_again_comes_to_the_same_files(
    session: int, redis_url: str, tmp_path: Path
) -> None:
    chance, url = random.Random(f"session/{session}"), own_database(redis_url)
    folder = reachable_state_root(tmp_path / "home")
    folder.mkdir(parents=True, exist_ok=True)
    blobs = FileBlobStore(folder / "blobs")
    async with empty_database(url) as client:
        log = RedisEventLog(client)
        await convened_in_sessions(await written(blobs, FILES)).write_to(log)
        struck, asked, recorded, found = 0, 0, set[str](), None
        while found is None:
            # It dies at its first append until it died often enough, and comes on by three in the end.
            owner = await Owner.started(url, folder)
            found = await owner.killed_after(chance.randrange(1 if struck < KILLS else 4), chance.uniform(0, 0.1))
            struck += found is None
            assert struck < 60, (folder / "errors").read_text()[-2000:]
            paid = (folder / "paid").read_text().split() if (folder / "paid").exists() else []
            # What was asked in this life had no recorded answer when the life began.
            assert not set(paid[asked:]) & recorded, struck
            steps = (await state_of(log)).steps
            asked, recorded = len(paid), {f"{STORY}/{name}" for name, step in steps.items() if step.finished}
        state = await state_of(log)
    assert struck >= KILLS
    tree = Digest(json.loads(await blobs.get(Digest(found["candidate"])))["tree"])
    entries = await read_tree(blobs, tree)
    texts = {path: (await blobs.get(entry.blob)).decode() for path, entry in entries.items()}
    assert texts["text/slug.py"] == "def slugify(title):\n    return title.lower()\n"
    assert texts["notes.txt"] == "half\nwhole\n"
    assert set(texts) == {*FILES, "notes.txt", "tests/test_lower.py"}
    steps = {name: step for name, step in state.steps.items() if name.startswith(SEAT)}
    assert sum(step.started.kind == "model" for step in steps.values()) == REPLIES
    commands = [step for step in steps.values() if step.started.effect == "KEYED"]
    assert [step.finished.exit_code for step in commands if step.finished] == [0, 3, 0, 0]
    assert max(Counter(step.started.key for step in steps.values()).values()) == 1
    assert found["tokens"] == REPLIES * 15
